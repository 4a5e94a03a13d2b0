"""Groups of patches painted on pictures, as one PNG: for each group the pictures with most of it; what it drives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from align.files import atomic_path

if TYPE_CHECKING:
    from PIL import Image

    from recon.driving.groups import Painted

EACH = 8  # pictures of a group
MOST = 12  # groups that have a colour
COLOURS = (  # Paul Tol's muted ones, and three more
    *((51, 34, 136), (136, 204, 238), (68, 170, 153), (17, 119, 51), (153, 153, 51), (221, 204, 119)),
    *((204, 102, 119), (136, 34, 85), (170, 68, 153), (230, 85, 13), (0, 0, 0), (255, 255, 255)),
)
_SIDE, _GAP, _TEXT, _LINE, _NAMED = 84, 4, 300, 17, 4  # px; units that are named


def draw_cut(one: Painted, title: str, path: Path) -> None:
    """A block for each group, the largest first: a line of pictures, and below it one painted line for each layer."""
    from PIL import Image, ImageDraw, ImageFont

    font, layers = ImageFont.load_default(13), list(one.cut.labels)
    count = next(iter(one.cut.share.values())).shape[1]
    block = (1 + len(layers)) * (_SIDE + _GAP) + 3 * _GAP
    sheet = Image.new("RGB", (_TEXT + EACH * (_SIDE + _GAP) + _GAP, 3 * _LINE + count * block), "white")
    pen = ImageDraw.Draw(sheet)
    p = "" if one.p is None else f", p {one.p:.2g} against shuffled responses"
    about = f"groups of both parts of the pictures agree: adjusted Rand index {one.cut.agreement:.2f}{p}"
    pen.multiline_text((_GAP, _GAP), f"{title}\n{about}", fill="black", font=font, spacing=3)
    for k in range(count):
        top = 3 * _LINE + k * block
        pen.line((_GAP, top, sheet.width - _GAP, top), fill=(200, 200, 200))
        pen.rectangle((_GAP, top + 2 * _GAP, _GAP + _LINE, top + 2 * _GAP + _LINE), COLOURS[k], (120, 120, 120))
        pen.multiline_text((3 * _GAP + _LINE, top + 2 * _GAP), _label(one, k), fill="black", font=font, spacing=3)
        share = np.mean([part[:, k] for part in one.cut.share.values()], axis=0)
        for i, picture in enumerate(np.argsort(-share, kind="stable")[:EACH]):
            left = _TEXT + i * (_SIDE + _GAP)
            pixels = Image.fromarray(one.stimuli.load(int(one.rows[picture])))
            small = pixels.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
            sheet.paste(small, (left, top + 2 * _GAP))
            for j, layer in enumerate(layers):
                drawn = coloured(small, one.cut.labels[layer][picture])
                sheet.paste(drawn, (left, top + 2 * _GAP + (1 + j) * (_SIDE + _GAP)))
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def coloured(picture: Image.Image, labels: np.ndarray) -> Image.Image:
    """The picture in grey with the colour of its group laid over every cell; ``labels`` (N,) of a square grid."""
    from PIL import Image

    side = round(len(labels) ** 0.5)
    cells = np.array(COLOURS, dtype=np.uint8)[labels].reshape(side, side, 3)
    colour = np.asarray(Image.fromarray(cells).resize(picture.size, Image.Resampling.NEAREST), dtype=np.float32)
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[:, :, None]
    return Image.fromarray((0.5 * grey + 0.5 * colour).astype(np.uint8))


def _label(one: Painted, group: int) -> str:
    rows = [row for row in one.table if row["cluster"] == group + 1]
    share = np.mean([part[:, group].mean() for part in one.cut.share.values()])
    lines = [f"group {group + 1}: {100 * share:.0f} % of all patches", "drives most (mean; r of its share, q)"]
    known = [row for row in rows if row["drive"] != ""]
    for row in sorted(known, key=lambda row: -row["drive"])[:_NAMED]:
        lines.append(f"  {row['unit']}: {row['drive']:.2f}; {row['r']:.2f}, {row['q']:.2g}")
    return "\n".join(lines)

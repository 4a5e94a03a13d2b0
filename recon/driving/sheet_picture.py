"""The sheet of `recon sheet` as one PNG: a block for each unit, its pictures at both ends, its texts, its places."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from align.files import atomic_path
from recon.analysis.painted import painted
from recon.driving.extremes import EACH

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

    from recon.driving.extremes import Ends
    from recon.driving.looked import Looked

MOST = 40  # units that are drawn, those with the highest scores; the tables hold all
MAPPED = 1  # the place of the predicted pictures among the ends, whose best ones get a map
_SIDE, _GAP, _TEXT, _LINE, _LONG = 72, 4, 330, 17, 46  # px; characters of a line of text
_TITLES = {
    "measured": "measured response",
    "predicted": "predicted response, left out of the fit",
    "natural": "predicted response, natural pictures",
}


def draw_sheet(one: Looked, title: str, path: Path) -> None:
    """A block of rows for each unit: highest pictures to the left, lowest to the right."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(13)
    order = np.argsort(-one.scores.r, kind="stable")[:MOST]
    rows = len(one.ends) + (one.maps is not None)
    block = rows * (_SIDE + _LINE + _GAP) + 3 * _GAP
    width = _TEXT + 2 * EACH * (_SIDE + _GAP) + 4 * _GAP
    sheet = Image.new("RGB", (width, 2 * _LINE + len(order) * block + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    more = f"; {len(order)} of {len(one.driven)} units, the best predicted" if len(order) < len(one.driven) else ""
    pen.text((_GAP, _GAP), f"{title}; subject {one.subject}{more}", fill="black", font=font)
    for k, unit in enumerate(order):
        top = 2 * _LINE + k * block
        pen.line((_GAP, top, width - _GAP, top), fill=(200, 200, 200))
        pen.multiline_text((_GAP, top + _GAP), _label(one, int(unit)), fill="black", font=font, spacing=3)
        _pictures(sheet, pen, one, int(unit), top + _GAP, font)
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def _pictures(sheet: Image.Image, pen: ImageDraw.ImageDraw, one: Looked, unit: int, top: int, font: object) -> None:
    right = _TEXT + EACH * (_SIDE + _GAP) + 2 * _GAP
    for ends in one.ends:
        each = min(EACH, len(ends.rows) // 2)
        for left, places, end in ((_TEXT, ends.best(unit, each), "highest"), (right, ends.worst(unit, each), "lowest")):
            pen.text((left, top), f"{end} {_TITLES[ends.by]}", fill="black", font=font)  # type: ignore[arg-type]
            for k, place in enumerate(places):
                sheet.paste(_small(ends, int(place)), (left + k * (_SIDE + _GAP), top + _LINE))
        top += _SIDE + _LINE + _GAP
    if one.maps is not None:
        ends = one.ends[MAPPED]
        text = "where the prediction comes from: red adds to it, blue takes from it"
        pen.text((_TEXT, top), text, fill="black", font=font)  # type: ignore[arg-type]
        most = np.abs(one.maps[:, unit]).max()
        for k, place in enumerate(ends.best(unit, min(EACH, len(ends.rows) // 2))):
            overlaid = painted(_small(ends, int(place)), one.maps[place, unit] / max(float(most), 1e-12))
            sheet.paste(overlaid, (_TEXT + k * (_SIDE + _GAP), top + _LINE))


def _small(ends: Ends, place: int) -> Image.Image:
    from PIL import Image

    return Image.fromarray(ends.load(place)).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


def _label(one: Looked, unit: int) -> str:
    size = len(one.driven.columns[unit])
    lines = [one.driven.names[unit] + (f", mean of {size} units" if size > 1 else "")]
    lines.append(f"r {one.scores.r[unit]:.3f} on pictures left out, q {one.scores.q[unit]:.2g}")
    if one.ceiling is not None:
        lines.append(f"ceiling {one.ceiling.highest[unit]:.3f} (reliability {one.ceiling.reliability[unit]:.2f})")
    else:
        lines.append("no ceiling without repetitions")
    if one.texts is not None:
        lines.append(f"nearest texts (their map: r {one.texts.r[unit]:.3f})")
        lines += [f"  {_cut(text)}" for text in one.texts.texts[unit]]
    if one.captions is not None:
        lines.append("captions of its best pictures")
        lines += [f"  {_cut(text)}" for text in dict.fromkeys(one.captions[unit][:3])]
    return "\n".join(lines)


def _cut(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."

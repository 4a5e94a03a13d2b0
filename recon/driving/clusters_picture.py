"""Clusters of units as one PNG: how alike the units are, and the pictures that set each cluster apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from align.files import atomic_path
from recon.driving.clusters import Clusters

if TYPE_CHECKING:
    from PIL import Image

_SIDE, _GAP, _TEXT, _LINE, _MATRIX, _LONG = 84, 5, 330, 17, 180, 46  # px; characters of a line


def draw_clusters(one: Clusters, title: str, path: Path) -> None:
    """The correlations of the units on pictures that did not find the clusters, then a line of pictures for each."""
    from PIL import Image, ImageDraw, ImageFont

    font, small = ImageFont.load_default(13), ImageFont.load_default(11)
    block = _SIDE + 2 * _LINE + 2 * _GAP
    start = 2 * _LINE + _MATRIX + 2 * _GAP
    width = _TEXT + one.rows.shape[1] * (_SIDE + _GAP) + _GAP
    sheet = Image.new("RGB", (width, start + len(one) * block), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP, _GAP), title, fill="black", font=font)
    sheet.paste(_matrix(one), (_GAP, 2 * _LINE))
    about = [
        "left: correlation of units, ordered by cluster (red above 0, blue below),",
        "on pictures that did not find the clusters",
        f"clusters of both parts agree: adjusted Rand index {one.agreement:.2f}, p {one.agreement_p:.2g}",
        "below: pictures that are predicted to drive a cluster more than any other;",
        "under each: by how much as predicted | as measured, in deviations",
    ]
    pen.multiline_text((_MATRIX + 4 * _GAP, 2 * _LINE), "\n".join(about), fill="black", font=font, spacing=5)
    for k in range(len(one)):
        top = start + k * block
        pen.line((_GAP, top, width - _GAP, top), fill=(200, 200, 200))
        pen.multiline_text((_GAP, top + _GAP), _label(one, k), fill="black", font=font, spacing=3)
        for i, row in enumerate(one.rows[k]):
            left = _TEXT + i * (_SIDE + _GAP)
            picture = Image.fromarray(one.stimuli.load(int(row))).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
            sheet.paste(picture, (left, top + _GAP))
            said = f"{one.predicted[k, i]:.2f} | {one.measured[k, i]:.2f}"
            pen.text((left, top + _GAP + _SIDE), said, fill="black", font=small)
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def _matrix(one: Clusters) -> Image.Image:
    from PIL import Image

    order = np.argsort(one.of, kind="stable")
    r = one.alike[np.ix_(order, order)][:, :, None]
    colour = np.where(r > 0, np.array([200, 30, 30]), np.array([30, 60, 200]))
    pixels = (255 + np.abs(r) * (colour - 255)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((_MATRIX, _MATRIX), Image.Resampling.NEAREST)


def _label(one: Clusters, cluster: int) -> str:
    names = ", ".join(one.units(cluster))
    cut = names if len(names) <= _LONG else f"{names[: _LONG - 3]}..."
    return (
        f"cluster {cluster + 1}: {len(one.units(cluster))} units\n{cut}\n"
        f"measured on these pictures: {one.score[cluster]:.2f} above others\n"
        f"random clusters {one.chance[cluster]:.2f}, p {one.p[cluster]:.2g}, q {one.q[cluster]:.2g}"
    )

"""The pictures with the highest and the lowest value along the most and the least universal dimensions, as one PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from align.data.signals import Stimuli
from align.files import atomic_path
from recon.comparison.networks import short_name

EACH, SHOWN = 8, 6  # pictures at either end, dimensions of either kind
LEAST_EXPLAINED = 1e-3  # of a layer's variance: what explains less is mostly noise and shows nothing
_SIDE, _GAP, _TEXT, _LINE = 72, 4, 300, 18  # px


def chosen(table: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows of the most and of the least universal dimensions, among those that explain `LEAST_EXPLAINED` or more.

    Of every layer of a network one at most, so that the rows differ.
    """
    allowed = np.flatnonzero(table["explained"] >= LEAST_EXPLAINED)
    order = allowed[np.argsort(-table["universality"][allowed], kind="stable")]
    return {"most": _apart(table, order), "least": _apart(table, order[::-1])}


def _apart(table: Mapping[str, np.ndarray], order: np.ndarray) -> np.ndarray:
    found: dict[tuple[str, str], int] = {}
    for row in order:
        found.setdefault((table["network"][row], table["layer"][row]), int(row))
    return np.array(list(found.values())[:SHOWN], dtype=np.int64)


def draw_extremes(
    table: Mapping[str, np.ndarray], scored: Stimuli, scores: Mapping[str, np.ndarray], path: Path
) -> None:
    """One line per dimension: what it is, its highest pictures, its lowest pictures."""
    from PIL import Image, ImageDraw, ImageFont

    parts, each = chosen(table), min(EACH, len(scored) // 2)
    values = np.concatenate([scores[name] for name in dict.fromkeys(table["network"].tolist())], axis=1)
    width = _TEXT + 2 * each * (_SIDE + _GAP) + 3 * _GAP
    height = sum(_LINE * 2 + len(rows) * (_SIDE + _GAP) for rows in parts.values()) + _GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(13), _GAP
    right = _TEXT + each * (_SIDE + _GAP) + 2 * _GAP
    for kind, rows in parts.items():
        pen.text((_GAP, top), f"{kind} universal dimensions", fill="black", font=font)
        pen.text((_TEXT, top), "highest value", fill="black", font=font)
        pen.text((right, top), "lowest value", fill="black", font=font)
        top += _LINE
        for row in rows:
            pen.multiline_text((_GAP, top), _label(table, int(row)), fill="black", font=font, spacing=3)
            order = np.argsort(-values[:, row], kind="stable")
            for left, pictures in ((_TEXT, order[:each]), (right, order[::-1][:each])):
                for k, picture in enumerate(pictures):
                    pixels = Image.fromarray(scored.load(int(picture))).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
                    sheet.paste(pixels, (left + k * (_SIDE + _GAP), top))
            top += _SIDE + _GAP
        top += _LINE
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def _label(table: Mapping[str, np.ndarray], row: int) -> str:
    brain = f", brain {table['brain_similarity'][row]:.2f}" if "brain_similarity" in table else ""
    name = short_name(str(table["network"][row]))
    return (
        f"{name}\nlayer {table['layer'][row]}, component {table['component'][row] + 1}\n"
        f"universality {table['universality'][row]:.2f}{brain}\n{100 * table['explained'][row]:.1f} % of the variance"
    )

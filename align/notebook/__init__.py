"""How results show themselves in a notebook: small HTML tables, and pictures inside the page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_CELL = 'style="text-align:left;vertical-align:top"'


def facts_table(title: str, facts: Mapping[str, Any]) -> str:
    """Names and values below each other; a value of None is left out."""
    rows = "".join(
        f"<tr><th {_CELL}>{html.escape(str(name))}</th><td {_CELL}>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
        if value is not None
    )
    return f"<div><strong>{html.escape(title)}</strong><table>{rows}</table></div>"


def grid_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a header; cells that begin with ``<img`` are pictures of `thumbnail`, all others text."""
    head = "".join(f"<th {_CELL}>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr>{''.join(f'<td {_CELL}>{cell if _is_picture(cell) else html.escape(cell)}</td>' for cell in row)}</tr>"
        for row in rows
    )
    return f"<div><strong>{html.escape(title)}</strong><table><tr>{head}</tr>{body}</table></div>"


def thumbnail(pixels: np.ndarray, side: int = 64) -> str:
    """An ``<img>`` that holds its picture, uint8 (H, W, 3) or float (3, H, W) in [0, 1]; shown ``side`` px wide."""
    from PIL import Image

    if pixels.dtype != np.uint8:
        pixels = np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if picture.width > 4 * side:
        picture = picture.resize((4 * side, max(1, round(4 * side * picture.height / picture.width))))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f'<img width="{side}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _is_picture(cell: str) -> bool:
    return cell.startswith('<img width="')

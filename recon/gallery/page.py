"""The page: one HTML file that needs nothing else, with every picture inside it."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from recon.gallery.content import CONTROLS, Content, choose

LONGEST = 128  # px; larger pictures are reduced
QUALITY = 86
CHOSEN_EACH = 6
_MARK = "__GALLERY__"


def draw_page(content: Content) -> str:
    """The page as text: the template with the data of `page_data` inside."""
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    data = json.dumps(page_data(content), allow_nan=False, separators=(",", ":"))
    for sign, escaped in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
        data = data.replace(sign, escaped)  # no text of a study can end the script element
    before, after = template.split(_MARK)
    return before + data + after


def page_data(content: Content) -> dict[str, Any]:
    """What the script of the page reads. Pictures are numbers into ``images``; equal ones are kept once."""
    album = _Album()
    seen = {stimulus_id: album.add(pixels) for stimulus_id, pixels in content.seen.items()}
    groups = {item.stimulus_id: name for name, items in choose(content, CHOSEN_EACH).items() for item in items}
    items = [
        {
            "id": item.stimulus_id,
            "caption": item.caption,
            "concept": item.concept,
            "group": groups.get(item.stimulus_id, ""),
            "seen": seen[item.stimulus_id],
            "reconstructed": album.add(item.reconstructed),
            "controls": [album.add(item.controls[name]) for name in content.controls],
            "retrieved": list(item.retrieved),
            "rank": item.rank,
            "scores": {name: round(value, 4) for name, value in item.scores.items()},
        }
        for item in content.items
    ]
    return {
        "report": content.report,
        "rule": list(content.rule),
        "controls": [{"name": name, "text": CONTROLS[name]} for name in content.controls],
        "candidates": {stimulus_id: [seen[stimulus_id], text] for stimulus_id, text in content.captions.items()},
        "items": items,
        "images": album.images,
    }


class _Album:
    """Pictures as data addresses, each kept once."""

    def __init__(self) -> None:
        self.images: list[str] = []
        self._known: dict[bytes, int] = {}

    def add(self, pixels: np.ndarray) -> int:
        """Number of a uint8 picture (H, W, 3)."""
        encoded = _encode(pixels)
        if encoded not in self._known:
            self._known[encoded] = len(self.images)
            self.images.append("data:image/webp;base64," + base64.b64encode(encoded).decode())
        return self._known[encoded]


def _encode(pixels: np.ndarray) -> bytes:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()

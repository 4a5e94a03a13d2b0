"""One HTML file out of its parts: styles, scripts and data are put where the page has their marks."""

from __future__ import annotations

import json
from typing import Any


def filled(page: str, mark: str, text: str) -> str:
    """The page with ``text`` in place of ``mark``, which it holds once."""
    before, after = page.split(mark)
    return before + text + after


def data_text(data: Any) -> str:
    """JSON for a script element: no text inside can end that element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for sign, escaped in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
        text = text.replace(sign, escaped)
    return text

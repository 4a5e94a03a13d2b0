"""The figure of `recon curves` for the page, with its words; nothing where the run holds none of this training."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from align.files.json_text import reading

if TYPE_CHECKING:
    from align.checkpoint import Run


def read_figure(run: Run, label: str) -> dict[str, Any] | None:
    """``image``: the PNG as a data address; ``text``: what it shows. ``label``: of the generator of the pictures."""
    from recon.analysis.curve_text import caption
    from recon.evaluation.provenance import curves_folder, read_curves

    stored, path = read_curves(run, label), curves_folder(run, label) / "curves.png"
    if stored is None or not path.is_file():
        return None
    image = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    with reading(repr(str(path.with_name("curves.json")))):
        return {"image": image, "text": caption(stored)}

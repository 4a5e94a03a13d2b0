"""From brain recordings to pictures. What a notebook needs::

    from recon import Decoder, Study  # train, score, draw
    from recon import evaluate_images, load_run, score  # outputs that are there already

Each is imported when first asked for, so importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recon.api.decoder import Decoder as Decoder
    from recon.api.pictures import Pictures as Pictures
    from recon.api.study import Study as Study
    from recon.publishing.hub import load_run as load_run
    from recon.scoring.images import evaluate_images as evaluate_images
    from recon.scoring.retrieval import score as score

_API = {
    "Decoder": "recon.api.decoder",
    "Pictures": "recon.api.pictures",
    "Study": "recon.api.study",
    "evaluate_images": "recon.scoring.images",
    "load_run": "recon.publishing.hub",
    "score": "recon.scoring.retrieval",
}
__all__ = ["Decoder", "Pictures", "Study", "evaluate_images", "load_run", "score"]


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_API[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_API})

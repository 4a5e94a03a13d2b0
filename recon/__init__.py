"""From brain recordings to pictures. What a notebook needs::

    from recon import evaluate_images, load_run, score

Each is imported when first asked for, so importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recon.publishing.hub import load_run as load_run
    from recon.scoring.images import evaluate_images as evaluate_images
    from recon.scoring.retrieval import score as score

_API = {
    "evaluate_images": "recon.scoring.images",
    "load_run": "recon.publishing.hub",
    "score": "recon.scoring.retrieval",
}
__all__ = ["evaluate_images", "load_run", "score"]


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_API[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_API})

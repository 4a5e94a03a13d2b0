"""From brain recordings to pictures. What a notebook needs::

    from recon import evaluate_images, load_run, score

Each is imported when first asked for, so importing this package costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recon.evaluate_images import evaluate_images as evaluate_images
    from recon.publishing.hub import load_run as load_run
    from recon.score import score as score

_API = {"evaluate_images": "recon.evaluate_images", "load_run": "recon.publishing.hub", "score": "recon.score"}
__all__ = ["evaluate_images", "load_run", "score"]


class _Package(ModuleType):
    """A package in which a submodule never hides the function of the same name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _API and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_API[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_API})

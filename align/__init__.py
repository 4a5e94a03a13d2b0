"""Brain encoders aligned with an intermediate layer of a frozen vision backbone.

`load_config` reads a `Config`, the function ``train`` of `align.train` trains what it asks for, and every fault of the
user's is a `UserError`. Each is imported when first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align.config import Config as Config
    from align.config import load_config as load_config
    from align.errors import UserError as UserError

__version__ = "0.1.0"
_API = {"Config": "align.config", "UserError": "align.errors", "load_config": "align.config"}
__all__ = ["Config", "UserError", "load_config"]


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_API[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_API})

"""The doors to braindecode and himalaya, which are installed by the extra ``encoders`` and imported only when used."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from functools import cache
from typing import Any

from align.errors import UserError

_HOW = "pip install '.[encoders]'; pip install --no-deps braindecode"


@cache
def braindecode_models() -> Any:
    """The module ``braindecode.models``; raises `UserError` when it cannot be imported.

    braindecode imports torchaudio for its filter banks, which nothing here uses. torchaudio is better not installed: it
    refuses every torch with another CUDA than its own, and transformers fails with it. An empty stand-in takes its
    place during this one import.
    """
    _require("braindecode")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the import only: deprecations between libraries
        try:
            importlib.import_module("torchaudio")
        except (ImportError, OSError, RuntimeError):
            with _StandIn("torchaudio", "torchaudio.functional", "torchaudio.transforms"):
                return _import("braindecode.models")
        return _import("braindecode.models")


def himalaya() -> Any:
    """The package ``himalaya`` with its parts ``ridge`` and ``kernel_ridge``; raises `UserError` without it."""
    _require("himalaya")
    _import("himalaya.kernel_ridge")
    _import("himalaya.ridge")
    return _import("himalaya")


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{package} is not installed; {_HOW}")


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name} cannot be imported ({reason}); {_HOW}") from error


class _StandIn:
    """Empty modules of these names, a package first, as long as the ``with`` lasts; afterwards they are gone.

    Whatever is asked of them is an empty class, so that it can be imported and inherited from.
    """

    def __init__(self, *names: str) -> None:
        self.names = names

    def __enter__(self) -> None:
        for name in self.names:
            module = types.ModuleType(name)
            module.__getattr__ = _empty_class  # type: ignore[method-assign]
            sys.modules[name] = module
            parent, _, own = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], own, module)

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            del sys.modules[name]


def _empty_class(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)

    def __init__(self: object, *_: object, **__: object) -> None:
        raise ImportError(f"{name} is of torchaudio, which is not installed")

    return type(name, (), {"__init__": __init__})

"""Files of a run that belong together: each names the hash of the weights that it was written with.

`align.checkpoint.save_run` writes them, the weights last; `align.checkpoint.load_run` compares them. Files from before
they named weights name none, and are read as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.files import read_json

CONFIG_OF = "# of the weights "  # first line of config.yaml: their hash follows


def require_together(split: Path, config: Path, preparation: Path, meta: Mapping[str, Any]) -> None:
    """Raise `UserError` where a file beside weights names others than these; ``meta``: the facts of the weights."""
    found = {
        split: _weights_of_split(split),
        config: _weights_of_config(config),
        preparation: _weights_of_tensors(preparation),
    }
    own = meta.get("weights_hash")
    for path, digest in found.items():
        if own is not None and digest not in (None, own):
            raise UserError(
                f"{str(path)!r} is of another training than the weights beside it, as after one that was stopped while "
                "it replaced a run; train again with --overwrite"
            )


def _weights_of_split(path: Path) -> str | None:
    """The hash in a split.json; None also of a damaged one, which those who need it refuse."""
    try:
        found: str | None = read_json(path, {"weights?": str}).get("weights") if path.is_file() else None
    except UserError:
        return None
    return found


def _weights_of_config(path: Path) -> str | None:
    """The hash in the first line of a config.yaml."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        first = file.readline(200).decode(errors="replace").rstrip("\r\n")
    return first.removeprefix(CONFIG_OF) if first.startswith(CONFIG_OF) else None


def _weights_of_tensors(path: Path) -> str | None:
    """The hash in the metadata of a safetensors file; None also of a damaged one, as above."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="np") as opened:
            return (opened.metadata() or {}).get("weights")
    except SafetensorError:
        return None

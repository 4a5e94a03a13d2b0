"""The configuration a stage of pretraining was begun with: another one neither goes on from it nor takes its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.config import flatten, to_dict
from align.errors import UserError
from align.files import read_json, write_json
from recon.config import STAGES, PretrainConfig

BEGUN_WITH = "begun_with.json"
_NO_WEIGHT = ("out", "assets", "device", "checkpoint_every", "stages")  # nothing that is learned depends on these
_OF_CONDITIONERS = ("conditioners", "mini_layer", "mini_pooling", "squeezenet_layer", "squeezenet_pooling")
_CONDITIONED = ("unet", "sketch")


def require_same(config: PretrainConfig, name: str, folder: Path) -> None:
    """Note what stage ``name`` in ``folder`` is begun with; raises `UserError` where it was begun with something else.

    A stage of an earlier version, which left no note, is taken as it is.
    """
    asked, path = _facts(config, name), folder / BEGUN_WITH
    if not path.is_file():
        write_json(path, {"asked": asked})
        return
    begun = read_json(path, {"asked": dict})["asked"]
    for key in dict.fromkeys([*asked, *begun]):
        if asked.get(key) != begun.get(key):
            raise UserError(
                f"{str(folder)!r} was begun with {key}={begun.get(key)}, not {asked.get(key)}; delete it to run stage "
                f"{name} anew, or choose another folder (out=FOLDER)"
            )


def _facts(config: PretrainConfig, name: str) -> dict[str, Any]:
    """Field to value, of all that the stage's weights depend on."""
    left = {*_NO_WEIGHT, *STAGES} - {name}
    left |= set() if name in _CONDITIONED else {*_OF_CONDITIONERS}
    return {key: value for key, value in flatten(to_dict(config)) if key.split(".")[0] not in left}

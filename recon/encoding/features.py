"""Which features predict: layers of one or several networks, captions, or all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from align.config import Config
from align.data.signals import Stimuli
from align.errors import UserError
from recon.comparison.networks import layers_of

if TYPE_CHECKING:
    from align.vision.taps import Backbone
    from recon.words.text_tower import TextTower

TOGETHER, CAPTIONS = "together", "captions"


@dataclass(frozen=True)
class FeatureSet:
    """``label``: as in tables. ``spaces``: pairs (network, layer), or ("captions", tower), each a space of its own.

    ``depth``: of a single layer, 0 for the first of its network and 1 for the last; None of joined ones.
    """

    label: str
    spaces: tuple[tuple[str, str], ...]
    network: str | None = None
    depth: float | None = None


def feature_sets(
    networks: dict[str, Backbone], layers: Sequence[str], captions: str | None, together: bool
) -> list[FeatureSet]:
    """A set for every layer of every network, for joined layers (``a+b``), for captions, and for all in one.

    ``layers``: names or indices that every network knows, ``all``, or ``spread:K`` for K of them evenly over depth.
    Raises `UserError` for an unknown layer and for ``together`` with one space.
    """
    from align.vision.fused import parts_of

    found = []
    for entry, backbone in networks.items():
        for name in layers_of(backbone, layers):
            parts = parts_of(name)
            depth = backbone.layers.index(name) / max(len(backbone.layers) - 1, 1) if len(parts) == 1 else None
            label = name if len(networks) == 1 else f"{entry}:{name}"
            found.append(FeatureSet(label, tuple((entry, part) for part in parts), entry, depth))
    if captions is not None:
        found.append(FeatureSet(CAPTIONS, ((CAPTIONS, captions),)))
    if together:
        spaces = tuple(dict.fromkeys(space for one in found for space in one.spaces))
        if len(spaces) < 2:
            raise UserError("--together joins several layers, networks or captions, and here is one; name more")
        found.append(FeatureSet(TOGETHER, spaces))
    return found


def space_name(space: tuple[str, str]) -> str:
    return f"{space[0]}:{space[1]}"


def read_spaces(
    networks: dict[str, Backbone],
    sets: Sequence[FeatureSet],
    stimuli: Stimuli,
    rows: np.ndarray,
    config: Config,
    tower: TextTower | None,
) -> dict[str, np.ndarray]:
    """Tokens (n, N, D) of the pictures ``rows`` in every space, from the cache where they are.

    Raises `UserError` where captions are asked for and a picture has none.
    """
    from align.vision.fused import training_targets

    wanted = list(dict.fromkeys(space for one in sets for space in one.spaces))
    found: dict[str, np.ndarray] = {}
    for entry, backbone in networks.items():
        layers = [layer for network, layer in wanted if network == entry]
        if layers:
            targets = training_targets(backbone, stimuli, layers, config.target, config.cache_dir)
            found |= {space_name((entry, layer)): targets[layer].tokens[rows] for layer in layers}
    for space in wanted:
        if space[0] == CAPTIONS and tower is not None:
            found[space_name(space)] = _captions(stimuli, rows, tower)
    return found


def _captions(stimuli: Stimuli, rows: np.ndarray, tower: TextTower) -> np.ndarray:
    from recon.words.bank import study_captions

    texts = study_captions(stimuli).of
    lacking = [stimuli.ids[int(i)] for i in rows if not texts[int(i)]]
    if lacking:
        raise UserError(f"--captions: {len(lacking)} of {len(rows)} pictures have no caption, e.g. {lacking[0]!r}")
    return tower.texts([texts[int(i)] for i in rows])[:, None]

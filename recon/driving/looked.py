"""What `recon sheet` has found of the units of one subject."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from align.response_models.scores import UnitScores
from recon.driving.clusters import Clusters
from recon.driving.extremes import Ends
from recon.driving.frame import Frame
from recon.driving.texts import Texts
from recon.driving.units import Driven
from recon.encoding.ceiling import Ceiling


@dataclass(frozen=True)
class Looked:
    """What is known of K units of one subject. ``maps``: places (n, K, N) of the pictures that ``ends[1]`` ranks."""

    subject: str
    driven: Driven
    scores: UnitScores
    ceiling: Ceiling | None
    ends: tuple[Ends, ...]
    texts: Texts | None
    captions: tuple[tuple[str, ...], ...] | None
    maps: np.ndarray | None
    frame: Frame | None
    clusters: Clusters | None

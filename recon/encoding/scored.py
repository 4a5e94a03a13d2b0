"""The scores of one subject's units with one set of features, one method and one number of pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from align.response_models.scores import UnitScores


@dataclass(frozen=True)
class Scored:
    """One subject, set, method and number of pictures. ``found``: what the fit says of every unit, by name."""

    subject: str
    label: str
    method: str
    pictures: int | None
    fitted: int
    units: UnitScores
    identification: dict[str, float] | None
    found: dict[str, np.ndarray]

"""Ridge regression of every response on all features; the penalty of each unit by generalised cross-validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from align.comparison.ridge import SharedFit, SharedRidge
from align.response_models.contract import Fitted, Method, Seen, Spaces, joined

SHARES = tuple(10.0 ** (k / 2) for k in range(-6, 7))  # penalty over the mean squared length of a picture's features


@dataclass(frozen=True)
class RidgeFit(Fitted):
    """One decomposition of the features, a penalty for each unit."""

    found: SharedFit

    def predict(self, spaces: Spaces) -> np.ndarray:
        return self.found.predict(joined(spaces))

    def per_unit(self) -> dict[str, np.ndarray]:
        return {"penalty": self.found.alpha}


@dataclass(frozen=True)
class Ridge(Method):
    """``choose``: ``gcv`` or ``loo`` (see `align.comparison.ridge`)."""

    choose: str = "gcv"
    name: ClassVar[str] = "ridge"
    source: ClassVar[str] = "Naselaris et al. 2011; generalised cross-validation of Golub, Heath & Wahba 1979"

    def fit(self, seen: Seen, prepared: Any = None) -> Fitted:
        return RidgeFit(SharedRidge(joined(seen.spaces)).fit(seen.responses, SHARES, self.choose))

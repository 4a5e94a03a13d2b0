"""Which features explain a response: what each space adds to all others, and its share of what all explain together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from align.response_models.banded import Banded
from align.response_models.contract import Seen, take_rows
from align.response_models.cross_validation import Material
from align.response_models.scaling import Scaling, compact
from align.response_models.scores import explained


@dataclass(frozen=True)
class Partition:
    """Explained variance on pictures left out, of U units; by space where it is a dict.

    ``unique``: full minus that of all other spaces. ``alone``: of one space. ``product``: shares that add up to the
    full one (product measure, Pratt 1987; Dupre la Tour et al. 2022). ``shared``: full minus all unique parts. Any of
    them may be negative, for these are measured and not fitted.
    """

    full: np.ndarray
    unique: dict[str, np.ndarray]
    alone: dict[str, np.ndarray]
    product: dict[str, np.ndarray]

    @property
    def shared(self) -> np.ndarray:
        return np.asarray(self.full - sum(self.unique.values()))


def partition(
    material: Material, folds: Sequence[tuple[np.ndarray, np.ndarray]], method: Banded | None = None
) -> Partition:
    """Banded ridge on all spaces, on each alone, and on all but each. Raises `ValueError` for fewer than two spaces."""
    if len(material.tokens) < 2:
        raise ValueError("a partition needs two spaces of features or more")
    method = method or Banded()
    fitted = np.unique(np.concatenate([rows for rows, _ in folds]))
    spaces = compact(Scaling.of(take_rows(material.tokens, fitted), material.root)(material.tokens))
    scored = [rows for _, rows in folds]

    def estimates(names: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        seen = Seen({name: spaces[name] for name in names}, material.responses, material.groups)
        found = np.full(material.responses.shape, np.nan)
        parts = {name: np.full(material.responses.shape, np.nan) for name in names}
        for rows, left_out in folds:
            fit = method.fit(seen.take(rows))
            new = take_rows(seen.spaces, left_out)
            found[left_out] = fit.predict(new)
            for name, part in fit.by_space(new).items():
                parts[name][left_out] = part
        return found, parts

    def score(names: Sequence[str]) -> np.ndarray:
        return explained(material.responses, estimates(names)[0], scored)

    names = list(spaces)
    found, parts = estimates(names)
    full = explained(material.responses, found, scored)
    alone = {name: score([name]) for name in names}
    rest = {name: score([other for other in names if other != name]) for name in names} if len(names) > 2 else {}
    if len(names) == 2:
        rest = {names[0]: alone[names[1]], names[1]: alone[names[0]]}
    unique = {name: full - rest[name] for name in names}
    return Partition(full, unique, alone, _product(material.responses, parts, scored))


def _product(
    responses: np.ndarray, parts: dict[str, np.ndarray], scored: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Sum over pictures of part x (2 response - prediction), over that of squared responses; the level is no part.

    The level of a fold's fit misses that of its scored rows by a little; it is left out on both sides, so that shares
    add up to the explained variance of the centred predictions.
    """
    rows = np.concatenate(list(scored))
    y = responses[rows] - responses[rows].mean(axis=0)
    whole = sum(part[rows] for part in parts.values())
    total = np.square(y).sum(axis=0)
    total = np.where(total > 0, total, np.inf)
    return {name: np.asarray((part[rows] * (2 * y - whole)).sum(axis=0) / total) for name, part in parts.items()}

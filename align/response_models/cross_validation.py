"""Predictions of pictures that a model has not seen: folds of whole groups, or one fit and its test pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from align.response_models.contract import Method, Seen, take_rows
from align.response_models.scaling import Scaling, compact


@dataclass(frozen=True)
class Material:
    """Raw ``tokens`` (n, N, D) of every space for n pictures, their ``responses`` (n, U) and ``groups`` (n,).

    ``root``: the root of every token value is taken first.
    """

    tokens: Mapping[str, np.ndarray]
    responses: np.ndarray
    groups: np.ndarray
    root: bool = False

    def __len__(self) -> int:
        return len(self.responses)

    def seen(self, scaling: Scaling) -> Seen:
        """As a method takes it."""
        return Seen(scaling(self.tokens), self.responses, self.groups)

    def take(self, rows: np.ndarray) -> Material:
        """The pictures of these numbers."""
        return Material(take_rows(self.tokens, rows), self.responses[rows], self.groups[rows], self.root)


@dataclass(frozen=True)
class Learnt:
    """What a method took from other subjects, with the scaling of tokens that belongs to it."""

    scaling: Scaling
    prepared: Any


def learn(method: Method, others: Sequence[Material]) -> Learnt | None:
    """`Method.prepare` on other subjects, at one scale for all of them; None where the method takes nothing."""
    if not method.from_others:
        return None
    together = {name: np.concatenate([other.tokens[name] for other in others]) for name in others[0].tokens}
    scaling = Scaling.of(together, others[0].root)
    return Learnt(scaling, method.prepare([other.seen(scaling) for other in others]))


def held_out_predictions(
    method: Method,
    material: Material,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    learnt: Learnt | None = None,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Predictions (n, U) of the scored rows, NaN elsewhere; and what was found for every unit, mean over folds.

    Features are scaled by the rows that any fold fits (pictures alone, no responses), or as ``learnt`` was.
    """
    fitted = np.unique(np.concatenate([rows for rows, _ in folds]))
    scaling = learnt.scaling if learnt else Scaling.of(take_rows(material.tokens, fitted), material.root)
    spaces = scaling(material.tokens)
    seen = Seen(spaces if method.places else compact(spaces), material.responses, material.groups)
    estimates = np.full(material.responses.shape, np.nan)
    found: dict[str, list[np.ndarray]] = {}
    for rows, scored in folds:
        fit = method.fit(seen.take(rows), learnt.prepared if learnt else None)
        estimates[scored] = fit.predict(take_rows(seen.spaces, scored))
        for name, value in fit.per_unit().items():
            found.setdefault(name, []).append(value)
    return estimates, {name: np.mean(values, axis=0) for name, values in found.items()}

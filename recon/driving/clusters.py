"""Units of a subject in clusters, with the pictures that set each cluster apart; nothing is scored on what chose it.

The first part of the pictures finds the clusters and fits the encoder. Of the second part, pictures are chosen by what
this encoder predicts, and scored by what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from align.comparison.clusters import adjusted_rand, agreement_p, chosen_count, discrimination, unit_clusters
from align.comparison.null import q_values
from align.comparison.predictability import column_correlation
from align.data.signals import Stimuli
from align.errors import UserError
from align.seeding import derive

AUTO = "auto"
EACH = 8  # pictures of a cluster
LEAST = 4  # units that can be clustered


@dataclass(frozen=True)
class Clusters:
    """Of K clusters of U units.

    ``of`` (U,): cluster of each unit, by the first part of the pictures; ``again`` (U,): by the second. ``agreement``,
    ``agreement_p``: of these two. ``tried``: number of clusters to its agreement between halves of the first part,
    where the number was chosen. ``alike`` (U, U): correlation of units over the second part.

    ``rows`` (K, m): pictures of ``stimuli``; ``predicted``, ``measured`` (K, m): how much more the cluster answers than
    any other, in deviations. ``score`` (K,): mean of ``measured``; ``chance`` (K,): the same of clusters of the same
    sizes drawn at random, mean; ``p``, ``q`` (K,): against these.
    """

    names: tuple[str, ...]
    of: np.ndarray
    again: np.ndarray
    agreement: float
    agreement_p: float
    tried: dict[int, float] | None
    alike: np.ndarray
    stimuli: Stimuli
    rows: np.ndarray
    predicted: np.ndarray
    measured: np.ndarray
    score: np.ndarray
    chance: np.ndarray
    p: np.ndarray
    q: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def units(self, cluster: int) -> list[str]:
        """Names of the units of a cluster."""
        return [self.names[int(u)] for u in np.flatnonzero(self.of == cluster)]


def require_units(clusters: int | str, count: int, subject: str) -> None:
    """Raise `UserError` where a subject has too few units for so many clusters."""
    least = LEAST if clusters == AUTO else max(LEAST, int(clusters) + 1)
    if count < least:
        raise UserError(f"--clusters {clusters}: subject {subject} has {count} units here; {least} are needed")


def found_clusters(
    names: tuple[str, ...],
    clusters: int | str,
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    stimuli: Stimuli,
    shown: np.ndarray,
    seed: int,
    permutations: int,
) -> Clusters:
    """Clusters of units.

    Parameters
    ----------
    clusters
        How many, or `AUTO`.
    first
        Responses (n, U) and groups (n,) of the first part of the pictures.
    second
        Measured responses (m, U) of the second part, and what an encoder fitted to the first part predicts (m, U).
    stimuli, shown
        Where the pictures of the second part are: their rows (m,).

    Raises
    ------
    UserError
        Units that fall into fewer groups, because they answer the same; a first part that cannot be cut in half.
    """
    responses, groups = first
    measured, predicted = second
    tried = None
    if clusters == AUTO:
        if len(np.unique(groups)) < 2:
            raise UserError(
                "--clusters auto compares halves of the first part, whose pictures are all of one scene or concept; "
                "give a number, as in --clusters 4"
            )
        count, tried = chosen_count(responses, groups, np.random.default_rng(derive(seed, "clusters")))
    else:
        count = int(clusters)
    of, again = unit_clusters(responses, count), unit_clusters(measured, count)
    if of.max() + 1 < max(count, 2):
        raise UserError(
            f"--clusters {clusters}: the units answer so alike that they fall into {of.max() + 1} groups, not {count}; "
            "leave out copies and units that never change, or give a smaller number"
        )
    rng = np.random.default_rng(derive(seed, "cluster agreement"))
    places, score = _scored(measured, predicted, of)
    drawn = np.random.default_rng(derive(seed, "cluster chance"))
    null = np.array([_scored(measured, predicted, drawn.permutation(of))[1] for _ in range(permutations)])
    p = (1 + (null >= score - 1e-12).sum(axis=0)) / (1 + permutations)
    by_cluster = np.arange(len(places))[:, None]
    return Clusters(
        names,
        of,
        again,
        adjusted_rand(of, again),
        agreement_p(of, again, rng, permutations),
        tried,
        _correlations(measured),
        stimuli,
        shown[places],
        discrimination(predicted, of).T[by_cluster, places],
        discrimination(measured, of).T[by_cluster, places],
        score,
        null.mean(axis=0),
        p,
        q_values(p),
    )


def _scored(measured: np.ndarray, predicted: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (K, m) of the pictures predicted to set each cluster apart; mean (K,) of how far they do, as measured."""
    each = min(EACH, len(predicted))
    places = np.argsort(-discrimination(predicted, of), axis=0, kind="stable")[:each].T
    told = discrimination(measured, of)
    return places, np.array([told[row, k].mean() for k, row in enumerate(places)])


def _correlations(values: np.ndarray) -> np.ndarray:
    """(U, U) Pearson r of columns (n, U)."""
    count = values.shape[1]
    return np.stack(
        [column_correlation(np.repeat(values[:, [u]], count, axis=1), values) for u in range(count)], axis=0
    )

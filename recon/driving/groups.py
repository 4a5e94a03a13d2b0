"""Patches of two parts of the pictures in groups, in the space of units; what each group drives.

The first part fits the map of channels to units and finds the groups of the patches of both; the second part makes a
map and groups of its own, for comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from align.comparison.clusters import adjusted_rand
from align.comparison.cuts import NormalisedCut
from align.comparison.null import q_values
from align.comparison.predictability import column_correlation
from align.data.signals import Stimuli
from align.response_models.aligned import ChannelMapper
from align.seeding import derive


@dataclass(frozen=True)
class Cut:
    """Groups of the patches of the second part, by what the first part found.

    ``labels``: layer to (n, N); ``drive``: layer to (n, N, U), deviations; ``share``: layer to (n, K), of a picture's
    patches. ``r``: layer to mean over units of the correlation of the map's prediction with responses. ``agreement``:
    adjusted Rand index with the groups that the second part makes of itself.
    """

    labels: dict[str, np.ndarray]
    drive: dict[str, np.ndarray]
    share: dict[str, np.ndarray]
    r: dict[str, float]
    agreement: float


@dataclass(frozen=True)
class Painted:
    """Everything about one subject. ``rows`` (n,): pictures of ``stimuli``; ``table``: see `cut_rows`."""

    subject: str
    units: tuple[str, ...]
    stimuli: Stimuli
    rows: np.ndarray
    cut: Cut
    shuffled: list[Cut]
    table: list[dict[str, Any]]

    @property
    def p(self) -> float | None:
        """Of the agreement: shuffles that agree as well, 1 added above and below."""
        if not self.shuffled:
            return None
        at_least = sum(one.agreement >= self.cut.agreement - 1e-12 for one in self.shuffled)
        return (1 + at_least) / (1 + len(self.shuffled))


class Work:
    """What does not depend on responses: the tokens of both parts, their decompositions, which patches are sampled.

    ``tokens``: layer to (n, N, D); ``first``, ``second``: rows of both parts; ``count`` groups; ``sample``: patches
    whose eigenvectors are computed.
    """

    def __init__(
        self,
        tokens: Mapping[str, np.ndarray],
        first: np.ndarray,
        second: np.ndarray,
        count: int,
        sample: int,
        root: bool,
        seed: int,
    ) -> None:
        self.parts = [{layer: part[rows] for layer, part in tokens.items()} for rows in (first, second)]
        self.mappers = [{layer: ChannelMapper(x, root) for layer, x in part.items()} for part in self.parts]
        self.count = count
        rng = np.random.default_rng(derive(seed, "patches"))
        counts = [sum(x.shape[0] * x.shape[1] for x in part.values()) for part in self.parts]
        self.sampled = [np.sort(rng.choice(n, min(n, sample), replace=False)) for n in counts]

    def cut(self, first: np.ndarray, second: np.ndarray) -> Cut:
        """Of responses (n, U), (m, U) to the two parts."""
        ways = [
            {layer: mapper.fit(y) for layer, mapper in mappers.items()}
            for mappers, y in zip(self.mappers, (first, second), strict=True)
        ]
        own = [
            {layer: way[layer].places(x) for layer, x in part.items()}
            for way, part in zip(ways, self.parts, strict=True)
        ]
        cuts = [
            NormalisedCut.of(_patches(found)[rows], self.count) for found, rows in zip(own, self.sampled, strict=True)
        ]
        drive = {layer: ways[0][layer].places(x) for layer, x in self.parts[1].items()}
        labels, again = cuts[0].labels(_patches(drive)), cuts[1].labels(_patches(own[1]))
        n, places = next(iter(drive.values())).shape[:2]
        by_layer = dict(zip(drive, labels.reshape(len(drive), n, places), strict=True))
        kinds = np.arange(self.count)
        share = {layer: (part[:, :, None] == kinds).mean(axis=1) for layer, part in by_layer.items()}
        r = {
            layer: float(column_correlation(second, ways[0][layer].predict(x)).mean())
            for layer, x in self.parts[1].items()
        }
        return Cut(by_layer, drive, share, r, adjusted_rand(labels, again))


def _patches(drive: Mapping[str, np.ndarray]) -> np.ndarray:
    """(sum of n * N, U), layer after layer."""
    return np.concatenate([part.reshape(-1, part.shape[2]) for part in drive.values()])


def cut_rows(
    subject: str, units: tuple[str, ...], cut: Cut, responses: np.ndarray, permutations: int, seed: int
) -> list[dict[str, Any]]:
    """One row for each layer, cluster and unit.

    ``drive``: mean over the patches of the cluster, empty where it has none. ``r``: correlation over pictures of its
    share of the picture with the measured ``responses`` (n, U); p, two-sided, by shuffled pictures; q over the table.
    """
    rows, p = [], []
    for layer, labels in cut.labels.items():
        share = cut.share[layer]
        r, chance = share_correlation(share, responses, permutations, derive(seed, "share", layer))
        for k in range(share.shape[1]):
            inside = cut.drive[layer][labels == k]
            means = inside.mean(axis=0) if len(inside) else None
            for u, unit in enumerate(units):
                row = {"subject": subject, "layer": layer, "cluster": k + 1, "share": float(share[:, k].mean())}
                row |= {"unit": unit, "drive": "" if means is None else float(means[u]), "r": float(r[k, u])}
                rows.append(row)
                p.append(chance[k, u])
    q = q_values(np.array(p))
    return [{**row, "p": float(a), "q": float(b)} for row, a, b in zip(rows, p, q, strict=True)]


def share_correlation(
    share: np.ndarray, responses: np.ndarray, permutations: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """r and two-sided p (K, U) of shares (n, K) and responses (n, U). A share that never varies has r 0 and p 1."""
    a, b = _unit(share), _unit(responses)
    r = a.T @ b
    rng, at_least = np.random.default_rng(seed), np.ones(r.shape)
    for _ in range(permutations):
        at_least += np.abs(a[rng.permutation(len(a))].T @ b) >= np.abs(r) - 1e-9
    return r, at_least / (1 + permutations)


def _unit(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    return np.asarray(centred / np.where(length > 1e-9, length, np.inf))

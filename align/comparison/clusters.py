"""Units that answer alike: clusters of their responses, and how well two sets of clusters agree."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

MOST = 10  # clusters that are tried where their number is chosen
_HALVES = 20  # divisions of the pictures that choose it


def unit_clusters(responses: np.ndarray, count: int) -> np.ndarray:
    """(U,) cluster of each unit, 0 to ``count`` - 1, of responses (n, U).

    Ward's method (1963) on responses of mean 0 and length 1, whose squared distance is 2 - 2 r: units that correlate
    over pictures come together, however strongly they answer. Cluster 0 is the largest one; of equally large ones
    that with the first unit comes first. Deterministic.
    """
    return numbered(_labels(_tree(responses), count))


def _tree(responses: np.ndarray) -> np.ndarray:
    centred = responses - responses.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    return np.asarray(linkage((centred / np.where(length > 0, length, 1.0)).T, "ward"))


def _labels(tree: np.ndarray, count: int) -> np.ndarray:
    return np.asarray(fcluster(tree, count, "maxclust"))


def numbered(labels: np.ndarray) -> np.ndarray:
    """The same clusters, numbered from 0 by size."""
    names, first, places, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return np.asarray(rank[places])


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> float:
    """Agreement of two sets of clusters (U,): 1 where they are the same, 0 on average by chance.

    Hubert & Arabie (1985), J. Classification 2. Two sets with one cluster each, or of single units, agree fully.
    """
    table = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(table, (a, b), 1)
    both, of_a, of_b = (_pairs(part).sum() for part in (table, table.sum(axis=1), table.sum(axis=0)))
    chance = of_a * of_b / _pairs(np.array(len(a)))
    most = (of_a + of_b) / 2
    return float((both - chance) / (most - chance)) if most > chance else 1.0


def _pairs(count: np.ndarray) -> np.ndarray:
    return np.asarray(count * (count - 1) / 2)


def agreement_p(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, permutations: int) -> float:
    """One-sided p of `adjusted_rand`: units of one side in other orders that agree as well, 1 added above and below."""
    observed = adjusted_rand(a, b) - 1e-12
    at_least = sum(adjusted_rand(a, rng.permutation(b)) >= observed for _ in range(permutations))
    return (1 + at_least) / (1 + permutations)


def chosen_count(responses: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> tuple[int, dict[int, float]]:
    """The number of clusters that agree best between halves of the pictures, and the agreement of every number.

    ``responses`` (n, U), ``groups`` (n,): pictures of a group stay in one half. Tried are 2 to `MOST`, half of the
    units at most; of equal ones the smaller is taken.
    """
    counts = range(2, max(2, min(MOST, responses.shape[1] // 2)) + 1)
    names = np.unique(groups)
    found: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(_HALVES):
        one = np.isin(groups, rng.permutation(names)[: len(names) // 2])
        trees = [_tree(responses[side]) for side in (one, ~one)]
        for count in counts:
            found[count].append(adjusted_rand(*(numbered(_labels(tree, count)) for tree in trees)))
    means = {count: float(np.mean(values)) for count, values in found.items()}
    return max(means, key=lambda count: (round(means[count], 9), -count)), means


def discrimination(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(n, K) how much more each cluster answers than any other: its mean minus the highest mean of the others.

    ``values`` (n, U): responses in one scale; ``clusters`` (U,) from 0 to K - 1, K of 2 or more. What a picture that
    sets clusters apart maximises in Burg et al. 2024 (arXiv 2401.05342, "most discriminative stimuli"), there with a
    soft maximum and for pictures that are made.
    """
    count = int(clusters.max()) + 1
    means = np.stack([values[:, clusters == k].mean(axis=1) for k in range(count)], axis=1)
    ordered = np.sort(means, axis=1)
    highest = ordered[:, -1:]
    return np.asarray(np.where(means == highest, means - ordered[:, -2:-1], means - highest))

"""Channels that match across networks: each other's best correlated partner over pictures and places.

Dravid et al. 2023 ("Rosetta Neurons", ICCV; arXiv 2306.09346): maps of two units are resized to one grid; their
likeness is Pearson's r over all pictures and positions; a pair counts where each is the nearest of the other ("best
buddies"). Added here is chance: the same search among maps whose pictures are shuffled. Every map stays whole, so
what channels share at fixed places (edges of the picture, its centre) is in the chance level, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from align.comparison.null import q_values

LEVEL = 0.05  # false discovery rate up to which a match survives
_BLOCK = 64  # pictures multiplied at once: sums are kept in float64
_SAME = 1e-9  # two correlations this near count as equal


def unit_maps(maps: np.ndarray) -> np.ndarray:
    """Maps (n, N, P) of P channels, each with mean 0 and length 1 over pictures and places; float32.

    A channel that never varies is 0 and so matches nothing.
    """
    count = maps.shape[0] * maps.shape[1]
    found = np.empty(maps.shape, dtype=np.float32)
    for start in range(0, maps.shape[2], 256):
        part = maps[:, :, start : start + 256].astype(np.float64)
        largest = np.abs(part).max(axis=(0, 1))
        part -= part.mean(axis=(0, 1))
        length = np.sqrt(np.einsum("npd,npd->d", part, part))
        found[:, :, start : start + 256] = part / np.where(length > 1e-6 * np.sqrt(count) * largest, length, np.inf)
    return found


def correlations(
    a: np.ndarray, b: np.ndarray, orders: tuple[np.ndarray, np.ndarray] | None = None, block: int = _BLOCK
) -> np.ndarray:
    """(P, Q) Pearson r of the channels of two `unit_maps` (n, N, P) and (n, N, Q).

    ``orders``: of the pictures on either side (n,); as they stand without.
    """
    found = np.zeros((a.shape[2], b.shape[2]))
    for start in range(0, len(a), block):
        rows = slice(start, start + block)
        x, y = (side[rows] if orders is None else side[orders[k][rows]] for k, side in enumerate((a, b)))
        found += x.reshape(-1, a.shape[2]).T @ y.reshape(-1, b.shape[2])
    return found


@dataclass(frozen=True)
class Best:
    """Best partners on the other side: of the first one's channels ``forward`` (P,), of the second's ``backward`` (Q,);
    with their r."""

    forward: np.ndarray
    backward: np.ndarray
    forward_r: np.ndarray
    backward_r: np.ndarray

    @classmethod
    def of(cls, r: np.ndarray) -> Best:
        """Of correlations (P, Q)."""
        forward, backward = r.argmax(axis=1), r.argmax(axis=0)
        return cls(forward, backward, r[np.arange(len(r)), forward], r[backward, np.arange(r.shape[1])])

    def mutual(self) -> np.ndarray:
        """Channels (M,) of the first side whose best partner has them as its best one, with r above 0."""
        here = np.arange(len(self.forward))
        return np.flatnonzero((self.backward[self.forward] == here) & (self.forward_r > 0))


@dataclass(frozen=True)
class Matches:
    """M pairs of two networks, from the highest r to the lowest.

    ``first``, ``second`` (M,): channels. ``r_shuffled``: mean over shuffles of the best r that one of the two channels
    finds, the larger one: what both have at fixed places of all pictures. ``p``: the larger one of its two channels,
    each against the best that the channel finds among all candidates when pictures are shuffled; ``q`` (M,): false
    discovery rate over all channels of a network, the larger one. ``null_r``: r of all pairs of every shuffle;
    ``null_kept`` (S,): pairs of a shuffle that survive when the other shuffles are its chance.
    """

    first: np.ndarray
    second: np.ndarray
    r: np.ndarray
    r_shuffled: np.ndarray
    p: np.ndarray
    q: np.ndarray
    null_r: tuple[np.ndarray, ...]
    null_kept: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """(M,) whether a pair survives at `LEVEL`."""
        return self.q <= LEVEL

    @property
    def above(self) -> np.ndarray:
        """(M,) r minus ``r_shuffled``."""
        return self.r - self.r_shuffled


@dataclass(frozen=True)
class Rosetta:
    """``pairs``: names of two networks to their matches. ``common`` (M, C): channels of all C networks that are matched
    by each other, every pair surviving; from the highest mean of r minus ``r_shuffled``. ``null_common`` (S,): how many
    a shuffle gives."""

    pairs: dict[tuple[str, str], Matches]
    common: np.ndarray
    null_common: np.ndarray


def rosetta(maps: Mapping[str, np.ndarray], shuffles: int, rng: np.random.Generator) -> Rosetta:
    """Matches between all pairs of networks. ``maps``: network to `unit_maps` (n, N, P) of the same pictures.

    A shuffle gives the pictures of every network an order of its own, the first one's excepted.
    """
    names, count = list(maps), len(next(iter(maps.values())))
    orders = [[np.arange(count), *(rng.permutation(count) for _ in names[1:])] for _ in range(shuffles)]
    pairs, links = {}, {}
    for i, j in combinations(range(len(names)), 2):
        a, b = maps[names[i]], maps[names[j]]
        found = Best.of(correlations(a, b))
        null = [Best.of(correlations(a, b, (order[i], order[j]))) for order in orders]
        varied = (np.asarray(a.any(axis=(0, 1))), np.asarray(b.any(axis=(0, 1))))
        matches, kept = judged(found, null, varied)
        pairs[names[i], names[j]], links[i, j] = matches, kept
    real = common_to_all({pair: kept[0] for pair, kept in links.items()}, len(names))
    if len(real):
        above = np.mean([_above(pairs[names[i], names[j]], real[:, i]) for i, j in links], axis=0)
        real = real[np.argsort(-above, kind="stable")]
    by_shuffle = [{pair: kept[1 + s] for pair, kept in links.items()} for s in range(shuffles)]
    return Rosetta(pairs, real, np.array([len(common_to_all(one, len(names))) for one in by_shuffle], dtype=np.int64))


def judged(
    found: Best, null: Sequence[Best], varied: tuple[np.ndarray, np.ndarray]
) -> tuple[Matches, list[dict[int, int]]]:
    """The matches with their chance, and the surviving ones as channel to channel: of the pictures as they stand, then
    of every shuffle. ``varied``: which channels (P,), (Q,) vary at all; the others are no candidates."""
    sides = [np.array([getattr(one, name) for one in (found, *null)]) for name in ("forward_r", "backward_r")]
    kept, p, q = [], np.zeros(0), np.zeros(0)
    for place, one in enumerate((found, *null)):
        first = one.mutual()
        second = one.forward[first]
        # a shuffle is judged by the other shuffles; the pictures as they stand never judge
        tables = [_chance(side, place, ok) for side, ok in zip(sides, varied, strict=True)]
        of_pair = [np.maximum(tables[0][k][first], tables[1][k][second]) for k in (0, 1)]
        if place == 0:
            p, q = of_pair
        keep = of_pair[1] <= LEVEL
        kept.append(dict(zip(first[keep].tolist(), second[keep].tolist(), strict=True)))
    first = found.mutual()
    order = np.argsort(-found.forward_r[first], kind="stable")
    first = first[order]
    null_kept = np.array([len(one) for one in kept[1:]], dtype=np.int64)
    null_r = tuple(one.forward_r[one.mutual()] for one in null)
    second = found.forward[first]
    by_chance = np.maximum(*(side[1:].mean(axis=0)[k] for side, k in zip(sides, (first, second), strict=True)))
    r = found.forward_r[first]
    return Matches(first, second, r, by_chance, p[order], q[order], null_r, null_kept), kept


def _chance(best: np.ndarray, place: int, varied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p and q (P,) of the best r (1 + S, P) in row ``place`` against the shuffles (rows from 1 on) but itself."""
    null = np.delete(best, [0, place], axis=0)
    p = (1 + (null >= best[place] - _SAME).sum(axis=0)) / (1 + len(null))
    p = np.where(varied, p, 1.0)
    q = np.ones(len(p))
    q[varied] = q_values(p[varied])
    return p, q


def common_to_all(links: Mapping[tuple[int, int], Mapping[int, int]], count: int) -> np.ndarray:
    """(M, C) channels of which every pair is linked. ``links``: pairs (i, j), i < j, of C networks to channel pairs."""
    found = []
    for channel in links[0, 1]:
        row = [channel, *(links[0, j].get(channel, -1) for j in range(1, count))]
        if all(links[i, j].get(row[i], -2) == row[j] for i, j in links):
            found.append(row)
    return np.array(found, dtype=np.int64).reshape(-1, count)


def _above(matches: Matches, first: np.ndarray) -> np.ndarray:
    """(M,) r above chance of the matches that start at these channels."""
    place = {int(channel): k for k, channel in enumerate(matches.first)}
    return matches.above[[place[int(channel)] for channel in first]]


def pair_correlations(a: np.ndarray, b: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(M,) Pearson r of chosen channels of two `unit_maps` (n, N, P), (n, N, Q)."""
    found = np.zeros(len(first))
    for start in range(0, len(a), _BLOCK):
        rows = slice(start, start + _BLOCK)
        found += np.einsum("npm,npm->m", a[rows][:, :, first], b[rows][:, :, second], dtype=np.float64)
    return found

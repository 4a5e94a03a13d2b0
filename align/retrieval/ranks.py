"""Ranks straight from embeddings, block by block: a million candidates never become a matrix.

Blocks of cosines are made in float32, which is fast; every candidate whose float32 score lies too near the right
one's to be told apart is scored again in float64, pair by pair and always in the same order of additions. The counts
are therefore those of a float64 brute force, and copies of a picture tie exactly wherever they stand in the file.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from align.errors import UserError

BLOCK_BYTES = 2**27  # of each of the few arrays held at once
_MAX_ROWS = 1024


def standing(
    queries: np.ndarray,
    candidates: np.ndarray,
    target_index: np.ndarray,
    *,
    columns: np.ndarray | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> tuple[np.ndarray, np.ndarray]:
    """How the right candidate of each query stands by cosine: (n,) strictly better ones, (n,) others tied with it.

    ``queries`` (n, E), ``candidates`` (K, E), ``target_index`` (n,) row of the right candidate. ``columns`` (M,)
    restricts the contest to those candidates (the right ones must be among them). A query of zeros, which says
    nothing, ties with everything. Extra memory is a few times ``block_bytes``, whatever n and K are.

    Raises
    ------
    UserError
        Shapes that do not fit, target outside the candidates, NaN or infinity.
    """
    target_index = np.asarray(target_index)
    _check(queries, candidates, target_index)
    columns = np.arange(len(candidates)) if columns is None else np.asarray(columns)
    better, equal = np.zeros(len(queries), dtype=np.int64), np.zeros(len(queries), dtype=np.int64)
    for rows in _blocks(len(queries), min(_MAX_ROWS, _fitting(queries, block_bytes))):
        own = target_index[rows]
        unit = unit_rows(queries[rows], "queries", rows.start)
        goal = _dot(unit, unit_rows(candidates[own], "candidates"))
        step = min(_fitting(candidates, block_bytes), max(1, block_bytes // (4 * len(unit))))
        for part in _blocks(len(columns), step):
            block = unit_rows(candidates[columns[part]], "candidates", part.start)
            found = _contest(unit, goal, block, columns[part][None] == own[:, None], block_bytes)
            better[rows] += found[0]
            equal[rows] += found[1]
        silent = ~unit.any(axis=1)
        better[rows][silent], equal[rows][silent] = 0, len(columns) - 1
    return better, equal


def similarity_rows(
    queries: np.ndarray, candidates: np.ndarray, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[slice, np.ndarray]]:
    """Cosines float64 of a few queries at a time with all candidates: which queries, and (rows, K) values.

    For statistics that need whole rows; K float64 values per query are held. Raises `UserError` on NaN or infinity.
    """
    height = max(1, min(_MAX_ROWS, _fitting(queries, block_bytes), block_bytes // (8 * max(len(candidates), 1))))
    for rows in _blocks(len(queries), height):
        unit = unit_rows(queries[rows], "queries", rows.start)
        values = np.empty((len(unit), len(candidates)))
        for part in _blocks(len(candidates), _fitting(candidates, block_bytes)):
            values[:, part] = unit @ unit_rows(candidates[part], "candidates", part.start).T
        yield rows, values


def unit_rows(x: np.ndarray, what: str, first: int = 0) -> np.ndarray:
    """Rows (n, E) at length 1 in float64, zeros stay zeros; equal rows give equal results wherever they stand.

    Raises `UserError` naming the row (counted from ``first``) that holds NaN or infinity.
    """
    x = np.ascontiguousarray(x, dtype=np.float64)  # the order of additions follows the layout
    norm = np.sqrt((x * x).sum(axis=1, keepdims=True))
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise UserError(f"{what} hold NaN or infinite values, first in row {first + int(bad.argmax())}; mend them")
    unit: np.ndarray = x / np.where(norm > 0, norm, 1.0)
    return unit


def _contest(
    unit: np.ndarray, goal: np.ndarray, block: np.ndarray, own: np.ndarray, block_bytes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Better and equal counts (b,) of a block of candidates (c, E) for queries (b, E) whose right one scores ``goal``.

    ``own`` (b, c) marks the right candidate, which takes no part.
    """
    margin = _float32_error(unit.shape[1])
    score = unit.astype(np.float32) @ block.astype(np.float32).T
    score[own] = -np.inf
    above = score > (goal + margin).astype(np.float32)[:, None]
    better = np.count_nonzero(above, axis=1)
    near = (score >= (goal - margin).astype(np.float32)[:, None]) ^ above
    near[~unit.any(axis=1)] = False  # a query of zeros ties with everything; no need to look
    equal = np.zeros_like(better)
    row, column = np.nonzero(near)
    for pairs in _blocks(len(row), max(1, block_bytes // (16 * unit.shape[1]))):
        i = row[pairs]
        exact = _dot(unit[i], block[column[pairs]])
        better += np.bincount(i[exact > goal[i]], minlength=len(unit))
        equal += np.bincount(i[exact == goal[i]], minlength=len(unit))
    return better, equal


def _float32_error(width: int) -> float:
    """What float32 may be off by in a cosine of ``width`` terms; in trials with normal, positive and nearly equal
    entries, width 8 to 65,536, errors were at most a tenth of it.

    Rounding errors of a sum grow like sqrt(width) with high probability (Higham & Mary 2019).
    """
    return float((8 * np.sqrt(width) + 8) * 2.0**-24)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) products of matched rows; the order of additions depends on the width alone."""
    products: np.ndarray = (a * b).sum(axis=1)
    return products


def _fitting(x: np.ndarray, block_bytes: int) -> int:
    """How many rows of ``x`` fit into ``block_bytes`` as float64."""
    return max(1, block_bytes // (8 * max(x.shape[1], 1)))


def _blocks(total: int, step: int) -> Iterator[slice]:
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))


def _check(queries: np.ndarray, candidates: np.ndarray, target_index: np.ndarray) -> None:
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise UserError(f"queries {queries.shape} and candidates {candidates.shape} must be (n, E) and (K, E)")
    if len(queries) == 0 or target_index.shape != (len(queries),):
        raise UserError(f"{len(queries)} queries need one target each, got {target_index.shape}")
    if target_index.min() < 0 or target_index.max() >= len(candidates):
        raise UserError(f"target index {int(target_index.max())} is outside the {len(candidates)} candidates")

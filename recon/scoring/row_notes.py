"""What a reader of a score should know about the rows behind it: constant, silent or identical ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK_BYTES = 2**27


def embedding_notes(brain: np.ndarray, images: np.ndarray) -> list[str]:
    """Sentences about brain embeddings (n, E) and picture embeddings (K, E); nothing is changed or left out."""
    notes = []
    for what, x in (("brain rows", brain), ("candidate pictures", images)):
        flat = constant_rows(x)
        if len(flat):
            notes.append(
                f"{len(flat)} {what} are constant (first: row {flat[0]}); rows of zeros tie with everything, others "
                "are scored as they stand"
            )
    return notes + _copies(images, "candidate pictures are") + _copies(brain, "brain rows are")


def matrix_notes(scores: np.ndarray) -> list[str]:
    """Sentences about a score matrix (n, K)."""
    notes = []
    flat = constant_rows(scores)
    if len(flat):
        notes.append(f"{len(flat)} rows of scores are constant (first: row {flat[0]}); all candidates tie, chance")
    return notes + _copies(scores.T, "candidate pictures have scores") + _copies(scores, "brain rows have scores")


def constant_rows(x: np.ndarray) -> np.ndarray:
    """Rows of ``x`` (n, width) that hold one value only; none where rows are a single value wide."""
    if x.shape[1] == 1:
        return np.zeros(0, dtype=np.int64)
    found = [start + np.flatnonzero(block.max(axis=1) == block.min(axis=1)) for start, block in _blocks(x)]
    return np.concatenate(found)


def copies(x: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (row, earlier equal row) of ``x`` (n, width), each later copy once, in order."""
    key = np.concatenate([_fingerprint(block) for _, block in _blocks(x)])
    order = np.argsort(key, kind="stable")
    pairs = []
    firsts: list[int] = []  # different rows of one fingerprint
    for here, before in zip(order, [-1, *order[:-1]], strict=True):
        firsts = firsts if before >= 0 and key[here] == key[before] else []
        same = next((first for first in firsts if np.array_equal(x[here], x[first])), None)
        if same is None:
            firsts.append(int(here))
        else:
            pairs.append((int(here), same))
    return sorted(pairs)


def _copies(x: np.ndarray, what: str) -> list[str]:
    found = copies(x)
    if not found:
        return []
    later, earlier = found[0]
    return [f"{len(found)} {what} identical to another's (first: {earlier} = {later}); they tie, a hit counts in part"]


def _fingerprint(block: np.ndarray) -> np.ndarray:
    """(b,) one number per row, the same for equal rows wherever they stand."""
    weight = np.random.default_rng(0).normal(size=block.shape[1])
    with np.errstate(invalid="ignore"):  # infinity is refused where the scores are made
        number: np.ndarray = (np.ascontiguousarray(block, dtype=np.float64) * weight).sum(axis=1)
    return number


def _blocks(x: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    step = max(1, _BLOCK_BYTES // (8 * x.shape[1]))
    for start in range(0, len(x), step):
        yield start, x[start : start + step]

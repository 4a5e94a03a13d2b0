"""Recordings and predictions: rows on both sides, statistics fitted on test rows, labels confounded with time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from align.data.windows import tells
from recon.audit.verdict import BY_P, Finding, graded, not_checked

_TOLERANCE = 1e-3  # of a standard deviation: rounding of float16 stays below, sampling of 1/sqrt(n) far above
_NEARER = 0.1  # mean of both sides together as a part of that of one side: pooled rows are at rounding, 1e-4 of it
_DIMS, _ROWS, _ENTRIES = 8, 10, 512  # least dimensions and rows; entries of a row that are looked at
_DIRECTIONS = 1.5  # least participation ratio: along one direction a mean of 0 is an accident in 1 of 100 draws
_NEARLY_ALL = 0.99  # of the dimensions: one dead channel may differ
_TIME_GAIN = 0.25  # of the way from chance to certainty; drifts of an honest random order reach a few hundredths
_PERMUTATIONS = 1999  # smallest p is .0005


def shared_recordings(train: np.ndarray, test: np.ndarray) -> Finding:
    """Test recordings (n, ...) whose values are exactly those of a training recording (N, ...), and recordings that
    stand twice on one side: one counted as several repetitions."""
    sides = {name: _digests(x) for name, x in (("training", train), ("test", test))}
    known = {digest for digest, _ in sides["training"]}
    shared = [i for i, (digest, _) in enumerate(sides["test"]) if digest in known and digest]
    twice = {}
    for name, rows in sides.items():
        told = [digest for digest, telling in rows if telling]
        twice[name] = len(told) - len(set(told))
    within = " and ".join(f"{count} {name} recordings" for name, count in twice.items() if count)
    copied = f"; {within} repeat another of their side: one recording counted as several" if within else ""
    return Finding(
        "shared_recordings",
        "leak" if shared else "suspect" if within else "clear",
        f"{len(shared)} of {len(test)} test recordings are number for number a training recording{copied}",
        f"one is enough; up to {_ENTRIES} evenly spaced values of a row are compared, rows of one value left out; "
        "suspect: a copy within one side",
        {"shared": len(shared), "rows": shared[:20], "twice": twice},
    )


def test_standardised(
    test: np.ndarray, train: np.ndarray | None = None, what: str = "signals", reference: np.ndarray | None = None
) -> Finding:
    """Were the test rows (n, ...) centred or standardised with their own statistics?

    Statistics from training rows leave a mean of about 1/sqrt(n) standard deviations in every dimension. ``train``:
    the training rows of the same kind, for the evidence. ``reference`` (N, ...): rows whose mean and deviation the
    test rows may have been given after standardising them (Brain-Diffuser gives predictions those of the training
    targets).
    """
    check = f"test_standardised_{what}"
    x = flattened(test)
    if len(x) < _ROWS or x.shape[1] < _DIMS:
        return not_checked(check, f"{what} of {_ROWS} or more test rows and {_DIMS} or more dimensions")
    if participation_ratio(x) < _DIRECTIONS:
        return not_checked(check, f"{what} that vary along more than one direction")
    centred, unit = fitted_on(x)
    how = "mean 0 and deviation 1" if unit else "mean 0"
    if not centred and reference is not None and np.shape(reference)[1:] == np.shape(test)[1:]:
        moments = flattened(reference)
        centred = fitted_on((x - moments.mean(axis=0)) / np.maximum(moments.std(axis=0), 1e-12))[1]
        how = "the mean and deviation of the training targets"
    mean, spread = np.abs(x.mean(axis=0)).mean(), x.std(axis=0).mean()
    beside = ""
    if train is not None and len(train):
        other = flattened(train)
        beside = f"; over training rows {np.abs(other.mean(axis=0)).mean():.3g} and {other.std(axis=0).mean():.3g}"
    evidence = (
        f"the mean of each dimension over the test rows is about {mean:.3g}, its deviation {spread:.3g}{beside}: not "
        "exactly 0, as statistics of training rows leave it"
    )
    if centred:
        evidence = f"every dimension has {how} over the {len(x)} test rows themselves (mean about {mean:.2g}{beside})"
    return Finding(
        check,
        "leak" if centred else "clear",
        evidence,
        f"mean within {_TOLERANCE} deviations in {_NEARLY_ALL:.0%} of the dimensions, which statistics of other rows "
        "never leave; fair only when the score is named transductive",
        {"mean": float(mean), "deviation": float(spread)},
    )


def pooled_normalisation(
    train: np.ndarray, test: np.ndarray, sessions: tuple[np.ndarray, np.ndarray] | None = None
) -> Finding:
    """Was normalisation fitted on training and test rows together (for each session where ``sessions`` are given)?

    ``sessions``: labels (N,) and (n,). Seen when the rows together have mean 0 in every dimension, far nearer than
    either side alone: with many training and few test rows even the training mean lies close to 0.
    """
    a, b = flattened(train), flattened(test)
    labels = sessions or (np.zeros(len(a), int), np.zeros(len(b), int))
    tried, fitted = 0, 0
    for name in np.unique(labels[1]):
        left, right = a[labels[0] == name], b[labels[1] == name]
        if min(len(left), len(right)) < _ROWS or a.shape[1] < _DIMS:
            continue
        tried += 1
        both = np.concatenate([left, right])
        fitted += fitted_on(both)[0] and _offset(both) < _NEARER * min(_offset(left), _offset(right))
    if not tried:
        return not_checked("pooled_normalisation", f"{_ROWS} training and test rows of one session (--train-signals)")
    where = f" in {fitted} of {tried} sessions" if sessions else ""
    return Finding(
        "pooled_normalisation",
        "leak" if fitted else "clear",
        f"training and test rows together {'have' if fitted else 'do not have'} mean 0 in every dimension"
        f"{where}{' while neither side alone has' if fitted else ''}",
        f"together within {_TOLERANCE} deviations in {_NEARLY_ALL:.0%} of the dimensions and {1 / _NEARER:.0f} times "
        "nearer to 0 than either side, which statistics of training rows never leave",
        {"fitted": fitted, "tried": tried},
    )


def block_design(labels: Sequence[str], time: np.ndarray, is_test: np.ndarray | None = None, seed: int = 0) -> Finding:
    """Can the label of a trial be told from the time of recording alone?

    Every trial (with ``is_test`` (n,): every test trial) is given the label of the (training) trial nearest in
    ``time`` (n,). p by permuting the labels over all trials.
    """
    order = np.argsort(time, kind="stable")
    _, code = np.unique(np.asarray(labels)[order], return_inverse=True)
    when = np.asarray(time, dtype=np.float64)[order]
    test = np.ones(len(code), bool) if is_test is None else np.asarray(is_test, bool)[order]
    one_sided = is_test is not None and (test.all() or not test.any())
    if one_sided or len(np.unique(code)) < 2 or np.bincount(code).max() < 2:
        return not_checked("block_design", "two labels, one of them with several trials, in order of time (--order)")
    neighbour = _nearest_in_time(when, test, everyone=is_test is None)
    rng = np.random.default_rng(seed)
    queries = np.flatnonzero(test)

    def accuracy(code: np.ndarray) -> float:
        return float((code[neighbour] == code[queries]).mean())

    observed = accuracy(code)
    null = np.array([accuracy(rng.permutation(code)) for _ in range(_PERMUTATIONS)])
    p = float((1 + np.sum(null >= observed - 1e-12)) / (1 + _PERMUTATIONS))
    chance = float(null.mean())
    together = float((code[1:] == code[:-1]).mean())
    strong = observed >= chance + _TIME_GAIN * (1 - chance)
    return Finding(
        "block_design",
        graded(p, strong),
        f"the time of recording alone names the label of {observed:.1%} of {len(queries)} trials, by the label of the "
        f"trial nearest in time (labels in random order: {chance:.1%}, p {p:.2g}); {together:.1%} of neighbouring "
        "trials share their label",
        f"{BY_P}; leak also needs {_TIME_GAIN:.0%} of the way from chance to certainty",
        {"accuracy": observed, "chance": chance, "adjacent": together, "p": p},
    )


def fitted_on(x: np.ndarray) -> tuple[bool, bool]:
    """Whether the rows (n, F) have mean 0, and also deviation 1, in nearly every dimension that varies."""
    spread = x.std(axis=0)
    varies = spread > 1e-12
    if varies.sum() < _DIMS:
        return False, False
    mean, spread = x.mean(axis=0)[varies], spread[varies]
    centred = bool((np.abs(mean) < _TOLERANCE * spread).mean() >= _NEARLY_ALL)
    unbiased = spread * np.sqrt(len(x) / (len(x) - 1))
    off = min(np.quantile(np.abs(value - 1), _NEARLY_ALL) for value in (spread, unbiased))
    return centred, centred and bool(off < _TOLERANCE)


def participation_ratio(x: np.ndarray) -> float:
    """(sum of variances)^2 / (sum of their squares) along the principal axes of x (n, E): 1 to min(n - 1, E); 0 if
    all rows are alike."""
    x = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    x = x - x.mean(axis=0)
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
    return float(np.trace(gram) ** 2 / (gram**2).sum()) if np.trace(gram) > 1e-20 else 0.0


def _offset(x: np.ndarray) -> float:
    """Size of the mean over rows (n, F) in standard deviations, median over the dimensions that vary."""
    spread = x.std(axis=0)
    return float(np.median(np.abs(x.mean(axis=0))[spread > 1e-12] / spread[spread > 1e-12]))


def flattened(x: np.ndarray) -> np.ndarray:
    """Rows (n, ...) as float64 (n, F), at most 512 evenly spaced entries of each."""
    x = np.asarray(x)
    width = int(np.prod(x.shape[1:]))
    entries = np.unique(np.linspace(0, width - 1, min(width, _ENTRIES)).astype(int))
    return x.reshape(len(x), width)[:, entries].astype(np.float64)


def _nearest_in_time(when: np.ndarray, test: np.ndarray, everyone: bool) -> np.ndarray:
    """Index, for each query in order, of the nearest other trial (``everyone``) or nearest training trial."""
    if everyone:
        gap = np.diff(when)
        before, after = np.concatenate([[np.inf], gap]), np.concatenate([gap, [np.inf]])
        return np.arange(len(when)) + np.where(before <= after, -1, 1)
    sources, queries = np.flatnonzero(~test), np.flatnonzero(test)
    right = np.clip(np.searchsorted(when[sources], when[queries]), 1, len(sources) - 1) if len(sources) > 1 else None
    if right is None:
        return np.full(len(queries), sources[0])
    left = right - 1
    nearer = np.abs(when[sources[left]] - when[queries]) <= np.abs(when[sources[right]] - when[queries])
    found: np.ndarray = sources[np.where(nearer, left, right)]
    return found


def _digests(x: np.ndarray) -> list[tuple[bytes, bool]]:
    """Of each row (n, ...): its digest, b"" for one value throughout; whether a copy of it is no accident."""
    return [(_digest(row) if np.ptp(row) > 0 else b"", tells(row)) for row in flattened(x)]


def _digest(row: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest()

"""The same or nearly the same picture on both sides of a split, and reconstructions that are training pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from align import retrieval
from align.data.splits import THUMBNAIL, TWIN_R
from recon.audit.verdict import Finding, graded, some
from recon.evaluation.stats import sign_flip_p

EMBED_COPY_R = 0.999  # cosine of centred embeds: two different pictures do not reach it, a stored one does
_SHARE = 0.01  # of the test pictures
_COPIES = 0.05
_STANDS_OUT, _NOTABLE = 0.75, 0.6
_BLOCK = 2048


def exact_duplicates(train_hashes: Sequence[str], test_hashes: Sequence[str], test_ids: Sequence[str]) -> Finding:
    """Test pictures whose decoded pixels (SHA-256) are also a training picture."""
    known = set(train_hashes)
    shared = [name for name, digest in zip(test_ids, test_hashes, strict=True) if digest in known]
    share = len(shared) / max(len(test_hashes), 1)
    found = f" ({some(shared)})" if shared else ""
    return Finding(
        "exact_duplicates",
        "leak" if shared else "clear",
        f"{len(shared)} of {len(test_hashes)} test pictures are pixel for pixel a training picture{found}",
        "any; SHA-256 of pixels, no false alarms",
        {"shared": len(shared), "share": share, "ids": shared},
    )


def near_duplicates(
    train_thumbs: np.ndarray,
    test_thumbs: np.ndarray,
    test_ids: Sequence[str],
    exact: np.ndarray | None = None,
    r: float = TWIN_R,
) -> Finding:
    """Test pictures that are nearly a training picture: blurred, re-encoded, partly covered or mirrored.

    Parameters
    ----------
    train_thumbs, test_thumbs
        (N, 768) and (n, 768) of `align.data.splits.thumbnails`.
    exact
        Bool (n,): test pictures already known to be exact duplicates, not counted again.
    """
    best = np.maximum(nearest(test_thumbs, train_thumbs), nearest(test_thumbs, _mirrored(train_thumbs)))
    near = best > r
    if exact is not None:
        near &= ~exact
    names = [name for name, found in zip(test_ids, near, strict=True) if found]
    share = float(near.mean())
    verdict = "leak" if names and share >= _SHARE else "suspect" if names else "clear"
    found = f" ({some(names)})" if names else ""
    return Finding(
        "near_duplicates",
        verdict,
        f"{len(names)} of {len(near)} test pictures have a training picture with thumbnail r > {r}{found}; "
        f"the nearest pair has r {best.max():.3f}, the median test picture {np.median(best):.3f}",
        f"r > {r} of 16 x 16 thumbnails, the project's own rule for one scene; leak from {_SHARE:.0%} of the test set",
        {"near": len(names), "share": share, "largest_r": float(best.max()), "ids": names},
    )


def memorisation(
    estimate: np.ndarray, targets: np.ndarray, train: np.ndarray, copy_r: float = TWIN_R, what: str = "reconstructions"
) -> Finding:
    """Do reconstructions show training pictures instead of the picture that was seen?

    A weak honest decoder is nearer to *some* of many training pictures than to its target, so that rate alone proves
    nothing; it is reported beside the rate with shuffled targets. What decides: copies (r above ``copy_r`` with a
    training picture, and nearer to it than to the target), and whether the nearest training picture stands out from
    the second nearest by more than the nearest *unseen* picture (a target of another stimulus) does from its second.
    Gaps shrink with the number of pictures, so with more training than test pictures the latter is conservative.

    Parameters
    ----------
    estimate, targets, train
        Rows (n, F), (n, F), (N, F): mean-removed thumbnails, or embeds.
    """
    n = len(estimate)
    to_target = retrieval.scores(estimate, targets)
    own = np.diag(to_target).copy()
    best, second, place = _two_nearest(estimate, train)
    unseen = to_target.copy()
    np.fill_diagonal(unseen, -np.inf)
    top = np.sort(unseen, axis=1)[:, -2:]
    closer = best > own
    copies = closer & (best > copy_r)
    stands_out = closer & (best - second > top[:, 1] - top[:, 0])
    # reconstructions that share their nearest training picture are one observation: a collapsed decoder has few
    means = np.array([stands_out[place == k].mean() for k in np.unique(place)])
    p = sign_flip_p(means - 0.5)
    shuffled = float((best[:, None] > to_target)[~np.eye(n, dtype=bool)].mean())
    copied, share = float(copies.mean()), float(means.mean())
    verdict = graded(p, share >= _STANDS_OUT, share >= _NOTABLE)
    if copies.any():
        verdict = "leak" if copied >= _COPIES else max(verdict, "suspect", key=("clear", "suspect", "leak").index)
    return Finding(
        "memorisation",
        verdict,
        f"{closer.mean():.0%} of {n} {what} are nearer to a training picture than to their target ({shuffled:.0%} with "
        f"shuffled targets); {copied:.0%} copy one (r > {copy_r}); the nearest training picture stands out more than "
        f"the nearest unseen one in {share:.0%} (at most 50% without memory, p {p:.2g}, {len(means)} distinct)",
        f"leak: copies in {_COPIES:.0%}, or standing out in {_STANDS_OUT:.0%} with sign-flip p < .001; suspect: one "
        f"copy, or {_NOTABLE:.0%} with p < .01; false alarms at most that p",
        {"closer": float(closer.mean()), "closer_shuffled": shuffled, "copies": copied, "stands_out": share, "p": p},
    )


def nearest(queries: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Cosine (n,) of every row with its nearest row of ``pool``, in blocks."""
    return np.concatenate(
        [retrieval.scores(queries[i : i + _BLOCK], pool).max(axis=1) for i in range(0, len(queries), _BLOCK)]
    )


def _mirrored(thumbs: np.ndarray) -> np.ndarray:
    return thumbs.reshape(-1, THUMBNAIL, THUMBNAIL, 3)[:, :, ::-1].reshape(len(thumbs), -1)


def _two_nearest(queries: np.ndarray, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Largest and second largest cosine (n,) with rows of ``pool``, and the place of the largest."""
    best, second, place = [], [], []
    for start in range(0, len(queries), _BLOCK):
        r = retrieval.scores(queries[start : start + _BLOCK], pool)
        top = np.sort(np.partition(r, -2, axis=1)[:, -2:], axis=1)
        best.append(top[:, 1])
        second.append(top[:, 0])
        place.append(r.argmax(axis=1))
    return np.concatenate(best), np.concatenate(second), np.concatenate(place)

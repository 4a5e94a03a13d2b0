"""Does a reconstruction show the seen picture itself: its pixels, or the picture shrunk, stored anew, lit otherwise?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recon.audit.verdict import Finding, some

SIDE = 32  # px: the same picture shrunk by another filter is still the same at this size
# r over the RGB values at that size. 60 photographs of 128 px: shrunk to half r > .995, as JPEG of quality 30 r > .997,
# half the contrast r > .999. The embedded generator reaches .93 with the true tokens, less with those of a brain.
NEAR_R = 0.98
_FLAT = 2.0  # of 255: with less contrast every guess is right
_SHARE = 0.05


@dataclass(frozen=True)
class Likeness:
    """Reconstructions beside the seen pictures, k samples of n stimuli: same pixels (n, k), r (n, k), NaN where flat.

    ``oracle`` (n,): r of the pictures drawn from the true tokens, where the run holds them.
    """

    ids: tuple[str, ...]
    equal: np.ndarray
    r: np.ndarray
    oracle: np.ndarray | None = None


def likeness(shown: np.ndarray, seen: np.ndarray) -> tuple[bool, float]:
    """Whether two pictures, uint8 (H, W, 3) of any size, have the same pixels, and their r at `SIDE` px."""
    a, b = _small(shown), _small(seen)
    if min(a.std(), b.std()) < _FLAT:
        return False, float("nan")
    return shown.shape == seen.shape and bool((shown == seen).all()), float(np.corrcoef(a, b)[0, 1])


def seen_pictures(found: Likeness) -> Finding:
    """Same pixels in one reconstruction are a leak, for no decoder draws them.

    Near ones are where they are many and the oracle, which knows the answer, has fewer; else they are suspect. The
    oracle itself may be as near as it likes.
    """
    equal = np.any(found.equal, axis=1)
    near: np.ndarray = np.any(found.r > NEAR_R, axis=1) | equal
    share, oracle = float(near.mean()), None
    if found.oracle is not None:
        oracle = float((found.oracle > NEAR_R).mean())
    verdict = "suspect" if near.any() else "clear"
    if equal.any() or (share > _SHARE and (oracle is None or share > oracle)):
        verdict = "leak"
    highest = float(np.nanmax(found.r, initial=-1.0))
    named = f": {some([name for name, hit in zip(found.ids, near, strict=True) if hit])}" if near.any() else ""
    ceiling = "" if oracle is None else f"; of the oracle, which may, {oracle:.0%}"
    return Finding(
        "seen_pictures",
        verdict,
        f"of {len(near)} stimuli {int(equal.sum())} are shown with the pixels of the seen picture, {int(near.sum())} "
        f"with almost those (r > {NEAR_R} at {SIDE} px){ceiling}; highest r {highest:.3f}{named}",
        f"leak: same pixels in one picture, or almost the same in more than {_SHARE:.0%} and in more than the oracle; "
        "suspect: almost the same in one; flat pictures are left out",
        {"equal": int(equal.sum()), "near": int(near.sum()), "highest": highest, "oracle": oracle},
    )


def compared(ids: Sequence[str], pairs: Sequence[Sequence[tuple[bool, float]]]) -> Likeness:
    """What `likeness` said of k samples for each of ``ids``."""
    table = np.array(pairs, dtype=np.float64)
    return Likeness(tuple(ids), table[..., 0] > 0, table[..., 1])


def _small(pixels: np.ndarray) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float64).ravel()

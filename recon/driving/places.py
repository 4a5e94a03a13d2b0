"""Where in a picture the drive of a unit comes from: the parts of its predicted response, place by place.

After Luo et al. 2025 (arXiv 2410.05266, "BrainSAIL"): the readout of the whole picture is taken apart over its dense
features; nothing is trained for it. Here the readout is ridge on the tokens of a grid, so that the parts of all places
add up to the prediction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from align.response_models.contract import Spaces


def side_of(tokens: Mapping[str, np.ndarray]) -> int | None:
    """Cells along a side of the grid (2 or more) that all spaces (n, N, D) share; None where there is no such grid."""
    counts = {part.shape[1] for part in tokens.values()}
    side = math.isqrt(max(counts))
    return side if len(counts) == 1 and side > 1 and side * side in counts else None


def drive_by_place(spaces: Spaces, slopes: np.ndarray) -> np.ndarray:
    """(n, K, N) parts of K predictions, of standardised tokens (n, N, D) of every space.

    ``slopes`` (P, K): of ridge on the `joined` spaces. The sum over places is the prediction without its level.
    """
    found: np.ndarray | None = None
    start, root = 0, np.sqrt(len(spaces))
    for part in spaces.values():
        places, width = part.shape[1:]
        weight = slopes[start : start + places * width].reshape(places, width, -1)
        start += places * width
        drive = np.einsum("npd,pdk->nkp", part, weight, optimize=True) / root
        found = drive if found is None else found + drive
    if found is None:
        raise ValueError("no space of features")
    return found

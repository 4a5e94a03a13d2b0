"""Bands of a trial for `align.encoders.banded_ridge`: sizes, channels, or regions of the study by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from align.config import EncoderConfig
from align.errors import UserError
from align.known_names import CHANNEL, REST


def lay_out(
    config: EncoderConfig, in_shape: tuple[int, ...], regions: Mapping[str, Sequence[int]]
) -> tuple[list[int], np.ndarray | None]:
    """Sizes of the bands, and the columns of the flattened trial in their order; None = as they stand.

    ``[]`` = one band, ``[channel]`` = one per channel, names = ``regions`` as indices of channels or voxels, else whole
    numbers that add up to the size of a trial (or to its channels, where it has some). Raises `UserError` for numbers
    that do not, for regions that are not there or overlap, and where something is in no band.
    """
    bands = config.bands
    total, per_channel = math.prod(in_shape), math.prod(in_shape[1:])
    if not bands:
        return [total], None
    if bands == [CHANNEL]:
        return [per_channel] * in_shape[0], None
    if not bands[0].strip().isdigit():
        return _of_regions(bands, in_shape[0], per_channel, regions)
    sizes = [int(band) for band in bands]
    if sum(sizes) == in_shape[0]:
        return [size * per_channel for size in sizes], None
    if sum(sizes) != total:
        raise UserError(f"encoder.bands add up to {sum(sizes)}, a trial has {total} values in {in_shape[0]} channels")
    return sizes, None


def _of_regions(
    bands: Sequence[str], count: int, per_channel: int, regions: Mapping[str, Sequence[int]]
) -> tuple[list[int], np.ndarray]:
    owner: dict[int, str] = {}
    for name in (band for band in bands if band != REST):
        if name not in regions:
            raise UserError(f"encoder.bands: the trials come without regions, {name!r} cannot be found; give sizes")
        for index in regions[name]:
            other = owner.setdefault(index, name)
            if other != name:
                shared = len(set(regions[name]) & set(regions[other]))
                raise UserError(
                    f"encoder.bands: regions {other!r} and {name!r} share {shared} channels or voxels, and each has "
                    "one band; leave one of the two out"
                )
    left = [index for index in range(count) if index not in owner]
    if left and REST not in bands:
        raise UserError(
            f"encoder.bands: {len(left)} of {count} channels or voxels are in none of {', '.join(bands)}; add a band "
            f"of their own, encoder.bands=[{','.join(bands)},{REST}], or leave them out, study.roi=[{','.join(bands)}]"
        )
    if REST in bands and not left:
        raise UserError(f"encoder.bands: nothing is left for {REST!r}; leave it out")
    parts = [np.array(left if band == REST else regions[band], dtype=np.int64) for band in bands]
    channels = np.concatenate(parts)
    columns = (channels[:, None] * per_channel + np.arange(per_channel)).ravel()
    return [len(part) * per_channel for part in parts], columns

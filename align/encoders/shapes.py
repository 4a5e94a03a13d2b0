"""What trials an encoder can read, said in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from align.errors import UserError

if TYPE_CHECKING:
    from align.data.signals import Recording


@dataclass(frozen=True)
class SignalFacts:
    """What a trial's shape does not say: ``sfreq`` in Hz and the names of its C channels, in their order.

    ``regions``: those that ``encoder.bands`` names, as indices of channels or voxels.
    """

    sfreq: float | None = None
    channels: tuple[str, ...] = ()
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, recording: Recording) -> SignalFacts:
        """Those of a prepared recording."""
        return cls(recording.sfreq, recording.ch_names, recording.regions)


def channels_and_times(name: str, in_shape: tuple[int, ...], least: int = 1, way_out: str = "") -> tuple[int, int]:
    """(C, T) of one trial; raises `UserError` for trials without a time axis or with fewer than ``least`` samples."""
    if len(in_shape) != 2:
        raise UserError(f"encoder {name!r} needs trials of shape (C, T), got {in_shape}; take encoder.name=mlp")
    if in_shape[1] < least:
        way_out = way_out or "take longer windows or encoder.name=mlp"
        raise UserError(f"encoder {name!r} needs at least {least} samples, the trials have {in_shape[1]}; {way_out}")
    return in_shape[0], in_shape[1]

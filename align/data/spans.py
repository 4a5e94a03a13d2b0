"""Windows of time in words.

What a recording holds is named by its first and its last sample. The end of a window that is asked for
(``preprocess.tmax``, ``study.window``) is the first sample that is no longer kept: 0.1 to 0.3 s at 100 Hz are the 20
samples from 0.1 to 0.29 s.
"""

from __future__ import annotations

from collections.abc import Sequence


def ends(tmin: float, samples: int, rate: float) -> tuple[float, float]:
    """Times in s of the first and the last of ``samples`` at ``rate`` Hz, the first at ``tmin`` s."""
    return tmin, tmin + (samples - 1) / rate


def span(tmin: float, samples: int, rate: float) -> str:
    """`ends` in words."""
    first, last = ends(tmin, samples, rate)
    return f"{first:g} to {last:g} s (first and last sample)"


def asked(window: Sequence[float | None]) -> str:
    """A window [from, to] in s that a setting asks for, in words; None = as far as the recording goes."""
    low, high = window
    begin = "the first sample" if low is None else f"{low:g} s"
    return f"{begin} to the last" if high is None else f"{begin} up to, not including, {high:g} s"

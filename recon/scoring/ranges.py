"""Between which ends a score lies, by its name: intervals that are computed from a spread know no ends."""

from __future__ import annotations

from recon.metrics.metrics import METRICS, STAND_INS

Ends = tuple[float | None, float | None]
_OF_KIND: dict[str, Ends] = {"two_way": (0.0, 1.0), "distance": (0.0, 2.0), "lpips": (0.0, None), "pixels": (-1.0, 1.0)}
_OF_WORDS: dict[str, Ends] = {  # of what is no picture metric, and of those that judges make
    **dict.fromkeys(("top1", "top5", "two_way", "-way", "nearest_is_target", "attribute."), (0.0, 1.0)),
    "median_rank": (1.0, None),
}


def ends_of(name: str) -> Ends:
    """Lowest and highest value that the score (of a control, too) can have; None for no such end, or none known."""
    name = name if name in METRICS or name in STAND_INS else name.rpartition(" (")[0] or name
    metric = METRICS.get(name) or STAND_INS.get(name)
    if metric is not None:
        return _OF_KIND[metric.kind]
    return next((ends for word, ends in _OF_WORDS.items() if word in name), (None, None))


def inside(name: str, interval: list[float] | None) -> list[float] | None:
    """An interval cut at the ends of what the score can be."""
    if interval is None:
        return None
    low, high = ends_of(name)
    least = interval[0] if low is None else max(low, interval[0])
    return [least, interval[1] if high is None else min(high, interval[1])]

"""From how many people on an interval is over people, and which interval that is."""

from __future__ import annotations

import numpy as np

MIN_SUBJECTS = 3  # with fewer, an interval is over pictures and says nothing of other people


def t_interval(values: np.ndarray) -> list[float]:
    """95 % interval of the mean of independent ``values`` (n,), n >= 2: mean -+ t(n - 1) s / sqrt(n) (Student 1908).

    Exact for normal values at any n, which is why it is taken for the 3 to 10 subjects of a study; a bootstrap of so
    few values is too narrow, for it cannot leave their range. It is not cut at 0 or 1: an interval of a share that
    reaches beyond says that the subjects are too few.
    """
    from scipy.stats import t

    values = np.asarray(values, dtype=np.float64)
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return [float(values.mean() - half), float(values.mean() + half)]


def over_people(values: np.ndarray) -> list[float] | None:
    """`t_interval` of one value for each person (n,); None for fewer than `MIN_SUBJECTS`."""
    return t_interval(values) if len(values) >= MIN_SUBJECTS else None

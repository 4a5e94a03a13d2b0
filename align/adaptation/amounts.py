"""How many pictures so many minutes of recording are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from align.data.studies.base import Study
from align.errors import UserError

LEAST = 10  # pictures to adapt with


def pictures_in(minutes: float, study: Study, subjects: Sequence[str]) -> tuple[int, str]:
    """Training pictures, each averaged over its repetitions, that fit into ``minutes``; and the sum in words.

    A picture takes as many trials as it has repetitions on average over the training trials of ``subjects``. Raises
    `UserError` where the study does not say how long a trial takes, and for less than `LEAST` pictures.
    """
    seconds = study.info.trial_s
    if seconds is None:
        raise UserError(f"--minutes: nothing says how long a trial of {study.info.name} takes; give --trials instead")
    trials = pictures = 0
    for subject in subjects:
        shown = study.recording(subject).train.stimulus
        trials, pictures = trials + len(shown), pictures + len(np.unique(shown))
    affordable, repetitions = minutes * 60 / seconds, trials / pictures
    count = int(affordable / repetitions + 1e-9)
    if count < LEAST:
        raise UserError(f"--minutes {minutes:g} are {count} pictures; {LEAST} or more are needed")
    return count, (
        f"{minutes:g} minutes: {int(affordable + 1e-9)} trials of {seconds:g} s, "
        f"{count} pictures of {repetitions:.3g} repetitions"
    )

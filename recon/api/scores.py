"""Retrieval scores of a decoder: of its own test rows as the commands score them, or of another study's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from align.checkpoint import Run
    from align.data.preparing.raw import Preparation
    from align.data.signals import Recording, Stimuli
    from recon.api.study import Study

DIRECTIONS = ("brain_to_image", "image_to_brain")
COLUMNS = ("top1", "top5", "median_rank", "n", "candidates", "chance_top1", "ci95_low", "ci95_high", "p_permutation")


def as_frame(retrieval: dict[str, Any]) -> pd.DataFrame:
    """One row per direction of the ``retrieval`` part of a report."""
    import pandas as pd

    rows = {}
    for direction in DIRECTIONS:
        low, high = retrieval[direction]["ci95_top1"]
        row = {**retrieval[direction], "ci95_low": low, "ci95_high": high}
        rows[direction] = [row[name] for name in COLUMNS]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS))
    frame.index.name = "direction"
    return frame


def score_own(run: Run, n_boot: int, n_perm: int) -> dict[str, Any]:
    """What `recon retrieve` writes into the report of the run."""
    from recon.evaluation.report import retrieval_report
    from recon.evaluation.settings import EvaluateConfig

    settings = EvaluateConfig(n_boot=n_boot, n_perm=n_perm)
    settings.check()
    settings.check()
    part: dict[str, Any] = retrieval_report(run, settings)["retrieval"]
    return part


def score_other(embeds: np.ndarray, candidates: np.ndarray, n_boot: int, n_perm: int) -> dict[str, Any]:
    """Retrieval among the test pictures of another study; row i of both (n, E) belongs to one picture."""
    from align import retrieval

    return retrieval.report(retrieval.scores(embeds, candidates), n_boot=n_boot, n_perm=n_perm)


def is_own(run: Run, study: Study) -> bool:
    """Whether the test pictures of the study are those of the run's manifest."""
    from align.data.splits import manifest, read_split

    stored = run.path / "split.json"
    if run.subject not in study.subjects or study.name != run.config.study.name or not stored.is_file():
        return False
    split = read_split(stored)
    known: dict[str, Any] = split.get("test_of", {}).get(run.subject, split["test"])
    return known == manifest(_stored(study, run.subject))["test"]


def unseen_test(
    run: Run, preparation: Preparation, study: Study, subject: str | None
) -> tuple[np.ndarray, Stimuli, np.ndarray]:
    """Prepared test rows (n, ...), one averaged row per picture, the pictures, and which of them each row shows.

    Raises `UserError` where one of them is a training picture of the run.
    """
    from align.data.signals import Trials
    from align.data.splits import read_split

    recording = _stored(study, study.require_subject(subject))
    stimuli, test = recording.stimuli, recording.test
    stored = run.path / "split.json"
    seen = set(read_split(stored)["train"]["hashes"]) if stored.is_file() else set[str]()
    known = [stimuli.ids[i] for i in np.unique(test.stimulus) if stimuli.hashes[i] in seen]
    if known:
        raise UserError(f"{len(known)} test pictures were training pictures, first {known[0]!r}; score other pictures")
    x = preparation(np.asarray(test.x), test.session)
    averaged = Trials(x, test.stimulus, test.repetition).averaged()
    return averaged.x, stimuli, averaged.stimulus


def _stored(study: Study, subject: str) -> Recording:
    """The recording as its study stores it, before any step."""
    return study._files.read(subject)

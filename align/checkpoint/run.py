"""A trained encoder with where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.checkpoint.names import preparation_path
from align.config import Config
from align.errors import UserError

if TYPE_CHECKING:
    from align.data.preparing.raw import Preparation
    from align.model.aligner import Aligner


@dataclass(frozen=True, repr=False)
class Run:
    """A trained encoder and where it came from. ``meta``: the facts stored beside the weights."""

    config: Config
    aligner: Aligner
    subject: str
    study: str
    meta: dict[str, Any]
    path: Path

    @property
    def number(self) -> int | None:
        """The place of ``subject`` among those the encoder was trained on; None where it is none of them."""
        trained_on = self.meta.get("trained_on", [self.subject])
        return trained_on.index(self.subject) if self.subject in trained_on else None

    @cached_property
    def preparation(self) -> Preparation:
        """What was done to stored trials of the subject in training; from the run's folder, else from the study.

        Raises `UserError` where the folder does not say it and the study cannot be read.
        """
        from align.data.preparing.raw import Preparation
        from align.data.studies import open_study

        stored = preparation_path(self.path, self.subject)
        if stored.is_file():
            return Preparation.load(stored)
        if not self.config.changes_signals:
            return Preparation.none(self.study, self.subject, self.aligner.in_shape)
        try:
            return open_study(self.config).preparation(self.subject)
        except UserError as error:
            raise UserError(
                f"run {str(self.path)!r} has no {stored.name}, which says how signals are prepared, and its study "
                f"cannot be read ({error}); give study.root=FOLDER, or train again"
            ) from error

    def predict(self, signals: Any, session: Any = None) -> dict[str, np.ndarray]:
        """``embeds`` (n, E) and, where the run has a token head, ``tokens`` (n, N, D) of trials (n, C, T) or (n, V).

        ``signals``: raw, as the study stores them: they are prepared here as the training trials were. Repetitions are
        not averaged. ``session`` (n,): of each trial, where training whitened by session (``preprocess.mvnn``).
        Raises `UserError` for trials of another shape than the stored ones, text, NaN and infinity.
        """
        from align.data.importing.arrays import as_signals

        return self.aligner.predict(self.preparation(as_signals(signals), session))

    def __repr__(self) -> str:
        config = self.config
        return (
            f"<Run {self.study} subject {self.subject}: {config.encoder.name} to layer {config.target.layer} of "
            f"{config.backbone.name}, seed {config.seed}>"
        )

    def _repr_html_(self) -> str:
        from align.notebook import facts_table

        config, meta = self.config, self.meta
        facts = {
            "study": self.study,
            "subject": self.subject,
            "trained on": ", ".join(meta.get("trained_on", [self.subject])),
            "target": f"{config.backbone.name}, layer {config.target.layer} ({config.target.chosen_on})",
            "encoder": config.encoder.name,
            "trials": " x ".join(map(str, self.aligner.in_shape)),
            "training rows": meta.get("n_training_rows"),
            "seed": config.seed,
            "weights": str(meta.get("weights_hash", ""))[:12] or None,
            "folder": self.path,
        }
        return facts_table("Run", facts)

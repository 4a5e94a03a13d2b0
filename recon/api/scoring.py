"""`Decoder.score`: retrieval among the test pictures of a study, its own or another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError
from recon.api.predicting import Predicting
from recon.api.study import Study

if TYPE_CHECKING:
    from align.checkpoint import Run
    from align.config import Config
    from align.data.signals import Stimuli


class Scoring(Predicting):
    """See `recon.Decoder`."""

    def score(
        self, study: Study | None = None, subject: str | None = None, n_boot: int = 2000, n_perm: int = 9999
    ) -> Any:
        """Retrieval among the test pictures of a study, as ``recon retrieve`` scores it.

        Parameters
        ----------
        study : Study, optional
            Left out: the one the decoder was fitted on. Of another study its test rows are scored; none of its test
            pictures may be a training picture of this decoder.
        subject : str, optional
            Whose test rows; left out, those of the person it was trained on.
        n_boot, n_perm : int
            Draws of the interval (over pictures) and of the permutation test.

        Returns
        -------
        pandas.DataFrame
            Rows ``brain_to_image`` and ``image_to_brain``; columns top1, top5 (shares), median_rank, n, candidates,
            chance_top1, ci95_low, ci95_high (of top1) and p_permutation.

        Raises
        ------
        UserError
            No study to score on, training pictures among the test pictures, other channels.
        """
        from recon.api.scores import as_frame, score_other, score_own

        run, own = self._run_for(study, subject)
        if own:
            return as_frame(score_own(run, n_boot, n_perm))
        x, stimuli, rows = self._unseen(study, subject)
        embeds = self.run_.aligner.predict(x)["embeds"]
        return as_frame(score_other(embeds, self.embed_images(stimuli)[rows], n_boot, n_perm))

    def _unseen(self, study: Study | None, subject: str | None) -> tuple[np.ndarray, Stimuli, np.ndarray]:
        """Prepared, averaged test rows of another study than the run was made for, and their pictures."""
        from recon.api.scores import unseen_test

        study = self._study if study is None else study
        if study is None:
            raise UserError("there is no test to read; pass a Study")
        return unseen_test(self.run_, self.preparation, study, subject)

    def _run_for(self, study: Study | None, subject: str | None) -> tuple[Run, bool]:
        """The run with the places of ``study``, and whether its test rows are those the run was made for."""
        from recon.api.fitting import ARRAYS
        from recon.api.scores import is_own

        study = self._study if study is None else study
        if study is None and self.run_.study == ARRAYS:
            raise UserError("this decoder was fitted to arrays, which hold no test; pass a Study to score or draw")
        if study is None:
            return self.run_, True
        if not isinstance(study, Study):
            raise UserError(f"{type(study).__name__} is no Study; make one by Study.open, from_arrays or from_epochs")
        run = replace(self.run_, config=self._with_places(study))
        return run, subject in (None, run.subject) and is_own(run, study)

    def _with_places(self, study: Study) -> Config:
        """The configuration of the run with the study's files; what was done to signals stays the run's."""
        config = self.run_.config
        return replace(config, study=study.config.study, simulated=study.config.simulated)

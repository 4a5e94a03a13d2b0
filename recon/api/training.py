"""`Decoder.fit`: training on a study, or on signals and the pictures they were recorded for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from align.errors import UserError
from recon.api.folders import KeptFolder
from recon.api.parameters import CHOSEN, Parameters
from recon.api.study import Study, as_one

if TYPE_CHECKING:
    from align.checkpoint import Run
    from align.config import Config


class Training(Parameters):
    """See `recon.Decoder`."""

    _run: Run | None = None
    _study: Study | None = None
    _kept: KeptFolder | None = None

    def fit(
        self,
        data: Any,
        images: Any = None,
        *,
        subject: str | None = None,
        groups: Any = None,
        sfreq: float | None = None,
        ch_names: Sequence[str] | None = None,
        tmin: float = 0.0,
        progress: bool = False,
    ) -> Self:
        """Train on the training rows of a study, or on signals and the pictures they were recorded for.

        Parameters
        ----------
        data : Study, or array of shape (n, channels, samples) or (n, voxels)
            Signals as they are recorded; they are scaled here.
        images : array (n, H, W, 3) uint8, list of n arrays or files, optional
            With signals: the picture of every trial. Equal pictures count as one.
        subject : str, optional
            With a study of several people: whose rows.
        groups : sequence of n, optional
            With signals: one label per trial. Pictures of one group stay together in inner validation.
        sfreq, ch_names, tmin
            With signals: rate in Hz, names of the channels, time of the first sample in s.
        progress : bool
            Show progress bars.

        Returns
        -------
        Self
            This decoder.

        Raises
        ------
        UserError
            Settings, shapes or files that do not fit; too few pictures.
        """
        kept = KeptFolder() if self.run_dir is None else None
        with self._own_encoder():
            if isinstance(data, Study):
                if images is not None or groups is not None:
                    raise UserError("a study brings its pictures and groups; leave images and groups out")
                config, label = self._placed(self._configured(data.pairs), kept), data.require_subject(subject)
                run = self._fit_study(config, label, progress)
            else:
                if images is None:
                    raise UserError("signals need pictures to learn from; pass fit(signals, images), or a Study")
                config = self._placed(self._configured({}), kept)
                facts = {"sfreq": sfreq, "ch_names": tuple(ch_names or ()), "tmin": tmin}
                run = self._fit_arrays(config, as_one(data), images, groups, facts, progress)
        self._run, self._kept = run, kept
        self._study = data if isinstance(data, Study) else None
        return self

    def _placed(self, config: Config, kept: KeptFolder | None) -> Config:
        return replace(config, run_dir=str(kept.path / "run")) if kept else config

    def _fit_study(self, config: Config, subject: str, progress: bool) -> Run:
        from recon.api.fitting import best_layer, fit_study, forget, shape_in_study, sized

        if not isinstance(self.encoder, str):
            forget(config)
            config = sized(config, self.encoder, lambda: shape_in_study(config, subject))
        if self.layer == CHOSEN:
            config = best_layer(config, subject, progress)
        return fit_study(config, subject, progress)

    def _fit_arrays(
        self, config: Config, x: np.ndarray, images: Any, groups: Any, facts: dict[str, Any], progress: bool
    ) -> Run:
        from align.data.importing.arrays import as_pictures
        from recon.api.fitting import fit_arrays, forget, prepared, sized, stimuli_of

        if self.layer == CHOSEN:
            raise UserError("layer='cv' chooses on a study; pass one (Study.from_arrays), or name a layer")
        names, files = as_pictures(images)
        if len(names) != len(x):
            raise UserError(f"{len(x)} trials but {len(names)} images; pass the picture of every trial")
        stimuli, rows = stimuli_of(names, files, groups)
        recording = prepared(config, x, rows, stimuli, facts)
        if not isinstance(self.encoder, str):
            forget(config)
            config = sized(config, self.encoder, lambda: recording.train.x.shape[1:])
        return fit_arrays(config, recording, progress)

    @property
    def run_(self) -> Run:
        """The trained run; raises `UserError` before `fit`."""
        if self._run is None:
            raise UserError("this decoder is not fitted; call fit, or open one by Decoder.load")
        return self._run

    def __sklearn_is_fitted__(self) -> bool:
        return self._run is not None

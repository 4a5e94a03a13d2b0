"""Where and when a decoder reads: the plots of a `Decoder`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recon.api.reconstructing import Reconstructing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from recon.api.study import Study


class Figures(Reconstructing):
    """See `recon.Decoder`."""

    def channel_importance(self, study: Study | None = None, folds: int = 3, n_boot: int = 1000) -> pd.DataFrame:
        """By how much retrieval drops when one channel is silent, on training rows that were held out.

        In each of ``folds`` folds the encoder is trained again without the pictures of the fold, then tested on them,
        with one channel after the other set to its training mean. The result describes this decoder, not where the
        brain carries the information: where two channels carry the same, neither is missed. Test rows are not used.

        Parameters
        ----------
        study : Study, optional
            Left out: the one the decoder was fitted on.
        folds : int
            Two or more; each is one training.
        n_boot : int
            Draws of the interval over pictures.

        Returns
        -------
        pandas.DataFrame
            Index ``channel``; columns ``drop``, ``ci95_low``, ``ci95_high``, ``n`` pictures and ``whole``.
            ``whole`` is z with all channels: how far the cosine of the own picture lies above those of the other
            candidates, in their standard deviations (0 = chance, no upper end); ``drop`` is by how much z falls.

        Raises
        ------
        UserError
            Signals without channels, too few pictures for the folds.
        """
        from recon.api.lesions import channel_drops

        run, _ = self._run_for(study, None)
        with self._own_encoder():
            return channel_drops(run, folds, n_boot)

    def plot_topomap(
        self, study: Study | None = None, importance: pd.DataFrame | None = None, info: Any = None, folds: int = 3
    ) -> Figure:
        """Where on the head this decoder reads: `channel_importance` as a map of MNE.

        Parameters
        ----------
        study, folds
            As in `channel_importance`.
        importance : pandas.DataFrame, optional
            What `channel_importance` gave, to draw it again.
        info : mne.Info, optional
            Positions of the channels; left out, those of the 10-05 system by name.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        UserError
            Fewer than four channels whose place is known, and as `channel_importance`.
        """
        from recon.api.lesions import topomap

        drops = self.channel_importance(study, folds) if importance is None else importance
        return topomap(drops, info)

    def plot_timecourse(
        self,
        study: Study | None = None,
        layers: Sequence[str] = (),
        width: float = 0.1,
        step: float = 0.02,
        n_perm: int = 2000,
        progress: bool = False,
    ) -> Figure:
        """When the signals tell what was seen: the figure of ``recon timecourse`` for this person.

        Ridge regressions are fitted in sliding windows and scored by cross-validation on training rows; the layer,
        backbone and preparation are the decoder's, the encoder takes no part.

        Parameters
        ----------
        study : Study, optional
            Left out: the one the decoder was fitted on.
        layers : sequence of str
            Left out: the decoder's.
        width, step : float
            Of the windows, in s.
        n_perm : int
            Permuted pairings of the cluster test.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        UserError
            Signals without time axis or rate, windows that do not fit.
        """
        from recon.api.lesions import timecourse_figure

        run, _ = self._run_for(study, None)
        return timecourse_figure(run, list(layers) or [run.config.target.layer], width, step, n_perm, progress)

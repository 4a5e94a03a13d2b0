"""Trials to embeds and tokens, and to the candidate pictures they are nearest to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recon.api.training import Training

if TYPE_CHECKING:
    import pandas as pd

    from align.data.preparing.raw import Preparation


class Predicting(Training):
    """See `recon.Decoder`."""

    def predict(self, signals: Any, session: Any = None) -> tuple[np.ndarray | None, np.ndarray]:
        """Tokens and embeds of trials, prepared as the training rows were.

        Parameters
        ----------
        signals : array of shape (n, channels, samples) or (n, voxels)
            As recorded, in the unit of the training signals. A warning names the factor where they are more than
            20 times larger or smaller.
        session : sequence of n, optional
            Recording session of each trial; needed where training whitened by session (``preprocess.mvnn``).

        Returns
        -------
        tokens : ndarray of shape (n, N, D) or None
            N tokens of D values, in the units of the backbone; None where the run predicts none.
        embeds : ndarray of shape (n, E)
            Vectors that are compared with those of pictures (`embed_images`) by cosine.

        Raises
        ------
        UserError
            Another shape than in training, NaN, infinity.
        """
        found = self.run_.predict(signals, session)
        return found.get("tokens"), found["embeds"]

    @property
    def preparation(self) -> Preparation:
        """What is done to raw signals before they are decoded."""
        return self.run_.preparation

    def retrieve(self, signals: Any, candidates: Any, top: int | None = 5) -> pd.DataFrame:
        """Which of the candidate pictures each trial shows, by cosine.

        Parameters
        ----------
        signals : array of shape (n, channels, samples) or (n, voxels)
        candidates : array (K, H, W, 3) uint8, list of arrays or files, mapping name -> picture, or folder
        top : int, optional
            How many candidates are listed per trial; None = all.

        Returns
        -------
        pandas.DataFrame
            Columns ``trial`` (from 0), ``rank`` (from 1), ``candidate`` (its name; its place in an array), ``cosine``
            (-1 to 1).

        Raises
        ------
        UserError
            As `predict`; candidates that are no pictures.
        """
        import pandas as pd

        from align import retrieval
        from align.data.importing.arrays import as_pictures
        from recon.api.fitting import stimuli_of

        _, embeds = self.predict(signals)
        names, files = as_pictures(candidates, "candidates")
        stimuli, rows = stimuli_of(names, files)
        cosines = retrieval.scores(embeds, self.embed_images(stimuli)[rows])
        labels = range(len(names)) if isinstance(candidates, np.ndarray) else names
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :top]
        lines = [
            (trial, rank, list(labels)[column], float(cosines[trial, column]))
            for trial, columns in enumerate(order)
            for rank, column in enumerate(columns, 1)
        ]
        return pd.DataFrame(lines, columns=["trial", "rank", "candidate", "cosine"])

    def embed_images(self, stimuli: Any) -> np.ndarray:
        """Embeds (K, E) of pictures, to compare with those that `predict` gives.

        ``stimuli``: as ``candidates`` of `retrieve`, or `align.data.signals.Stimuli`.
        """
        from align.data.importing.arrays import as_pictures
        from align.data.signals import Stimuli
        from align.vision.backbones import load_backbone
        from align.vision.fused import candidate_targets
        from recon.api.fitting import stimuli_of

        rows: Any = slice(None)
        if not isinstance(stimuli, Stimuli):
            names, files = as_pictures(stimuli)
            stimuli, rows = stimuli_of(names, files)
        config = self.run_.config
        layer = config.target.layer
        backbone = load_backbone(config.backbone)
        found = candidate_targets(backbone, stimuli, [layer], config.target, config.cache_dir, False)[layer]
        tokens = np.asarray(found.tokens, dtype=np.float32)
        return self.run_.aligner.embed_images(tokens, subject=self.run_.number)[rows]

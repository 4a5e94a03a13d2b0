"""`Decoder`: from signals to what was seen, as one object that is fitted, scored, drawn with, saved and loaded.

One step, one file, each class on top of the one before: `recon.api.parameters`, `recon.api.training` (fit),
`recon.api.predicting` (predict, retrieve), `recon.api.scoring`, `recon.api.reconstructing`, `recon.api.figures`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.notebook import facts_table
from recon.api.figures import Figures
from recon.api.parameters import settings_of


class Decoder(Figures):
    """Predicts from brain signals what was seen. Trained by the functions of ``align/train.py``.

    Parameters
    ----------
    backbone : str
        Frozen vision model whose tokens are predicted, such as mini or torchvision/squeezenet1_1.
    layer : str
        Its layer: a number, a module name, several joined by +. "cv" = chosen by grouped cross-validation on training
        rows, as ``recon sweep`` does (every layer is trained several times).
    encoder : str, torch.nn.Module or callable
        A name (mlp, tsconv, ridge, ...); a module that takes (B, C, T) or (B, V) and gives (B, E); or a function
        ``(n_chans, n_times, width) -> module`` (``n_times`` None for voxels), called under ``seed``.
    scale : {"zscore", "robust", "none"}
        How every channel or voxel is scaled; centre and spread come from training rows.
    seed : int
        0 or more; decides everything random in training.
    run_dir : str or path, optional
        Folder of the run, which all commands read. Left out: a temporary one, kept as long as the object. A fit that
        was interrupted continues in the same folder; with an ``encoder`` of your own it starts again, as code cannot
        be compared.
    settings : mapping, optional
        Any key of a configuration: ``{"train.epochs": 20}``. ``**more``: the same as ``train__epochs=20``.

    Attributes
    ----------
    run_ : align.checkpoint.Run
        The trained run, after `fit` or `load`.

    Raises
    ------
    UserError
        An unknown key or value, in one line, when the object is made.

    Notes
    -----
    `get_params`, `set_params` and scikit-learn's ``clone`` work. Equal settings give the weights, to the last bit, of
    ``python -m align.train`` on the same machine.
    """

    def save(self, path: str | Path) -> Path:
        """Copy the run and what was done to signals into a new folder; returns it.

        Every command reads it (``--run``) where the study's files are. Raises `UserError` where it exists already.
        """
        from align.checkpoint import CARD, CONFIG, METRICS, MODEL, SPLIT, preparation_path
        from align.files import atomic_folder, beside, locked

        run, out = self.run_, Path(path).expanduser()
        with locked(beside(out, "lock"), f"saving into {str(out)!r}", keep=False):
            if out.exists():
                raise UserError(f"{str(out)!r} exists already; give another folder or remove it")
            with atomic_folder(out) as part:
                self.preparation.save(preparation_path(part, run.subject), weights=run.meta.get("weights_hash", ""))
                for name in (CONFIG, CARD, SPLIT, METRICS, MODEL):
                    if (run.path / name).is_file():
                        shutil.copyfile(run.path / name, part / name)
        return out

    @classmethod
    def load(cls, path: str | Path, subject: str | None = None, encoder: Any = None) -> Decoder:
        """Open a run that `save` or ``align/train.py`` wrote, or one from the hub.

        Parameters
        ----------
        path : str or path
            Folder of a run, or OWNER/NAME of the hub.
        subject : str, optional
            Label of the person, where the run was trained on several people.
        encoder : torch.nn.Module or callable, optional
            For a run that was trained with a module or function of your own: the same one.

        Returns
        -------
        Decoder

        Raises
        ------
        UserError
            No run there; a run with its own module, where ``encoder`` is left out or does not fit.
        """
        from align.encoders.own import given
        from recon.publishing.hub import load_run

        with given(encoder):
            run = load_run(path, subject)
        config = run.config
        made = cls(
            config.backbone.name,
            config.target.layer,
            config.encoder.name if encoder is None else encoder,
            config.preprocess.scale,
            config.seed,
            settings=settings_of(config),
        )
        made._run = run
        return made

    def __repr__(self) -> str:
        encoder = self.encoder if isinstance(self.encoder, str) else type(self.encoder).__name__
        text = f"<Decoder {self.backbone} layer {self.layer}, encoder {encoder}, seed {self.seed}"
        return f"{text}>" if self._run is None else f"{text}, fitted on {self._run.study} {self._run.subject}>"

    def _repr_html_(self) -> str:
        if self._run is None:
            return facts_table("Decoder, not fitted", self.get_params())
        return self._run._repr_html_().replace("Run", "Decoder", 1)

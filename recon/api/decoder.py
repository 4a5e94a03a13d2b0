"""`Decoder`: from signals to what was seen, as one object that is fitted, scored, drawn with, saved and loaded."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError
from align.notebook import facts_table
from recon.api.figures import Figures
from recon.api.folders import KeptFolder
from recon.api.parameters import Parameters, settings_of
from recon.api.study import Study, as_one
from recon.config import STRENGTH

if TYPE_CHECKING:
    import pandas as pd

    from align.checkpoint import Run
    from align.config import Config
    from align.data.preparing.raw import Preparation
    from align.data.signals import Stimuli
    from recon.api.pictures import Pictures

PREPARATION = "preparation.safetensors"


class Decoder(Parameters, Figures):
    """Learns to tell from brain signals what was seen: trained with the functions of ``align/train.py``.

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
        How every channel or voxel is scaled, fitted on training rows.
    seed : int
        Of everything random in training.
    run_dir : str or path, optional
        Folder of the run, which all commands read. Left out: a temporary one, kept as long as the object.
    settings : mapping, optional
        Any key of a configuration: ``{"train.epochs": 20}``. ``**more``: the same as ``train__epochs=20``.

    Attributes
    ----------
    run_ : align.checkpoint.Run
        The trained run, after `fit` or `load`.

    Raises
    ------
    UserError
        Unknown keys and values, in one line, as soon as they are told.

    Notes
    -----
    `get_params`, `set_params` and scikit-learn's ``clone`` work. Equal settings give the weights, to the last bit, of
    ``python -m align.train`` on the same machine.
    """

    _run: Run | None = None
    _study: Study | None = None
    _preparation: Preparation | None = None
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
    ) -> Decoder:
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
            With signals: pictures of one group stay together in inner validation.
        sfreq, ch_names, tmin
            With signals: rate in Hz, names of the channels, time of the first sample in s.
        progress : bool
            Show bars.

        Returns
        -------
        Decoder
            Itself.

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
                run, preparation = self._fit_study(config, data, label, progress), None
            else:
                if images is None:
                    raise UserError("signals alone teach nothing; pass fit(signals, images), or a Study")
                config = self._placed(self._configured({}), kept)
                facts = {"sfreq": sfreq, "ch_names": tuple(ch_names or ()), "tmin": tmin}
                run, preparation = self._fit_arrays(config, as_one(data), images, groups, facts, progress)
        self._run, self._preparation, self._kept = run, preparation, kept
        self._study = data if isinstance(data, Study) else None
        return self

    def _placed(self, config: Config, kept: KeptFolder | None) -> Config:
        return replace(config, run_dir=str(kept.path / "run")) if kept else config

    def _fit_study(self, config: Config, study: Study, subject: str, progress: bool) -> Run:
        from recon.api.fitting import fit_study

        if str(self.layer) == "cv":
            config = _best_layer(config, subject, progress)
        config = self._sized(config, lambda: study_shape(config, subject))
        return fit_study(config, subject, progress)

    def _fit_arrays(
        self, config: Config, x: np.ndarray, images: Any, groups: Any, facts: dict[str, Any], progress: bool
    ) -> tuple[Run, Preparation]:
        from align.data.importing.arrays import as_pictures
        from recon.api.fitting import fit_arrays, stimuli_of

        if str(self.layer) == "cv":
            raise UserError("layer='cv' chooses on a study; pass one (Study.from_arrays), or name a layer")
        names, files = as_pictures(images)
        if len(names) != len(x):
            raise UserError(f"{len(x)} trials but {len(names)} images; pass the picture of every trial")
        stimuli, rows = stimuli_of(names, files, groups)
        config = self._sized(config, lambda: x.shape[1:])
        return fit_arrays(config, x, rows, stimuli, facts, progress)

    def _sized(self, config: Config, shape: Any) -> Config:
        """The width of a module is that of its embeds; ``shape()``: of a trial as the encoder reads it."""
        from torch import nn

        if not isinstance(self.encoder, nn.Module):
            return config
        from align.encoders.own import width_of

        return replace(config, encoder=replace(config.encoder, width=width_of(self.encoder, tuple(shape()))))

    @property
    def run_(self) -> Run:
        """The trained run; raises `UserError` before `fit`."""
        if self._run is None:
            raise UserError("this decoder has learned nothing yet; call fit, or open one by Decoder.load")
        return self._run

    def __sklearn_is_fitted__(self) -> bool:
        return self._run is not None

    def predict(self, signals: Any, session: Any = None) -> tuple[np.ndarray | None, np.ndarray]:
        """Tokens and embeds of trials, prepared as the training rows were.

        Parameters
        ----------
        signals : array of shape (n, channels, samples) or (n, voxels)
            As recorded, in the unit of the training signals; another order of size is warned of, with the factor.
        session : sequence of n, optional
            Asked for where training whitened by session (``preprocess.mvnn``).

        Returns
        -------
        tokens : ndarray of shape (n, N, D) or None
            In the units of the backbone; None where the run predicts none.
        embeds : ndarray of shape (n, E)

        Raises
        ------
        UserError
            Another shape than in training, NaN, infinity.
        """
        told = self.run_.aligner.predict(self._prepared(as_one(signals), session))
        return told.get("tokens"), told["embeds"]

    def _prepared(self, x: np.ndarray, session: Any = None) -> np.ndarray:
        return self.preparation(x, None if session is None else np.asarray(session))

    @property
    def preparation(self) -> Preparation:
        """What is done to raw signals before they are decoded; read from the training rows when first asked for."""
        if self._preparation is None:
            from align.data.preparing.raw import Preparation
            from align.data.studies import open_study

            stored = self.run_.path / PREPARATION
            if stored.is_file():
                self._preparation = Preparation.load(stored)
            else:
                self._preparation = Preparation.of_study(open_study(self.run_.config), self.run_.subject)
        return self._preparation

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

    def score(
        self, study: Study | None = None, subject: str | None = None, n_boot: int = 2000, n_perm: int = 9999
    ) -> Any:
        """Retrieval among the test pictures of a study, as ``recon retrieve`` scores it.

        Parameters
        ----------
        study : Study, optional
            Left out: the one the decoder was fitted on. Of another study the test rows are scored; a test picture that
            training saw is refused.
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

    def reconstruct(
        self,
        data: Any = None,
        seeds: Sequence[int] = (0,),
        generator: str = "mini",
        *,
        subject: str | None = None,
        limit: int | None = None,
        out: str | Path | None = None,
        controls: Sequence[str] = (),
        steps: int | None = None,
        guidance_scale: float | None = None,
        strength: float = STRENGTH,
        batch_size: int = 32,
        device: str = "auto",
        precision: str = "fp32",
        **conditioning: Any,
    ) -> Pictures:
        """Draw what was seen, as ``recon generate`` draws it.

        Parameters
        ----------
        data : Study or array, optional
            A study: its test pictures, averaged over repetitions. Signals (n, channels, samples) or (n, voxels) as
            recorded: one picture per trial. Left out: the study the decoder was fitted on.
        seeds : sequence of int
            Of the starting noise; one picture each.
        generator : str
            mini, a folder in diffusers layout, or a hub id.
        subject : str, optional
            Whose test rows; left out, those of the person it was trained on.
        limit : int, optional
            Only the first test pictures.
        out : str or path, optional
            With the study it was fitted on: folder of the files (default: the run's).
        controls : sequence of str
            shuffled, zero_brain and oracle are drawn beside, into the folder.
        steps, guidance_scale : optional
            What the generator is meant for, where left out.
        strength : float
            0 to 1: how far the generator may leave the coarse picture it starts from.
        **conditioning
            Fields of `recon.decoding.bridges.choose.Conditioning`: adapter, bridge, low_level, words, best_of, ...

        Returns
        -------
        Pictures
            ``images`` (n, seeds, 3, H, W) in [0, 1].

        Raises
        ------
        UserError
            No conditioner for this layer, unknown options, signals that do not fit.
        """
        from recon.api.drawing import Drawing, draw_signals, draw_study

        drawing = Drawing.of(
            generator, seeds, steps, guidance_scale, strength, batch_size, device, precision, conditioning
        )
        with self._own_encoder():
            if data is None or isinstance(data, Study):
                run, own = self._run_for(data, subject)
                if own:
                    return draw_study(run, drawing, out, limit, controls)
                raw, stimuli, rows = self._unseen(data, subject)
                x, ids = raw[:limit], [stimuli.ids[i] for i in rows][:limit]
                return draw_signals(self.run_, x, ids, drawing, [stimuli.load(int(i)) for i in rows][:limit])
            x = self._prepared(as_one(data))[:limit]
            return draw_signals(self.run_, x, [str(i) for i in range(len(x))], drawing)

    def save(self, path: str | Path) -> Path:
        """Copy the run and what was done to signals into a new folder; returns it.

        Every command reads it (``--run``) where the study's files are. Raises `UserError` where it exists already.
        """
        from align.checkpoint import CARD, CONFIG, METRICS, MODEL, SPLIT

        run, out = self.run_, Path(path).expanduser()
        if out.exists():
            raise UserError(f"{str(out)!r} exists already; give another folder or remove it")
        self.preparation.save(run.path / PREPARATION)
        part = out.with_name(f".{out.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name in (CONFIG, CARD, SPLIT, METRICS, PREPARATION, MODEL):
            if (run.path / name).is_file():
                shutil.copyfile(run.path / name, part / name)
        part.rename(out)
        return out

    @classmethod
    def load(cls, path: str | Path, subject: str | None = None, encoder: Any = None) -> Decoder:
        """Open what `save`, ``align/train.py`` or the hub holds.

        Parameters
        ----------
        path : str or path
            Folder of a run, or OWNER/NAME of the hub.
        subject : str, optional
            Whose signals are meant, where the run is of several people.
        encoder : torch.nn.Module or callable, optional
            For a run that was trained with a module of its maker's own: the same module or function.

        Returns
        -------
        Decoder

        Raises
        ------
        UserError
            No run there; a run of an own module without ``encoder``, or with another one.
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
        told = f"<Decoder {self.backbone} layer {self.layer}, encoder {encoder}, seed {self.seed}"
        return f"{told}>" if self._run is None else f"{told}, fitted on {self._run.study} {self._run.subject}>"

    def _repr_html_(self) -> str:
        if self._run is None:
            return facts_table("Decoder, not fitted", self.get_params())
        return self._run._repr_html_().replace("Run", "Decoder", 1)


def study_shape(config: Config, subject: str) -> tuple[int, ...]:
    """Shape of one prepared trial of a subject."""
    from align.data.studies import open_study

    return tuple(open_study(config).recording(subject).train.x.shape[1:])


def _best_layer(config: Config, subject: str, progress: bool) -> Config:
    """The layer that `recon sweep` would choose for this subject; no test row is read."""
    from align.config import load_config
    from align.sweep.run import run

    result = run(
        replace(config, subjects=[subject], run_dir=None),
        out=Path(config.run_dir or "") / "sweep",
        progress=progress,
        test=False,
    )
    best = load_config(type(config), result.folder / "best.yaml", check=False)
    return replace(config, target=replace(config.target, layer=best.target.layer, chosen_on=best.target.chosen_on))

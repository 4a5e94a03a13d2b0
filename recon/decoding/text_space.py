"""What a run says about its test pictures in text space: rows to compare texts with, by pivot or joint alignment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError
from align.seeding import derive
from recon.words.alignment import ALIGNMENTS, Alignment, fit_joint, fit_pivot, permuted_brains, pooled
from recon.words.bank import Candidates, Captions, with_bank
from recon.words.maps import FITS
from recon.words.text_tower import MINI, TextTower
from recon.words.towers import load_tower

if TYPE_CHECKING:
    from align.checkpoint import Run
    from align.data.signals import Recording

_ROWS = 256  # standardised at once


@dataclass(frozen=True)
class TextSettings:
    """``alignment``: one of `ALIGNMENTS`. ``fit``: one of `FITS`. ``bank``: a file of `recon.words.bank.read_bank`."""

    alignment: str = "pivot"
    tower: str = MINI
    fit: str = "ridge"
    bank: Path | None = None

    def __post_init__(self) -> None:
        if self.alignment not in ALIGNMENTS:
            raise UserError(f"alignment {self.alignment!r} is not known; use {', '.join(ALIGNMENTS)}")
        if self.fit not in FITS:
            raise UserError(f"fit {self.fit!r} is not known; use {', '.join(FITS)}")


class TextDecoder:
    """Fitted on training pictures and captions when it is first asked; test captions are candidates only.

    Raises `UserError` where the run predicts no tokens (pivot), was not trained on this subject (joint), and where the
    study has no texts.
    """

    def __init__(self, run: Run, recording: Recording, settings: TextSettings | None = None) -> None:
        self.run, self.recording, self.settings = run, recording, settings or TextSettings()
        if self.settings.alignment == "pivot" and not run.aligner.has_tokens:
            raise UserError(
                f"alignment pivot maps predicted tokens to texts, and run {run.path} predicts none; use joint"
            )
        if self.settings.alignment == "joint" and run.number is None:
            raise UserError(
                f"alignment joint is fitted to training rows of subject {run.subject}, which this run has never seen "
                "(protocol=loso); use pivot"
            )

    @cached_property
    def tower(self) -> TextTower:
        return load_tower(self.settings.tower)

    @cached_property
    def captions(self) -> Captions:
        """Of all pictures of the study."""
        return with_bank(self.recording.stimuli, self.settings.bank)

    @cached_property
    def training_rows(self) -> np.ndarray:
        """Stimulus rows of the training pictures that have a text."""
        rows = self.captions.rows(np.unique(self.recording.train.stimulus))
        if len(rows) < 2:
            raise UserError(
                f"texts need captions of training pictures, and {len(rows)} of {self.run.study} have one; give the "
                "study captions (column caption), or compare with texts of your own: recon caption --bank FILE.csv"
            )
        return rows

    @cached_property
    def alignment(self) -> Alignment:
        """Fitted to the captions of the training pictures."""
        groups = np.asarray(self.recording.stimuli.groups)[self.training_rows]
        fit, seed = self.settings.fit, self.run.config.seed
        if self.settings.alignment == "pivot":
            return fit_pivot(self._tokens, self._caption_embeds, groups, fit, seed)
        return fit_joint(self._training_signals, self._tokens, self._caption_embeds, groups, fit, seed)

    def permuted(self, count: int, seed: int = 0) -> Iterator[np.ndarray]:
        """`brain` as if fitted to the captions of other training pictures, for ``count`` orders drawn by ``seed``."""
        rng, n = np.random.default_rng(derive(seed, "captions")), len(self.training_rows)
        inputs = self._tokens if self.settings.alignment == "pivot" else self._training_signals
        orders = (rng.permutation(n) for _ in range(count))
        return permuted_brains(self.alignment, inputs, self._tokens, self._caption_embeds, self.test_inputs, orders)

    def brain(self) -> np.ndarray:
        """(n, E) of the test pictures, in the order of `test_rows`."""
        return self.alignment.brain(self.test_inputs)

    def pictures(self) -> np.ndarray:
        """(n, E) of the test pictures themselves: what could be found in their true tokens."""
        return self.alignment.pictures(self._pooled(self.test_rows))

    def texts(self, texts: tuple[str, ...]) -> np.ndarray:
        """(K, E) of candidate texts."""
        return self.alignment.texts(self.tower.texts(texts))

    def nearest(self, inputs: np.ndarray, candidates: Candidates) -> tuple[str, ...]:
        """For every row of ``inputs`` (n, P), as `of_tokens` or `of_signals` give them, the text of highest cosine."""
        from recon.decoding.ridge import nearest

        found = nearest(self.alignment.brain(inputs), self.texts(candidates.texts))
        return tuple(candidates.texts[k] for k in found)

    def training_candidates(self) -> Candidates:
        """Texts of the training pictures alone: what a prompt may be made of."""
        return Candidates.of([self.captions.of[row] for row in self.training_rows])

    def inputs(self, x: np.ndarray) -> np.ndarray:
        """What the alignment reads of raw signals ``x`` (n, ...)."""
        if self.settings.alignment == "pivot":
            return pooled(self.run.aligner.predict(x)["tokens"])
        return self._standardised(x)

    @cached_property
    def test_rows(self) -> np.ndarray:
        """Stimulus rows of the test pictures."""
        return np.asarray(self.recording.test.averaged().stimulus)

    @cached_property
    def test_inputs(self) -> np.ndarray:
        """What the alignment reads of the test pictures, (n, P)."""
        return self.inputs(self.recording.test.averaged().x)

    @cached_property
    def _caption_embeds(self) -> np.ndarray:
        return self.tower.texts([self.captions.of[row] for row in self.training_rows])

    @cached_property
    def _tokens(self) -> np.ndarray:
        """(n, D) of the training pictures themselves."""
        return self._pooled(self.training_rows)

    def _pooled(self, rows: np.ndarray) -> np.ndarray:
        from recon.decoding.predict import picture_tokens

        return pooled(picture_tokens(self.run, self.recording)[rows])

    @cached_property
    def _training_signals(self) -> np.ndarray:
        train = self.recording.train.averaged()
        return self._standardised(train.x[np.searchsorted(train.stimulus, self.training_rows)])

    def _standardised(self, x: np.ndarray) -> np.ndarray:
        """(n, P) float32, as the run's encoder reads signals."""
        import torch

        space, parts = self.run.aligner.signals, []
        for start in range(0, len(x), _ROWS):
            part = torch.tensor(
                np.asarray(x[start : start + _ROWS]), dtype=torch.float32, device=self.run.aligner.device
            )
            parts.append(space(part).flatten(1).cpu().numpy())
        return np.concatenate(parts)

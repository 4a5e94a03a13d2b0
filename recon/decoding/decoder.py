"""What a run says about its test pictures, in the form a generator takes: `Condition` by control and seed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError
from recon.decoding.conditions import Condition, LibraryTokens, PredictedTokens, TokenSource, control
from recon.words.alignment import ALIGNMENTS

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run
    from align.data.signals import Recording
    from recon.decoding.bridges.choose import Conditioning
    from recon.decoding.library import Library
    from recon.decoding.likelihood import Likelihood
    from recon.decoding.low_level import LowLevel
    from recon.decoding.posterior import TokenPosterior
    from recon.decoding.predict import Predictions
    from recon.decoding.text_space import TextDecoder
    from recon.generation.adapters import Adapter
    from recon.generation.pipeline import Generator

_BATCH = 32  # pictures to start from that are made at once
_FROM_SIGNALS = ("pixels", "both")
log = logging.getLogger(__name__)


def predicts_responses(run: Run) -> bool:
    """Whether the run can say which response a picture should cause, so that pictures have a likelihood."""
    return run.config.encoder.name == "encoding"


class RunDecoder:
    """``low_level``: what starts the diffusion. Test pictures are read when they are asked for, signals may be enough.

    Raises `UserError` where the run or the adapter cannot give what ``wanted`` asks for.
    """

    def __init__(self, run: Run, adapter: Adapter, wanted: Conditioning, limit: int | None = None) -> None:
        from recon.generation.sketch import load_sketch

        if wanted.library is not None and not predicts_responses(run):
            raise UserError(
                "--library holds pictures that are ranked by the responses they should cause, and encoder "
                f"{run.config.encoder.name} predicts none; train one that does: encoder.name=encoding"
            )
        if wanted.tokens == "posterior" and not predicts_responses(run):
            raise UserError(
                f"--tokens posterior needs a run that predicts responses (encoder.name=encoding); run {run.path} has "
                f"{run.config.encoder.name}"
            )
        if wanted.guide is not None:
            from recon.decoding.likelihood import require_predicted_responses

            require_predicted_responses(run)
        self.guidance = wanted.guide
        self.run, self.best_of = run, wanted.best_of
        self._words, self._limit, self._further = wanted.words, limit, wanted.library
        self._text_tower = wanted.text_tower
        self._sketch = load_sketch(adapter.path) if adapter.kind == "own" else None
        self.low_level = wanted.low_level or self._usual()
        if self.low_level in ("tokens", "both") and self._sketch is None:
            raise UserError(
                f"--low-level {self.low_level} needs an own conditioner with a sketch, {str(adapter.path)!r} has none; "
                "use --low-level pixels or none, or train one: accelerate launch recon/train.py"
            )
        if self.low_level in _FROM_SIGNALS and run.number is None:
            raise UserError(
                f"--low-level {self.low_level} is fitted to training rows of subject {run.subject}, which this run has "
                "never seen (protocol=loso); use --low-level tokens or none"
            )
        self._source = self._tokens(adapter, wanted)
        self.tokens = self._source.name
        from_library = isinstance(self._source, LibraryTokens)
        self.layer = adapter.info.layer if from_library and adapter.info else run.config.target.layer

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Test pictures, in the order of the predictions."""
        return self._predictions.ids[: self._limit]

    @cached_property
    def _predictions(self) -> Predictions:
        from recon.decoding.predict import load_predictions

        return load_predictions(self.run)

    @property
    def signals(self) -> str:
        """Mark of the signals that the predictions are of (`align.data.mark.signals_mark`); "" = not known."""
        return self._predictions.mark

    @property
    def varies(self) -> bool:
        """Whether another seed means other tokens, not only other noise."""
        return self._source.varies

    def condition(self, name: str, seed: int) -> Condition:
        """What the generator is given for the reconstructions, or by the name of a control."""
        own = Condition(
            self._source.tokens(seed)[: len(self.ids)],
            self.ids,
            self._embeds[: len(self.ids)],
            *self._extra_inputs(slice(-1)),
        )
        if name == "reconstructions":
            return own
        silent = Condition(
            self._source.silent(seed)[None],
            ("",),
            self._silence[None],
            *self._extra_inputs(slice(-1, None)),
        )
        return control(name, own, silent, self._true() if name == "oracle" else own)

    def of_signals(self, x: np.ndarray, seed: int) -> Condition:
        """For raw signals ``x`` (n, ...) that are no test rows: halves of repetitions, null brains. Owners are "".

        Predicted tokens have the spread of training, whatever ``match`` is.
        """
        decoded = self.run.aligner.predict(x)
        embeds = self.run.aligner.without_constant(decoded["embeds"])
        tokens = decoded["tokens"] if self.tokens == "predicted" else self._likely(embeds).tokens(seed)
        return Condition(tokens, ("",) * len(x), embeds, *self._low_of(x), self._prompts_of(embeds, x))

    def likeliest(self) -> np.ndarray:
        """Rows (n,) of the `library`: the picture that each response makes likeliest."""
        assert isinstance(self._source, LibraryTokens)
        return self._source.rows(0)[: len(self.ids)]

    def start(self, model: Generator, condition: Condition) -> torch.Tensor | None:
        """Pictures (n, 3, H, W) to start from; None where the diffusion starts from noise.

        What pixels would decide is left to the tokens where there are no pixels, i.e. in the oracle (which has those of
        the true picture where the conditioner has no sketch).
        """
        import torch

        from recon.decoding.joining import enlarged, started

        if self.low_level == "none":
            return None
        if self.low_level == "pixels" and condition.pixels is not None:
            return enlarged(torch.from_numpy(condition.pixels), model.size).clamp(0, 1)
        if self._sketch is None:
            return None
        rows, parts = np.arange(len(condition.owners)), []
        for part in (condition.take(rows[i : i + _BATCH]) for i in range(0, len(rows), _BATCH)):
            with torch.no_grad():
                tokens = torch.from_numpy(np.asarray(part.tokens, dtype=np.float32))
                sketched = model.decode(self._sketch(tokens)).float().cpu()
            if part.pixels is not None:
                assert part.detail is not None
                sketched = started(torch.from_numpy(part.pixels), sketched, part.detail)
            parts.append(sketched)
        return torch.cat(parts)

    def guide(
        self, model: Generator, condition: Condition, count: int
    ) -> Callable[[torch.Tensor, int, np.ndarray], torch.Tensor] | None:
        """The hook of a drawing of ``count`` steps, by the row of ``condition``; None where nothing guides."""
        if self.guidance is None:
            return None
        from recon.decoding.likelihood import guide

        return guide(model, self._likelihood, self.responses(condition), self.guidance, count)

    def responses(self, condition: Condition) -> np.ndarray:
        """(n, E): what guides each row, namely the response that speaks in it; where none does, i.e. in the oracle,
        the one that its own true picture should cause."""
        if condition.embeds is not None:
            return condition.embeds
        place = {name: i for i, name in enumerate(self.ids)}
        responses: np.ndarray = self._true_responses[[place[name] for name in condition.owners]]
        return responses

    @cached_property
    def _likelihood(self) -> Likelihood:
        from recon.decoding.likelihood import Likelihood

        return Likelihood(self.run)

    @cached_property
    def _true_responses(self) -> np.ndarray:
        """(n, E): responses to the test pictures as the run predicts them, without noise."""
        from recon.decoding.predict import picture_tokens

        row = {name: i for i, name in enumerate(self._recording.stimuli.ids)}
        tokens = picture_tokens(self.run, self._recording)[[row[name] for name in self.ids]]
        return self.run.aligner.responses_to(tokens, self.run.number)

    def _usual(self) -> str:
        encoding = predicts_responses(self.run) and self.run.number is not None
        if encoding and self._sketch is not None:
            return "both"
        return "none" if self._sketch is None else "tokens"

    def _tokens(self, adapter: Adapter, wanted: Conditioning) -> TokenSource:
        run, info = self.run, adapter.info
        own = (run.config.target.layer, run.config.target.pooling)
        fits = run.aligner.has_tokens and (info is None or (info.layer, info.pooling) == own)
        if fits and wanted.tokens in (None, "predicted"):
            return PredictedTokens(run, wanted.match)
        if wanted.tokens == "predicted":
            raise UserError(f"run {run.path} predicts no tokens that {str(adapter.path)!r} takes; use --tokens library")
        if info is None:
            raise UserError(
                f"tokens from the library need a conditioner that says which layer it takes, {str(adapter.path)!r} "
                "does not; use --bridge own"
            )
        if wanted.match != "spread" and wanted.tokens != "posterior":
            raise UserError(
                f"--match {wanted.match} is for predicted tokens; those of library pictures are true ones "
                "already: leave --match out"
            )
        if wanted.tokens is None:
            told = "tokens: of the most likely library pictures, at layer %s, %s, which the conditioner takes"
            log.info(told, info.layer, info.pooling)
        self._target, self._match, self._expects = (
            (info.layer, info.pooling),
            wanted.match,
            wanted.tokens == "posterior",
        )
        return self._likely(self._embeds)

    def _likely(self, embeds: np.ndarray) -> LibraryTokens:
        if self._expects:
            from recon.decoding.posterior import PosteriorTokens

            return PosteriorTokens(self.run, self._posterior, embeds, self._silence)
        return LibraryTokens(self.run, self.library, embeds, self._silence, self._target)

    @cached_property
    def _posterior(self) -> TokenPosterior:
        from recon.decoding.posterior import TokenPosterior

        return TokenPosterior.fit(self.library, *self._target, self._match)

    @cached_property
    def library(self) -> Library:
        """Pictures that tokens may be taken of, with those of ``--library``."""
        from recon.decoding.library import with_photographs

        return self._own_library if self._further is None else with_photographs(self._own_library, self._further)

    @cached_property
    def _own_library(self) -> Library:
        from recon.decoding.library import read_library

        return read_library(self.run)

    @cached_property
    def _recording(self) -> Recording:
        from recon.decoding.predict import open_recording

        return open_recording(self.run)

    @cached_property
    def _embeds(self) -> np.ndarray:
        """(n, E): what the test rows say."""
        return self.run.aligner.without_constant(self._predictions.embeds)

    @cached_property
    def _silence(self) -> np.ndarray:
        """(E,): embeds of signals at rest."""
        from recon.decoding.predict import signals_at_rest

        silence = self.run.aligner.predict(signals_at_rest(self.run))["embeds"]
        return self.run.aligner.without_constant(silence)[0]

    def _extra_inputs(self, rows: slice) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...] | None]:
        """Pixels, detail and prompts of the given rows."""
        (pixels, detail), prompts = self._low, self._prompts
        return (
            None if pixels is None else pixels[rows],
            None if detail is None else detail[rows],
            None if prompts is None else prompts[rows],
        )

    @cached_property
    def _low(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Pixels (n + 1, 3, 16, 16) and detail (n + 1,), the last for signals at rest."""
        if self.low_level not in _FROM_SIGNALS:
            return None, None
        return self._low_of(self._signals)

    @property
    def _signals(self) -> np.ndarray:
        """Raw signals (n + 1, ...) of the test pictures, the last row at rest."""
        from recon.decoding.predict import signals_at_rest

        recording = self._recording
        test = recording.test.averaged()
        place = {recording.stimuli.ids[i]: k for k, i in enumerate(test.stimulus)}
        return np.concatenate([test.x[[place[name] for name in self.ids]], signals_at_rest(self.run)])

    def _low_of(self, x: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        return (None, None) if self.low_level not in _FROM_SIGNALS else self._detail_regressor(x)

    @cached_property
    def _detail_regressor(self) -> LowLevel:
        from recon.decoding.low_level import LowLevel

        library = self._own_library if predicts_responses(self.run) else None
        return LowLevel.fit(self.run, self._recording, library)

    @cached_property
    def _prompts(self) -> tuple[str, ...] | None:
        """Words for every test picture, and for signals at rest."""
        embeds = np.concatenate([self._embeds[: len(self.ids)], self._silence[None]])
        return self._prompts_of(embeds, self._signals if self._words in ALIGNMENTS else None)

    def _prompts_of(self, embeds: np.ndarray, x: np.ndarray | None) -> tuple[str, ...] | None:
        """Words of what was predicted from raw signals ``x``, which only the text space reads."""
        if self._words == "none":
            return None
        if self._words in ALIGNMENTS:
            assert x is not None
            return self._text.nearest(self._text.inputs(x), self._text.training_candidates())
        from recon.decoding.words import retrieved_captions

        return retrieved_captions(self.run, self._recording, embeds)

    @cached_property
    def _text(self) -> TextDecoder:
        from recon.decoding.text_space import TextDecoder, TextSettings
        from recon.words.text_tower import MINI

        return TextDecoder(self.run, self._recording, TextSettings(self._words, self._text_tower or MINI))

    def _true(self) -> Condition:
        """Of the pictures themselves: true tokens, their own captions, nothing from signals; their own pixels where the
        coarse picture can come from nothing else."""
        prompts = None
        if self._words != "none":
            stimuli = self._recording.stimuli
            texts = self._text.captions.of if self._words in ALIGNMENTS else stimuli.captions
            caption = dict(zip(stimuli.ids, texts, strict=True))
            prompts = tuple(caption[name] for name in self.ids)
        pixels = self._true_pixels() if self.low_level == "pixels" and self._sketch is None else None
        return Condition(self._source.true(self.ids), self.ids, pixels=pixels, prompts=prompts)

    def _true_pixels(self) -> np.ndarray:
        """(n, 3, 16, 16) in [0, 1] of the test pictures."""
        from recon.decoding.low_level import SIZE, read_values

        row = {name: i for i, name in enumerate(self._recording.stimuli.ids)}
        values = read_values(self._recording.stimuli, np.array([row[name] for name in self.ids]))
        return values[:, :-1].reshape(len(self.ids), 3, SIZE, SIZE)

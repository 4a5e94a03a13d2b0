"""EEG models pretrained by others, through braindecode: LaBraM, CBraMod, REVE; fine-tuned, or only their last layer.

They read patches of 200 samples at 200 Hz (``preprocess.sfreq=200``), REVE's overlapping by 20; a window that ends
within a patch is filled up with zeros. Weights: ``encoder.pretrained``, a file, a folder or a hub name, such as
braindecode/labram-pretrained, braindecode/cbramod-pretrained or brain-bzh/reve-base (asks for consent); see
`align.encoders.weights`. LaBraM and CBraMod were trained on signals in units of 0.1 mV, REVE on z-scored ones.
``encoder.dropout`` is theirs too, but for REVE, which has none; published: 0 for LaBraM, 0.1 for CBraMod.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from align.config import EncoderConfig
from align.encoders import weights
from align.encoders.braindecode_nets import make
from align.encoders.libraries import braindecode_models
from align.encoders.shapes import SignalFacts, channels_and_times
from align.errors import UserError

SFREQ = 200.0  # Hz, of all three
PATCH = 200  # samples, likewise
HEAD = "final_layer."  # what is trained for the task at hand and never loaded


class PatchReader(nn.Module):
    """(B, C, T) -> (B, E) by a braindecode model that reads whole patches; ``frozen`` trains its head only."""

    positions: torch.Tensor | None

    def __init__(self, model: nn.Module, n_times: int, frozen: bool) -> None:
        super().__init__()
        self.model, self.n_times, self.frozen = model, n_times, frozen
        self.extra: dict[str, Any] = {}
        self.register_buffer("positions", None)
        if frozen:
            for name, value in model.named_parameters():
                value.requires_grad_(name.startswith(HEAD))

    def train(self, mode: bool = True) -> PatchReader:
        """Training mode, but never for what is frozen: its dropout stays off and its statistics stay."""
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.pad(x, (0, self.n_times - x.shape[-1]))
        extra = self.extra
        if self.positions is not None:
            extra = {"pos": self.positions.expand(len(x), -1, -1)}
        return self.model(x, **extra)


def _labram(config: EncoderConfig, shape: dict[str, Any], facts: SignalFacts, load: bool) -> PatchReader:
    names = _named_channels(config, facts, shape["n_chans"])
    known = [name.upper() for name in braindecode_models().labram.LABRAM_CHANNEL_ORDER]
    unknown = [name for name in names if name.upper() not in known]
    if unknown:
        raise UserError(f"LaBraM knows no electrode {unknown[0]!r}; take the others with preprocess.channels")
    model = make("Labram", config, {**shape, "drop_prob": config.dropout})
    reader = PatchReader(model, shape["n_times"], config.frozen)
    reader.extra = {"ch_names": names}
    return reader


def _cbramod(config: EncoderConfig, shape: dict[str, Any], facts: SignalFacts, load: bool) -> PatchReader:
    model = make("CBraMod", config, {**shape, "drop_prob": config.dropout})
    return PatchReader(model, shape["n_times"], config.frozen)


def _reve(config: EncoderConfig, shape: dict[str, Any], facts: SignalFacts, load: bool) -> PatchReader:
    names = _named_channels(config, facts, shape["n_chans"])
    where = weights.electrode_positions(config.pretrained, names) if load else [[0.0, 0.0, 0.0]] * len(names)
    with weights.empty_position_bank():
        reader = PatchReader(make("REVE", config, shape), shape["n_times"], config.frozen)
    reader.positions = torch.tensor(where)
    return reader


@dataclass(frozen=True)
class Pretrained:
    """How one model is built, and how many samples its patches are apart.

    ``rows``: tensors that may be longer in the file, since short windows have fewer patches.
    """

    build: Callable[[EncoderConfig, dict[str, Any], SignalFacts, bool], PatchReader]
    step: int = PATCH
    rows: tuple[str, ...] = ()

    def whole(self, n_times: int) -> int:
        """The least number of samples, ``n_times`` or more, that is made of whole patches."""
        return PATCH + math.ceil(max(n_times - PATCH, 0) / self.step) * self.step


PRETRAINED = {
    "labram": Pretrained(_labram, rows=("temporal_embedding",)),
    "cbramod": Pretrained(_cbramod),
    "reve": Pretrained(_reve, step=180),
}


def builder(name: str) -> Callable[..., nn.Module]:
    """The ``build`` of one of `PRETRAINED`, which also takes the signals' `SignalFacts`.

    ``load`` False leaves the weights as they are drawn: for a run whose own weights follow. It raises `UserError` for
    another rate than 200 Hz, unknown electrodes, ``frozen`` without ``pretrained``, and for weights that do not fit.
    """
    entry = PRETRAINED[name]

    def build(
        in_shape: tuple[int, ...], config: EncoderConfig, facts: SignalFacts | None = None, load: bool = True
    ) -> nn.Module:
        n_chans, n_times = channels_and_times(name, in_shape)
        facts = facts or SignalFacts()
        if facts.sfreq is not None and abs(facts.sfreq - SFREQ) > 1e-3:
            raise UserError(
                f"encoder {name!r} reads signals of 200 Hz, these have {facts.sfreq:g}; pass preprocess.sfreq=200"
            )
        braindecode_models()
        shape = {"n_chans": n_chans, "n_times": entry.whole(n_times), "sfreq": SFREQ}
        reader = entry.build(config, shape, facts, load)
        if load and config.pretrained is not None:
            weights.load(reader.model, config.pretrained, skip=HEAD, rows=entry.rows)
        return reader

    return build


def _named_channels(config: EncoderConfig, facts: SignalFacts, n_chans: int) -> list[str]:
    if len(facts.channels) != n_chans:
        raise UserError(
            f"encoder {config.name!r} needs the names of the {n_chans} channels, the study gives {len(facts.channels)};"
            " take encoder.name=cbramod"
        )
    return list(facts.channels)

"""Every brain encoder by name.

Adding one: a file with ``build``, a line in `ENCODERS`, its name in `align.known_names`, a case in the tests' walk.

A module that is given in Python instead of by its name stands in no table (`align.encoders.own`).

``build(in_shape, config)`` gives a module x (B, *in_shape) -> (B, E) with E = ``config.width``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from align.config import EncoderConfig
from align.encoders import (
    atm,
    braindecode_nets,
    libraries,
    linear,
    mindbridge,
    mlp,
    own,
    pretrained,
    residual_mlp,
    skip_mlp,
    sttm,
    tsconv,
    weights,
)
from align.encoders.bands import lay_out
from align.encoders.shapes import SignalFacts
from align.known_names import BRAINDECODE, CLOSED_FORM, OWN

LINEAR_FIRST = ("mlp", "residual_mlp", "skip_mlp", "sttm", "linear", "ridge")  # linear maps of the whole trial first
ANY_SHAPE = (*LINEAR_FIRST, "banded_ridge", "encoding", "mindbridge")  # all values of a trial as one list

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "ridge": linear.build,
    "banded_ridge": linear.build,
    "encoding": linear.build,
    "linear": linear.build,
    "mlp": mlp.build,
    "residual_mlp": residual_mlp.build,
    "skip_mlp": skip_mlp.build,
    "mindbridge": mindbridge.build,
    "sttm": sttm.build,
    "tsconv": tsconv.build,
    "atm": atm.build,
    **{name: braindecode_nets.builder(name) for name in braindecode_nets.NETS},
    **{name: pretrained.builder(name) for name in pretrained.PRETRAINED},
}


def build_encoder(
    in_shape: tuple[int, ...], config: EncoderConfig, facts: SignalFacts | None = None, load: bool = True
) -> nn.Module:
    """The encoder ``config.name`` for signals of one trial's shape, (C, T) or (V,).

    ``facts`` (rate, channel names) are read by encoders of braindecode by class name and by the pretrained ones.
    ``load`` False leaves out the weights of these: for a run whose own weights are loaded next.

    Raises
    ------
    UserError
        Unknown name (with the nearest known one), a value out of range, or signals the encoder cannot read.
    """
    config.check("encoder.")
    if config.name == OWN:
        return own.build(in_shape, config)
    if config.name.startswith(BRAINDECODE):
        return braindecode_nets.build_class(in_shape, config, facts)
    if config.name in pretrained.PRETRAINED:
        return ENCODERS[config.name](in_shape, config, facts, load)
    return ENCODERS[config.name](in_shape, config)


def check_encoder(in_shape: tuple[int, ...], config: EncoderConfig, facts: SignalFacts | None = None) -> None:
    """Raise `UserError` for an encoder that cannot read trials of this shape, or whose library or weights are missing.

    It is built once, untrained and without its weights, so that this is known before anything costly is done.
    """
    if config.name == "banded_ridge" and len(lay_out(config, in_shape, (facts or SignalFacts()).regions)[0]) > 1:
        libraries.himalaya()
    elif config.name not in (*LINEAR_FIRST, *CLOSED_FORM):
        with torch.random.fork_rng(devices=[]):
            build_encoder(in_shape, config, facts, load=False)
        if config.name in pretrained.PRETRAINED and config.pretrained is not None:
            weights.find(config.pretrained)

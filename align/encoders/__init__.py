"""Every brain encoder by name. Adding one: a file with ``build``, a line in `ENCODERS`, a case in the tests' walk.

``build(in_shape, config)`` gives a module x (B, *in_shape) -> (B, E) with E = ``config.width``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from torch import nn

from align.config import EncoderConfig
from align.encoders import atm, braindecode_nets, linear, mlp, pretrained, residual_mlp, tsconv
from align.encoders.shapes import SignalFacts
from align.errors import UserError

CLOSED_FORM = ("ridge", "banded_ridge", "encoding")  # solved, not trained; they predict components themselves
LINEAR_FIRST = ("mlp", "residual_mlp", "linear", "ridge")  # a linear map of the whole trial comes first

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "ridge": linear.build,
    "banded_ridge": linear.build,
    "encoding": linear.build,
    "linear": linear.build,
    "mlp": mlp.build,
    "residual_mlp": residual_mlp.build,
    "tsconv": tsconv.build,
    "atm": atm.build,
    **{name: braindecode_nets.builder(name) for name in braindecode_nets.NETS},
    **{name: pretrained.builder(name) for name in pretrained.PRETRAINED},
}


def build_encoder(
    in_shape: tuple[int, ...], config: EncoderConfig, facts: SignalFacts | None = None, load: bool = True
) -> nn.Module:
    """The encoder ``config.name`` for signals of one trial's shape, (C, T) or (V,).

    ``facts`` (rate, channel names) are read by the pretrained encoders only. ``load`` False leaves out their weights:
    for a run whose own weights are loaded next.

    Raises
    ------
    UserError
        Unknown name (with the nearest known one), or signals the encoder cannot read.
    """
    if config.name not in ENCODERS:
        near = difflib.get_close_matches(config.name, ENCODERS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"encoder {config.name!r} is not known; {hint}Known: {', '.join(ENCODERS)}")
    if config.name in pretrained.PRETRAINED:
        return ENCODERS[config.name](in_shape, config, facts, load)
    return ENCODERS[config.name](in_shape, config)

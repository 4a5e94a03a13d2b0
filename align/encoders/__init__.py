"""Every brain encoder by name. Adding one: a file with ``build``, a line in `ENCODERS`, a case in the tests' walk.

``build(in_shape, config)`` gives a module x (B, *in_shape) -> (B, E) with E = ``config.width``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from torch import nn

from align.config import EncoderConfig
from align.encoders import mlp, ridge, tsconv
from align.errors import UserError

CLOSED_FORM = ("ridge", "encoding")  # solved, not trained: the same for every seed

ENCODERS: dict[str, Callable[[tuple[int, ...], EncoderConfig], nn.Module]] = {
    "ridge": ridge.build,
    "encoding": ridge.build,
    "mlp": mlp.build,
    "tsconv": tsconv.build,
}


def build_encoder(in_shape: tuple[int, ...], config: EncoderConfig) -> nn.Module:
    """The encoder ``config.name`` for signals of one trial's shape, (C, T) or (V,).

    Raises
    ------
    UserError
        Unknown name (with the nearest known one), or signals the encoder cannot read.
    """
    if config.name not in ENCODERS:
        near = difflib.get_close_matches(config.name, ENCODERS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"encoder {config.name!r} is not known; {hint}Known: {', '.join(ENCODERS)}")
    return ENCODERS[config.name](in_shape, config)

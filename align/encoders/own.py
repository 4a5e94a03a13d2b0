"""A torch module of the user's own in the place of an encoder: it is given in Python, and only while it is needed.

    with given(module):
        train(config)  # encoder.name=own

The weights of a run hold those of the module; what the module computes stays in the user's code, so whoever loads the
run gives the module again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn

from align.config import EncoderConfig
from align.errors import UserError

Factory = Callable[[int, int | None, int], nn.Module]  # (n_chans, n_times or None, width) -> module

_GIVEN: ContextVar[nn.Module | Factory | None] = ContextVar("own encoder", default=None)


@contextmanager
def given(encoder: nn.Module | Factory | None) -> Iterator[None]:
    """Inside, ``encoder.name=own`` means this module, or what this function ``(n_chans, n_times, width)`` returns.

    A module is copied whenever an encoder is built, so it stays as it is and every training starts from its weights;
    a function is called under the seed of the run. For trials (V,) ``n_chans`` is V and ``n_times`` None.
    """
    token = _GIVEN.set(encoder)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def name_of(encoder: nn.Module | Factory) -> str:
    """What a run calls it: the name of the class or of the function."""
    named = type(encoder) if isinstance(encoder, nn.Module) else encoder
    return str(getattr(named, "__qualname__", type(named).__qualname__))


def width_of(encoder: nn.Module, in_shape: tuple[int, ...]) -> int:
    """E of what a module makes of trials (B, *in_shape); raises `UserError` where that is no (B, E)."""
    return _told(copy.deepcopy(encoder), in_shape).shape[1]


def build(in_shape: tuple[int, ...], config: EncoderConfig) -> nn.Module:
    """The module that `given` holds, for trials of ``in_shape``: (B, *in_shape) -> (B, E) with E = ``config.width``.

    Raises `UserError` where none is given, where it cannot read such trials, and for another width.
    """
    encoder = _GIVEN.get()
    if encoder is None:
        told = next((f" ({option.partition('=')[2]})" for option in config.options if option.startswith("class=")), "")
        raise UserError(
            f"the encoder is a module of its maker's own{told}, which is given in Python: "
            "recon.Decoder(encoder=MODULE) trains it, recon.Decoder.load(RUN, encoder=MODULE) opens its run"
        )
    module = copy.deepcopy(encoder) if isinstance(encoder, nn.Module) else _call(encoder, in_shape, config.width)
    width = _told(module, in_shape).shape[1]
    if width != config.width:
        raise UserError(
            f"own encoder {name_of(encoder)} gives embeds of width {width}, encoder.width is {config.width}; "
            "make both equal"
        )
    return module.train()


def _call(factory: Factory, in_shape: tuple[int, ...], width: int) -> nn.Module:
    if not callable(factory):
        raise UserError(f"encoder {factory!r} is no name, torch module or function (n_chans, n_times, width) -> module")
    n_times = in_shape[1] if len(in_shape) > 1 else None
    try:
        module = factory(in_shape[0], n_times, width)
    except Exception as error:  # code of the user's own
        raise UserError(f"own encoder {name_of(factory)}({in_shape[0]}, {n_times}, {width}): {_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"own encoder {name_of(factory)} returns {type(module).__name__}, no torch module")
    return module


def _told(module: nn.Module, in_shape: tuple[int, ...]) -> torch.Tensor:
    """What it makes of two empty trials, (2, E); lazy layers get their size here."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            told = module.eval()(torch.zeros(2, *in_shape))
    except Exception as error:  # code of the user's own
        raise UserError(
            f"own encoder {name_of(module)} cannot read trials (2, {_axes(in_shape)}): {_line(error)}"
        ) from (error)
    if not isinstance(told, torch.Tensor) or told.ndim != 2 or len(told) != 2:
        shape = tuple(told.shape) if isinstance(told, torch.Tensor) else type(told).__name__
        raise UserError(f"own encoder {name_of(module)} makes {shape} of 2 trials; it should give (2, width)")
    return told


def _axes(in_shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, in_shape))


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]

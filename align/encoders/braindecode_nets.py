"""Networks of braindecode as encoders: the library's own class, its classification head giving E outputs.

EEGNet (Lawhern et al. 2018), ShallowFBCSPNet (Schirrmeister et al. 2017) and EEGConformer (Song et al. 2022) with the
library's sizes, made for 250 Hz; ``encoder.options=[pool_time_length=30]`` sets any other argument of the class.
Published dropouts: 0.25, 0.5, 0.5. The head of EEGConformer ends in 32 units, so its embeds have that rank at most.
Any other class is taken by its name, untrained: ``encoder.name=braindecode:EEGSimpleConv`` (El Ouahidi et al. 2023),
``braindecode:BrainModule`` (the convolutional part of Defossez et al. 2023).
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from align.config import EncoderConfig
from align.encoders.libraries import braindecode_models
from align.encoders.shapes import SignalFacts, channels_and_times
from align.errors import UserError
from align.known_names import BRAINDECODE

NETS: dict[str, tuple[str, dict[str, Any]]] = {
    "eegnet": ("EEGNet", {"final_layer_with_constraint": True}),  # the dense layer of the paper, norm at most 0.25
    "shallownet": ("ShallowFBCSPNet", {}),
    "conformer": ("EEGConformer", {}),
}

_OURS = ("n_outputs", "n_chans", "n_times", "chs_info", "input_window_seconds", "sfreq", "drop_prob")


def builder(name: str) -> Callable[[tuple[int, ...], EncoderConfig], nn.Module]:
    """The ``build`` of one of `NETS`: (B, C, T) -> (B, E), ``encoder.dropout`` being the class's ``drop_prob``.

    It raises `UserError` for signals without a time axis, windows shorter than the network's kernels, unknown
    options, and when braindecode is not installed.
    """
    class_name, fixed = NETS[name]

    def build(in_shape: tuple[int, ...], config: EncoderConfig) -> nn.Module:
        n_chans, n_times = channels_and_times(name, in_shape)
        return make(class_name, config, {"n_chans": n_chans, "n_times": n_times, "drop_prob": config.dropout, **fixed})

    return build


def build_class(in_shape: tuple[int, ...], config: EncoderConfig, facts: SignalFacts | None) -> nn.Module:
    """The class after ``braindecode:`` in ``config.name``: (B, C, T) -> (B, E), with the rate where it asks for one.

    ``encoder.dropout`` is passed on where the class has ``drop_prob``. Raises `UserError` for a class that braindecode
    lacks, an unknown rate that it needs, and one that does not give E values for a trial (`make` says the rest).
    """
    class_name = config.name.removeprefix(BRAINDECODE)
    n_chans, n_times = channels_and_times(config.name, in_shape)
    arguments: dict[str, Any] = {"n_chans": n_chans, "n_times": n_times}
    takes = inspect.signature(_class_of(class_name)).parameters
    rate = None if facts is None else facts.sfreq
    if "sfreq" in takes and rate is not None:
        arguments["sfreq"] = rate
    if "drop_prob" in takes:
        arguments["drop_prob"] = config.dropout
    net = make(class_name, config, arguments)
    shape = _shape_given(net, config.name, n_chans, n_times)
    if shape != (1, config.width):
        raise UserError(f"encoder {config.name!r} gives {shape} for a trial, not (1, {config.width}); take another")
    return net


def _class_of(name: str) -> type[nn.Module]:
    models = braindecode_models()
    found = getattr(models, name, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(f"the installed braindecode has no {name}; pip install --upgrade '.[encoders]'")
    return found


def _shape_given(net: nn.Module, name: str, n_chans: int, n_times: int) -> tuple[int, ...]:
    """Of what it makes of one trial of zeros; () for what is no array."""
    was = net.training
    net.eval()
    try:
        with torch.no_grad():
            given = net(torch.zeros(1, n_chans, n_times))
    except Exception as error:  # as many kinds as networks
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(
            f"encoder {name!r} cannot read {n_chans} channels and {n_times} samples ({reason}); take another"
        ) from error
    finally:
        net.train(was)
    return tuple(given.shape) if isinstance(given, torch.Tensor) else ()


def make(class_name: str, config: EncoderConfig, arguments: dict[str, Any]) -> nn.Module:
    """An instance of a class of ``braindecode.models`` with ``config.width`` outputs, arguments and options."""
    cls = _class_of(class_name)
    options = read_options(config.options, cls)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it was tried on 64 channels at most, and the like
            return cls(n_outputs=config.width, **{**arguments, **options})
    except Exception as error:  # asserts, look-ups, torch's own: as many kinds as wrong sizes
        reason = " ".join(str(error).split()) or type(error).__name__
        shape = f"{arguments['n_chans']} channels and {arguments['n_times']} samples"
        raise UserError(
            f"encoder {config.name!r} does not fit {shape} ({reason[:100]}); change the window or encoder.options"
        ) from error


def read_options(options: list[str], cls: type) -> dict[str, Any]:
    """``name=value`` pairs as arguments of ``cls``: numbers, true, false and text; raises `UserError` otherwise."""
    known = [name for name in inspect.signature(cls).parameters if name not in ("kwargs", *_OURS)]
    found: dict[str, Any] = {}
    for option in options:
        name, _, text = option.partition("=")
        if name.strip() not in known or not text.strip():
            raise UserError(f"encoder.options: {option!r} is not name=value with a name of {', '.join(known)}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text.strip()
        if not isinstance(value, (bool, int, float, str)):
            raise UserError(f"encoder.options: {option!r} is neither a number, true, false nor text")
        found[name.strip()] = value
    return found

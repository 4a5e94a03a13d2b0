"""Lower precision and a compiled encoder in training; weights, losses and predictions stay float32."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import nn

from align.config import Config
from align.errors import UserError
from align.model.aligner import Network

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_precision(config: Config, device: torch.device | str) -> None:
    """Raise `UserError` where ``train.precision`` cannot work on the device."""
    if config.train.precision == "fp16" and torch.device(device).type == "cpu":
        raise UserError("train.precision=fp16 is for GPUs; on a CPU take bf16 or fp32")


def as_trained(network: Network, config: Config) -> Network:
    """The network as the loss sees it: encoder and heads compute in ``train.precision``, the encoder maybe compiled.

    They hand out float32. Autocast would also lower the products that the losses are made of (cross entropy and squared
    error it leaves alone): logits of 8 to 16, where cosines over a temperature of 0.07 end, would be rounded to steps
    of 1/16 in bfloat16, and embeds before they are gathered from other processes. The matrices are small; float32 costs
    little there. With ``train.compile`` failing, the first call raises `UserError`: no silent return to eager.

    The network itself stays as it is: same tensor names, and what is evaluated in between is float32 and not compiled.
    """
    train = config.train
    if train.precision == "fp32" and not train.compile:
        return network
    encoder = _compiled(network.encoder) if train.compile else network.encoder
    return cast(Network, _Lowered(network, encoder, DTYPES[train.precision]))


class Scaler(nn.Module):
    """Scales the loss of fp16, whose gradients would be 0 below 6e-8, and leaves out steps that overflow.

    A module, so that scale and growth are part of the checkpoint. Without ``enabled`` it does nothing. Several
    processes agree: the gradients it looks at have been summed over all.
    """

    def __init__(self, device: torch.device, enabled: bool) -> None:
        super().__init__()
        self.enabled = enabled
        self.scaler = torch.amp.GradScaler(device.type, enabled=enabled)

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to call ``backward`` of."""
        return self.scaler.scale(loss)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Step with the gradients as they were before scaling, unless one overflowed; then set the next scale."""
        self.scaler.step(optimizer)
        self.scaler.update()

    def get_extra_state(self) -> torch.Tensor:
        """(2,): scale, steps since it was changed."""
        state = self.scaler.state_dict()
        return torch.tensor([state["scale"], state["_growth_tracker"]], dtype=torch.float64)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Continue from what `get_extra_state` gave."""
        scale, growth = state.tolist()
        self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": scale, "_growth_tracker": int(growth)})


class _Lowered:
    """Calls of a module run in ``dtype`` and give float32; everything else is the network's own."""

    def __init__(self, network: Network, encoder: Callable[..., torch.Tensor], dtype: torch.dtype) -> None:
        self._network = network
        device = network.logit_scale.device.type
        self.encoder = _lowered(encoder, dtype, device)
        self.image_head = _lowered(network.image_head, dtype, device)
        self.token_head = _lowered(network.token_head, dtype, device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


def _lowered(call: Callable[..., torch.Tensor], dtype: torch.dtype, device: str) -> Callable[..., torch.Tensor]:
    def lowered(*inputs: torch.Tensor, **options: Any) -> torch.Tensor:
        with nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype):
            return call(*inputs, **options).float()

    return lowered


def _compiled(encoder: nn.Module) -> Callable[..., torch.Tensor]:
    from torch._dynamo.exc import TorchDynamoException

    compiled = torch.compile(encoder)

    def call(*inputs: torch.Tensor, **options: Any) -> torch.Tensor:
        try:
            return cast(torch.Tensor, compiled(*inputs, **options))
        except TorchDynamoException as error:
            reason = " ".join(str(error).split("\n\n")[0].split())[:200]
            raise UserError(
                f"train.compile=true, but the encoder cannot be compiled here ({reason}); "
                "it takes a C++ compiler on a CPU, Triton on a GPU; else set train.compile=false"
            ) from error

    return call

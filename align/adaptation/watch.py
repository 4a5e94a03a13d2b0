"""What goes into a layer and what comes out, for parts of the loss that are about layers inside a network."""

from __future__ import annotations

import torch
from torch import nn


class Watch:
    """Keeps the last input and output of a module, float32; ``seen`` is None before the first."""

    def __init__(self, module: nn.Module) -> None:
        self.seen: tuple[torch.Tensor, torch.Tensor] | None = None
        module.register_forward_hook(self._note)

    @property
    def output(self) -> torch.Tensor:
        """The last output."""
        assert self.seen is not None
        return self.seen[1]

    def _note(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        self.seen = inputs[0].float(), output.float()

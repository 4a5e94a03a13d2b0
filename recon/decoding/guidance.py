"""How far the response may pull at a picture while the generator draws it: options, and the steps on the latents.

At every denoising step the picture as the model sees it by then takes a few steps up the gradient of the response's
likelihood (Chung et al. 2023, arXiv 2209.14687, "Diffusion posterior sampling"). The gradient goes through the decoder
of the latents, and through no UNet.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from align.errors import UserError

if TYPE_CHECKING:
    import torch

GUIDES = ("none", "encoding")
_LEAST = 1e-12  # of a gradient's root mean square: a smaller one moves less


@dataclass(frozen=True)
class Guidance:
    """``scale``: by how much one gradient step moves the latents, root mean square, in parts of their own standard
    deviation. ``steps``: of these per denoising step. ``until``: share of the denoising steps, the first ones, in which
    it acts.

    Raises `UserError` for values that cannot be.
    """

    scale: float = 0.05
    steps: int = 3
    until: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise UserError(f"guide scale {self.scale} should be above 0 and finite")
        if self.steps < 1:
            raise UserError(f"guide steps {self.steps} should be 1 or more")
        if not 0 < self.until <= 1:
            raise UserError(f"guide until {self.until} should be above 0 and at most 1")

    @classmethod
    def parse(cls, text: str | None) -> Guidance | None:
        """From ``encoding`` or ``encoding:SCALE``; None for ``none``. Raises `UserError` for anything else."""
        name, colon, scale = (text or "none").partition(":")
        if name not in GUIDES or (colon and name == "none"):
            raise UserError(f"--guide {text!r} is not known; use none, encoding or encoding:SCALE")
        if name == "none":
            return None
        if not colon:
            return cls()
        try:
            number = float(scale)
        except ValueError as error:
            raise UserError(f"--guide {text!r}: {scale!r} is no number; use encoding:SCALE") from error
        return cls(number)

    @property
    def label(self) -> str:
        """Part of a folder's name: what is not the usual."""
        usual, name = Guidance(), "encoding"
        for what in ("scale", "steps", "until"):
            value = getattr(self, what)
            if value != getattr(usual, what):
                name += f"-{'' if what == 'scale' else what}{value:g}"
        return name

    def acting(self, count: int) -> int:
        """In how many of ``count`` denoising steps it acts, one or more."""
        return max(1, math.floor(self.until * count + 0.5))


def require_steps(guidance: Guidance | None, strength: float | None) -> None:
    """Raise `UserError` where nothing is drawn that could be guided."""
    if guidance is not None and strength == 0:
        raise UserError("--guide acts while the generator draws; --strength 0 shows the coarse picture itself")


def ascend(x0: torch.Tensor, score: Callable[[torch.Tensor], torch.Tensor], guidance: Guidance) -> torch.Tensor:
    """Latents x0 (B, C, h, w) after ``guidance.steps`` steps up the gradient of ``score``, (B, C, h, w) to (B,).

    Every picture's gradient is brought to the same length, so that none depends on the batch or on the noise of its
    response. Raises `UserError` for a gradient that is not finite, as half precision may give.
    """
    import torch

    length = guidance.scale * x0.flatten(1).std(1)[:, None, None, None]
    for _ in range(guidance.steps):
        with torch.enable_grad():
            at = x0.detach().requires_grad_()
            (slope,) = torch.autograd.grad(score(at).sum(), at)
        size = slope.double().square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        if not bool(size.isfinite().all()):
            raise UserError("--guide: the gradient is not finite in this number format; use --precision fp32 or bf16")
        x0 = x0 + length * (slope / size.clamp_min(_LEAST)).to(x0.dtype)
    return x0

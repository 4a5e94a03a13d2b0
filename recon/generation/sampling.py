"""The denoising loop: noise of its own for every picture, any scheduler of diffusers, a start picture, a hook."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from align.errors import UserError

Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# x0 (B, C, h, w) float32, index of the step, rows of the call that the batch holds; returns x0 of the same shape
Guide = Callable[[torch.Tensor, int, range], torch.Tensor]


def own_noise(seeds: Sequence[int], shape: tuple[int, ...]) -> tuple[torch.Tensor, list[torch.Generator]]:
    """Starting noise (B, *shape) float32 and, for the noise of later steps, one generator per picture.

    Drawn on the CPU, so that a picture is the same on every device and in every batch.
    """
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    return torch.cat([torch.randn((1, *shape), generator=generator) for generator in generators]), generators


def count_steps(steps: int, strength: float | None) -> int:
    """How many of ``steps`` are run: all of them, or with a start picture the last ``strength`` part, one or more."""
    return steps if strength is None else min(max(1, int(steps * strength)), steps)


def set_steps(scheduler: Any, steps: int, strength: float | None, device: torch.device) -> torch.Tensor:
    """Timesteps to run, see `count_steps`; ``strength``: with a start picture, else None.

    Raises `UserError` for a strength out of range and where the scheduler cannot do so many steps.
    """
    try:
        scheduler.set_timesteps(steps, device=device)
    except ValueError as error:
        raise UserError(f"{steps} steps: {str(error).splitlines()[0]}") from error
    if strength is None:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        return scheduler.timesteps
    if not 0 < strength <= 1:
        raise UserError(f"strength {strength} should be above 0 and at most 1")
    first = (steps - count_steps(steps, strength)) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return scheduler.timesteps[first:]


def denoise(
    scheduler: Any,
    timesteps: torch.Tensor,
    model: Denoise,
    latents: torch.Tensor,
    generators: list[torch.Generator],
    guide: Callable[..., torch.Tensor] | None = None,
) -> torch.Tensor:
    """Latents (B, C, h, w) float32 from noise to picture; ``model(x, t)`` gives what the scheduler's step reads.

    ``guide(x0, step=i)`` may replace the picture that the model sees at every step; raises `UserError` for a scheduler
    whose steps do not hold such an estimate.
    """
    if guide is not None and (scheduler.order > 1 or hasattr(scheduler, "plms_timesteps")):
        raise UserError(
            f"{type(scheduler).__name__} has no estimate of the picture at every step, which the hook changes; "
            "give the generator a DPMSolverMultistep, DDIM, Euler or LCM scheduler"
        )
    accepts = inspect.signature(scheduler.step).parameters
    extra = {"generator": generators} if "generator" in accepts else {}
    for index, t in enumerate(timesteps):
        out = model(scheduler.scale_model_input(latents, t), t)
        if guide is not None:
            out = _guided(scheduler, out, latents, t, partial(guide, step=index))
        latents = scheduler.step(out, t, latents, **extra, return_dict=False)[0]
    return latents


def _guided(
    scheduler: Any, out: torch.Tensor, x: torch.Tensor, t: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The model's output whose estimate of the picture is the changed one, at the same noisy x = a x0 + s noise."""
    a, s = _scales(scheduler, t)
    kind = scheduler.config.prediction_type
    size = (a * a + s * s) ** 0.5  # 1 where the noise replaces the picture; above where it is added (Euler)
    x0 = {
        "epsilon": lambda: (x - s * out) / a,
        "v_prediction": lambda: (a * x / size - s * out) / size,
        "sample": lambda: out,
    }[kind]()
    x0 = change(x0)
    noise = (x - a * x0) / s
    if kind == "epsilon":
        return noise
    return x0 if kind == "sample" else (a * noise - s * x0) / size


def _scales(scheduler: Any, t: torch.Tensor) -> tuple[float, float]:
    """Factor of the picture and of the noise in the sample at ``t``."""
    if hasattr(scheduler, "is_scale_input_called") and hasattr(scheduler, "sigmas"):  # Euler and kin: x0 + sigma noise
        return 1.0, float(scheduler.sigmas[_index(scheduler, t)])
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[_index(scheduler, t)])
        return float(alpha), float(sigma)
    product = float(scheduler.alphas_cumprod[int(t)])
    return product**0.5, (1 - product) ** 0.5


def _index(scheduler: Any, t: torch.Tensor) -> int:
    if scheduler.step_index is None:
        scheduler._init_step_index(t)
    return int(scheduler.step_index)

"""The one training loop of the generation side: seeded per step, resumable, logged, with a moving average."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from align.errors import UserError
from align.seeding import seed_step
from align.tracking import JsonLines
from align.training.state import load_state, save_state
from recon.config import StageConfig

Loss = Callable[[int, torch.Generator], tuple[torch.Tensor, dict[str, float]]]


@dataclass
class Stage:
    """One training problem: modules to train, their loss at a step, and where checkpoints go."""

    name: str
    modules: dict[str, nn.Module]
    loss: Loss
    config: StageConfig
    folder: Path
    seed: int = 0
    checkpoint_every: int = 200
    precision: str = "bf16"
    ema_decay: float = 0.0  # 0 = no moving average
    weight_decay: float = 0.01


def learning_rate(step: int, steps: int, peak: float, warmup: int = 100) -> float:
    """Linear warm-up, then cosine to 2 % of the peak; a function of the step alone."""
    warmup = min(warmup, max(1, steps // 10))
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))))


def run_stage(stage: Stage) -> dict[str, nn.Module]:
    """Train to ``config.steps``, from the last checkpoint if there is one; returns the modules (averaged if asked).

    The folder gets ``state.safetensors`` every ``checkpoint_every`` steps and ``metrics.jsonl`` every 20 steps. Raises
    `UserError` where the loss is NaN or infinite.
    """
    from tqdm import tqdm

    parameters = [p for module in stage.modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=stage.config.lr, weight_decay=stage.weight_decay)
    averages = {name: _copy(module) for name, module in stage.modules.items()} if stage.ema_decay else {}
    stored = stage.modules | {f"ema.{name}": module for name, module in averages.items()}
    start = load_state(stage.folder, stored, optimizer)
    metrics = JsonLines(stage.folder / "metrics.jsonl")
    metrics.resume({"": start - 1})
    bar = tqdm(
        range(start, stage.config.steps), initial=start, total=stage.config.steps, desc=stage.name, mininterval=5
    )
    for step in bar:
        generator = seed_step(stage.seed, step, stage.name)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, stage.config.steps, stage.config.lr)
        with torch.autocast(parameters[0].device.type, torch.bfloat16, enabled=stage.precision == "bf16"):
            loss, parts = stage.loss(step, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay = min(stage.ema_decay, (1 + step) / (10 + step))
        for name, average in averages.items():
            _update(average, stage.modules[name], decay)
        if step % 20 == 0:
            value = float(loss.detach())
            if not math.isfinite(value):
                raise UserError(f"{stage.name}: the loss of step {step} is {value}; take another folder and a lower lr")
            bar.set_postfix_str(f"loss {value:.4f}")
            metrics({"step": step, "loss": value, **parts})
        if (step + 1) % stage.checkpoint_every == 0 or step + 1 == stage.config.steps:
            save_state(stage.folder, stored, optimizer, step + 1)
    return averages or stage.modules


def _copy(module: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(module).requires_grad_(False).eval()


@torch.no_grad()
def _update(average: nn.Module, module: nn.Module, decay: float) -> None:
    pairs = zip(average.state_dict().values(), module.state_dict().values(), strict=True)
    for mean, value in pairs:
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)

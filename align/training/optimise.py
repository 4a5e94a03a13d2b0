"""The training loop: AdamW on the named loss parts, every step a function of (seed, step), resumable at checkpoints."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from align.config import Config, to_dict
from align.errors import UserError
from align.files import read_json, remove_strays, write_json
from align.model.aligner import Network
from align.model.losses import part_names, weighted_sum
from align.seeding import derive, seed_step
from align.tracking import Forecast, JsonLines, logger, progress_bar
from align.training.batches import Ahead, Batch, Pairs
from align.training.distributed import own_part, sum_gradients, wait_for_all, world
from align.training.objective import loss_parts
from align.training.precision import Scaler, as_trained
from align.training.schedule import learning_rate, steps_per_epoch
from align.training.state import load_finished_step, load_state, save_state
from align.training.uncertainty import uncertainty_of

STAGES = ("spread", "train")


class StateFolder:
    """Where the stages of one fit leave their checkpoints; emptied when the configuration or the data changed.

    ``folder`` None keeps nothing. ``metrics`` takes the records; those of steps that will be repeated are dropped.
    """

    def __init__(
        self,
        config: Config,
        pairs: Pairs,
        folder: str | Path | None = None,
        metrics: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.main = world()[0] == 0  # of several processes, one writes
        self.record: Callable[[dict[str, Any]], None] = (metrics if self.main else None) or (lambda record: None)
        if self.folder is not None and self.main:
            self._prepare(self.folder, config, pairs, metrics)
        wait_for_all()

    def _prepare(
        self, folder: Path, config: Config, pairs: Pairs, metrics: Callable[[dict[str, Any]], None] | None
    ) -> None:
        fingerprint = {"fingerprint": _fingerprint(config, pairs)}
        note = folder / "fit.json"
        if not note.is_file() or read_json(note) != fingerprint:
            shutil.rmtree(folder, ignore_errors=True)
            write_json(note, fingerprint)
        for stage in STAGES:
            remove_strays(folder / stage)
        if isinstance(metrics, JsonLines):
            metrics.resume({stage: load_finished_step(folder / stage) for stage in STAGES})

    def load(self, stage: str, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> int:
        """The number of finished steps, after restoring modules and optimizer; 0 = start."""
        return 0 if self.folder is None else load_state(self.folder / stage, modules, optimizer)

    def save(self, stage: str, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, step: int) -> None:
        """Replace the stage's checkpoint."""
        if self.folder is not None and self.main:
            save_state(self.folder / stage, modules, optimizer, step)


def _fingerprint(config: Config, pairs: Pairs) -> str:
    tree = to_dict(config)
    parts = {name: tree[name] for name in ("target", "encoder", "loss", "train", "seed")}
    parts["train"].pop("checkpoint_every")
    parts["target"].pop("chosen_on")
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    held = [pairs.components, pairs.stimulus, *(each for each in (pairs.subject, pairs.levels) if each is not None)]
    if isinstance(pairs.signals, torch.Tensor):
        held.insert(0, pairs.signals)
    else:
        digest.update(pairs.signals.rows.digest().encode())
    for tensor in held:
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class _Sums(nn.Module):
    """Running sums of the loss parts within an epoch; a module, so that they are part of the checkpoint."""

    sums: torch.Tensor

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.register_buffer("sums", torch.zeros(len(names)))

    def add(self, parts: dict[str, torch.Tensor]) -> None:
        self.sums += torch.stack([parts[name].detach() for name in self.names])

    def pop(self, count: int) -> dict[str, float]:
        means = dict(zip(self.names, (self.sums / count).tolist(), strict=True))
        self.sums.zero_()
        return means


def optimise(
    network: Network,
    config: Config,
    pairs: Pairs,
    gain: torch.Tensor,
    stage: str,
    state: StateFolder,
    progress: bool,
    after_epoch: Callable[[int], None] | None = None,
    penalty: Callable[[], torch.Tensor] | None = None,
) -> None:
    """Train ``network`` in place, from the stage's checkpoint where there is one.

    ``gain``: (k,) whitening of the image side. Ends with the averaged weights where ``train.ema`` is set.
    ``after_epoch`` is called with the number of finished epochs, the network in evaluation mode. ``penalty`` is called
    after the network has seen a batch; what it returns is added to the loss.
    """
    train, n_rows = config.train, len(pairs)
    per_epoch = steps_per_epoch(n_rows, train.batch_size)
    total = per_epoch * train.epochs
    optimizer = _optimizer(network, config)
    average = _average(network, train.ema) if train.ema > 0 else None
    sums = _Sums([*part_names(config.loss), "loss"]).to(pairs.components.device)
    modules: dict[str, nn.Module] = {"network": network, "sums": sums}
    if average is not None:
        modules["average"] = average
    uncertainty = uncertainty_of(config, n_rows)
    if uncertainty is not None:
        modules["uncertainty"] = uncertainty.to(pairs.components.device)
    scaler = Scaler(pairs.components.device, enabled=train.precision == "fp16")
    if scaler.enabled:
        modules["scaler"] = scaler
    trained = as_trained(network, config)
    start = state.load(stage, modules, optimizer)
    bar = progress_bar(total, stage, progress, start)
    network.train()
    order, streamed = derive(config.seed, stage), not isinstance(pairs.signals, torch.Tensor)
    rank = world()[0]

    def read(step: int) -> Batch:
        rows = own_part(pairs.draw(train.batch_size, order, step))
        return pairs.batch(rows, train.average_up_to, derive(order, "average", step, rank))

    forecast = Forecast(stage, total - start, "step", progress)
    reader = Ahead(read, range(start, total), streamed)
    for step, batch in enumerate(reader, start):
        seed_step(config.seed, step, stage if rank == 0 else f"{stage}/{rank}")
        for group in optimizer.param_groups:
            group["lr"] = train.lr * learning_rate(train.schedule, step, total)
        parts = loss_parts(trained, config, batch, gain, uncertainty)
        loss = weighted_sum(parts, config.loss, step / max(1, total - 1))
        if penalty is not None:
            loss = loss + penalty()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        sum_gradients(network, ("logit_scale", "logit_bias"))
        scaler.step(optimizer)
        if average is not None:
            average.update_parameters(network)
        sums.add({**parts, "loss": loss})
        done = step + 1
        if done % per_epoch == 0:
            means = sums.pop(per_epoch)
            if not np.isfinite(list(means.values())).all():
                raise UserError(f"the loss is not finite in epoch {done // per_epoch} ({stage}); lower train.lr")
            state.record({"stage": stage, "step": done, "epoch": done // per_epoch, **means})
            if after_epoch is not None:
                network.eval()
                after_epoch(done // per_epoch)
                network.train()
        if done % train.checkpoint_every == 0 or done == total:
            state.save(stage, modules, optimizer, done)
        bar.update()
        forecast.done()
    bar.close()
    if streamed:
        logger.info("%s: waited %.1f s for signals to be read", stage, reader.waited)
    if average is not None:
        network.load_state_dict(average.module.state_dict())
    network.eval()


def _optimizer(network: Network, config: Config) -> torch.optim.Optimizer:
    trained = [value for value in network.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in trained if value.ndim > 1], "weight_decay": config.train.weight_decay},
        {"params": [value for value in trained if value.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.train.lr, fused=True)


def _average(network: Network, decay: float) -> AveragedModel:
    """Exponential average of weights and buffers; the decay grows to ``decay`` so that the start is forgotten."""

    def mix(average: torch.Tensor, value: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        share = min(decay, (1 + float(count)) / (10 + float(count)))
        return share * average + (1 - share) * value

    return AveragedModel(network, avg_fn=mix, use_buffers=True)

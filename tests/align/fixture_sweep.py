"""A study of 90 pictures and backbones of three layers for the tests of sweeps and recipes, in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from align.config import Config, TargetConfig, load_config
from align.data.signals import Stimuli, Trials
from align.data.studies.base import Study, StudyInfo
from align.sweep import grid
from align.sweep import run as sweep

N_TRAIN, N_TEST, WIDTH = 90, 24, 12
LAYERS = ("0", "1", "2")


@dataclass
class ToyRecording:
    """A recording whose test rows can be locked."""

    train: Trials
    stimuli: Stimuli
    hidden_test: Trials
    guard: Callable[[], None]
    subject: str
    study: str = "toy"
    sfreq: float | None = None
    ch_names: tuple[str, ...] = ()
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def test(self) -> Trials:
        self.guard()
        return self.hidden_test


class Toy(Study):
    """Signals carry what layer 1 holds; layer 0 is a noisy copy of it, layer 2 keeps two numbers of it."""

    info = StudyInfo("toy", "toy", "any", "none", "none", ("01", "02"))
    signal, noise = 1.0, 1.5
    shift = 0  # of the test rows against their pictures
    guard: Callable[[], None] = staticmethod(lambda: None)

    def read(self, subject: str) -> Any:
        rng = np.random.default_rng(int(subject))
        latent = _latent()
        mixing = rng.normal(size=(WIDTH, 20))
        stimulus = np.repeat(np.arange(N_TRAIN + N_TEST), 2)
        x = self.signal * latent[stimulus] @ mixing + self.noise * rng.normal(size=(len(stimulus), 20))
        trials = Trials(x.astype(np.float32), stimulus, np.tile([0, 1], N_TRAIN + N_TEST))
        train, test = (trials.take(np.flatnonzero(side)) for side in (stimulus < N_TRAIN, stimulus >= N_TRAIN))
        test = replace(test, x=np.roll(test.x, 2 * self.shift, axis=0))
        return ToyRecording(train, _stimuli(), test, type(self).guard, subject)

    def recording(self, subject: str) -> Any:
        """Without the checks of a study, which look at both splits: guarded is what the sweep itself reads."""
        return self.read(subject)

    def check(self) -> list[Any]:
        return []


def _latent() -> np.ndarray:
    return np.random.default_rng(99).normal(size=(N_TRAIN + N_TEST, WIDTH))


def _stimuli() -> Stimuli:
    n = N_TRAIN + N_TEST
    ids = tuple(f"picture {i}" for i in range(n))
    return Stimuli(ids, lambda i: np.full((2, 2, 3), i, np.uint8), np.arange(n) // 3, ("",) * n, ("",) * n)


def toy_tokens(layer: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    latent = _latent()
    if layer == "0":
        latent = latent + 1.5 * rng.normal(size=latent.shape)
    if layer == "2":
        latent[:, 2:] = 0
    flat = latent @ rng.normal(size=(WIDTH, 32)) + 0.01 * rng.normal(size=(len(latent), 32))
    return flat.reshape(len(latent), 4, 8).astype(np.float16)


def toy_targets(key: str, layer: str, target: TargetConfig) -> Any:
    """Where views are asked for, their tokens are those of the picture, larger for every letter of their names."""
    names = target.uncertain_views or ["".join(target.views)]
    every = [(toy_tokens(layer) * (1 + len(name) / 10)).astype(np.float16) for name in names]
    middle = len(every) // 2
    view_tokens = tuple(every[:middle] + every[middle + 1 :])
    return SimpleNamespace(tokens=every[middle], key=key, widths=(), view_tokens=view_tokens)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> type[Toy]:
    """The toy study and its backbone in place of real ones; everything else is the real thing."""
    study = type("Toy", (Toy,), {})

    def targets(model: Any, images: Stimuli, layers: Any, target: TargetConfig, cache: str, _: bool) -> dict[str, Any]:
        assert target.pooling == "grid:2"
        return {layer: toy_targets(f"{model.name} {layer}", layer, target) for layer in layers}

    def backbone(config: Any) -> Any:
        weights = [torch.zeros(10 ** (1 + len(config.weights or ""))), torch.zeros(2)]
        model = SimpleNamespace(layers=LAYERS, name=config.name, shapes={}, parameters=lambda: iter(weights))
        model.to = lambda device: model
        return model

    monkeypatch.setattr(sweep, "open_study", study)
    monkeypatch.setattr(sweep, "draw", lambda summary, folder: [])
    monkeypatch.setattr(grid, "load_backbone", backbone)
    monkeypatch.setattr(grid, "resolve_layers", lambda model, layer: layer)
    monkeypatch.setattr(grid, "training_targets", targets)
    return study


def toy_config(**sweep_values: Any) -> Config:
    recipe = ["study.name=folder", "target.pooling=grid:2", "target.components=10", "train.epochs=3", "sweep.seeds=2"]
    encoder = ["encoder.name=ridge", "encoder.width=16", "encoder.alphas=[1,10,100]"]
    config = load_config(Config, None, [*recipe, *encoder])
    return replace(config, sweep=replace(config.sweep, **sweep_values))

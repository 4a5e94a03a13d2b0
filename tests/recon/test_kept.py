"""Keys and values that stay the same from step to step are computed once, and no picture changes for it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from recon.generation import pipeline
from recon.generation.conditioner import cross_attentions
from recon.generation.kept import kept_keys
from recon.generation.pipeline import Generator, find_conditioner
from recon.generation.runtime import Runtime

STEPS = 3


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator.load("mini", find_conditioner("mini", "1", "grid:8"), Runtime(device="cpu"))


def _tokens(generator: Generator, n: int) -> torch.Tensor:
    return torch.randn(n, *generator.bridge.takes, generator=torch.Generator().manual_seed(0))


def test_pictures_are_the_same(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = _tokens(generator, 3)  # two batches with other tokens each
    kept = generator.generate(tokens, range(3), STEPS, 2.0, batch_size=2)
    monkeypatch.setattr(pipeline, "kept_keys", lambda unet: nullcontext())
    assert torch.equal(kept, generator.generate(tokens, range(3), STEPS, 2.0, batch_size=2))


def test_each_map_is_applied_once_per_batch(generator: Generator) -> None:
    calls: list[str] = []
    unet = generator._pipe.unet
    hooks = []
    for name, attention in cross_attentions(unet).items():
        for layer in (attention.to_k, *attention.processor.to_v_ip):
            plain = type(layer).forward
            layer.forward = lambda x, layer=layer, plain=plain, name=name: (calls.append(name), plain(layer, x))[1]
            hooks.append(layer)
    try:
        generator.generate(_tokens(generator, 2), range(2), STEPS, 2.0, batch_size=1)
    finally:
        for layer in hooks:
            del layer.forward
    assert len(calls) == 2 * len(hooks)


def test_gradients_flow_at_every_step(generator: Generator) -> None:
    layer = next(iter(cross_attentions(generator._pipe.unet).values())).to_k
    x = torch.ones(1, 2, layer.in_features, requires_grad=True)
    with kept_keys(generator._pipe.unet):
        with torch.no_grad():
            assert layer(x) is layer(x)
            assert not torch.equal(layer(2 * x), layer(x))  # another tensor is another condition
        layer(x).sum().backward()
        layer(x).sum().backward()
    assert x.grad is not None and "forward" not in vars(layer)

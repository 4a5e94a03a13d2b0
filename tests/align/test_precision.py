"""Lower precision and compilation: what they touch, what stays float32, what a killed run finds again."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from align.checkpoint import tensors_hash
from align.config import Config, EncoderConfig, load_config
from align.encoders import CLOSED_FORM, ENCODERS, build_encoder
from align.model.aligner import Aligner, Network
from align.tracking import JsonLines
from align.training import objective, optimise
from align.training.fit import fit
from align.training.precision import Scaler, as_trained
from tests.align.test_encoders import make, needs_library
from tests.one_line import fails

RECIPE = ["target.components=4", "encoder.width=8", "train.epochs=3", "train.batch_size=20", "target.spread=0"]
CPU = torch.device("cpu")


def _config(*pairs: str) -> Config:
    return load_config(Config, None, [*RECIPE, *pairs])


def _fit(*pairs: str, folder: Path | None = None, records: list[dict[str, Any]] | None = None) -> Aligner:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6)).astype(np.float32)
    tokens = rng.normal(size=(40, 2, 4)).astype(np.float32)
    metrics = JsonLines(folder / "metrics.jsonl") if folder else (None if records is None else records.append)
    return fit(_config(*pairs), x, tokens, np.arange(40), state_dir=folder, metrics=metrics)


def _hash(*pairs: str, folder: Path | None = None) -> str:
    return tensors_hash(_fit(*pairs, folder=folder).state())


def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile without a C++ compiler: the captured graph is run as it is."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


def _kill_at_step(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: Any) -> dict[str, torch.Tensor]:
        killed.calls += 1  # type: ignore[attr-defined]
        if killed.calls > number:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return objective.loss_parts(*arguments)

    killed.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(optimise, "loss_parts", killed)


def test_bf16_trains_nearly_as_fp32_and_keeps_everything_but_the_layers_in_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: set[tuple[str, torch.dtype]] = set()
    inside: set[torch.dtype] = set()

    def noted(name: str, function: Any) -> Any:
        def wrapper(*arguments: Any, **options: Any) -> torch.Tensor:
            seen.update((name, value.dtype) for value in arguments if isinstance(value, torch.Tensor))
            assert not torch.is_autocast_enabled("cpu")
            return function(*arguments, **options)

        return wrapper

    for name in ("contrastive", "mmd", "token_regression", "sides"):
        monkeypatch.setattr(objective, name, noted(name, getattr(objective, name)))
    forward = nn.Linear.forward

    def lowered(module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        found = forward(module, x)
        if module.training:
            inside.add(found.dtype)
        return found

    monkeypatch.setattr(nn.Linear, "forward", lowered)
    low, whole = [], []
    aligner = _fit("train.precision=bf16", "loss.mmd=0.5", records=low)
    assert inside == {torch.bfloat16}
    assert {name for name, _ in seen} == {"contrastive", "mmd", "token_regression", "sides"}
    assert {kind for _, kind in seen} == {torch.float32}, "what the losses are made of"
    assert {value.dtype for value in aligner.state().values() if value.is_floating_point()} == {torch.float32}
    inside.clear()
    other = _fit("loss.mmd=0.5", records=whole)
    assert inside == {torch.float32}
    losses = np.array([[record["loss"] for record in records] for records in (low, whole)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)
    assert tensors_hash(aligner.state()) != tensors_hash(other.state())


def test_without_options_the_network_itself_is_trained() -> None:
    network = Network(_config(), (6,), 4)
    assert as_trained(network, _config()) is network
    scaler = Scaler(CPU, enabled=False)
    loss = torch.ones((), requires_grad=True)
    assert scaler.scale(loss) is loss


@pytest.mark.parametrize("name", [name for name in ENCODERS if name not in CLOSED_FORM])
def test_every_encoder_runs_in_bf16(name: str) -> None:
    """Forward and backward are near those of float32, in training mode, dropout aside."""
    needs_library(name)
    module = make(name, (6, 400), dropout=0.0).train()
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    network = Network(_config(), (6,), 4)
    network.encoder = module
    low = as_trained(network, _config("train.precision=bf16"))
    torch.manual_seed(0)
    x = torch.randn(6, 6, 400)
    results = []
    for encoder in (low.encoder, module):
        torch.manual_seed(1)
        module.zero_grad()
        out = encoder(x)
        assert out.dtype == torch.float32 and out.shape == (6, 8)
        out.square().sum().backward()
        grads = [value.grad.flatten() for value in module.parameters() if value.grad is not None]
        assert all(torch.isfinite(grad).all() for grad in grads)
        results.append((out.detach(), len(grads)))
    assert results[0][1] == results[1][1] > 0
    assert not torch.equal(results[0][0], results[1][0]), "bf16 was at work"
    likeness = torch.cosine_similarity(results[0][0].flatten(), results[1][0].flatten(), dim=0)
    assert likeness > 0.98


def test_scaler_goes_through_a_checkpoint_and_leaves_out_steps_that_overflow() -> None:
    """Against arithmetic: the step is that of the gradient without its scale; an infinite one changes nothing."""
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    scaler = Scaler(CPU, enabled=True)
    scaler.scale((3 * weight).sum()).backward()
    assert weight.grad is not None and weight.grad.item() == 3 * 65536
    scaler.step(optimizer)
    assert weight.item() == 1 - 0.5 * 3
    weight.grad.fill_(float("inf"))
    scaler.step(optimizer)
    assert weight.item() == -0.5
    state = scaler.state_dict()
    assert state["_extra_state"].tolist() == [32768, 0]
    optimizer.zero_grad()
    scaler.scale((3 * weight).sum()).backward()
    scaler.step(optimizer)
    again = Scaler(CPU, enabled=True)
    again.load_state_dict(scaler.state_dict())
    assert again.state_dict()["_extra_state"].tolist() == [32768, 1]
    assert again.scale(torch.ones(())).item() == 32768


@pytest.mark.parametrize(
    "how",
    [["train.precision=bf16"], ["train.precision=fp16"], pytest.param(["train.compile=true"], marks=pytest.mark.long)],
)
def test_a_killed_fit_continues_to_the_same_weights(
    how: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _eager(monkeypatch)
    monkeypatch.setattr(
        "align.training.fit.check_precision", lambda config, device: None
    )  # fp16 on a CPU is slow, not wrong
    growth = functools.partial(torch.amp.GradScaler, growth_interval=2, init_scale=2.0**20)
    monkeypatch.setattr(torch.amp, "GradScaler", growth)  # the scale moves within the few steps
    pairs = [*how, "train.ema=0.9", "train.checkpoint_every=1"]
    whole = _hash(*pairs, folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        _kill_at_step(3, patch)
        with pytest.raises(KeyboardInterrupt):
            _fit(*pairs, folder=tmp_path / "killed")
    assert _hash(*pairs, folder=tmp_path / "killed") == whole
    from align.files import read_tensors

    stored = read_tensors(tmp_path / "killed" / "train" / "state.safetensors")[0]
    if "train.precision=fp16" in how:
        assert stored["scaler/_extra_state"][0] not in (2.0**20, 2.0**16), "the scale has moved"
    else:
        assert not any(name.startswith("scaler") for name in stored)


@pytest.mark.parametrize("pair", ["train.precision=bf16", "train.compile=true"])
def test_precision_and_compilation_are_part_of_what_a_checkpoint_belongs_to(
    pair: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _eager(monkeypatch)
    _fit(folder=tmp_path)
    note = (tmp_path / "fit.json").read_text()
    first = _hash(pair, folder=tmp_path)
    assert (tmp_path / "fit.json").read_text() != note
    assert first == _hash(pair, folder=tmp_path / "fresh")


def test_only_the_encoder_is_compiled_and_only_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[nn.Module] = []
    ran: list[bool] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        def run(*arguments: Any) -> Any:
            ran.append(True)
            return graph(*arguments)

        return run

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: captured.append(module) or compile_(module, backend=backend))
    exact = ["encoder.dropout=0", "train.image_dropout=0", "train.noise=0"]
    aligner = _fit("train.compile=true", *exact)
    assert captured == [aligner.network.encoder] and len(ran) == 3 * 2, "every step of the training ran the graph"
    assert not any("_orig_mod" in name for name in aligner.state())
    count = len(ran)
    aligner.predict(np.zeros((3, 6), np.float32))
    assert len(ran) == count, "predictions are not compiled"
    plain = _fit(*exact).state()
    for name, value in aligner.state().items():
        torch.testing.assert_close(value, plain[name], atol=1e-5, rtol=1e-4, msg=name)


def test_a_compiler_that_fails_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    fails(r"No working C\+\+ compiler found.*set train\.compile=false", lambda: _fit("train.compile=true"))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["train.precision=fp8"], "train.precision='fp8' is not known; did you mean 'fp32'. Known: fp32, bf16, fp16"),
        (["train.precision=fp16"], "fp16 is for GPUs; on a CPU take bf16 or fp32"),
        (["train.precision=bf16", "encoder.name=ridge"], "encoder 'ridge' is solved"),
        (["train.compile=true", "encoder.name=banded_ridge"], "encoder 'banded_ridge' is solved"),
        (["train.compile=true", "encoder.name=encoding"], "encoder 'encoding' is solved"),
    ],
)
def test_what_cannot_work_is_refused(pairs: list[str], message: str) -> None:
    fails(message, lambda: _fit(*pairs))


def test_the_view_passes_on_what_the_network_has() -> None:
    network = Network(_config("loss.kind=siglip"), (6,), 4)
    view = as_trained(network, _config("train.precision=bf16"))
    assert view.logit_scale is network.logit_scale and view.logit_bias is network.logit_bias
    network.encoder = build_encoder((6,), EncoderConfig(width=8))
    assert view.token_head(torch.zeros(2, 8)).dtype == view.image_head(torch.zeros(2, 4)).dtype == torch.float32

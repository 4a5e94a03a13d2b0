"""Adaptation in closed form: evidence against brute force, what known people are worth, nothing carried or altered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from align import retrieval
from align.adaptation import evidence
from align.adaptation.contract import Adapted, Shared
from align.adaptation.evidence import centred, kernel_weights, mix
from align.adaptation.methods import METHODS, methods_of
from align.adaptation.people import Person, Pictures
from align.adaptation.stored import read_adapter, save_adapter, save_shared
from align.config import Config, load_config
from align.training.fit import fit
from align.training.whitening import whitener
from tests.one_line import fails

GRID, WIDTH, FACTORS = 16, 6, 8
CLOSED = ("prior", "context", "procrustes", "shared_response")
CONFIG = load_config(Config, None, ["encoder.name=encoding"])
MIXING = np.random.default_rng(9).normal(size=(GRID * WIDTH, FACTORS))  # what all people's units are made of


def person(name: str, units: int, n: int, seed: int, noise: float = 1.0, mixing: np.ndarray = MIXING) -> Person:
    """Responses of units that read the same few features of 16 tokens, with weights of their own."""
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(n, GRID, WIDTH))
    x = tokens.reshape(n, -1) @ mixing @ rng.normal(size=(FACTORS, units)) / np.sqrt(mixing.size)
    x = x / x.std(0) + noise * rng.normal(size=x.shape)
    shown = Pictures(tuple(f"{seed}-{i}" for i in range(n)), rng.normal(size=(n, 768)).astype(np.float32))
    return Person(name, x.astype(np.float32), tokens.astype(np.float32), np.arange(n), shown)


KNOWN = [person("a", 20, 250, 1), person("b", 25, 200, 2)]


@pytest.fixture(scope="module")
def shared() -> Shared:
    return METHODS["prior"].share(CONFIG, KNOWN, (WIDTH,))


def adapted_to(name: str, shared: Shared, new: Person) -> Adapted:
    """A decoder of a method that takes something from known people."""
    found = METHODS[name].adapt(CONFIG, shared, new)
    assert found is not None
    return found


def top1(aligner: object, one: Person) -> float:
    embeds = aligner.predict(one.x)["embeds"]  # type: ignore[attr-defined]
    found = retrieval.scores(embeds, aligner.embed_images(one.tokens))  # type: ignore[attr-defined]
    return float((found.argmax(1) == np.arange(len(one))).mean())


def test_mixture_is_that_of_refits() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(25, 4)), torch.tensor(rng.normal(size=(25, 3)))
    y = y - y.mean(0)
    kernel, unit = centred(torch.tensor(x @ x.T))
    assert abs(float(kernel.diagonal().mean()) - 1) < 1e-12 and unit > 0
    likelihood, held_out, duals = [], [], []
    for penalty in evidence.PENALTIES:
        full = kernel + penalty * torch.eye(25, dtype=torch.float64)
        scale = (y * torch.linalg.solve(full, y)).sum(0) / 25
        at_best = [
            torch.distributions.MultivariateNormal(torch.zeros(25, dtype=torch.float64), scale[v] * full).log_prob(
                y[:, v]
            )
            for v in range(3)
        ]
        likelihood.append(torch.stack(at_best))
        out = torch.zeros_like(y)
        for i in range(25):
            rest = [k for k in range(25) if k != i]
            out[i] = kernel[i, rest] @ torch.linalg.solve(full[rest][:, rest], y[rest])
        held_out.append(out)
        duals.append(torch.linalg.solve(full, y))
    power = torch.stack(likelihood)
    power = evidence._TEMPER * (power + evidence._TOGETHER * power.mean(1, keepdim=True))
    share = torch.softmax(power, 0)
    found = mix([kernel], y)
    assert torch.allclose(found.held_out, (share[:, None] * torch.stack(held_out)).sum(0), atol=1e-6)
    assert torch.allclose(found.duals[0], (share[:, None] * torch.stack(duals)).sum(0), atol=1e-6)


def test_evidence_finds_the_kernel_that_made_the_outputs() -> None:
    rng = np.random.default_rng(0)
    useful, useless = rng.normal(size=(120, 5)), rng.normal(size=(120, 5))
    y = torch.tensor(useful @ rng.normal(size=(5, 20)) + 0.5 * rng.normal(size=(120, 20)))
    kernels = [centred(torch.tensor(part @ part.T))[0] for part in (useful, useless)]
    found = kernel_weights(kernels, y - y.mean(0))
    assert abs(float(found.sum()) - 1) < 1e-9 and float(found[0]) > 0.9


def test_a_whitened_residual_is_white() -> None:
    x = torch.tensor(np.random.default_rng(0).normal(size=(4000, 3)) @ [[1, 0.9, 0], [0, 1, 0], [0, 0, 5]])
    white = x @ whitener(x, 0.0).double()
    assert torch.allclose(white.T @ white / len(x), torch.eye(3, dtype=torch.float64), atol=1e-3)


@pytest.mark.parametrize("name", ["prior", "context"])
def test_known_people_are_worth_pictures(shared: Shared, name: str) -> None:
    both = person("new", 15, 140, 3)
    new, test = both.take(np.arange(40)), both.take(np.arange(40, 140))
    adapted, scratch = adapted_to(name, shared, new), METHODS[name].scratch(CONFIG, new, (WIDTH,))
    assert scratch is not None
    good, plain = top1(adapted.aligner, test), top1(scratch.aligner, test)
    assert good > 1.5 * plain and good > 10 / len(test)
    assert adapted.trainable <= adapted.total + sum(value.numel() for value in adapted.personal.values())


def test_people_who_are_nothing_alike_do_no_harm() -> None:
    other = np.random.default_rng(77).normal(size=MIXING.shape)
    strangers = [person("c", 20, 250, 5, mixing=other)]
    method = METHODS["prior"]
    both = person("new", 15, 400, 3, noise=0.5)
    new, test = both.take(np.arange(300)), both.take(np.arange(300, 400))
    adapted = adapted_to("prior", method.share(CONFIG, strangers, (WIDTH,)), new)
    scratch = method.scratch(CONFIG, new, (WIDTH,))
    assert scratch is not None and top1(adapted.aligner, test) >= top1(scratch.aligner, test) - 0.05


@pytest.mark.parametrize("name", CLOSED)
def test_an_adapter_gives_the_decoder_again(shared: Shared, name: str, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in shared.tensors.items()}
    new = person("new", 15, 40, 3)
    method = METHODS[name]
    adapted = adapted_to(name, shared, new)
    assert all(torch.equal(value, shared.tensors[key]) for key, value in before.items())
    digest = save_shared(tmp_path / "shared.safetensors", shared, method.base)
    facts = {"method": name, "study": "s", "subject": "new", "trials": 40, "shared": digest}
    save_adapter(tmp_path / "adapter.safetensors", adapted.personal, CONFIG, facts)
    again, _, told = read_adapter(tmp_path / "adapter.safetensors", tmp_path / "shared.safetensors")
    assert told == facts
    assert np.array_equal(again.predict(new.x)["embeds"], adapted.aligner.predict(new.x)["embeds"])
    assert np.array_equal(again.embed_images(new.tokens), adapted.aligner.embed_images(new.tokens))


def test_an_adapter_refuses_another_shared_part(shared: Shared, tmp_path: Path) -> None:
    method = METHODS["context"]
    adapted = adapted_to("context", shared, person("new", 15, 40, 3))
    other = method.share(CONFIG, KNOWN[:1], (WIDTH,))
    digest = save_shared(tmp_path / "right.safetensors", shared, method.base)
    save_shared(tmp_path / "other.safetensors", other, method.base)
    save_shared(tmp_path / "base.safetensors", shared, "trunk")
    facts = {"method": "context", "study": "s", "subject": "new", "trials": 40, "shared": digest}
    save_adapter(tmp_path / "a.safetensors", adapted.personal, CONFIG, facts)
    fails(
        "belongs to the shared part", lambda: read_adapter(tmp_path / "a.safetensors", tmp_path / "other.safetensors")
    )
    fails("does not belong to", lambda: read_adapter(tmp_path / "a.safetensors", tmp_path / "base.safetensors"))
    fails("is no adapter", lambda: read_adapter(tmp_path / "right.safetensors", tmp_path / "right.safetensors"))
    fails("is no shared part", lambda: read_adapter(tmp_path / "a.safetensors", tmp_path / "a.safetensors"))
    lacking = {key: value for key, value in adapted.personal.items() if key != "whiten"}
    save_adapter(tmp_path / "b.safetensors", lacking, CONFIG, facts)
    fails("does not fit", lambda: read_adapter(tmp_path / "b.safetensors", tmp_path / "right.safetensors"))


def test_two_folds_share_nothing() -> None:
    method = METHODS["prior"]
    first = method.share(CONFIG, KNOWN, (WIDTH,))
    alone = {key: value.clone() for key, value in first.tensors.items()}
    second = method.share(CONFIG, [KNOWN[1]], (WIDTH,))
    places = {value.data_ptr() for value in first.tensors.values()}
    assert not places & {value.data_ptr() for value in second.tensors.values()}
    third = method.share(CONFIG, KNOWN, (WIDTH,))
    assert all(torch.equal(value, third.tensors[key]) for key, value in alone.items())


def test_pictures_of_the_new_person_are_left_out() -> None:
    one = KNOWN[0]
    shown = one.pictures.take(np.array([3, 7]))
    near = Pictures(("x", "y"), shown.thumbs * 1.5)  # other pixels, the same scene
    for pictures in (shown, near):
        left = one.without([pictures])
        assert len(left) == len(one) - 2 and "1-3" not in left.pictures.hashes and "1-7" not in left.pictures.hashes
    assert one.without([]) is one


def test_the_encoding_model_is_a_line_to_compare_with(shared: Shared) -> None:
    new = person("new", 15, 40, 3)
    assert METHODS["encoding"].adapt(CONFIG, shared, new) is None
    assert METHODS["procrustes"].scratch(CONFIG, new, (WIDTH,)) is None
    found = METHODS["encoding"].scratch(CONFIG, new, (WIDTH,))
    assert found is not None
    plain = fit(CONFIG, new.x, new.tokens, np.arange(40), widths=(WIDTH,))
    assert np.array_equal(found.aligner.predict(new.x)["embeds"], plain.predict(new.x)["embeds"])


def test_unknown_methods_are_named() -> None:
    assert [method.name for method in methods_of(["context", "prior", "context"])] == ["context", "prior"]
    assert {method.name for method in methods_of(["all"])} == set(METHODS)
    fails("method 'lore' is not known", lambda: methods_of(["lore"]))

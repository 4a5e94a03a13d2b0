"""Guidance by the encoding model: its gradient, what it does to pictures, whose response guides which control."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align.checkpoint import Run, load_run
from align.errors import UserError
from align.model.spaces import TargetSpace
from recon import Decoder
from recon.cli import main
from recon.decoding.bridges.choose import Conditioning
from recon.decoding.conditions import CONTROLS, derangement
from recon.decoding.decoder import RunDecoder
from recon.decoding.guidance import Guidance, ascend
from recon.decoding.likelihood import Likelihood, guide
from recon.decoding.plan import Plan, fingerprint
from recon.decoding.predict import load_predictions, open_recording, picture_tokens, signals_at_rest
from recon.drawing.folders import generator_label, read_pictures, read_seed
from recon.drawing.generate import OWN, generate
from recon.drawing.sets import sample
from recon.generation.pipeline import Generator
from recon.generation.runtime import Runtime
from tests.recon.test_decoder import (  # noqa: F401  a generator, and runs of two encoders
    N_TEST,
    QUICK,
    Place,
    at_home,
    encoding,
    model,
    place,
)

GUIDE = Guidance(0.1, steps=2)


@pytest.fixture(scope="module")
def told(place: Place, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:  # noqa: F811
    """Pictures (n, 3, H, W) by folder, drawn without and with a guide."""
    out = tmp_path_factory.mktemp("told")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECON_HOME", str(place.home))
        run = load_run(place.runs["encoding"])
        made = {
            name: generate(run, str(place.generator), out, QUICK, conditioning=Conditioning(guide=wanted))
            for name, wanted in (("plain", None), ("guided", GUIDE))
        }
        assert "guide" not in made["plain"] and made["guided"]["generator"] == "generator_guide-encoding-0.1-steps2"
        again = generate(run, str(place.generator), out, QUICK, conditioning=Conditioning(guide=GUIDE))
        assert again["sampled"] == 0 and again["guide"] == {"scale": 0.1, "steps": 2, "until": 1.0}
        ids = load_predictions(run).ids
        return {
            name: {part: read(Path(folder), ids) for part, folder in one["folders"].items()}
            for name, one in made.items()
        }


def read(folder: Path, ids: tuple[str, ...]) -> torch.Tensor:
    return read_pictures(folder, read_seed(folder, 0), ids)


def expected_responses(run: Run) -> dict[str, np.ndarray]:
    """(n, E) by folder, from the recording itself."""
    recording = open_recording(run)
    row = {name: i for i, name in enumerate(recording.stimuli.ids)}
    rows = [row[name] for name in load_predictions(run).ids]
    test = recording.test.averaged()
    signals = test.x[[list(test.stimulus).index(i) for i in rows]]
    own = run.aligner.predict(signals)["embeds"]
    rest = run.aligner.predict(signals_at_rest(run))["embeds"]
    true = run.aligner.embed_images(np.asarray(picture_tokens(run, recording)[rows]))
    return {OWN: own, "shuffled": own[derangement(len(own), 0)], "zero_brain": rest.repeat(len(own), 0), "oracle": true}


@pytest.mark.parametrize(("root", "near"), [(False, 0.02), (True, 0.1)])  # slopes of roots near 0 are bounded
def test_the_gradient_is_that_of_finite_differences(encoding: Run, root: bool, near: float) -> None:  # noqa: F811
    likelihood = Likelihood(encoding)
    likelihood.targets.root = root
    responses = torch.from_numpy(expected_responses(encoding)[OWN])[:2]
    pictures = 0.2 + 0.6 * torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pictures.requires_grad_()
    (slope,) = torch.autograd.grad(likelihood(pictures, responses).sum(), pictures)
    at = pictures.detach()
    for i in range(2):
        along = torch.zeros_like(at)
        along[i] = slope[i] / slope[i].norm()
        up, down = (likelihood(at + step * along, responses) for step in (0.005, -0.005))
        found = (up - down) / 0.01
        assert float(found[i]) == pytest.approx(float(slope[i].norm()), rel=near)
        assert float(found[1 - i].abs()) == 0


def test_the_likelihood_is_that_of_the_run(encoding: Run) -> None:  # noqa: F811
    recording, likelihood = open_recording(encoding), Likelihood(encoding)
    pictures = np.stack([recording.stimuli.load(i) for i in range(3)])
    predicted = likelihood.predicted(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255)
    stored = encoding.aligner.embed_images(np.asarray(picture_tokens(encoding, recording)[:3]))
    np.testing.assert_allclose(predicted, stored, atol=0.02 * np.abs(stored).max())
    responses = torch.zeros(3, predicted.shape[1])
    ours = likelihood(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255, responses)
    torch.testing.assert_close(ours, -predicted.square().sum(1) / 2)


def test_roots_have_finite_gradients_and_their_own_values() -> None:
    space = TargetSpace((1, 4), 4, root=True)
    space.basis = torch.eye(4)
    tokens = torch.tensor([[[0.0, 4.0, -1.0, 1e-12]]])
    plain = space.encode(tokens)
    grown = space.encode(tokens.requires_grad_())
    assert torch.equal(plain, grown) and torch.allclose(plain, torch.tensor([[0.0, 2.0, -1.0, 1e-6]]))
    (slope,) = torch.autograd.grad(grown.sum(), tokens)
    assert slope.isfinite().all() and slope.max() < 10
    torch.testing.assert_close(slope[0, 0, 1:3], torch.tensor([0.25, 0.5]))


@pytest.mark.parametrize("name", [OWN, *CONTROLS])
def test_pictures_are_drawn_towards_the_response_they_are_told(
    told: dict[str, dict[str, torch.Tensor]],
    encoding: Run,  # noqa: F811
    name: str,
) -> None:
    likelihood, responses = Likelihood(encoding), expected_responses(encoding)

    def gain(of: str) -> torch.Tensor:
        theirs = torch.from_numpy(responses[of])
        return likelihood(told["guided"][name], theirs) - likelihood(told["plain"][name], theirs)

    assert (gain(name) > 0).all()
    if name == "shuffled":
        assert gain("shuffled").mean() > gain(OWN).mean()
    if name == OWN:
        assert gain(OWN).mean() > gain("shuffled").mean()


def test_every_control_has_its_own_response(encoding: Run, place: Place) -> None:  # noqa: F811
    decoder = RunDecoder(encoding, place.adapter, Conditioning(guide=GUIDE))
    for name, expected in expected_responses(encoding).items():
        found = decoder.responses(decoder.condition(name, 0))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    part = decoder.condition("oracle", 0).take([3, 1])
    np.testing.assert_allclose(decoder.responses(part), expected_responses(encoding)["oracle"][[3, 1]], atol=1e-5)
    assert RunDecoder(encoding, place.adapter, Conditioning()).guide(None, part, 2) is None  # type: ignore[arg-type]


def test_files_and_pictures_in_memory_are_the_same_in_every_batch(
    told: dict[str, dict[str, torch.Tensor]],
    encoding: Run,  # noqa: F811
    place: Place,  # noqa: F811
) -> None:
    plan = Plan.of(encoding, str(place.generator), Conditioning(guide=GUIDE), QUICK)
    for name in (OWN, "oracle"):
        condition = plan.decoder.condition(name, 0)
        for size in (1, 4):
            sampling = dataclasses.replace(QUICK, batch_size=size)
            drawn = sample(plan.generator, plan.decoder, condition, plan.decoder.ids, sampling)
            torch.testing.assert_close(drawn, told["guided"][name], atol=1 / 255, rtol=0)
    assert (told["guided"][OWN] - told["plain"][OWN]).abs().max() > 5 / 255


def test_steps_have_the_length_that_was_asked_for() -> None:
    x0 = (
        torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1.0, 2, 0.5])[:, None, None, None]
    )
    weights = torch.tensor([1.0, 1e-6, 1e3])[:, None, None, None]
    moved = ascend(x0, lambda x: -(weights * x).flatten(1).sum(1), Guidance(0.1, steps=3)) - x0
    size = moved.square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(size, 0.3 * x0.flatten(1).std(1))
    flat = ascend(x0, lambda x: (0 * x).flatten(1).sum(1), Guidance())
    assert torch.equal(flat, x0)
    with pytest.raises(UserError, match="not finite"):
        ascend(x0, lambda x: (x - x.detach()).sqrt().flatten(1).sum(1), Guidance())


def test_it_acts_in_the_first_steps(encoding: Run, model: Generator) -> None:  # noqa: F811
    assert [Guidance(until=share).acting(12) for share in (1.0, 0.5, 0.25, 0.01)] == [12, 6, 3, 1]
    responses = expected_responses(encoding)[OWN]
    hook = guide(model, Likelihood(encoding), responses, Guidance(until=0.5), 4)
    x0 = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = [not torch.equal(hook(x0, step, np.array([4, 0])), x0) for step in range(4)]
    assert changed == [True, True, False, False]
    alone = torch.cat([hook(x0[i : i + 1], 0, np.array([row])) for i, row in enumerate((4, 0))])
    torch.testing.assert_close(hook(x0, 0, np.array([4, 0])), alone, atol=1e-3, rtol=0)


def test_settings_change_with_the_guide_alone(encoding: Run, place: Place) -> None:  # noqa: F811
    def weights(wanted: Guidance | None) -> str:
        return Plan.of(encoding, str(place.generator), Conditioning(guide=wanted)).weights

    plan = Plan.of(encoding, str(place.generator))
    assert weights(None) == fingerprint(plan.folder, plan.adapter.path, plan.bridge.key, *Runtime().key)
    every = [None, Guidance(), Guidance(0.2), Guidance(steps=2), Guidance(until=0.5)]
    assert len({weights(wanted) for wanted in every}) == len(every)
    assert [generator_label("mini", Conditioning(guide=one)) for one in every] == [
        "mini",
        "mini_guide-encoding",
        "mini_guide-encoding-0.2",
        "mini_guide-encoding-steps2",
        "mini_guide-encoding-until0.5",
    ]


def test_the_best_of_n_is_chosen_among_guided_pictures(
    told: dict[str, dict[str, torch.Tensor]],
    encoding: Run,  # noqa: F811
    place: Place,  # noqa: F811
    tmp_path: Path,
) -> None:
    wanted = Conditioning(guide=GUIDE, best_of=2)
    made = generate(encoding, str(place.generator), tmp_path, QUICK, (), conditioning=wanted)
    assert made["generator"] == "generator_guide-encoding-0.1-steps2_best-of-2" and made["sampled"] == 2 * N_TEST
    ids = load_predictions(encoding).ids
    first = read(tmp_path / "candidates" / OWN / made["generator"] / "sub-01", ids)
    torch.testing.assert_close(first, told["guided"][OWN], atol=1.1 / 255, rtol=0)


def test_the_decoder_draws_with_a_guide(
    told: dict[str, dict[str, torch.Tensor]],
    encoding: Run,  # noqa: F811
    place: Place,  # noqa: F811
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"generator": str(place.generator), "steps": 2, "strength": 0.5, "guide": "encoding:0.1"}
    decoder = Decoder.load(place.runs["encoding"])
    images = decoder.reconstruct(out=tmp_path, limit=2, **options).images
    assert images.shape[:2] == (2, 1) and (torch.from_numpy(images[:, 0]) - told["plain"][OWN][:2]).abs().max() > 0.02
    with pytest.raises(UserError, match="--guide 'seen' is not known"):
        decoder.reconstruct(**{**options, "guide": "seen"})
    with pytest.raises(UserError, match="--strength 0 shows the coarse picture"):
        decoder.reconstruct(np.ones((1, 60)), **{**options, "strength": 0})


@pytest.mark.parametrize(
    ("encoder", "words", "message"),
    [
        ("encoding", ["--guide", "seen"], "--guide 'seen' is not known; use none, encoding or encoding:SCALE"),
        ("encoding", ["--guide", "none:1"], "is not known"),
        ("encoding", ["--guide", "encoding:"], "'' is no number"),
        ("encoding", ["--guide", "encoding:much"], "'much' is no number"),
        ("encoding", ["--guide", "encoding:0"], "guide scale 0.0 should be above 0 and finite"),
        ("encoding", ["--guide", "encoding:-1"], "should be above 0 and finite"),
        ("encoding", ["--guide", "encoding:nan"], "should be above 0 and finite"),
        ("encoding", ["--guide", "encoding:inf"], "should be above 0 and finite"),
        ("encoding", ["--guide", "encoding", "--strength", "0"], "--strength 0 shows the coarse picture itself"),
        ("ridge", ["--guide", "encoding"], "needs a run that predicts responses (encoder.name=encoding)"),
    ],
)
def test_wrong_use_is_one_line(
    place: Place,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    encoder: str,
    words: list[str],
    message: str,
) -> None:
    command = ["generate", "--subject", "01", "--run", str(place.runs[encoder]), "--generator", str(place.generator)]
    assert main([*command, "--out", str(tmp_path / "out"), *words]) == 2
    err = capsys.readouterr().err
    assert message in err.splitlines()[-1] and "Traceback" not in err and not (tmp_path / "out").exists()
    for wrong in ({"steps": 0}, {"until": 0.0}, {"until": 1.5}):
        with pytest.raises(UserError, match="guide"):
            Guidance(**wrong)

"""One plan behind every command that draws: the same steps, guidance and strength for the same words."""

from __future__ import annotations

import argparse
import ast
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from align.checkpoint import Run
from align.errors import UserError
from recon.commands import curves, evidence, generate
from recon.config import STRENGTH
from recon.decoding.bridges.choose import Conditioning
from recon.decoding.plan import Plan, Sampling, _refuse_without_coarse
from recon.evaluation.settings import EvaluateConfig
from recon.generation.loading import Defaults
from recon.generation.pipeline import Generator
from tests.one_line import fails
from tests.recon.test_evidence import found, run, tiny  # noqa: F401  a run and a generator that starts from a sketch

PROJECT = Path(__file__).parents[2]
ASSEMBLED = {"adapter_and_bridge", "RunDecoder"}  # what a plan alone puts together


def drawn_by(command: Any, words: list[str], of: Run, monkeypatch: pytest.MonkeyPatch) -> set[tuple[Any, ...]]:
    """Steps, guidance, strength and scale of everything that the generator drew for a command line."""
    seen: set[tuple[Any, ...]] = set()
    draw, names = Generator.generate, inspect.signature(Generator.generate)

    def watched(self: Generator, *args: Any, **options: Any) -> Any:
        given = names.bind(self, *args, **options)
        given.apply_defaults()
        used = Sampling((0,), given.arguments["steps"], given.arguments["guidance_scale"]).filled(self.defaults)
        assert given.arguments["start"] is not None
        seen.add((used.steps, used.guidance_scale, given.arguments["strength"], given.arguments["scale"]))
        return draw(self, *args, **options)

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    with monkeypatch.context() as patch:
        patch.setattr(Generator, "generate", watched)
        command.run(parser.parse_args(words), of, *([EvaluateConfig(n_boot=20)] if command is curves else []))
    return seen


@pytest.mark.parametrize(
    "words, expected",
    [
        ([], (12, 2.0, STRENGTH, 1.0)),
        pytest.param(["--steps", "4", "--strength", "0.7"], (4, 2.0, 0.7, 1.0), marks=pytest.mark.long),
    ],
)
def test_generate_curves_and_evidence_draw_alike(
    run: Run,  # noqa: F811
    tiny: tuple[Path, Path],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    expected: tuple[Any, ...],
) -> None:
    monkeypatch.setattr("recon.evaluation.provenance.curves_folder", lambda *_: tmp_path / "curves")
    told = ["--generator", str(tiny[0]), "--limit", "3", *words]
    by_command = {
        "generate": drawn_by(generate, [*told, "--out", str(tmp_path)], run, monkeypatch),
        "best of": drawn_by(generate, [*told, "--out", str(tmp_path), "--best-of", "2"], run, monkeypatch),
        "evidence": drawn_by(evidence, [*told, "--nulls", "4"], run, monkeypatch),
        "curves": drawn_by(curves, [*told, "--ranks", "8"], run, monkeypatch),
    }
    assert by_command == {name: {expected} for name in by_command}


def test_only_the_plan_puts_a_drawing_together() -> None:
    """`recon.api` draws signals that are no test rows by the parts themselves."""
    makers = []
    for path in sorted((PROJECT / "recon").rglob("*.py")):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        if ASSEMBLED & {func.id for func in calls if isinstance(func, ast.Name)}:
            makers.append(path.relative_to(PROJECT).as_posix())
    assert set(makers) - {"recon/api/drawing.py"} == {"recon/decoding/plan.py"}


def test_a_plan_reads_predictions_and_loads_the_generator_when_asked(
    run: Run,  # noqa: F811
    tiny: tuple[Path, Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = SimpleNamespace(defaults=Defaults(7, 3.0))
    with monkeypatch.context() as patch:
        patch.setattr("recon.decoding.predict.load_predictions", lambda run: pytest.fail("read too early"))
        patch.setattr(Generator, "load", lambda *_: pytest.fail("loaded too early"))
        plan = Plan.of(run, str(tiny[0]), limit=2)
    times: list[int] = []
    monkeypatch.setattr(Generator, "load", lambda *_: times.append(1) or loaded)
    assert plan.generator is plan.generator is loaded and times == [1]
    assert (plan.used.steps, plan.used.guidance_scale, plan.used.strength) == (7, 3.0, STRENGTH)
    assert len(plan.decoder.ids) == 2


def test_the_weights_of_a_plan_change_with_the_controlnet(run: Run, tiny: tuple[Path, Path]) -> None:  # noqa: F811
    plain, again = (Plan.of(run, str(tiny[0])) for _ in range(2))
    held = Plan.of(run, str(tiny[0]), Conditioning(controlnet="somewhere"))
    assert plain.weights == again.weights != held.weights


@pytest.mark.parametrize(
    "wanted, sampling, message",
    [
        (
            {"low_level": "none"},
            {"strength": 0.0},
            "--strength 0 shows the coarse picture itself, and there",
        ),
        (
            {"low_level": "none", "controlnet": "x"},
            {},
            "--controlnet reads the edges of the coarse picture, and there",
        ),
        (
            {"low_level": "none", "controlnet": "x", "control": "sketch"},
            {},
            "--controlnet reads the coarse picture, and there",
        ),
        ({}, {"steps": 0}, "--steps 0 should be 1 or more"),
        ({}, {"batch_size": 0}, "--batch-size 0 should be 1 or more"),
        ({}, {"strength": 1.5}, "--strength 1.5 should be from 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    run: Run,  # noqa: F811
    tiny: tuple[Path, Path],  # noqa: F811
    wanted: dict[str, Any],
    sampling: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        Plan.of(run, str(tiny[0]), Conditioning(**wanted), Sampling(**sampling))


def test_an_option_is_named_only_where_it_was_given() -> None:
    """recon evidence and recon curves have no --low-level."""
    for wanted, words in ((Conditioning(), "this run and conditioner have none"), ("none", "--low-level none")):
        given = wanted if isinstance(wanted, Conditioning) else Conditioning(low_level=wanted)
        fails(words, lambda c=given: _refuse_without_coarse(c, Sampling(strength=0.0)))

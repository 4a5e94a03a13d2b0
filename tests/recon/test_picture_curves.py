"""Curves of a tiny run by a tiny generator: components by numpy, ends that other commands make, the files, the page."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from align.checkpoint import Run, load_run, save_run
from align.config import Config, load_config
from align.data.splits import manifest
from align.data.studies import open_study
from align.errors import UserError
from align.files import read_json
from align.seeding import derive
from align.training.fit import fit
from recon import cli
from recon.analysis import picture_curves as curves
from recon.analysis.curve_figure import plot_curves
from recon.analysis.curve_text import caption, format_curves
from recon.analysis.picture_curves import Options, leading, steps_up_to
from recon.config import STRENGTH
from recon.decoding import predict as prediction
from recon.decoding.bridges.matching import without_spread
from recon.decoding.plan import Sampling
from recon.decoding.predict import load_predictions, run_id
from recon.drawing.folders import read_index
from recon.drawing.generate import generate
from recon.evaluation import judges
from recon.evaluation.provenance import curves_folder, read_curves
from recon.evaluation.recordings import RunData
from recon.evaluation.settings import EvaluateConfig
from recon.gallery.content import read_content
from recon.gallery.page import page_data
from recon.generation.conditioner import save_conditioner
from recon.generation.pipeline import Generator
from recon.generation.sketch import Sketch
from recon.metrics import metrics
from recon.metrics.identification import two_way
from recon.metrics.metrics import METRICS
from tests.align.fixture_studies import write_folder
from tests.recon import gallery_run, tiny_run
from tests.recon.tiny import N_TOKENS, WIDTH, tiny_generator

N_TRAIN, N_TEST, REPETITIONS, COMPONENTS = 24, 5, 3, 5
QUICK = Options(limit=4, steps=2, seed=1)
BOOT = EvaluateConfig(n_boot=200)


@dataclasses.dataclass(frozen=True)
class Made:
    """A run, the tokens (n, N, D) of all its pictures, the tiny generator, what the curves say.

    ``given``: tokens and noise of every point, by its name: pictures of random weights hardly show them.
    """

    run: Run
    tokens: np.ndarray
    generator: str
    home: Path
    result: dict[str, Any]
    given: dict[str, tuple[np.ndarray, list[int]]]


def make_run(folder: Path, repetitions: int) -> tuple[Run, np.ndarray]:
    """Ridge on mixed tokens; the last pictures are test pictures, all shown equally often."""
    rng = np.random.default_rng(0)
    shown = [("train" if i < N_TRAIN else "test", i) for i in range(N_TRAIN + N_TEST) for _ in range(repetitions)]
    rng.shuffle(shown)
    tokens = rng.normal(size=(N_TRAIN + N_TEST, N_TOKENS, WIDTH)).astype(np.float32) + 2
    mixed = tokens.reshape(len(tokens), -1) @ rng.normal(size=(N_TOKENS * WIDTH, 20))
    signals = mixed[[i for _, i in shown]] + 3 * rng.normal(size=(len(shown), 20))
    rows = [
        {"row": n, "image": f"pic{i:03d}.png", "split": split, "subject": "08"} for n, (split, i) in enumerate(shown)
    ]
    write_folder(folder / "study", signals.reshape(-1, 4, 5).astype(np.float32), rows)
    pairs = ["study.name=folder", f"study.root={folder / 'study'}", "encoder.name=ridge", "target.layer=2"]
    config = load_config(Config, None, [*pairs, "target.pooling=grid:2", f"target.components={COMPONENTS}"])
    recording = open_study(config).recording("08")
    own = tokens[[int(stimulus_id[3:6]) for stimulus_id in recording.stimuli.ids]]
    aligner = fit(config, recording.train.x, own, recording.train.stimulus)
    save_run(folder / "run", aligner, config, manifest(recording), {})
    return load_run(folder / "run"), own


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("curves")
    run, tokens = make_run(folder, REPETITIONS)
    generator, conditioner, _, _ = tiny_generator(folder / "generator")
    place = folder / "home" / "runs" / "recon" / "tiny"
    place.mkdir(parents=True)
    (place / "ip_adapter.safetensors").write_bytes(conditioner.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECON_HOME", str(folder / "home"))
        patch.setattr(metrics, "PIXEL_SIZE", 32)
        true = prediction.picture_tokens
        patch.setattr(
            prediction, "picture_tokens", lambda of, recording: tokens if of.path == run.path else true(of, recording)
        )
        tiny_run.without_packages(patch)
        patch.setattr(judges, "load_judge", tiny_run.only_pixels)
        calls: list[tuple[np.ndarray, list[int]]] = []
        draw = Generator.generate

        def watched(self: Generator, tokens: torch.Tensor, seeds: list[int], *rest: Any, **options: Any) -> Any:
            calls.append((tokens.numpy().copy(), list(seeds)))
            return draw(self, tokens, seeds, *rest, **options)

        with patch.context() as inner:
            inner.setattr(Generator, "generate", watched)
            found = curves.picture_curves(run, str(generator), QUICK, BOOT)
        points = [f"{side} {rank}" for rank in (0, 1, 2, COMPONENTS) for side in ("predicted", "oracle")]
        names = ["shuffled", "oracle", *points, *(f"repetitions {k}" for k in (1, 2, 3))]
        given = dict(zip(names, calls, strict=True))
        yield Made(run, tokens, str(generator), folder / "home", found, given)


@pytest.fixture(autouse=True)
def at_home(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The conditioner is found in every test."""
    monkeypatch.setenv("RECON_HOME", str(made.home))


def scored(run_data: RunData, ids: list[str], pictures: torch.Tensor) -> dict[str, float]:
    """Both scores, with the pixel judge, from the metrics themselves."""
    targets, see = run_data.targets(ids), tiny_run.pixel_judge().features
    found = {"PixCorr": METRICS["PixCorr"](pictures, targets), "two_way": two_way(see(pictures), see(targets))}
    return {name: float(values.mean()) for name, values in found.items()}


def values(point: dict[str, Any]) -> dict[str, float]:
    return {name: point[name]["value"] for name in ("PixCorr", "two_way")}


def test_all_components_are_the_prediction_and_none_is_the_mean_token(made: Made) -> None:
    space, predicted = made.run.aligner.targets, load_predictions(made.run).tokens
    assert predicted is not None and (space.spread - 1).abs().max() > 0.05
    np.testing.assert_allclose(leading(space, predicted, COMPONENTS), predicted, atol=1e-4)
    seen = np.unique(open_study(made.run.config).recording("08").train.stimulus)
    mean = np.broadcast_to(made.tokens[seen].mean(0), predicted.shape)
    np.testing.assert_allclose(leading(space, predicted, 0), mean, atol=1e-4)
    assert np.abs(leading(space, predicted, COMPONENTS - 1) - predicted).max() > 1e-2


def test_the_components_left_are_the_leading_ones_of_the_training_pictures(made: Made) -> None:
    seen = np.unique(open_study(made.run.config).recording("08").train.stimulus)
    flat = made.tokens.reshape(len(made.tokens), -1).astype(np.float64)
    mean, std = flat[seen].mean(0), flat[seen].std(0)
    axes = np.linalg.svd((flat[seen] - mean) / std, full_matrices=False)[2]
    space = without_spread(made.run.aligner).targets
    for rank in (1, 3):
        wanted = mean + std * ((flat - mean) / std @ axes[:rank].T @ axes[:rank])
        np.testing.assert_allclose(leading(space, made.tokens, rank).reshape(flat.shape), wanted, atol=1e-3)


def test_the_ends_are_the_pictures_of_generate(made: Made, tmp_path: Path) -> None:
    sampling = Sampling(seeds=(QUICK.seed,), steps=QUICK.steps)
    told = generate(made.run, made.generator, tmp_path, sampling, ("shuffled", "oracle"), QUICK.limit)
    run_data, ids = RunData(made.run), list(load_predictions(made.run).ids[: QUICK.limit])

    def score(name: str) -> dict[str, float]:
        files = [Path(told["folders"][name]) / f"{stimulus_id}_seed-{QUICK.seed}.png" for stimulus_id in ids]
        pixels = np.stack([np.asarray(Image.open(file), dtype=np.float32) for file in files])
        return scored(run_data, ids, torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255)

    own, result = score("reconstructions"), made.result
    assert values(result["bottleneck"]["predicted"][-1]) == pytest.approx(own, abs=2e-4)
    assert values(result["repetitions"]["points"][-1]) == pytest.approx(own, abs=2e-4)
    for name in ("shuffled", "oracle"):
        assert values(result[name]) == pytest.approx(score(name), abs=1e-6)
    predicted = load_predictions(made.run).tokens
    assert predicted is not None
    for name in (f"predicted {COMPONENTS}", f"repetitions {REPETITIONS}"):
        np.testing.assert_allclose(made.given[name][0], predicted[: QUICK.limit], atol=1e-4)
    noise = [int(row["noise_seed"]) for row in read_index(Path(told["folders"]["reconstructions"]))]
    assert all(seeds == noise for _, seeds in made.given.values())


def test_full_rank_is_the_picture_of_generate_where_that_starts_from_a_coarse_one(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, _, _, conditioner = tiny_generator(tmp_path / "sketching")
    place = tmp_path / "home" / "runs" / "recon" / "tiny" / "ip_adapter.safetensors"
    save_conditioner(conditioner, place, sketch=Sketch(N_TOKENS, WIDTH, 4, 8, hidden=16, depth=1))
    monkeypatch.setenv("RECON_HOME", str(tmp_path / "home"))
    steps, ids = 10, list(load_predictions(made.run).ids[: QUICK.limit])
    options = Options(limit=QUICK.limit, seed=3, steps=steps, ranks=(1, COMPONENTS))
    found = curves.picture_curves(made.run, str(generator), options, BOOT)
    told = generate(made.run, str(generator), tmp_path, Sampling(seeds=(3,), steps=steps), (), QUICK.limit)
    files = [Path(told["folders"]["reconstructions"]) / f"{name}_seed-3.png" for name in ids]
    pixels = np.stack([np.asarray(Image.open(file), dtype=np.float32) for file in files])
    own = scored(RunData(made.run), ids, torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255)
    assert values(found["bottleneck"]["predicted"][-1]) == pytest.approx(own, abs=1e-6)
    assert values(found["bottleneck"]["predicted"][0]) != pytest.approx(own, abs=1e-3)
    assert (found["low_level"], told["low_level"], found["strength"]) == ("tokens", "tokens", STRENGTH)
    further = curves.picture_curves(made.run, str(generator), dataclasses.replace(options, strength=0.8), BOOT)
    assert values(further["bottleneck"]["predicted"][-1]) != pytest.approx(own, abs=1e-4)


def test_one_repetition_is_a_single_row_of_the_own_picture(made: Made) -> None:
    recording, ids = open_study(made.run.config).recording("08"), load_predictions(made.run).ids[: QUICK.limit]
    rng = np.random.default_rng(derive(QUICK.seed, "repetitions"))
    rows = [np.flatnonzero(recording.test.stimulus == recording.stimuli.ids.index(name)) for name in ids]
    x = recording.test.x[[rng.permutation(part)[0] for part in rows]]
    single = made.run.aligner.predict(x)["tokens"]
    np.testing.assert_allclose(made.given["repetitions 1"][0], single, atol=1e-4)
    assert np.abs(single - made.given["repetitions 3"][0]).max() > 0.1


def test_every_point_has_its_interval_and_n_and_rank_0_is_the_same_for_both(made: Made) -> None:
    bottleneck, repetitions = made.result["bottleneck"], made.result["repetitions"]
    assert [point["rank"] for point in bottleneck["predicted"]] == [0, 1, 2, COMPONENTS]
    assert [point["rank"] for point in bottleneck["oracle"]] == [0, 1, 2, COMPONENTS]
    assert [point["repetitions"] for point in repetitions["points"]] == [1, 2, 3]
    assert (repetitions["least"], repetitions["most"], made.result["absent"]) == (3, 3, {})
    points = [*bottleneck["predicted"], *bottleneck["oracle"], *repetitions["points"]]
    for entry in (point[name] for point in points for name in ("PixCorr", "two_way")):
        low, high = entry["ci95"]
        assert entry["n"] == QUICK.limit and low <= entry["value"] <= high and low < high
    np.testing.assert_allclose(made.given["predicted 0"][0], made.given["oracle 0"][0], atol=1e-4)
    assert values(bottleneck["predicted"][0]) == pytest.approx(values(bottleneck["oracle"][0]), abs=2e-4)
    assert len({values(point)["PixCorr"] for point in bottleneck["predicted"]}) == 4


def test_the_files_say_whose_they_are(made: Made) -> None:
    folder = curves_folder(made.run, "generator")
    assert read_json(folder / "curves.json") == made.result == read_curves(made.run, "generator")
    assert made.result["run"] == run_id(made.run) and made.result["chance"] == {"two_way": 0.5}
    with (folder / "curves.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * (2 + 4 + 4 + 3)
    line = next(
        row for row in lines if (row["curve"], row["x"], row["metric"]) == ("bottleneck oracle", "2", "PixCorr")
    )
    assert float(line["value"]) == made.result["bottleneck"]["oracle"][2]["PixCorr"]["value"]
    assert (line["n"], line["chance"]) == ("4", "")
    with Image.open(folder / "curves.png") as image:
        assert image.width > 1000 and len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50
    other = dataclasses.replace(made.run, meta={**made.run.meta, "weights_hash": "f" * 64})
    assert read_curves(other, "generator") is None
    assert "nothing is chosen" in format_curves(made.result)


def test_a_failed_figure_leaves_no_result(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves._write(tmp_path, made.result)
    broken = {**made.result, "shuffled": {**made.result["shuffled"], "PixCorr": {"n": 1, "value": 0.0, "ci95": [0]}}}
    with pytest.raises((ValueError, TypeError, IndexError)):
        curves._write(tmp_path, broken)
    assert not (tmp_path / "curves.json").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_averaged_rows_leave_that_curve_out_and_say_why(made: Made, tmp_path: Path) -> None:
    from recon.analysis.picture_curves import _curves

    run = made.run
    run_data = RunData(run)
    recording = run_data.recording
    run_data.__dict__["recording"] = dataclasses.replace(recording, test=recording.test.averaged())
    decoder: Any = SimpleNamespace(
        run=run,
        tokens="library",
        ids=load_predictions(run).ids,
        condition=lambda name, seed: name,
    )
    study: Any = SimpleNamespace(decoder=decoder, options=QUICK, score=lambda condition: made.result[condition])
    found = _curves(study, run_data)  # type: ignore[arg-type]
    assert found["bottleneck"] is None and found["repetitions"] is None
    assert "one row" in found["absent"]["repetitions"] and "no components" in found["absent"]["bottleneck"]
    result = {**made.result, **found}
    assert "one row" in caption(result) and "one row" in format_curves(result)
    plot_curves(result, tmp_path / "absent.png")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(limit=1), "--limit 1"),
        (Options(seed=-1), "--seed -1"),
        (Options(steps=0), "--steps 0"),
        (Options(strength=1.5), "--strength 1.5"),
        (Options(strength=0), "--strength 0 shows the coarse picture"),
        (Options(ranks=(0, 6)), "--ranks 0 6: .*0 to 5"),
        (Options(ranks=(-1,)), "--ranks -1"),
        (Options(ranks=(2, 2)), "--ranks 2 2"),
    ],
)
def test_bad_options_are_refused(made: Made, options: Options, said: str) -> None:
    with pytest.raises(UserError, match=said):
        curves.picture_curves(made.run, made.generator, options)


def test_points_are_spread_over_the_orders_of_magnitude() -> None:
    assert steps_up_to(7, 0) == [0, 1, 2, 5, 7]
    assert steps_up_to(50) == [1, 2, 5, 10, 20, 50]
    assert steps_up_to(400, 0) == [0, 1, 2, 5, 10, 20, 50, 100, 200, 400]
    assert steps_up_to(2) == [1, 2]


def test_the_command_prints_what_it_wrote(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    before = [made.result["bottleneck"][side][1] for side in ("predicted", "oracle")]
    words = ["--limit", "4", "--steps", "2", "--seed", "1", "--ranks", "1", "--json"]
    where = ["--subject", "08", "--run", str(made.run.path), "--generator", made.generator]
    assert cli.main(["curves", *where, *words, "evaluate.n_boot=200"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [printed["bottleneck"][side] for side in ("predicted", "oracle")] == [[point] for point in before]
    assert printed == read_curves(made.run, "generator")
    curves._write(curves_folder(made.run, "generator"), made.result)


def test_the_page_shows_the_figure_of_this_training_alone(made: Made, tmp_path: Path) -> None:
    run = gallery_run.scored_run(tmp_path)
    assert page_data([read_content(run)])["runs"][0]["curves"] is None
    folder = curves_folder(run, tiny_run.GENERATOR)
    curves._write(folder, {**made.result, "run": run_id(run)})
    shown = page_data([read_content(run)])["runs"][0]["curves"]
    assert shown["image"].startswith("data:image/png;base64,iVBOR")
    assert f"n {QUICK.limit}" in shown["text"] and "shuffled" in shown["text"]
    curves._write(folder, {**made.result, "run": "another training"})
    assert page_data([read_content(run)])["runs"][0]["curves"] is None

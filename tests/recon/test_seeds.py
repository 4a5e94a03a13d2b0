"""How much scores depend on the seed of the noise: arithmetic by hand, and a tiny run with several seeds."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from align.checkpoint import Run
from align.errors import UserError
from recon.decoding.predict import run_id
from recon.evaluation import judges, report, seeds
from recon.evaluation.picture_scores import OWN, score
from recon.evaluation.schema import faults
from recon.evaluation.settings import EvaluateConfig
from recon.evaluation.table import format_report
from recon.metrics import metrics
from recon.metrics.feature_nets import FeatureNets
from tests.recon import gallery_run, tiny_run

FAST = EvaluateConfig(n_boot=50, n_perm=99, networks=False, judge="torchvision/squeezenet1_0")
N = 12  # test stimuli


def test_spread_by_hand() -> None:
    found = seeds.spread(np.array([[0.2, 0.6, 1.0], [0.4, 0.6, 0.2]]))  # two seeds, three stimuli
    assert found["values"] == pytest.approx([0.6, 0.4])
    assert found["sd_between_seeds"] == pytest.approx((0.1**2 + 0.1**2) ** 0.5)
    within = [(0.1**2 + 0.1**2) ** 0.5, 0.0, (0.4**2 + 0.4**2) ** 0.5]
    assert found["sd_within_stimulus"] == pytest.approx(sum(within) / 3)
    means = [0.3, 0.6, 0.6]
    assert found["sd_between_stimuli"] == pytest.approx((sum((m - 0.5) ** 2 for m in means) / 2) ** 0.5)


def test_every_seed_is_scored_as_the_scored_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PIXEL_SIZE", 256)  # with pictures of that size no resize blurs the reference
    rng = np.random.default_rng(0)
    targets, known = rng.random((5, 3, 256, 256)), rng.random((4, 3, 256, 256))
    made = {seed: share * targets + (1 - share) * rng.random(targets.shape) for seed, share in ((2, 0.1), (4, 0.02))}
    made[9] = np.stack([known[0], targets[1], known[1], targets[3], targets[2]])
    pictures = {seed: torch.from_numpy(images).float() for seed, images in made.items()}
    judge, own = tiny_run.pixel_judge(), torch.from_numpy(targets).float()
    scored = score({OWN: pictures[4]}, own, FeatureNets(), {"": judge}, FAST, known=[torch.from_numpy(known).float()])
    part = seeds.seed_report(scored, 4, [(9, pictures[9]), (2, pictures[2])], own)

    def told(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), 3, 8, 32, 8, 32).mean((3, 5)).reshape(len(images), -1)

    def r(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    wanted: dict[str, list[list[float]]] = {"PixCorr": [], "two_way": [], "top1": [], "nearest_is_target": []}
    for seed in (2, 4, 9):
        shown, truth, seen = told(made[seed]), told(targets), told(known)
        wanted["PixCorr"].append([r(made[seed][i], targets[i]) for i in range(5)])
        beaten = [[r(shown[i], truth[i]) > r(shown[i], truth[k]) for k in range(5) if k != i] for i in range(5)]
        wanted["two_way"].append([float(np.mean(row)) for row in beaten])
        wanted["top1"].append([float(all(row)) for row in beaten])
        first = [all(r(shown[i], truth[i]) > r(shown[i], one) for one in seen) for i in range(5)]
        wanted["nearest_is_target"].append([float(hit) for hit in first])
    assert (part["seeds"], part["n"]) == ([2, 4, 9], 5)
    assert set(part) - {"seeds", "n"} == set(wanted) | {"SSIM"}
    for name, rows in wanted.items():
        values = np.array(rows)
        entry = part[name]
        assert entry["values"] == pytest.approx(values.mean(1), abs=1e-5), name
        assert entry["sd_between_seeds"] == pytest.approx(np.sqrt(values.mean(1).var() * 3 / 2), abs=1e-5)
        assert entry["sd_within_stimulus"] == pytest.approx(np.sqrt(values.var(0) * 3 / 2).mean(), abs=1e-5)
        assert entry["sd_between_stimuli"] == pytest.approx(np.sqrt(values.mean(0).var() * 5 / 4), abs=1e-5)
    for name in part.keys() - {"seeds", "n"}:
        assert part[name]["values"][1] == scored.reconstruction[name]["value"]
    assert seeds.seed_report(scored, 4, [], own) == {}


def test_without_a_judge_pixels_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PIXEL_SIZE", 64)
    first, second, targets = torch.rand((3, 4, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    scored = score({OWN: first}, targets, FeatureNets(), {}, FAST)
    assert set(seeds.seed_report(scored, 0, [(1, second)], targets)) == {"seeds", "n", "PixCorr", "SSIM"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = tiny_run.make_run(tmp_path_factory.mktemp("seeds"), n_test=N)
    tiny_run.add_pictures(run, controls=False, seed=2)
    return run


@pytest.fixture
def run(made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(metrics, "PIXEL_SIZE", 64)
    monkeypatch.setattr(judges, "load_judge", tiny_run.only_pixels)
    return replace(made, path=Path(shutil.copytree(made.path, tmp_path / "run")))


def add_seed(run: Run, seed: int, quality: float, n: int = N, owner: str | None = None) -> None:
    """Pictures of a further seed for the first ``n`` stimuli: ``quality`` x target + noise."""
    from recon.evaluation.recordings import RunData

    run_data = RunData(run)
    ids = list(run_data.predictions.ids)[:n]
    rng = np.random.default_rng(seed)
    images = run_data.targets(ids).numpy().transpose(0, 2, 3, 1)
    noisy = 255 * (quality * images + (1 - quality) * rng.random(images.shape))
    pixels = list(noisy.round().astype(np.uint8))
    gallery_run.add_rows(gallery_run.folder_of(run, "reconstructions"), ids, pixels, seed, owner or run_id(run))


def test_a_better_seed_is_told_of_and_not_chosen(run: Run) -> None:
    alone = report.evaluate_run(run, settings=FAST)
    assert "seeds" not in alone and "of seeds" not in format_report(alone)
    add_seed(run, 11, 0.9)
    add_seed(run, 10, 0.7)
    add_seed(run, 5, 0.8, n=N - 3)
    with pytest.raises(UserError, match=r"holds 9 of 12 pictures of seed 5; .* --partial"):
        report.evaluate_run(run, settings=FAST)
    found = report.evaluate_run(run, settings=FAST, partial=True)
    assert faults(found) == [] and json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["reconstruction"], found["controls"]) == (alone["reconstruction"], alone["controls"])
    part = found["seeds"]
    assert (part["seeds"], part["n"]) == ([2, 10, 11], N)
    assert found["skipped"]["seeds.5"] == "3 of 12 pictures are missing; run recon generate"
    assert set(part) == {"seeds", "n", "PixCorr", "SSIM", "two_way", "top1", "nearest_is_target"}
    values = part["PixCorr"]["values"]
    assert values[0] == found["reconstruction"]["PixCorr"]["value"] < values[1] < values[2]
    lines = [line for line in format_report(found).splitlines() if "of seeds 2, 10, 11:" in line]
    assert len(lines) == 5
    entry = part["two_way"]
    assert lines[2].startswith("two_way") and f"sd between seeds {entry['sd_between_seeds']:.3f}," in lines[2]
    other = report.evaluate_run(run, seed=11, settings=FAST, partial=True)
    assert other["seeds"] == part and other["reconstruction"]["PixCorr"]["value"] == values[2]


def test_a_seed_of_another_training_is_refused(run: Run) -> None:
    add_seed(run, 3, 0.9, owner="older@0")
    with pytest.raises(UserError, match="holds pictures of older@0"):
        report.evaluate_run(run, settings=FAST)


def test_schema_knows_the_seeds(run: Run) -> None:
    add_seed(run, 3, 0.9)
    found = report.evaluate_run(run, settings=FAST)
    assert faults(found) == []

    def planted(**changes: object) -> list[str]:
        broken = copy.deepcopy(found)
        part = broken["seeds"]
        for key, value in changes.items():
            (part["two_way"] if key in part["two_way"] else part)[key] = value
        return faults(broken)

    assert planted(n="24") == ["seeds.n: '24' is no int"]
    assert planted(seeds=[3, 2]) == ["seeds.seeds: [3, 2] are not two rising numbers or more"]
    assert planted(values=[0.5]) and planted(values=[2.0, 3.0]) and planted(sd_within_stimulus=-0.1)
    assert planted(other={"values": [0.5, 0.6]})

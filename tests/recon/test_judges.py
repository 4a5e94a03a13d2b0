"""Two judges of two families: which they are, who is a relative of the run's networks, what they say in a report."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from align.checkpoint import Run
from align.errors import UserError
from recon.commands.info import describe
from recon.evaluation import judges, report
from recon.evaluation.judge import Judge, _remembering
from recon.evaluation.judges import described, family, open_judges, relatives
from recon.evaluation.picture_scores import OWN, score
from recon.evaluation.schema import faults
from recon.evaluation.settings import EvaluateConfig
from recon.evaluation.table import format_report
from recon.gallery import contact
from recon.gallery.content import read_content
from recon.gallery.page import page_data
from recon.metrics import metrics
from recon.metrics.feature_nets import FeatureNets
from recon.publishing.tables import scores_text
from recon.scoring.aggregate import load_results, rows
from recon.scoring.table_formats import markdown
from tests.recon import tiny_run

FAST = EvaluateConfig(n_boot=100, n_perm=99)
LITE = "timm/tf_efficientnet_lite0"
SECOND = "(efficientnet_lite0)"
NAMES = ("two_way", "top1", "nearest_is_target")


def never_loaded(name: str, settings: EvaluateConfig) -> Judge:
    return Judge(name, settings.judge_weights or "found", lambda images: images.flatten(1).numpy())


@pytest.mark.parametrize(
    ("study", "first", "backbone", "expected"),
    [
        ("cowley2023_v4", None, "torchvision/squeezenet1_1", ("torchvision/squeezenet1_0", LITE)),
        ("simulated", None, "mini", ("reader", LITE)),
        ("folder", LITE, "mini", (LITE, "torchvision/squeezenet1_0")),
        ("folder", "timm/tf_efficientnet_lite2", "mini", ("timm/tf_efficientnet_lite2", "torchvision/squeezenet1_0")),
        # no relative where that can be had
        ("simulated", None, "torchvision/efficientnet_b1", ("reader", "torchvision/squeezenet1_0")),
        # a judge never is a network of the run, also under timm's longer name
        (
            "folder",
            None,
            "timm/tf_efficientnet_lite0.in1k",
            ("torchvision/squeezenet1_0", "timm/tf_efficientnet_lite1"),
        ),
        ("folder", LITE, "torchvision/squeezenet1_0", (LITE,)),
    ],
)
def test_the_second_judge_is_of_another_family_and_took_no_part(
    monkeypatch: pytest.MonkeyPatch, study: str, first: str | None, backbone: str, expected: tuple[str, ...]
) -> None:
    monkeypatch.setattr(judges, "load_judge", never_loaded)
    found = open_judges(EvaluateConfig(judge=first, judge_weights="own.pth"), study, [backbone])
    assert found.names == expected and found.skipped == {}
    assert [one["name"] for one in found.facts()] == list(expected)
    assert [one["weights"] for one in found.facts()] == ["own.pth", "found"][: len(expected)]  # of the first alone
    assert found.facts()[0]["score"] == "two_way"
    for one in found.facts():
        assert (backbone in one["relatives"]) == (family(backbone) == family(one["name"]))


@pytest.mark.parametrize(
    ("installed", "used", "expected", "relative"),
    [
        (
            True,
            ("torchvision/squeezenet1_1",),
            (LITE, "torchvision/squeezenet1_0"),
            [[], ["torchvision/squeezenet1_1"]],
        ),
        (
            True,
            ("mini", "torchvision/squeezenet1_1"),
            (LITE, "torchvision/squeezenet1_0"),
            [[], ["torchvision/squeezenet1_1"]],
        ),
        (True, ("transformers/facebook/dinov2-small",), (LITE, "torchvision/squeezenet1_0"), [[], []]),
        # the target is of the judge's own family: the other one stands first, the sister is said to be one
        (
            True,
            ("timm/tf_efficientnet_lite2",),
            ("torchvision/squeezenet1_0", LITE),
            [[], ["timm/tf_efficientnet_lite2"]],
        ),
        (
            True,
            ("torchvision/efficientnet_b0",),
            ("torchvision/squeezenet1_0", LITE),
            [[], ["torchvision/efficientnet_b0"]],
        ),
        (
            False,
            ("torchvision/squeezenet1_1",),
            ("torchvision/squeezenet1_0", LITE),
            [["torchvision/squeezenet1_1"], []],
        ),
    ],
)
def test_the_default_judge_is_of_another_family_than_the_target(
    monkeypatch: pytest.MonkeyPatch, installed: bool, used: tuple[str, ...], expected: tuple[str, ...], relative: list
) -> None:
    monkeypatch.setattr(judges, "load_judge", never_loaded)
    monkeypatch.setattr(FeatureNets, "has", lambda self, name: installed)
    found = open_judges(EvaluateConfig(), "cowley2023_v4", used)
    assert found.names == expected and [one["relatives"] for one in found.facts()] == relative
    assert open_judges(EvaluateConfig(), "simulated", used).names[0] == "reader"


def test_families_are_read_from_names() -> None:
    for name, wanted in (
        ("torchvision/squeezenet1_1", "squeezenet"),
        ("timm/tf_efficientnetv2_s.in21k", "efficientnet"),
        ("torchvision/efficientnet_b1", "efficientnet"),
        (LITE, "efficientnet"),
        ("transformers/facebook/dinov2-small", "transformers/facebook/dinov2-small"),
    ):
        assert family(name) == wanted
    assert relatives("torchvision/squeezenet1_0", ["mini", "torchvision/squeezenet1_1"]) == (
        "torchvision/squeezenet1_1",
    )
    assert relatives(LITE, ["mini", "torchvision/squeezenet1_1"]) == ()


def test_a_judge_under_another_name_of_the_backbone_is_refused() -> None:
    with pytest.raises(UserError, match="took part in this run") as refused:
        open_judges(EvaluateConfig(judge=LITE), "folder", ["timm/tf_efficientnet_lite0.in1k"])
    assert LITE not in str(refused.value).partition("one of")[2]


def test_without_the_extra_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_run.without_packages(monkeypatch)
    found = open_judges(EvaluateConfig(), "simulated", ["mini"])
    assert list(found.loaded) == [""] and list(found.skipped) == [f"two_way{SECOND}"]
    line = found.skipped[f"two_way{SECOND}"]
    assert LITE in line and "pip install 'shallow-recon[weights]'" in line and "\n" not in line


def test_no_picture_is_read_twice() -> None:
    asked: list[int] = []

    def read(images: torch.Tensor) -> np.ndarray:
        asked.append(len(images))
        return images.mean((2, 3)).numpy()

    remembering, pictures = _remembering(read), torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    order = [0, 1, 1, 4, 0, 2]
    np.testing.assert_array_equal(remembering(pictures[order]), pictures[order].mean((2, 3)).numpy())
    np.testing.assert_array_equal(remembering(pictures), pictures.mean((2, 3)).numpy())
    np.testing.assert_array_equal(remembering(pictures.flip(0)), pictures.flip(0).mean((2, 3)).numpy())
    assert asked == [4, 1]
    assert remembering(torch.zeros(1, 3, 2, 8)).shape == remembering(torch.zeros(1, 3, 8, 2)).shape == (1, 3)
    assert asked == [4, 1, 1, 1]  # the same bytes in another shape are another picture


def test_scores_of_both_judges_are_loops_over_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PIXEL_SIZE", 32)
    rng = np.random.default_rng(0)
    targets, known = rng.random((12, 3, 16, 16)), rng.random((7, 3, 16, 16))
    own = 0.3 * targets + 0.7 * rng.random(targets.shape)
    pictures = {OWN: own, "shuffled": np.roll(own, 1, 0), "nearest_training_image": known[np.arange(12) % 7]}
    pictures["oracle"] = 0.9 * targets
    given = {name: torch.from_numpy(images).float() for name, images in pictures.items()}
    see: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "": lambda x: x.reshape(len(x), -1),
        SECOND: lambda x: x.reshape(len(x), 3, 4, 4, 4, 4).mean((3, 5)).reshape(len(x), -1),
    }
    both = {ending: Judge(ending, "x", lambda images, of=of: of(images.numpy())) for ending, of in see.items()}
    shown = (torch.from_numpy(part).float() for part in np.split(known, [3]))  # can be gone through once only
    settings = EvaluateConfig(n_boot=200, n_perm=99, networks=False)
    found = score(given, torch.from_numpy(targets).float(), FeatureNets(), both, settings, known=shown)

    def r(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a, b)[0, 1])

    for ending, of in see.items():
        truth, seen, each = of(targets), of(known), {}
        for row, images in pictures.items():
            told = of(images)
            beaten = [[r(told[i], truth[i]) > r(told[i], truth[k]) for k in range(12) if k != i] for i in range(12)]
            memory = [all(r(told[i], truth[i]) > r(told[i], one) for one in seen) for i in range(12)]
            each[row] = dict(zip(NAMES, (np.mean(beaten, 1), np.all(beaten, 1), np.array(memory)), strict=True))
        for name, chance in zip(NAMES, (0.5, 1 / 12, 1 / 8), strict=True):
            entry = found.reconstruction[name + ending]
            assert entry["value"] == pytest.approx(each[OWN][name].mean()) and entry["chance"] == pytest.approx(chance)
            assert entry["ci95"][0] <= entry["value"] <= entry["ci95"][1] and entry["n"] == 12
            assert found.per_stimulus[name + ending] == pytest.approx(each[OWN][name].astype(float))
            assert set(entry["minus_control"]) == {"shuffled", "nearest_training_image"}  # nothing to beat in an oracle
            for row, difference in entry["minus_control"].items():
                assert difference["value"] == pytest.approx(each[OWN][name].mean() - each[row][name].mean())
            for row in set(pictures) - {OWN}:
                assert found.controls[row][name + ending]["value"] == pytest.approx(each[row][name].mean())
    assert found.controls["oracle"][f"nearest_is_target{SECOND}"]["value"] == 1
    assert found.controls["nearest_training_image"][f"nearest_is_target{SECOND}"]["value"] == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("judges")
    made = tiny_run.make_run(folder, n_test=12)
    tiny_run.add_pictures(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "PIXEL_SIZE", 64)
        patch.setattr(judges, "load_judge", tiny_run.only_pixels)
        (folder / "alone.json").write_text(json.dumps(report.evaluate_run(made, settings=quick(networks=False))))
        patch.setattr(judges, "load_judge", tiny_run.pixels_and_colours)
        report.evaluate_run(made, settings=quick(networks=False))
    return made


def quick(**options: bool) -> EvaluateConfig:
    return EvaluateConfig(judge="torchvision/squeezenet1_0", n_boot=100, n_perm=99, **options)


def test_the_second_judge_adds_keys_and_changes_none(run: Run) -> None:
    alone = json.loads((run.path.parent / "alone.json").read_text())
    both = json.loads(report.report_path(run).read_text())
    assert faults(alone) == faults(both) == []
    added = {name + SECOND for name in NAMES}
    assert both["reconstruction"].keys() - alone["reconstruction"].keys() == added
    assert {name: both["reconstruction"][name] for name in alone["reconstruction"]} == alone["reconstruction"]
    assert all(added <= scores.keys() for scores in both["controls"].values())
    assert alone["judge"] == both["judge"] == "torchvision/squeezenet1_0"
    assert alone["skipped"].keys() - both["skipped"].keys() == {f"two_way{SECOND}"}
    assert both["judges"] == [
        {
            "name": "torchvision/squeezenet1_0",
            "weights": "pixels",
            "family": "squeezenet",
            "relatives": ["torchvision/squeezenet1_1"],
            "score": "two_way",
        },
        {"name": LITE, "weights": "colours", "family": "efficientnet", "relatives": [], "score": f"two_way{SECOND}"},
    ]
    assert [one["name"] for one in alone["judges"]] == ["torchvision/squeezenet1_0"]


def test_every_table_shows_both_and_says_who_is_independent(run: Run, tmp_path: Path) -> None:
    found = json.loads(report.report_path(run).read_text())
    near = "torchvision/squeezenet1_0 (same family as torchvision/squeezenet1_1 (backbone))"
    free = f"{LITE} (independent of the run's networks)"
    assert described(found) == [near, free]
    text = format_report(found)
    lines = text.splitlines()
    assert any(line.startswith(f"n 12, judge {near} and {free}, +") for line in lines)
    block = lines[next(k for k, line in enumerate(lines) if line.startswith("efficientnet_lite0")) :]
    assert block[0].split() == ["efficientnet_lite0", "two_way+", "top1+", "nearest_is_target+"]
    entry = found["reconstruction"]
    assert block[1].split() == ["reconstruction", *(f"{entry[name + SECOND]['value']:.3f}" for name in NAMES)]
    assert next(line for line in block if line.startswith("chance")).split()[1:3] == ["0.5", "0.0833"]
    assert f"two_way{SECOND} minus shuffled: " in text
    assert f"judge {near} and {free}" in scores_text(found, 0) and f"| top1{SECOND} |" in scores_text(found, 0)
    table = markdown(rows(load_results([run.path])))
    assert f"top1{SECOND} ↑" in table and "(chance 0.083)" in table
    assert describe(report.report_path(run))["judges"] == found["judges"]


def test_the_galleries_show_both(run: Run) -> None:
    content = read_content(run)
    assert content.rule == ("two_way", "PixCorr")  # who is best is not chosen by another judge than before
    assert content.headline == ("two_way", "PixCorr", f"two_way{SECOND}")
    shown = page_data([content])["runs"][0]
    assert len(shown["judges"]) == 2 and shown["headline"] == list(content.headline)
    assert all({name + SECOND for name in NAMES} <= item["scores"].keys() for item in shown["items"])
    value = content.report["reconstruction"][f"two_way{SECOND}"]["value"]
    assert f"two_way{SECOND} {value:.3f} (shuffled " in contact.caption(content, "all")


def test_an_older_report_is_shown_with_its_one_judge(run: Run) -> None:
    older = json.loads((run.path.parent / "alone.json").read_text())
    del older["judges"]
    assert faults(older) == [] and described(older) == ["torchvision/squeezenet1_0"]
    assert "judge torchvision/squeezenet1_0, +" in format_report(older)


def test_the_schema_knows_the_judges(run: Run) -> None:
    found = json.loads(report.report_path(run).read_text())

    def planted(**changes: object) -> list[str]:
        broken = copy.deepcopy(found)
        broken["judges"][0] |= changes
        return faults(broken)

    assert planted() == []
    assert planted(relatives=[]) and planted(family="alexnet") and planted(score="three_way")
    assert planted(name=found["backbone"]) == ["judges.0.name: is the target backbone"]
    assert planted(weights=None) == ["judges.0.weights: None is no str"]


@pytest.mark.parametrize(
    ("skipped", "told"),
    [
        ((), ["a/one (independent of the run's networks)", "b/two (independent of the run's networks)"]),
        (("two_way",), ["b/two (independent of the run's networks)"]),
        (("two_way(two)",), ["a/one (independent of the run's networks)"]),
        (("two_way", "two_way(two)"), ["none (skipped, as the weights were missing)"]),
        (("PixCorr",), ["a/one (independent of the run's networks)", "b/two (independent of the run's networks)"]),
    ],
)
def test_a_judge_that_was_skipped_is_not_named(skipped: tuple[str, ...], told: list[str]) -> None:
    scores = {"a/one": "two_way", "b/two": "two_way(two)"}
    judges = [{"name": name, "relatives": [], "score": score} for name, score in scores.items()]
    report = {"judge": "a/one", "backbone": "mini", "skipped": dict.fromkeys(skipped, "no weights"), "judges": judges}
    assert described(report) == told
    old = {"judge": "a/one", "skipped": dict.fromkeys(skipped, "no weights")}
    assert described(old) == (
        ["a/one"] if "two_way" not in skipped else ["none (skipped, as the weights were missing)"]
    )

"""`recon encode` and `recon brain-score` on two tiny V4 sessions: choices, ceilings, files, what is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from align.config import Config
from align.data.signals import Recording, Stimuli, Trials
from align.data.studies import open_study
from align.errors import UserError
from align.response_models.scores import UnitScores
from align.vision import targets
from recon import cli
from recon.commands.encode import picture_counts
from recon.encoding.brain_score import brain_score_rows
from recon.encoding.ceiling import split_half
from recon.encoding.features import FeatureSet, feature_sets
from recon.encoding.figures import _map
from recon.encoding.peaks import peaks, scaling
from recon.encoding.responses import Layout, ceiling_of, layout_of
from recon.encoding.scored import Scored
from recon.encoding.subjects import Subject, known_rows, read_subject
from recon.encoding.summary import difference
from recon.encoding.text import encoding_text
from tests.align.fixture_studies import picture, write_v4_session
from tests.align.fixture_v4 import short_tests  # noqa: F401 - of as many test pictures as TESTED says
from tests.one_line import fails

STEM = "encoding_pictures-to-responses"
SESSIONS = {"190927": 110, "190928": 90}
NETWORK = "torchvision/squeezenet1_1@untrained"
ONE, OTHER = "features.3", "features.8"
TESTED = 40  # pictures of a session, in place of 200


def drive(images: list[Any]) -> np.ndarray:
    """(4, n): three units read the colour of a corner, the last one reads nothing."""
    pixels = np.stack([np.asarray(image, dtype=np.float64) for image in images]) / 255
    corner = pixels[:, :8, :8].mean((1, 2)).T
    return np.concatenate([corner, np.random.default_rng(0).normal(size=(1, len(images))) * corner.std()])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Session 190927 keeps its single presentations, six of every picture and five of some."""
    root, rng = tmp_path_factory.mktemp("v4"), np.random.default_rng(1)
    for k, (session, n) in enumerate(SESSIONS.items()):
        images = [picture(1000 * k + i) for i in range(n)]
        write_v4_session(root, session, images, 4)
        clean = drive(images)
        single = clean[:, :, None] + 0.5 * clean.std(axis=1)[:, None, None] * rng.normal(size=(4, n, 6))
        single[:, ::7, 5] = np.nan
        folder = root / "data_V4_responses"
        np.save(folder / "responses_repeat_averaged" / f"responses_{session}.npy", np.nanmean(single, axis=2))
        if k == 0:
            (folder / "responses_raw").mkdir()
            np.save(folder / "responses_raw" / f"responses_{session}.npy", single)
    return root


def words(root: Path, out: Path, *more: str) -> list[str]:
    study = ["study.name=cowley2023_v4", f"study.root={root}", f"cache_dir={root / 'cache'}"]
    network = ["backbone.name=torchvision/squeezenet1_1", "backbone.image_size=64", "target.pooling=grid:2"]
    return [*study, *network, "--backbones", NETWORK, "--out", str(out), *more]


def encode(root: Path, out: Path, *more: str) -> dict[str, Any]:
    assert cli.main(["encode", *words(root, out, "--permutations", "60", *more)]) == 0
    return json.loads((out / f"{STEM}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("encode")
    more = ["--layers", ONE, OTHER, "--method", "ridge,pls", "--folds", "3", "--together", "--partition"]
    return encode(root, out, *more), out


def test_units_that_read_the_picture_are_found(whole: tuple[dict[str, Any], Path]) -> None:
    result, out = whole
    assert result["direction"] == "pictures -> responses" and result["split"] == "train"
    assert [part["label"] for part in result["sets"]] == [ONE, OTHER, "together"]
    assert len(result["mean"]) == 3 * 2 and all(row["t95"][0] < row["r"] < row["t95"][1] for row in result["mean"])
    with (out / f"{STEM}_sub-190927.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 3 * 2 and {row["direction"] for row in rows} == {"pictures -> responses"}
    first = [row for row in rows if (row["set"], row["method"]) == (ONE, "ridge")]
    assert all(float(row["r"]) > 0.5 and float(row["q"]) <= 0.05 for row in first[:3])
    assert float(first[3]["q"]) > 0.05 and abs(float(first[3]["r"])) < 0.4
    assert {path.name for path in out.glob("*.png")} == {f"{STEM}.png"}


def test_a_ceiling_needs_repetitions(whole: tuple[dict[str, Any], Path]) -> None:
    result, out = whole
    known, unknown = (result["subjects"][name] for name in SESSIONS)
    assert unknown["ceiling"] is None and unknown["scores"][0]["corrected"] is None
    # variances 1 and .25: the mean of k presentations has the reliability 1 / (1 + .25 / k)
    assert known["ceiling"]["reliability_mean"] == pytest.approx(1 / (1 + 0.25 / 5.86), abs=0.02)
    assert known["ceiling"]["pictures"] == 70 and 5 < known["ceiling"]["repetitions"] < 6
    assert known["scores"][0]["corrected"] == pytest.approx(known["scores"][0]["r_reliable"] / 0.98, abs=0.01)
    with (out / f"{STEM}_sub-190928.csv").open(encoding="utf-8") as file:
        assert {row["corrected"] for row in csv.DictReader(file)} == {""}


def test_what_is_compared_is_paired(whole: tuple[dict[str, Any], Path]) -> None:
    result, out = whole
    pairs = {(row["a"], row["b"], row.get("set") or row["method"]) for row in result["paired"]}
    assert {("pls", "ridge", ONE), ("pls", "ridge", "together")} <= pairs
    assert any(row["a"] == "together" and row["units"] == 8 for row in result["paired"])
    part = result["subjects"]["190927"]["partition"]
    assert set(part["spaces"]) == {f"{NETWORK}:{ONE}", f"{NETWORK}:{OTHER}"}
    assert part["shared"] == pytest.approx(part["full"] - sum(one["unique"] for one in part["spaces"].values()))
    assert (out / f"partition_{STEM}_sub-190927.csv").is_file()


def test_test_pictures_are_scored_with_what_training_pictures_chose(root: Path, tmp_path: Path) -> None:
    more = ["--layers", ONE, OTHER, "--folds", "3", "--test", "--pictures", "25,all", "--subject", "190927"]
    result = encode(root, tmp_path / "test", *more)
    rows = result["cross_validation"]["mean"]
    assert result["chosen"] == max(rows, key=lambda row: row["r"])["set"]
    assert [(row["set"], row["pictures"]) for row in result["mean"]] == [
        (result["chosen"], 25),
        (result["chosen"], "all"),
    ]
    assert result["subjects"]["190927"]["scored_pictures"] == TESTED and result["folds"] == 1
    assert result["mean"][0]["r"] < result["mean"][1]["r"]
    assert (tmp_path / "test" / f"{STEM}_methods.png").is_file()


def test_all_layers_are_read_in_one_pass(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[list[str]] = []
    real = targets._extract

    def counting(backbone: Any, images: Any, todo: dict[str, str], *rest: Any) -> None:
        passes.append(list(todo))
        real(backbone, images, todo, *rest)

    monkeypatch.setattr(targets, "_extract", counting)
    encode(root, tmp_path, "--layers", ONE, OTHER, "--subject", "190927", f"cache_dir={tmp_path / 'cache'}")
    assert passes == [[ONE, OTHER]]


def test_the_choice_does_not_read_test_rows(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config()
    config = replace(config, study=replace(config.study, name="cowley2023_v4", root=str(root)))
    subject = read_subject(open_study(config), config, "190927", 3, test=False, width=None)
    assert len(subject.responses) == 70 and subject.scored.max() < 70
    tested = read_subject(open_study(config), config, "190927", 3, test=True, width=None)
    (rows, scored), count = tested.folds[0], len(tested.recording.stimuli)
    assert set(tested.stimulus[rows]).isdisjoint(tested.stimulus[scored]) and len(scored) == TESTED and count == 110
    small, large = (tested.folds_with(n, 0)[0][0] for n in (20, 40))
    assert set(small) < set(large) and len(small) == 20
    fails("has 70 to fit", lambda: tested.folds_with(71, 0))


def test_others_bring_no_scene_that_is_scored(root: Path) -> None:
    config = Config()
    config = replace(config, study=replace(config.study, name="cowley2023_v4", root=str(root)))
    study = open_study(config)
    new, other = (read_subject(study, config, name, 3, True, None) for name in SESSIONS)
    assert len(known_rows(new, [other], study.kept_out())[0]) == 50
    shown = [np.asarray(other.recording.stimuli.load(int(i))) for i in other.stimulus[:10]]
    assert len(known_rows(new, [other], shown)[0]) == 40


def test_single_presentations_are_those_of_the_averages(root: Path) -> None:
    config = Config()
    study = open_study(replace(config, study=replace(config.study, name="cowley2023_v4", root=str(root))))
    single, recording = study.repetitions("190927"), study.read("190927")
    assert study.repetitions("190928") is None and single is not None
    for trials in (recording.train, recording.test):
        means = np.stack([single.x[single.stimulus == i].mean(axis=0) for i in trials.stimulus])
        np.testing.assert_allclose(means, trials.x, rtol=1e-4)


def test_regions_and_too_few_permutations_are_printed() -> None:
    score = {"set": "1", "method": "ridge", "pictures": "all", "significant": 0.0, "regions": {"V1": 0.1, "FFA": 0.3}}
    entry = {"ceiling": None, "partition": None, "units": 480, "scores": [score]}
    mean = {"set": "1", "method": "ridge", "pictures": "all", "r": 0.2, "t95": None, "corrected": None}
    result = {"study": "s", "direction": "d", "rule": "r", "mean": [{**mean, "identification": None}], "paired": []}
    result |= {"subjects": {"ann": entry}, "folds": 5, "permutations": 100}
    text = encoding_text(result)
    assert "r by region, subject ann: FFA 0.300, V1 0.100" in text
    assert "with 100 permutations p is 0.02 or more, so fewer than 191 of 480 units cannot reach q .05" in text
    assert "--permutations 19199" in text
    assert "no unit can reach" in encoding_text({**result, "permutations": 20})
    assert "permutations" not in encoding_text({**result, "permutations": 20_000})
    entry["scores"] = [{**score, "significant": 0.4}]
    assert "permutations" not in encoding_text(result)


def test_reliability_is_that_of_known_noise() -> None:
    rng = np.random.default_rng(2)
    clean, stimulus = rng.normal(size=(400, 30)), np.repeat(np.arange(400), 5)
    trials = Trials(clean[stimulus] + 2 * rng.normal(size=(2000, 30)), stimulus, np.tile(np.arange(5), 400))
    found = split_half(trials, np.arange(400), 0, "made up")
    assert found is not None and found.repetitions == 5
    assert found.reliability.mean() == pytest.approx(1 / (1 + 4 / 5), abs=0.02)
    assert split_half(trials, np.arange(10), 0, "too few") is None
    assert split_half(trials.take(np.arange(0, 2000, 5)), np.arange(400), 0, "once") is None


def test_another_configuration_is_not_replaced(
    root: Path, whole: tuple[dict[str, Any], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = whole[1]
    before = (out / f"{STEM}.json").read_bytes()
    assert cli.main(["encode", *words(root, out, "--layers", "features.4")]) == 2
    assert "another configuration" in capsys.readouterr().err.splitlines()[-1]
    assert (out / f"{STEM}.json").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--layers", ONE, "--method", "rigde"], "did you mean 'ridge'"),
        (["--layers", ONE, "--method", "joint", "--subject", "190927"], "learns from other subjects"),
        (["--layers", "spread:x"], "spread:8"),
        (["--layers", ONE, "--together"], "--together joins several"),
        (["--layers", ONE, "--partition"], "add --together"),
        (["--layers", ONE, "--width", "0.1"], "no time axis"),
        (["--folds", "1"], "--folds 1 should be 2 or more"),
        (["--layers", ONE, "--captions", "mini"], "captions"),
        (["--layers", ONE, "classifier", "--method", "spatial_feature", "--together"], "different numbers of them"),
    ],
)
def test_mistakes_are_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert cli.main(["encode", *words(root, tmp_path / "x", *more)]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not list((tmp_path / "x").glob(f"{STEM}*"))


def test_numbers_of_pictures() -> None:
    assert picture_counts("all,50,50,100") == [50, 100, None]
    for text in ("0", "x", "19", ","):
        with pytest.raises(UserError):
            picture_counts(text)


def test_layers_by_spread_and_joined() -> None:
    backbone = SimpleNamespace(layers=tuple(str(i) for i in range(9)), name="made")
    found = feature_sets({"a": backbone, "b": backbone}, ["spread:3", "2+1"], None, True)  # type: ignore[dict-item]
    assert [part.label for part in found] == [f"{n}:{layer}" for n in "ab" for layer in ("0", "4", "8", "1+2")] + [
        "together"
    ]
    assert [part.depth for part in found[:4]] == [0.0, 0.5, 1.0, None]
    assert found[3].spaces == (("a", "1"), ("a", "2")) and len(found[-1].spaces) == 10


def timed(width: float | None) -> tuple[Recording, Layout, Any]:
    rng = np.random.default_rng(3)
    names = ("Fz", "Cz", "Pz", "Oz", "C3", "C4", "P3", "P4", "O1", "O2")
    stimulus = np.repeat(np.arange(40), 4)
    x = rng.normal(size=(160, 10, 40)).astype(np.float32)
    trials = Trials(x, stimulus, np.tile(np.arange(4), 40))
    stimuli = Stimuli(
        tuple(map(str, range(40))), lambda i: np.zeros((8, 8, 3), np.uint8), np.arange(40), ("",) * 40, ("",) * 40
    )
    made = Recording("made", "01", trials, trials, stimuli, names, 100.0)
    study = SimpleNamespace(config=Config(), rois=lambda subject: {"back": ("O1", "O2"), "absent": ("XX",)})
    return made, layout_of(made, study, width), study  # type: ignore[arg-type]


def test_signals_over_time_become_channels_by_windows() -> None:
    made, layout, study = timed(0.1)
    assert (len(layout.channels), len(layout.windows), layout.count) == (10, 4, 40)
    units = layout.means(made.train.x)
    np.testing.assert_allclose(units[:, 5], made.train.x[:, 1, 10:20].mean(1), atol=1e-6)
    assert layout.units()[5]["channel"] == "Cz" and layout.units()[5]["begin"] == pytest.approx(0.1)
    assert layout.of_regions(np.arange(40.0)) == {"back": pytest.approx(35.5)}
    ceiling = ceiling_of(made, study, layout, made.train, np.arange(40), 0)
    assert ceiling is not None and len(ceiling.reliability) == 40 and ceiling.pictures == 40
    values = np.linspace(0, 1, 40)
    one = Scored("01", "1", "ridge", None, 30, UnitScores(values, values, values, values), None, {})
    subject = Subject(made, layout, units, made.train.stimulus, np.arange(160), [], ceiling)
    entry = {"units": 40, "scored_pictures": 40}
    row = {"set": "1", "method": "ridge", "pictures": "all", "r": 0.5}
    result = {"study": "made", "split": "train", "mean": [row], "subjects": {"01": entry}}
    figure = _map(subject, result, [one])
    left, head = figure.axes[0], figure.axes[1]
    np.testing.assert_allclose(left.images[0].get_array(), values.reshape(10, 4))
    assert head.get_title() == "350 ms" and head.images


def entries_of(table: dict[str, dict[str, float]], ceiling: dict[str, float]) -> dict[str, Any]:
    return {
        name: {
            "ceiling": {"reliability_median": ceiling[name]} if name in ceiling else None,
            "scores": [
                {"set": layer, "method": "pls", "pictures": "all", "r": r, "r_median": r, "identification": None}
                for layer, r in layers.items()
            ],
        }
        for name, layers in table.items()
    }


def test_no_subject_chooses_the_layer_of_its_own_score() -> None:
    table = {"01": {"a": 0.9, "b": 0.1}, "02": {"a": 0.2, "b": 0.6}, "03": {"a": 0.3, "b": 0.5}}
    sets = [{"label": label, "network": "net", "depth": 0.0} for label in "ab"]
    result = {
        "backbones": {"net": {}},
        "sets": sets,
        "methods": {"pls": ""},
        "subjects": entries_of(table, {"02": 0.8}),
    }
    (row,) = brain_score_rows(result)
    assert [one["layer"] for one in row["subjects"]] == ["b", "a", "a"]
    assert [one["r"] for one in row["subjects"]] == [0.1, 0.2, 0.3]
    assert row["score"] == pytest.approx((0.2 / 0.8) ** 2) and row["scored_subjects"] == 1
    assert [one["score"] for one in row["subjects"]][::2] == [None, None]
    alone = {**result, "subjects": entries_of({"01": table["01"]}, {})}
    with pytest.raises(UserError, match="cannot choose the layer"):
        brain_score_rows(alone)


def test_brain_score_command(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["brain-score", *words(root, tmp_path / "bs", "--layers", ONE, OTHER)]) == 0
    result = json.loads((tmp_path / "bs" / "brain-score_pictures-to-responses.json").read_text(encoding="utf-8"))
    (row,) = result["rows"]
    assert result["folds"] == 10 and row["network"] == NETWORK and row["scored_subjects"] == 1
    known = row["subjects"][0]
    assert row["score"] == pytest.approx((known["r"] / known["ceiling"]) ** 2)
    assert "the 1 with repetitions" in capsys.readouterr().out


def test_peaks_and_their_scaling() -> None:
    sets = [FeatureSet(f"{n}:{k}", ((n, str(k)),), n, k / 3) for n in "xyz" for k in range(4)]
    entries = {}
    for s in range(4):
        scores = []
        for n, peak in zip("xyz", (1, 2, 3), strict=True):
            for k in range(4):
                r = 0.5 + 0.1 * peak - 0.1 * abs(k - peak) + 0.001 * s
                named = {"top1": r / 2, "chance": 0.01}
                scores.append(
                    {"set": f"{n}:{k}", "method": "ridge", "pictures": "all", "r": r, "identification": named}
                )
        entries[str(s)] = {"scores": scores}
    found = peaks(entries, sets)
    assert [peak["depth"] for peak in found] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [row["layer"] for row in found[0]["subjects"]] == ["x:1"] * 4
    scale = scaling(found, {"x": 1000, "y": 10_000, "z": 100_000})
    assert scale["against_size"]["r"]["rho"] == pytest.approx(1) and scale["peak_depths"]["rho"] == pytest.approx(1)
    assert scale["against_size"]["depth"]["ci95"] == pytest.approx([1, 1])
    assert peaks(entries, sets[:2]) == []


def test_a_difference_takes_a_subject_as_one_value() -> None:
    a = {"01": np.array([0.5, 0.7, 0.6]), "02": np.array([0.3, 0.4])}
    b = {"01": np.array([0.4, 0.4, 0.6]), "02": np.array([0.1, 0.2])}
    found = difference(a, b)
    assert found["difference"] == pytest.approx((0.4 / 3 + 0.2) / 2) and found["units"] == 5
    assert found["better"] == pytest.approx(0.8) and found["t95"][0] < found["difference"]

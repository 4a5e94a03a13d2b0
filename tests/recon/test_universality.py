"""`recon universality` and `recon rsa` on tiny pictures: what they write, that chance is chance, what they refuse."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from align.comparison.predictability import Regression
from align.data.signals import Recording, Stimuli, Trials
from align.files import read_json, read_tensors, save_tensors, write_sealed
from recon import cli
from recon.comparison.brains import Brain, when
from recon.comparison.extremes import chosen
from recon.comparison.files import read_universality
from recon.comparison.universality import Settings
from tests.align.fixture_studies import picture, png, write_folder
from tests.one_line import fails

NETWORKS = "mini,mini@untrained"
FEW = ["--components", "6", "--folds", "3", "--permutations", "40", "--shuffles", "24"]


def study(root: Path, n: int = 50) -> None:
    """Two people see the same pictures; their four channels follow the mean colours, from 0.1 s on."""
    rows = [
        {"row": person * n + i, "image": f"pic{i:03d}.png", "split": "test" if i >= n - 6 else "train", "subject": name}
        for person, name in enumerate(("01", "02"))
        for i in range(n)
    ]
    rng = np.random.default_rng(0)
    colours = np.stack([np.asarray(picture(i), float).mean((0, 1)) / 20 for i in range(n)])
    signals = 0.2 * rng.normal(size=(2 * n, 4, 30))
    for person in range(2):
        mixed = colours @ rng.normal(size=(3, 4))
        signals[person * n : (person + 1) * n, :, 15:] += (mixed - mixed.mean(0))[:, :, None]
    write_folder(root, signals.astype(np.float32), rows)
    info = {"sfreq": 100.0, "tmin": -0.05}
    (root / "info.json").write_text(json.dumps(info), encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of `recon universality` with two brains, beside its study."""
    root = tmp_path_factory.mktemp("compared")
    study(root / "study")
    pairs = [f"study.root={root / 'study'}", f"cache_dir={root / 'cache'}"]
    words = ["universality", "--backbones", NETWORKS, "--study", "folder", *FEW, "--out", str(root / "u")]
    assert cli.main([*words, "--width", "0.05", "--step", "0.05", *pairs]) == 0
    return root


def test_the_table_the_facts_and_the_axes_belong_together(made: Path) -> None:
    result = read_json(made / "u" / "universality.json")
    with (made / "u" / "universality.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result["n_dimensions"] == 2 * 9 * 6
    assert result["pictures"]["fitted"]["n"] == result["pictures"]["scored"]["n"] == 22
    assert {who: one["n"] for who, one in result["pictures"]["brain"].items()} == {"01": 22, "02": 22}
    assert len({one["weights_sha256"] for one in result["networks"].values()}) == 2
    for column in ("universality", "p", "q", "brain_similarity", "brain_p", "brain_q", "reliability", "explained"):
        values = np.array([float(row[column]) for row in rows])
        assert np.isfinite(values).all() and (column not in ("p", "q") or ((values > 0) & (values <= 1)).all()), column
    both = np.array([[float(row[f"brain_similarity_{who}"]) for who in ("01", "02")] for row in rows])
    np.testing.assert_allclose(both.mean(1), [float(row["brain_similarity"]) for row in rows])
    stored = read_universality(made / "u")
    own = [float(row["universality"]) for row in rows if (row["network"], row["layer"]) == ("mini", "3")]
    np.testing.assert_array_equal(stored.universal["mini", "3"], own)
    axes = stored.components("mini", "3", stored.tensors["mini/3/mean"].shape[0]).axes
    np.testing.assert_allclose(axes @ axes.T, np.eye(6), atol=1e-5)


def test_the_brain_is_above_the_shuffled_one_and_after_the_picture(made: Path) -> None:
    result = read_json(made / "u" / "universality.json")
    assert result["brain"]["mean"] > 0.2 > abs(result["shuffled"]["mean_r"])
    course = result["when"]["most"]
    assert course["onset"] == pytest.approx(0.1, abs=0.06) and course["peak"] > 0.09
    before = [point["most"] for point in result["when"]["points"] if point["end"] < 0.09]
    after = [point["most"] for point in result["when"]["points"] if point["begin"] >= 0.1]
    assert max(before) < min(after)
    for name in ("plain", "given_variance"):
        low, high = result["association"][name]["ci95_layers"]
        assert -1 <= low <= result["association"][name]["rho"] <= high <= 1


def test_when_universality_appears(made: Path) -> None:
    """The table is the JSON; no onset is before the picture."""
    course = read_json(made / "u" / "universality.json")["when"]
    rows = list(csv.DictReader((made / "u" / "when.csv").read_text(encoding="utf-8").splitlines()))
    assert [float(row["rank_correlation"]) for row in rows] == [p["rank_correlation"] for p in course["points"]]
    assert [float(row["centre"]) for row in rows] == [point["centre"] for point in course["points"]]
    for name in ("most", "least", "association"):
        clusters = course[name]["clusters"]
        assert clusters
        for row, point in zip(rows, course["points"], strict=True):
            inside = [c["p"] for c in clusters if c["begin"] < point["centre"] < c["end"]]
            assert row[f"p_cluster_{name}"] == (str(inside[0]) if inside else "")
        assert course[name]["onset"] is None or course[name]["onset"] >= 0


def test_the_course_of_the_association_is_that_of_planted_dimensions() -> None:
    """From 0.1 s on, responses follow the universal half of the dimensions; before, nothing."""
    rng = np.random.default_rng(0)
    n, half = 60, 12
    dimensions, universal = rng.normal(size=(n, 2 * half)), np.repeat([0.9, 0.1], half) + 0.01 * rng.random(2 * half)
    x = 0.3 * rng.normal(size=(n, half, 30))
    x[:, :, 15:] += dimensions[:, :half, None]
    trials = Trials(x, np.arange(n), np.zeros(n, int))
    stimuli = Stimuli(
        tuple(map(str, range(n))), lambda i: np.zeros((2, 2, 3), np.uint8), np.arange(n), ("",) * n, ("",) * n
    )
    names = tuple(f"E{i}" for i in range(half))
    brain = Brain("01", Recording("made", "01", trials, trials, stimuli, names, 100.0, tmin=-0.05), trials, stimuli)
    settings = Settings(folds=3, shuffles=60, width=0.05, step=0.05)
    course = when([brain], [dimensions], universal, Regression(), settings)
    assert course is not None
    rho = np.array([point["rank_correlation"] for point in course["points"]])
    late = np.array([point["begin"] for point in course["points"]]) > 0.099
    assert rho[late].min() > 0.5 > np.abs(rho[~late]).max()
    assert course["association"]["onset"] == pytest.approx(0.125)
    assert [(c["begin"], c["end"]) for c in course["association"]["clusters"] if c["p"] <= 0.05] == [
        (pytest.approx(0.1), pytest.approx(0.25))
    ]


def test_figures_are_drawn_and_show_dimensions_of_different_layers(made: Path) -> None:
    for name in ("density.png", "extremes.png", "when.png"):
        with Image.open(made / "u" / name) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
    table = {
        "network": np.array(["a", "a", "b", "b"]),
        "layer": np.array(["1", "1", "1", "2"]),
        "universality": np.array([0.9, 0.8, 0.1, 0.5]),
        "explained": np.array([0.5, 0.5, 1e-4, 0.5]),
    }
    assert chosen(table)["most"].tolist() == [0, 3] and chosen(table)["least"].tolist() == [3, 1]


def test_a_result_of_other_settings_is_not_replaced(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["universality", "--backbones", NETWORKS, "--study", "folder", *FEW, "--out", str(made / "u"), "--pool"]
    assert cli.main([*words, "mean", f"study.root={made / 'study'}", f"cache_dir={made / 'cache'}"]) == 2
    assert "asked.pooling=max instead of mean" in capsys.readouterr().err
    assert read_json(made / "u" / "universality.json")["settings"]["pooling"] == "max"


def test_rsa_of_a_study_with_few_dimensions(made: Path) -> None:
    words = ["rsa", "--backbones", "mini,mini@untrained", "--study", "folder", "--universality", str(made / "u")]
    pairs = [f"study.root={made / 'study'}", f"cache_dir={made / 'cache'}"]
    assert cli.main([*words, "--top", "1,3", "--boot", "60", "--out", str(made / "r"), *pairs]) == 0
    result = read_json(made / "r" / "rsa.json")
    (area,) = result["areas"]
    assert area["subjects"] == ["01", "02"] and area["n_pictures"] == 44 and result["pooling"] == "max"
    assert area["ceiling"]["lower"] <= area["ceiling"]["upper"] and area["between_subjects"] > 0.3
    for one in area["networks"].values():
        assert list(one["chosen"]) == ["all", "universal 1", "variance 1", "universal 3", "variance 3"]
        assert [point["depth"] for point in one["points"]] == [k / 8 for k in range(9)]
        for point in one["points"]:
            assert point["ci95"][0] <= point["similarity"] <= point["ci95"][1]
            assert point["between_subjects_given"] <= area["between_subjects"] + 1e-9
    with Image.open(made / "r" / "rsa.png") as image:
        assert image.width > 300


_TABLE, _FACTS, _AXES = "universality.csv", "universality.json", "components.safetensors"


def _of_table(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        head, *lines = (folder / _TABLE).read_text(encoding="utf-8").splitlines()
        (folder / _TABLE).write_text("\n".join([head, *change(lines)]) + "\n", encoding="utf-8")

    return harm


def _of_facts(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        facts = read_json(folder / _FACTS)
        change(facts)
        write_sealed(folder / _FACTS, facts)

    return harm


def _of_axes(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        tensors, told = read_tensors(folder / _AXES)
        change(tensors)
        save_tensors(folder / _AXES, tensors, told)

    return harm


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_of_table(lambda lines: [lines[0].replace("0.", "0.1", 1), *lines[1:]]), "is not the table"),
        (_of_table(lambda lines: lines[::-1]), "is not the table"),
        (_of_table(lambda lines: lines[:-1]), "is not the table"),
        (_of_facts(lambda facts: facts.pop("settings")), "settings is missing"),
        (_of_facts(lambda facts: facts.update(settings="x")), "settings is"),
        (_of_facts(lambda facts: facts.update(networks=["mini"])), "networks is"),
        (_of_facts(lambda facts: facts.update(networks={"mini": 3})), "mini is"),
        (_of_facts(lambda facts: facts.update(networks={"mini": {}})), "weights_sha256 is missing"),
        (_of_facts(lambda facts: facts.pop("table_sha256")), "table_sha256 is missing"),
        (_of_axes(lambda held: held.pop("mini/3/mean")), "mini 3 lacks mean"),
        (_of_axes(lambda held: held["mini/3/axes"].fill_(float("nan"))), "holds NaN"),
        (_of_axes(lambda held: held["mini/3/scale"].zero_()), "scale of 0"),
        (_of_axes(lambda held: held.update({"mini/3/mean": held["mini/3/mean"][:1].clone()})), "mini 3 has axes"),
        (_of_axes(lambda held: held.update({"mini/3/axes": held["mini/3/axes"][:, :4].clone()})), "mini 3 has axes"),
        (_of_axes(lambda held: held.update({"mini/3/axes": held["mini/3/axes"][:2].clone()})), "mini 3 has axes"),
        (
            _of_axes(lambda held: [held.update({k: v[..., :9].clone()}) for k, v in held.items()]),
            "has 9 channels there",
        ),
    ],
)
def test_a_damaged_result_is_refused_by_rsa(
    harm: Callable[[Path], None], told: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "u", tmp_path / "u")
    harm(tmp_path / "u")
    words = ["rsa", "--backbones", "mini", "--study", "folder", "--universality", str(tmp_path / "u"), "--boot", "3"]
    pairs = [f"study.root={made / 'study'}", f"cache_dir={made / 'cache'}"]
    assert cli.main([*words, "--out", str(tmp_path / "r"), *pairs]) == 2
    error = capsys.readouterr().err
    assert told in error.splitlines()[-1] and "Traceback" not in error
    assert not (tmp_path / "r" / "rsa.json").exists()


@pytest.mark.parametrize("replaced", ["gone", "others"])
def test_a_result_that_is_replaced_while_it_is_read_is_not_taken(
    replaced: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The axes would be of the new one, the table and the facts of the former."""
    shutil.copytree(made / "u", tmp_path / "u")
    path = tmp_path / "u" / "universality.json"

    def read(axes: Path) -> Any:
        facts = read_json(path)
        path.unlink()
        if replaced == "others":
            write_sealed(path, {**facts, "n_dimensions": 7})
        return read_tensors(axes)

    monkeypatch.setattr("recon.comparison.files.read_tensors", read)
    fails("was replaced while it was read; give the command again", lambda: read_universality(tmp_path / "u"))


def test_rsa_with_measured_dissimilarities_is_that_of_scipy(tmp_path: Path) -> None:
    """Pictures in the order of their names; the layer itself as a brain has similarity 1 with itself."""
    from align.config import BackboneConfig
    from align.vision.backbones import load_backbone
    from recon.comparison.networks import layer_features
    from recon.comparison.pictures import pictures_of

    (tmp_path / "pictures").mkdir()
    for i in range(24):
        (tmp_path / "pictures" / f"{i:02d}.png").write_bytes(png(picture(i)))
    stimuli = pictures_of(tmp_path / "pictures", None, 0)
    features = layer_features(load_backbone(BackboneConfig("mini")), stimuli, "mean", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    early, late = (squareform(pdist(features[k], "correlation")) for k in ("1", "8"))
    noisy = np.stack([squareform(squareform(late, checks=False) * rng.uniform(0.5, 1.5, 276)) for _ in range(3)])
    np.save(tmp_path / "early.npy", early)
    np.savez(tmp_path / "late.npz", other=early, late=noisy)
    words = ["rsa", "--backbones", "mini", "--images", str(tmp_path / "pictures"), "--pool", "mean", "--boot", "40"]
    words += ["--rdm", f"early={tmp_path / 'early.npy'}", "--rdm", f"late={tmp_path / 'late.npz'}:late"]
    assert cli.main([*words, "--out", str(tmp_path / "r"), f"cache_dir={tmp_path / 'cache'}"]) == 0
    result = read_json(tmp_path / "r" / "rsa.json")
    first, second = (area["networks"]["mini"] for area in result["areas"])
    by_layer = [point["similarity"] for point in first["points"]]
    expected = [
        stats.spearmanr(pdist(part, "correlation"), squareform(early, checks=False)).statistic
        for part in features.values()
    ]
    np.testing.assert_allclose(by_layer, expected, rtol=0, atol=1e-6)
    assert by_layer[1] == pytest.approx(1, abs=1e-6) and first["peak"]["value"] == 1 / 8
    people = [
        [stats.spearmanr(pdist(part, "correlation"), squareform(one, checks=False)).statistic for one in noisy]
        for part in features.values()
    ]
    np.testing.assert_allclose([point["by_subject"] for point in second["points"]], people, rtol=0, atol=1e-6)
    assert second["late_minus_early"]["value"] > 0 > first["late_minus_early"]["value"]
    assert result["areas_apart"]["mini"]["ci95"][0] > 0.5
    chosen_layer = second["chosen"]["all"]
    half = np.arange(1, 24, 2)
    score = np.mean(
        [
            stats.spearmanr(
                pdist(features[chosen_layer["layer"]][half], "correlation"),
                squareform(one[np.ix_(half, half)], checks=False),
            ).statistic
            for one in noisy
        ]
    )
    assert chosen_layer["value"] == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["universality", "--backbones", "mini"], "two networks or more"),
        (["universality", "--backbones", "mini,mini@untrained"], "no pictures"),
        (["universality", "--backbones", "mini,mini@untrained", "--images", "nowhere"], "neither a folder nor a zip"),
        (["universality", "--backbones", "mini,mini@untrained", "--images", ".", "--pool", "x"], "pooling 'x'"),
        (["universality", "--backbones", "mini,mini@untrained", "--images", ".", "--folds", "1"], "--folds 1"),
        (["universality", "--backbones", "mini,mini@untrained", "--images", ".", "--alphas", "-1"], "0 or more"),
        (["universality", "--backbones", "mini,mini@untrained:x", "--images", "."], "'x' is no seed"),
        (["universality", "--backbones", ",", "--images", "."], "names nothing"),
        (["rsa", "--backbones", "mini"], "pass a study"),
        (["rsa", "--backbones", "mini", "--images", "."], "pass a study"),
        (["rsa", "--backbones", "mini", "--images", ".", "--rdm", "x"], "should be NAME=FILE"),
        (["rsa", "--backbones", "mini", "--images", ".", "--rdm", "IT=no.npy"], "no.npy"),
        (["rsa", "--backbones", "mini", "--images", ".", "--rdm", "IT=x.npy", "--areas", "V1"], "regions of a study"),
        (["rsa", "--backbones", "mini", "--study", "folder", "--geotopological", "0.8,0.2"], "two rising numbers"),
        (
            ["rsa", "--backbones", "mini", "--images", ".", "--rdm", "IT=x.npy", "--test"],
            "--test means the test pictures",
        ),
        (["rsa", "--backbones", "mini", "--images", ".", "--rdm", "IT=x.npy", "--top", "3"], "--top counts dimensions"),
        (["universality", "--backbones", "mini,mini@untrained", "--images", ".", "--test"], "--test means the test"),
        (
            ["universality", "--backbones", "mini,mini@untrained", "--images", ".", "--shuffles", "3"],
            "--shuffles are of the brains",
        ),
        (
            ["rsa", "--backbones", "mini", "--images", ".", "--rdm", "IT=x.npy", "--universality", "."],
            "universality.json",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(24):
        (tmp_path / f"{i:02d}.png").write_bytes(png(picture(i, 8)))
    assert cli.main([*words, "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("[!.m]*"))


@pytest.mark.parametrize("fault", ["shape", "symmetry", "nan", "flat"])
def test_dissimilarities_of_others_are_looked_at(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(24):
        (tmp_path / f"{i:02d}.png").write_bytes(png(picture(i, 8)))
    square = (
        np.zeros((23, 23)) if fault == "shape" else squareform(pdist(np.random.default_rng(0).normal(size=(24, 3))))
    )
    square = 1 - np.eye(24) if fault == "flat" else square
    square[0, 1] = {"shape": 0.0, "symmetry": 9.0, "nan": np.nan, "flat": 1.0}[fault]
    np.save(tmp_path / "it.npy", square)
    words = ["rsa", "--backbones", "mini", "--images", str(tmp_path), "--rdm", f"IT={tmp_path / 'it.npy'}"]
    assert cli.main([*words, "--out", str(tmp_path / "out")]) == 2
    said = {"shape": "a row for each picture", "symmetry": "not symmetric", "nan": "IT", "flat": "equally far apart"}
    assert said[fault] in capsys.readouterr().err

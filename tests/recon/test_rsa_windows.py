"""`recon rsa --width`: numbers against scipy, nothing before the picture, what is written, what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from scipy.spatial.distance import pdist

from align.config import BackboneConfig
from align.data.studies.simulated import brain, rendering
from align.files import read_json
from align.vision.backbones import load_backbone
from recon import cli
from recon.analysis.windows import Window
from recon.comparison.networks import layer_features
from recon.comparison.pictures import pictures_of
from recon.comparison.rsa_time import _rising, over_time
from tests.align.fixture_studies import write_folder

N, REST, PEOPLE = 60, 20, ("01", "02")  # pictures, samples before the picture, subjects
WALK = ["--width", "0.05", "--step", "0.05", "--boot", "80", "--permutations", "99", "--pool", "mean"]


def simulate(root: Path) -> np.ndarray:
    """The simulated study with 0.2 s before the picture, as a folder; signals (people, N, 63, 70) as stored."""
    rng = np.random.default_rng(3)
    names = [f"{rendering.TRAIN_CONCEPTS[i]}-0" for i in range(0, 5 * N, 5)]
    pictures = np.stack([rendering.picture(name) for name in names])
    (root / "images").mkdir(parents=True)
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(root / "images" / f"pic{i:03d}.png")
    early, attributes = brain.early_features(pictures), brain.late_features(names)
    signals = np.zeros((len(PEOPLE), N, 63, REST + brain.N_TIMES), np.float32)
    rows = []
    for k, who in enumerate(PEOPLE):
        signals[k, :, :, REST:] = brain.evoked(early, attributes, np.arange(N), who, "mixed")
        signals[k] += 0.2 * rng.normal(size=signals[k].shape)
        sides = ["test" if i >= N - 6 else "train" for i in range(N)]
        rows += [
            {"row": k * N + i, "image": f"pic{i:03d}.png", "split": side, "subject": who}
            for i, side in enumerate(sides)
        ]
    write_folder(root, signals.reshape(-1, *signals.shape[2:]), rows)
    (root / "info.json").write_text(json.dumps({"sfreq": brain.SFREQ, "tmin": -REST / brain.SFREQ}), encoding="utf-8")
    return signals


def command(root: Path, out: Path, *more: str) -> int:
    pairs = [f"study.root={root}", f"cache_dir={root.parent / 'cache'}"]
    return cli.main(["rsa", "--backbones", "mini", "--study", "folder", "--out", str(out), *more, *pairs])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, dict[str, Any]]:
    root = tmp_path_factory.mktemp("windows")
    signals = simulate(root / "study")
    assert command(root / "study", root / "r", *WALK) == 0
    return root, signals, read_json(root / "r" / "rsa.json")


def entry(result: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The windows, and the layers of the one network."""
    (area,) = result["areas"]
    return area["when"], area["when"]["networks"]["mini"]["layers"]


def test_every_number_is_that_of_scipy(made: tuple[Path, np.ndarray, dict[str, Any]]) -> None:
    """Training pictures alone; channels of a window standardised over them; ceilings of Nili et al. written out."""
    root, signals, result = made
    when, layers = entry(result)
    stimuli = pictures_of(root / "study" / "images", None, 0)
    features = layer_features(load_backbone(BackboneConfig("mini")), stimuli, "mean", str(root / "cache"))
    train, starts = signals[:, : N - 6].astype(np.float64), range(0, 70, 5)
    assert [window["begin"] for window in when["windows"]] == pytest.approx([s / 100 - 0.2 for s in starts])
    for w, start in enumerate(starts):
        rdms = []
        for person in train:
            x = person[:, :, start : start + 5].reshape(N - 6, -1)
            rdms.append(pdist((x - x.mean(0)) / x.std(0), "correlation"))
        for layer, curve in layers.items():
            model = pdist(features[layer][: N - 6].astype(np.float64), "correlation")
            own = [stats.spearmanr(model, rdm).statistic for rdm in rdms]
            np.testing.assert_allclose(curve["points"][w]["by_subject"], own, rtol=0, atol=1e-6)
            assert curve["points"][w]["similarity"] == pytest.approx(np.mean(own), abs=1e-6)
        ranks = stats.rankdata(rdms, axis=1)
        between = stats.pearsonr(*ranks).statistic
        assert when["windows"][w]["ceiling"]["lower"] == pytest.approx(between, abs=1e-6)
        assert when["windows"][w]["between_subjects"] == pytest.approx(between, abs=1e-6)
        upper = np.mean([stats.spearmanr(rank, ranks.mean(0)).statistic for rank in ranks])
        assert when["windows"][w]["ceiling"]["upper"] == pytest.approx(upper, abs=1e-6)


def nothing_before(result: dict[str, Any]) -> bool:
    """Before 0 s: all similarities below .1, the mean's interval holds 0, no cluster with p <= .05 begins there."""
    when, layers = entry(result)
    before = [w for w, window in enumerate(when["windows"]) if window["end"] <= 1e-9]
    quiet = bool(before) and when["windows_before"] == len(before)
    for curve in layers.values():
        values = [curve["points"][w]["similarity"] for w in before]
        rest = curve["before_stimulus"] or {"similarity": np.nan, "ci95": [np.nan] * 2}
        quiet &= bool(np.abs(values).max(initial=0) < 0.1) and rest["similarity"] == pytest.approx(np.mean(values))
        quiet &= bool(rest["ci95"][0] < 0.02 and rest["ci95"][1] > -0.02)
        quiet &= not any(c["p"] <= 0.05 and c["first_window"] in before for c in curve["clusters"])
    return quiet


def test_nothing_is_alike_before_the_picture(made: tuple[Path, np.ndarray, dict[str, Any]]) -> None:
    _, _, result = made
    assert nothing_before(result)
    for curve in entry(result)[1].values():
        assert curve["peak"]["similarity"] > 0.15 and 0.05 < curve["peak"]["centre"] < 0.2
        assert 0 <= curve["onset"]["centre"] <= 0.11 and curve["onset"]["ci95"][0] >= 0
        assert all(point["ci95"][0] <= point["similarity"] <= point["ci95"][1] for point in curve["points"])


def test_a_response_before_the_picture_would_be_seen(
    made: tuple[Path, np.ndarray, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Signals shifted to earlier times, as a filter or wrong triggers do: the cluster is named."""
    root, signals, _ = made
    shutil.copytree(root / "study", root / "early")
    np.save(root / "early" / "signals.npy", np.roll(signals, -15, axis=-1).reshape(-1, *signals.shape[2:]))
    assert command(root / "early", tmp_path / "r", *WALK) == 0
    assert "before the picture is shown" in capsys.readouterr().out
    assert not nothing_before(read_json(tmp_path / "r" / "rsa.json"))


def test_files_say_the_same_and_go_where_there_are_no_windows(
    made: tuple[Path, np.ndarray, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _, result = made
    assert command(root / "study", tmp_path / "r", *WALK) == 0
    told = capsys.readouterr().out
    assert "mini in windows: layer" in told and "before the stimulus" in told
    when, layers = entry(result)
    rows = list(csv.DictReader((tmp_path / "r" / "rsa_when.csv").read_text().splitlines()))
    assert len(rows) == len(when["windows"]) * len(layers)
    for row, (layer, point) in zip(
        rows, [(layer, point) for layer, curve in layers.items() for point in curve["points"]], strict=True
    ):
        assert (row["layer"], float(row["centre"])) == (layer, point["centre"])
        assert float(row["similarity"]) == pytest.approx(point["similarity"], abs=1e-9)
        assert float(row["low"]) <= float(row["similarity"]) <= float(row["high"])
    with Image.open(tmp_path / "r" / "rsa_when.png") as image:
        assert len(np.unique(np.asarray(image.convert("L")))) > 50
    plain = ["--boot", "80", "--pool", "mean"]
    assert command(root / "study", tmp_path / "r", *plain) == 2
    assert command(root / "study", tmp_path / "r", *plain, "--overwrite") == 0
    assert not list((tmp_path / "r").glob("rsa_when*"))
    (area,) = read_json(tmp_path / "r" / "rsa.json")["areas"]
    assert area == {key: value for key, value in result["areas"][0].items() if key != "when"}


def test_deeper_layers_that_peak_later_are_told() -> None:
    assert _rising(np.array([0.1, 0.1, 0.1]), np.zeros((4, 3), int)) is None
    assert _rising(np.array([0.1, 0.2]), np.array([[0, 1]])) is None
    found = _rising(np.array([0.1, 0.2, 0.3]), np.array([[0, 1, 2]] * 30 + [[1, 1, 1]]))
    assert found is not None and found["value"] == pytest.approx(1) and found["ci95"][1] == pytest.approx(1)


def test_layers_of_several_networks_keep_their_own_curves() -> None:
    from align.comparison.rdm import RankedRdm
    from align.comparison.rsa import Resamples

    rng = np.random.default_rng(0)
    models = {
        name: {f"{name}{k}": pdist(rng.normal(size=(20, 5))) for k in range(n)} for name, n in (("a", 2), ("b", 3))
    }
    windows = [Window(k, k + 1, k / 10, k / 10 + 0.1) for k in range(5)]
    flat = [rdm for layers in models.values() for rdm in layers.values()]
    rdms = np.stack([np.stack(flat)] * 2)  # window k is layer k of the list, in both people
    ranked = {name: {layer: RankedRdm(rdm) for layer, rdm in layers.items()} for name, layers in models.items()}
    drawn = Resamples.draw(20, 2, 20, rng)
    found = over_time(ranked, rdms, windows, drawn, 50, rng)["networks"]
    peaks = [curve["peak"] for one in found.values() for curve in one["layers"].values()]
    assert [peak["similarity"] for peak in peaks] == pytest.approx([1.0] * 5)
    assert [peak["centre"] for peak in peaks] == pytest.approx([window.centre for window in windows])
    assert found["b"]["peak_with_depth"] == {"value": pytest.approx(1), "ci95": [pytest.approx(1)] * 2}
    assert found["a"]["peak_with_depth"] is None
    assert found["b"]["later_than"]["layers"]["b2"]["peak"]["median"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--step", "0.05"], "pass their width, too: --width 0.1"),
        (["--permutations", "5"], "pass their width, too: --width 0.1"),
        (["--width", "0.1", "--permutations", "0"], "--permutations 0 should be 1 or more"),
        (["--width", "9"], "--width 9 s is 900 samples"),
        (["--width", "0.1", "--step", "0.001"], "--step 0.001 s is less than a sample"),
        (["--width", "nan"], "--width"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(
    more: list[str],
    said: str,
    made: tuple[Path, np.ndarray, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        code = command(made[0] / "study", tmp_path / "r", *more)
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert code == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and said in told[0]
    assert not (tmp_path / "r" / "rsa.json").exists()


def silenced(study: Path, root: Path, channels: slice, samples: slice) -> Path:
    """A copy of the study in which ``samples`` are alike in all trials, and other ``channels`` absent."""
    shutil.copytree(study, root)
    x = np.load(root / "signals.npy")[:, channels]
    x[..., samples] = x[0][..., samples]
    np.save(root / "signals.npy", x)
    return root


def test_windows_without_a_response_count_as_nothing(
    made: tuple[Path, np.ndarray, dict[str, Any]], tmp_path: Path
) -> None:
    root = silenced(made[0] / "study", tmp_path / "study", slice(None), slice(0, 10))
    assert command(root, tmp_path / "r", *WALK) == 0
    windows, layers = entry(read_json(tmp_path / "r" / "rsa.json"))
    assert [window["ceiling"] for window in windows["windows"][:2]] == [{"lower": 0.0, "upper": 0.0}] * 2
    assert all(curve["points"][0]["similarity"] == 0 for curve in layers.values())
    assert max(window["ceiling"]["lower"] for window in windows["windows"]) > 0.1


@pytest.mark.parametrize(("channels", "samples"), [(slice(0, 1), slice(0, 0)), (slice(None), slice(None))])
def test_people_in_whom_all_pictures_are_alike_are_named(
    channels: slice,
    samples: slice,
    made: tuple[Path, np.ndarray, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = silenced(made[0] / "study", tmp_path / "study", channels, samples)
    words = ["preprocess.tmin=0.29", "preprocess.tmax=0.3"] if channels.stop == 1 else []
    assert command(root, tmp_path / "r", "--boot", "5", *words) == 2
    assert "subject 01: all pictures are equally far apart" in capsys.readouterr().err
    if channels.stop == 1:
        assert command(root, tmp_path / "r", "--boot", "5", *words, "--distance", "euclidean") == 0


def test_windows_need_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pictures").mkdir()
    words = ["rsa", "--backbones", "mini", "--images", str(tmp_path / "pictures"), "--rdm", "IT=it.npy"]
    assert cli.main([*words, "--width", "0.1", "--out", str(tmp_path / "r")]) == 2
    assert "--width cuts the recordings of a study" in capsys.readouterr().err

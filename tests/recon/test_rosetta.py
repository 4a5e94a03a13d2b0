"""`recon rosetta` on tiny pictures: what it writes, that maps meet on one grid, what it refuses."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from align.files import read_json
from align.vision.targets import cached_targets
from recon import cli
from recon.comparison.maps import enlarged, read_maps
from recon.comparison.pictures import divided, pictures_of
from tests.align.fixture_studies import picture, png

COUNT = 48


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rosetta")
    (root / "pictures").mkdir()
    for i in range(COUNT):
        (root / "pictures" / f"{i:02d}.png").write_bytes(png(picture(i)))
    return root


def words(root: Path, out: Path, *more: str) -> list[str]:
    pictures = ["--images", str(root / "pictures"), "--layers", "1", "8", "--grid", "4", "--shuffles", "30"]
    return ["rosetta", *pictures, "--out", str(out), f"cache_dir={root / 'cache'}", *more]


@pytest.fixture(scope="module")
def made(root: Path) -> Path:
    assert cli.main(words(root, root / "out", "--backbones", "mini,mini@untrained,mini@untrained:1")) == 0
    return root / "out"


def test_the_table_is_what_numpy_finds(made: Path, root: Path) -> None:
    result = read_json(made / "rosetta.json")
    with (made / "matches.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["network_b"] == "mini@untrained"]
    rows = [row for row in rows if row["network_a"] == "mini"]
    stimuli = pictures_of(root / "pictures", None, 0)
    halves = divided(stimuli.groups, 0)
    features = {}
    for name in ("mini", "mini@untrained"):
        from align.config import Config
        from recon.comparison.networks import load_networks

        backbone = load_networks([name], Config())[name]
        targets = cached_targets(backbone, stimuli, ["1", "8"], "grid:4", root / "cache")
        features[name] = np.concatenate([targets[layer].tokens for layer in ("1", "8")], axis=2).astype(float)
    flat = [[one[half].reshape(-1, one.shape[2]) for one in features.values()] for half in halves]
    r, again = (np.corrcoef(a.T, b.T)[: a.shape[1], a.shape[1] :] for a, b in flat)
    best, back = r.argmax(axis=1), r.argmax(axis=0)
    pairs = {(i, int(j)) for i, j in enumerate(best) if back[j] == i and r[i, j] > 0}
    width = features["mini"].shape[2] // 2
    found = {
        tuple(["1", "8"].index(row[f"layer_{s}"]) * width + int(row[f"channel_{s}"]) for s in "ab"): row for row in rows
    }
    assert set(found) == pairs and result["pairs"][0]["matches"] == len(pairs)
    for (i, j), row in found.items():
        assert float(row["r"]) == pytest.approx(r[i, j], abs=1e-6)
        assert float(row["r_left_out"]) == pytest.approx(again[i, j], abs=1e-6)


def test_the_summary_counts_the_table(made: Path) -> None:
    result = read_json(made / "rosetta.json")
    with (made / "matches.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [one["networks"] for one in result["pairs"]] == [
        ["mini", "mini@untrained"],
        ["mini", "mini@untrained:1"],
        ["mini@untrained", "mini@untrained:1"],
    ]
    assert sum(one["kept"] for one in result["pairs"]) == sum(row["kept"] == "True" for row in rows)
    assert all((float(row["q"]) <= 0.05) == (row["kept"] == "True") for row in rows)
    assert sum(row["in_all_networks"] == "True" for row in rows) == 3 * result["in_all_networks"]["kept"]
    assert result["pictures"]["chosen_on"]["n"] + result["pictures"]["left_out"]["n"] == COUNT
    for name in ("counts.png", "matches.png"):
        with Image.open(made / name) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 20


@pytest.mark.long
def test_the_result_is_the_same_again(made: Path, root: Path, tmp_path: Path) -> None:
    assert cli.main(words(root, tmp_path / "out", "--backbones", "mini,mini@untrained,mini@untrained:1")) == 0
    for name in ("matches.csv", "matches.png"):
        assert (tmp_path / "out" / name).read_bytes() == (made / name).read_bytes()


def test_small_maps_are_drawn_larger_and_layers_without_places_are_left_out(tmp_path: Path) -> None:
    tokens = np.arange(4, dtype=np.float16).reshape(1, 4, 1)
    large = enlarged(tokens, 4).reshape(4, 4)
    np.testing.assert_allclose(large[0], [0, 0.25, 0.75, 1])
    np.testing.assert_allclose(large[:, 0], [0, 0.5, 1.5, 2])
    assert enlarged(tokens, 2) is tokens
    from align.config import Config
    from recon.comparison.networks import load_networks

    (tmp_path / "0.png").write_bytes(png(picture(0)))
    name = "torchvision/squeezenet1_1@untrained"
    backbone = load_networks([name], Config())[name]
    layers = ["features.2", "features.12", "classifier"]
    maps = read_maps(backbone, pictures_of(tmp_path, None, 0), layers, 20, str(tmp_path / "cache"))
    assert maps.values.shape == (1, 400, 64 + 512) and maps.without == ("classifier",)  # of 55 and of 13 cells
    assert maps.layer[63:65].tolist() == ["features.2", "features.12"] and maps.channel[63:65].tolist() == [63, 0]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--backbones", "mini"], "rosetta needs two networks or more: --backbones A,B"),
        (["--backbones", "mini,mini"], "rosetta needs two networks or more"),
        (["--backbones", "mini,mini@untrained", "--grid", "9"], "no error"),
        (["--backbones", "mini,mini@untrained", "--grid", "1"], "--grid 1 should be 2 or more"),
        (["--backbones", "mini,mini@untrained", "--shuffles", "1"], "--shuffles 1 should be 2 or more"),
        (["--backbones", "mini,mini@untrained", "--pictures", "3"], "--pictures 3 should be 40 or more"),
        (["--backbones", "mini,mini@untrained", "--layers", "x"], "mini has no layer 'x'"),
    ],
)
def test_a_mistake_is_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    code = cli.main(words(root, tmp_path / "out", *more))
    if said == "no error":  # a grid finer than the layer's own: its maps are drawn larger
        assert code == 0
        return
    assert code == 2 and said in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out" / "rosetta.json").exists()


def test_too_few_pictures_are_refused(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "few").mkdir()
    for i in range(10):
        (tmp_path / "few" / f"{i}.png").write_bytes(png(picture(i)))
    more = ["--backbones", "mini,mini@untrained", "--images", str(tmp_path / "few")]
    assert cli.main(words(root, tmp_path / "out", *more)) == 2
    assert "10 different pictures are too few" in capsys.readouterr().err

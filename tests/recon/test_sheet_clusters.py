"""`recon sheet --clusters` on a tiny V4 session: planted groups of units, their pictures, and that noise has none."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from align.comparison.clusters import adjusted_rand, discrimination, numbered, unit_clusters
from align.data.signals import Stimuli
from recon import cli
from recon.driving.clusters import found_clusters
from tests.align.fixture_studies import picture, write_v4_session
from tests.align.fixture_v4 import short_tests  # noqa: F401 - of as many test pictures as TESTED says
from tests.one_line import fails

SESSION, COUNT, TESTED, GROUPS = "190927", 110, 30, (4, 3, 3)
TRUTH = np.repeat(np.arange(3), GROUPS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Units that read red of one corner, green of another, blue of a third; with noise of their own."""
    root, rng = tmp_path_factory.mktemp("v4"), np.random.default_rng(1)
    images = [picture(i) for i in range(COUNT)]
    write_v4_session(root, SESSION, images, sum(GROUPS))
    pixels = np.stack([np.asarray(image, dtype=np.float64) for image in images]) / 255
    read = [pixels[:, :8, :8, 0], pixels[:, -8:, -8:, 1], pixels[:, :8, -8:, 2]]
    signals = np.stack([part.mean(axis=(1, 2)) for part in read])[TRUTH]
    signals = (signals - signals.mean(axis=1, keepdims=True)) / signals.std(axis=1, keepdims=True)
    responses = signals + 0.6 * rng.normal(size=signals.shape)
    np.save(root / "data_V4_responses" / "responses_repeat_averaged" / f"responses_{SESSION}.npy", responses)
    return root


def words(root: Path, out: Path, *more: str) -> list[str]:
    study = ["study.name=cowley2023_v4", f"study.root={root}", f"cache_dir={root / 'cache'}", "subjects=[190927]"]
    network = ["backbone.name=mini", "target.layer=1", "target.pooling=grid:2"]
    return ["sheet", *study, *network, "--units", "all", "--folds", "3", "--out", str(out), *more]


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("sheet")
    assert cli.main(words(root, out, "--clusters", "auto")) == 0
    return json.loads((out / "sheet.json").read_text(encoding="utf-8"))["subjects"][SESSION], out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_planted_groups_are_found_and_set_apart(made: tuple[dict[str, Any], Path]) -> None:
    result, out = made
    found = result["clusters"]
    assert found["count"] == 3 and found["agreement"] == 1 and found["agreement_p"] < 0.01
    labels = np.array([int(row["cluster"]) for row in rows_of(out / f"sheet_sub-{SESSION}.csv")])
    assert adjusted_rand(labels - 1, numbered(TRUTH)) == 1
    for row in rows_of(out / f"clusters_sub-{SESSION}.csv"):
        assert float(row["score"]) > float(row["score_of_random_clusters"]) + 0.5 and float(row["q"]) <= 0.05
        assert len(row["units"].split()) == int(row["n_units"])
    with Image.open(out / f"clusters_sub-{SESSION}.png") as sheet:
        assert sheet.height > 3 * 84 and len(np.unique(np.asarray(sheet.convert("L")))) > 20


def test_the_score_is_what_was_measured_on_the_pictures(made: tuple[dict[str, Any], Path], root: Path) -> None:
    """Recomputed from the file of responses; no picture of the half that chose is among them."""
    _, out = made
    responses = np.load(root / "data_V4_responses" / "responses_repeat_averaged" / f"responses_{SESSION}.npy")
    training = responses[:, : COUNT - TESTED].T
    labels = np.array([int(row["cluster"]) for row in rows_of(out / f"sheet_sub-{SESSION}.csv")]) - 1
    expected = discrimination((training - training.mean(0)) / training.std(0), labels)
    table = rows_of(out / f"clusters_pictures_sub-{SESSION}.csv")
    shown = {row["picture"] for row in table}
    assert len(shown) > 8 and len(shown) <= (COUNT - TESTED) / 2
    for row in table:
        picture_row = int(row["picture"].split("image")[1][:4]) - 1
        assert float(row["measured"]) == pytest.approx(expected[picture_row, int(row["cluster"]) - 1], abs=1e-6)
    for row in rows_of(out / f"clusters_sub-{SESSION}.csv"):
        mine = [float(one["measured"]) for one in table if one["cluster"] == row["cluster"]]
        assert float(row["score"]) == pytest.approx(np.mean(mine), abs=1e-9)


def test_with_test_the_test_pictures_are_shown(root: Path, tmp_path: Path) -> None:
    assert cli.main(words(root, tmp_path, "--clusters", "3", "--test")) == 0
    table = rows_of(tmp_path / f"clusters_pictures_sub-{SESSION}.csv")
    assert all(int(row["picture"].split("image")[1][:4]) > COUNT - TESTED for row in table)
    assert (
        json.loads((tmp_path / "sheet.json").read_text(encoding="utf-8"))["subjects"][SESSION]["clusters"]["tried"]
        is None
    )
    assert cli.main(words(root, tmp_path, "--overwrite")) == 0  # without clusters: none of before stay
    assert not list(tmp_path.glob("clusters*"))


def test_choice_and_score_are_apart() -> None:
    """Predictions that know nothing: pictures that measured responses would have chosen score high, these do not."""
    rng = np.random.default_rng(0)
    empty = ("",) * 300
    stimuli = Stimuli(
        tuple(map(str, range(300))), lambda i: np.zeros((4, 4, 3), np.uint8), np.arange(300), empty, empty
    )
    p, scores = [], []
    for _ in range(30):
        first, second, predicted = rng.normal(size=(3, 100, 12))
        shown = np.arange(100, 200)
        names = tuple(map(str, range(12)))
        one = found_clusters(names, 3, (first, np.arange(100)), (second, predicted), stimuli, shown, 0, 60)
        assert (one.of == unit_clusters(first, 3)).all() and (one.again == unit_clusters(second, 3)).all()
        p.extend(one.p)
        scores.append(one.score - one.chance)
        assert np.sort(discrimination(second, one.of)[:, 0])[-8:].mean() > one.score[0] + 0.3
    assert abs(np.mean(scores)) < 0.1 and abs(np.mean(np.array(p) <= 0.2) - 0.2) < 0.12


@pytest.mark.parametrize(
    ("clusters", "kinds", "groups", "said"),
    [
        (2, 1, 50, "fall into 1 groups, not 2"),
        (4, 3, 50, "fall into 3 groups, not 4"),
        ("auto", 1, 50, "fall into 1 groups"),
        ("auto", 6, 1, "all of one scene or concept; give a number"),
    ],
)
def test_units_that_cannot_be_divided_are_told(clusters: int | str, kinds: int, groups: int, said: str) -> None:
    rng = np.random.default_rng(0)
    empty = ("",) * 100
    stimuli = Stimuli(empty, lambda i: np.zeros((4, 4, 3), np.uint8), np.arange(100), empty, empty)
    x = rng.normal(size=(100, kinds))[:, np.arange(6) % kinds]
    first, second = (x[:50], np.arange(50) % groups), (x[50:], x[50:])
    names = tuple(map(str, range(6)))
    fails(said, lambda: found_clusters(names, clusters, first, second, stimuli, np.arange(50, 100), 0, 5))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--clusters", "1"], "--clusters 1 should be 2 or more, or auto"),
        (["--clusters", "many"], "--clusters many should be 2 or more, or auto"),
        (["--clusters", "10"], "--clusters 10: subject 190927 has 10 units here; 11 are needed"),
        (["--clusters", "auto", "--units", "unit-00,unit-01"], "has 2 units here; 4 are needed"),
    ],
)
def test_what_is_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert cli.main(words(root, tmp_path / "out", *more)) == 2
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.csv"))

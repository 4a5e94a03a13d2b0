"""`recon aligned-cut`: planted kinds of patches are found and drive their unit, shuffled responses do not, files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from align.comparison.clusters import adjusted_rand, numbered
from recon import cli
from recon.driving import aligned_cut
from recon.driving.aligned_cut_picture import COLOURS, MOST, coloured
from recon.driving.groups import Work, cut_rows, share_correlation
from tests.align.fixture_studies import picture, write_v4_session
from tests.align.fixture_v4 import short_tests  # noqa: F401 - of as many test pictures as TESTED says

SESSION, COUNT, TESTED = "190927", 100, 30


def planted(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Tokens (120, 4, 10) of three kinds of patches, kinds (120, 4), and responses of three units: the share of each
    kind, with noise. Channels that no unit reads vary more, and divide patches in another way."""
    rng = np.random.default_rng(seed)
    kinds, loud = rng.integers(0, 3, (120, 4)), rng.integers(0, 2, (120, 4))
    tokens = 0.3 * rng.normal(size=(120, 4, 10))
    tokens[:, :, :3] += np.eye(3)[kinds]
    tokens[:, :, 3:] += 3 * (2 * loud - 1)[:, :, None]
    responses = np.eye(3)[kinds].mean(axis=1)
    responses = responses / responses.std() + 0.3 * rng.normal(size=(120, 3))
    return {"layer": tokens.astype(np.float32)}, kinds, responses


def test_patches_are_grouped_by_what_units_read_and_not_by_what_is_loud() -> None:
    tokens, kinds, responses = planted()
    first, second = np.arange(60), np.arange(60, 120)
    work = Work(tokens, first, second, 3, 150, False, 0)
    cut = work.cut(responses[first], responses[second])
    assert adjusted_rand(numbered(cut.labels["layer"].ravel()), numbered(kinds[second].ravel())) > 0.8
    assert cut.agreement > 0.8 and cut.r["layer"] > 0.7
    np.testing.assert_allclose(cut.share["layer"].sum(axis=1), 1)
    rows = cut_rows("s", ("a", "b", "c"), cut, responses[second], 1000, 0)
    for cluster in (1, 2, 3):
        mine = {row["unit"]: row for row in rows if row["cluster"] == cluster}
        kind = np.bincount(kinds[second][cut.labels["layer"] == cluster - 1]).argmax()
        top = "abc"[kind]
        assert max(mine, key=lambda unit: mine[unit]["drive"]) == top
        assert max(mine, key=lambda unit: mine[unit]["r"]) == top and mine[top]["q"] <= 0.01
    rng = np.random.default_rng(1)
    shuffled = [work.cut(responses[rng.permutation(60)], responses[60 + rng.permutation(60)]) for _ in range(10)]
    assert max(one.agreement for one in shuffled) < cut.agreement
    assert abs(np.mean([one.r["layer"] for one in shuffled])) < 0.1


def test_the_first_part_alone_makes_the_groups() -> None:
    """Other responses to the second part leave labels and drive as they are; only what is compared changes."""
    tokens, _, responses = planted()
    work = Work(tokens, np.arange(60), np.arange(60, 120), 3, 150, False, 0)
    one = work.cut(responses[:60], responses[60:])
    other = work.cut(responses[:60], np.random.default_rng(0).normal(size=(60, 3)))
    np.testing.assert_array_equal(one.labels["layer"], other.labels["layer"])
    np.testing.assert_array_equal(one.drive["layer"], other.drive["layer"])
    assert other.agreement < one.agreement - 0.2 and other.r["layer"] < one.r["layer"] - 0.3


def test_r_of_a_share_is_that_of_scipy_and_its_p_is_uniform_by_chance() -> None:
    rng = np.random.default_rng(0)
    share, responses = rng.random((50, 30)), rng.normal(size=(50, 20))
    share[:, 29] = 0.25
    r, p = share_correlation(share, responses, 200, 0)
    for k, u in ((0, 0), (7, 19)):
        assert r[k, u] == pytest.approx(stats.pearsonr(share[:, k], responses[:, u]).statistic, abs=1e-6)
        assert p[k, u] == pytest.approx(stats.pearsonr(share[:, k], responses[:, u]).pvalue, abs=0.1)
    assert (r[29] == 0).all() and (p[29] == 1).all()
    assert (p[:29] <= 0.1).mean() == pytest.approx(0.1, abs=0.03)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Units read the mean red, green and blue of the picture."""
    root, rng = tmp_path_factory.mktemp("v4"), np.random.default_rng(1)
    images = [picture(i) for i in range(COUNT)]
    write_v4_session(root, SESSION, images, 3)
    colours = np.stack([np.asarray(image, dtype=np.float64).mean((0, 1)) for image in images]).T
    colours = (colours - colours.mean(1, keepdims=True)) / colours.std(1, keepdims=True)
    path = root / "data_V4_responses" / "responses_repeat_averaged" / f"responses_{SESSION}.npy"
    np.save(path, colours + 0.3 * rng.normal(size=colours.shape))
    return root


def words(root: Path, out: Path, *more: str) -> list[str]:
    study = ["study.name=cowley2023_v4", f"study.root={root}", f"cache_dir={root / 'cache'}", "subjects=[190927]"]
    network = ["backbone.name=mini", "target.layer=0+1", "target.pooling=grid:4"]
    return ["aligned-cut", *study, *network, "--units", "all", "--shuffles", "4", "--out", str(out), *more]


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cut")
    assert cli.main(words(root, out, "--clusters", "4")) == 0
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_written(made: Path) -> None:
    one = json.loads((made / "aligned_cut.json").read_text(encoding="utf-8"))["subjects"][SESSION]
    rows = rows_of(made / f"aligned_cut_sub-{SESSION}.csv")
    assert len(rows) == len(one["table"]) == 2 * 4 * 3 and {row["layer"] for row in rows} == {"0", "1"}
    for layer in "01":
        shares = {row["cluster"]: float(row["share"]) for row in rows if row["layer"] == layer}
        assert sum(shares.values()) == pytest.approx(1)
        assert one["r"][layer] > one["r_shuffled"][layer] + 0.2
    assert one["n_pictures"] == (COUNT - TESTED) / 2 and 1 / 5 <= one["agreement_p"] <= 1
    with Image.open(made / f"aligned_cut_sub-{SESSION}.png") as sheet:
        assert sheet.height > 4 * 3 * 84 and len(np.unique(np.asarray(sheet.convert("L")))) > 20


@pytest.mark.long
def test_the_result_is_the_same_again_and_test_pictures_are_another_one(made: Path, root: Path, tmp_path: Path) -> None:
    assert cli.main(words(root, tmp_path / "again", "--clusters", "4")) == 0
    for path in made.glob("*_sub-*"):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    assert cli.main(words(root, tmp_path / "test", "--clusters", "4", "--shuffles", "0", "--test")) == 0
    one = json.loads((tmp_path / "test" / "aligned_cut.json").read_text(encoding="utf-8"))["subjects"][SESSION]
    assert one["n_pictures"] == TESTED and one["agreement_p"] is None and one["agreement_shuffled"] is None


def test_cells_have_the_colour_of_their_group() -> None:
    drawn = np.asarray(coloured(Image.new("RGB", (8, 8), "black"), np.array([0, 1, 2, 3])))
    for k, (row, column) in enumerate(((0, 0), (0, 7), (7, 0), (7, 7))):
        np.testing.assert_allclose(drawn[row, column], np.array(COLOURS[k]) / 2, atol=1)
    assert len(set(COLOURS)) == MOST


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--clusters", "1"], "--clusters 1 should be from 2 to 12"),
        (["--shuffles", "-1"], "--shuffles -1 should be 0 or more"),
        (["target.pooling=mean"], "target.pooling=mean gives no square grid of places; take grid:n"),
        (["--units", "unit-9"], "--units 'unit-9' is not known"),
    ],
)
def test_what_is_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert cli.main(words(root, tmp_path / "out", *more)) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "aligned_cut.json").exists()


def test_few_pictures_are_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(aligned_cut, "LEAST", TESTED + 1)
    assert cli.main(words(root, tmp_path / "out", "--test")) == 2
    assert (
        f"{COUNT - TESTED} pictures for the map and {TESTED} to paint; {TESTED + 1} of each" in capsys.readouterr().err
    )

"""`recon sheet` on a tiny V4 session: what drives a unit is found, scored and written; what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from align.comparison.ridge import SharedRidge
from align.data.signals import Stimuli
from align.response_models.contract import joined
from align.response_models.scaling import Scaling
from recon import cli
from recon.analysis.windows import Window
from recon.driving.frame import Frame
from recon.driving.places import drive_by_place, side_of
from recon.driving.texts import nearest_texts, projected
from recon.driving.units import driven
from recon.encoding.responses import Layout
from tests.align.fixture_studies import picture, png, write_v4_session
from tests.align.fixture_v4 import short_tests  # noqa: F401 - of as many test pictures as TESTED says
from tests.one_line import fails

SESSION, COUNT, TESTED = "190927", 90, 30
NETWORK = "torchvision/squeezenet1_1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Units 0 to 2 read red, green and blue of a corner, the last one reads nothing; six presentations of each."""
    root, rng = tmp_path_factory.mktemp("v4"), np.random.default_rng(1)
    images = [picture(i) for i in range(COUNT)]
    write_v4_session(root, SESSION, images, 4)
    corner = np.stack([np.asarray(image, dtype=np.float64)[:8, :8].mean((0, 1)) for image in images]).T / 255
    clean = np.concatenate([corner, rng.normal(size=(1, COUNT)) * corner.std()])
    single = clean[:, :, None] + 0.3 * clean.std(axis=1)[:, None, None] * rng.normal(size=(4, COUNT, 6))
    folder = root / "data_V4_responses"
    np.save(folder / "responses_repeat_averaged" / f"responses_{SESSION}.npy", single.mean(axis=2))
    (folder / "responses_raw").mkdir()
    np.save(folder / "responses_raw" / f"responses_{SESSION}.npy", single)
    natural = root / "natural"
    natural.mkdir()
    for i in range(30):
        (natural / f"{i:02d}.png").write_bytes(png(picture(500 + i)))
    (root / "bank.txt").write_text("a red disc\na blue square\na green triangle\n", encoding="utf-8")
    return root


def words(root: Path, out: Path, *more: str) -> list[str]:
    study = ["study.name=cowley2023_v4", f"study.root={root}", f"cache_dir={root / 'cache'}", "subjects=[190927]"]
    network = ["backbone.name=mini", "target.layer=1", "target.pooling=grid:2"]
    return [*study, *network, "--out", str(out), *more]


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("sheet")
    more = ["--units", "all", "--folds", "3", "--bank", str(root / "bank.txt"), "--pictures", str(root / "natural")]
    assert cli.main(["sheet", *words(root, out, *more)]) == 0
    return json.loads((out / "sheet.json").read_text(encoding="utf-8")), out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_scores_stand_beside_their_ceiling(whole: tuple[dict[str, Any], Path]) -> None:
    result, out = whole
    units = rows_of(out / f"sheet_sub-{SESSION}.csv")
    assert [row["unit"] for row in units] == ["unit-00", "unit-01", "unit-02", "unit-03"]
    assert all(float(row["r"]) > 0.5 and float(row["q"]) <= 0.05 for row in units[:3])
    assert abs(float(units[3]["r"])) < 0.4
    # the mean of six presentations with noise of variance .09 has the reliability 1 / (1 + .09 / 6)
    assert float(units[0]["reliability"]) == pytest.approx(1 / (1 + 0.09 / 6), abs=0.02)
    assert units[0]["text_1"] and len({units[0][f"text_{i}"] for i in (1, 2, 3)}) == 3
    assert result["split"] == "train" and set(result["subjects"]) == {SESSION}


def test_ends_are_the_extremes_of_their_values(whole: tuple[dict[str, Any], Path], root: Path) -> None:
    _, out = whole
    table = rows_of(out / f"sheet_pictures_sub-{SESSION}.csv")
    assert {(row["by"], row["end"]) for row in table} == {
        (by, end) for by in ("measured", "predicted", "natural") for end in ("best", "worst")
    }
    responses = np.load(root / "data_V4_responses" / "responses_repeat_averaged" / f"responses_{SESSION}.npy")
    training = responses[1, : COUNT - TESTED]
    best = [row for row in table if (row["unit"], row["by"], row["end"]) == ("unit-01", "measured", "best")]
    assert [int(row["picture"].split("image")[1][:4]) - 1 for row in best] == np.argsort(-training)[:6].tolist()
    with Image.open(out / f"sheet_sub-{SESSION}.png") as sheet:
        assert sheet.height > 4 * 4 * 72


def test_the_sheet_is_the_same_again(whole: tuple[dict[str, Any], Path], root: Path, tmp_path: Path) -> None:
    _, out = whole
    more = ["--units", "all", "--folds", "3", "--bank", str(root / "bank.txt"), "--pictures", str(root / "natural")]
    assert cli.main(["sheet", *words(root, tmp_path, *more)]) == 0
    for path in sorted(out.glob("*_sub-*")):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--units", "unit-0"], "--units 'unit-0' is not known; did you mean 'unit-0"),
        (["--roi", "V4"], "--roi 'V4' is not known; the study names none, leave --roi out"),
        ([], "name what is looked at: --units A,B"),
        (["--units", "all", "--method", "joint"], "joint learns from other subjects"),
        (["--units", "all", "--most", "3"], "--most 3 should be 20 or more"),
        (["--units", "all", "--width", "0.1"], "have no time axis"),
    ],
)
def test_what_is_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert cli.main(["sheet", *words(root, tmp_path / "out", *more)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "sheet.json").exists()


def test_units_of_responses_with_time_have_a_moment() -> None:
    layout = Layout(("Oz", "Pz"), (Window(0, 5, 0.0, 0.05), Window(5, 10, 0.05, 0.1)), {"back": (0, 1)})
    responses = np.random.default_rng(0).normal(size=(20, 4)) * [1, 2, 3, 4]
    found = driven(layout, ["Pz@0.07"], ["back@0.01"], responses)
    assert found.names == ("Pz@0.07", "back@0.01")
    scaled = (responses - responses.mean(0)) / responses.std(0)
    np.testing.assert_allclose(found.of(responses), np.stack([scaled[:, 3], scaled[:, [0, 2]].mean(1)], 1))
    fails("these responses have time; write a moment in s, as Oz@0.12", lambda: driven(layout, ["Oz"], [], responses))
    fails("write a moment in s, as all@0.12", lambda: driven(layout, ["all"], [], responses))
    assert driven(layout, ["all@0.07"], [], responses).names == ("Oz@0.07", "Pz@0.07")
    fails("no window holds 3 s; they go from 0 to 0.1 s", lambda: driven(layout, ["Oz@3"], [], responses))
    fails("'soon' is no moment", lambda: driven(layout, ["Oz@soon"], [], responses))


def test_places_add_up_to_the_prediction() -> None:
    rng = np.random.default_rng(0)
    tokens = {"a": rng.normal(size=(30, 4, 5)).astype(np.float32), "b": rng.normal(size=(30, 4, 2)).astype(np.float32)}
    spaces = Scaling.of(tokens)(tokens)
    fit = SharedRidge(joined(spaces)).fit(tokens["a"][:, 2] @ rng.normal(size=(5, 3)), (0.01,))
    places = drive_by_place(spaces, fit.slopes()[0])
    np.testing.assert_allclose(places.sum(2) + fit.slopes()[1], fit.predict(joined(spaces)), atol=1e-5)
    assert (places.var(axis=0).argmax(axis=1) == 2).all()  # the place that the responses read
    assert side_of(tokens) == 2 and side_of({"a": tokens["a"][:, :3]}) is None


def test_texts_are_found_by_way_of_natural_pictures() -> None:
    rng = np.random.default_rng(0)
    axes = np.eye(8)
    seen = rng.normal(size=(60, 8))
    natural, texts = rng.normal(size=(200, 8)) + 3 * axes[7], axes[:3] - 2 * axes[6]  # the two sides lie apart
    responses = seen @ axes[:, [2, 0]] + 0.1 * rng.normal(size=(60, 2))
    folds = [(np.arange(30), np.arange(30, 60)), (np.arange(30, 60), np.arange(30))]
    found = nearest_texts(seen, responses, folds, natural, ["zero", "one", "two"], texts)
    assert [row[0] for row in found.texts] == ["two", "zero"] and (found.r > 0.9).all()
    assert found.cosine[0][0] == max(found.cosine[0])
    inside = projected(axes[2:3], natural)[0]
    assert natural.min(0)[2] < inside[2] <= natural.max(0)[2]


def test_a_frame_is_found_and_put_on_other_pictures() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:40, :40] - 19.5
    inside = (rows**2 + columns**2 < 15**2)[:, :, None]
    shown = [
        np.where(inside, rng.integers(0, 256, (40, 40, 1)), 100).repeat(3, axis=2).astype(np.uint8) for _ in range(30)
    ]
    empty = ("",) * 30
    stimuli = Stimuli(tuple(map(str, range(30))), lambda i: shown[i], np.arange(30), empty, empty)
    frame = Frame.of(stimuli, range(30))
    assert frame.grey and frame.aperture is not None
    red = torch.zeros(1, 3, 20, 20)
    red[:, 0] = 1
    seen = frame(red)[0]
    assert seen[:, 10, 10].tolist() == pytest.approx([0.299] * 3, abs=0.01)
    assert seen[:, 0, 0].tolist() == pytest.approx([100 / 255] * 3, abs=0.01)
    assert frame.shown(stimuli).hashes != stimuli.hashes
    plain = [rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(30)]
    whole = Frame.of(Stimuli(stimuli.ids, lambda i: plain[i], stimuli.groups, empty, empty), range(30))
    assert not whole.changes

"""`recon maximize` on a tiny V4 session, and its search alone: higher predictions, a judge that steers nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recon import cli
from recon.driving.maximize import _generator, _shares, require_other, told
from recon.driving.search import Search, _mixed, climb, draw, own, put_together
from tests.align.fixture_studies import picture, png, write_v4_session
from tests.align.fixture_v4 import short_tests  # noqa: F401 - of as many test pictures as TESTED says
from tests.one_line import fails

SESSION, COUNT, TESTED = "190927", 100, 30


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two units that read red and blue of the left half of a picture."""
    root = tmp_path_factory.mktemp("v4")
    images = [picture(i) for i in range(COUNT)]
    write_v4_session(root, SESSION, images, 2)
    half = np.stack([np.asarray(image, dtype=np.float64)[:, :10].mean((0, 1)) for image in images]).T / 255
    folder = root / "data_V4_responses" / "responses_repeat_averaged"
    np.save(folder / f"responses_{SESSION}.npy", half[[0, 2]])
    natural = root / "natural"
    natural.mkdir()
    for i in range(24):
        (natural / f"{i:02d}.png").write_bytes(png(picture(500 + i)))
    return root


def words(root: Path, out: Path, *more: str) -> list[str]:
    study = ["study.name=cowley2023_v4", f"study.root={root}", f"cache_dir={root / 'cache'}", "subjects=[190927]"]
    network = ["backbone.name=mini", "target.layer=1", "target.pooling=grid:2", "--pictures", str(root / "natural")]
    return [*study, *network, "--units", "all", "--out", str(out), *more]


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("maximize")
    more = ["--judge", "torchvision/squeezenet1_1@untrained", "--judge-layer", "features.3"]
    more += ["--patched", "3", "--rounds", "1", "--drawn", "2", "--steps", "4"]
    assert cli.main(["maximize", *words(root, out, *more)]) == 0
    return json.loads((out / "maximize.json").read_text(encoding="utf-8")), out


def test_both_encoders_rise_above_the_natural_pictures(whole: tuple[dict[str, Any], Path]) -> None:
    result, out = whole
    with (out / f"maximize_sub-{SESSION}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["unit"] for row in rows] == ["unit-00", "unit-01"]
    for row in rows:
        assert float(row["steering_r"]) > 0.5 and float(row["judge_r"]) > 0.3
        assert float(row["steering_made"]) > float(row["steering_drawn"]) >= float(row["steering_patched"])
        assert float(row["steering_patched"]) > float(row["steering_of_start"]) - 0.3
        assert float(row["steering_made"]) > float(row["steering_natural_best"])
        assert row["above_natural"] == str(float(row["judge_made"]) >= float(row["judge_natural_best"]))
    entry = result["subjects"][SESSION]
    assert sum(entry["halves"]) == COUNT - TESTED and entry["reliable_units"] == 2
    assert {path.name for path in (out / f"pictures_sub-{SESSION}").iterdir()} == {"unit-00.png", "unit-01.png"}
    assert (out / f"maximize_sub-{SESSION}.png").is_file()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--judge", "mini", "--judge-layer", "2"], "--judge 'mini' reads a network that steers"),
        (["--judge", "torchvision/squeezenet1_1@untrained", "--judge-layer", "3", "--steps", "-1"], "0 or more"),
        (["--judge", "torchvision/squeezenet1_1@untrained", "--judge-layer", "features.99"], "no layer 'features.99'"),
    ],
)
def test_what_is_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert cli.main(["maximize", *words(root, tmp_path / "out", *more)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "maximize.json").exists()


def test_the_search_raises_what_it_is_asked_for_and_repeats() -> None:
    generator, tokens = _generator()
    starts = torch.rand(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    starts = torch.nn.functional.interpolate(starts.flatten(0, 1), (64, 64), mode="bilinear").unflatten(0, (2, 2))

    def predict(images: torch.Tensor) -> torch.Tensor:
        """Red of the left half, and what blue has less on the right."""
        return torch.stack([images[:, 0, :, :32].mean((1, 2)), -images[:, 2, :, 32:].mean((1, 2))], dim=1)

    search = Search(patched=5, rounds=1, drawn=2, steps=3)
    patched = put_together(predict, starts, search)
    with torch.no_grad():
        drawn = draw(generator, tokens, predict, patched, starts, search)
        again = draw(generator, tokens, predict, put_together(predict, starts, search), starts, search)
    made = climb(generator, predict, drawn, search)
    first, before, between, after = (predict(x).diagonal() for x in (starts[:, 0], patched, drawn, made))
    assert (before > first + 0.01).all() and (between >= before).all() and (after > between + 0.02).all()
    assert torch.equal(drawn, again)


def test_a_unit_has_pictures_and_tokens_of_its_own() -> None:
    values = torch.arange(12.0).view(6, 2)
    assert own(values, 3).tolist() == [[0, 2, 4], [7, 9, 11]]
    kept, starts = torch.zeros(2, 20, 1), torch.arange(1.0, 5).view(2, 2, 1, 1).expand(2, 2, 20, 1)
    found = _mixed(kept, starts, torch.tensor([[0, 1], [1, 0]]), np.random.default_rng(0))
    assert [set(row.flatten().tolist()) for row in found] == [{0, 1}, {0, 2}, {0, 4}, {0, 3}]


def test_shares_count_reliable_units() -> None:
    rows = [
        {"reliability": 0.05, "judge_made": 9.0, "judge_natural_best": 1.0, "judge_of_start": 1.0},
        {"reliability": 0.5, "judge_made": 2.0, "judge_natural_best": 2.0, "judge_of_start": 1.0},
        {"reliability": 0.5, "judge_made": 2.0, "judge_natural_best": 3.0, "judge_of_start": 1.0},
    ]
    assert _shares(rows) == {"reliable_units": 2, "above_judges_best": 0.5, "above_start": 1.0}
    assert _shares(rows[:1]) == {"reliable_units": 0, "above_judges_best": None, "above_start": None}
    values = dict.fromkeys(("judge_patched", "judge_drawn"), 1.0)
    entry = {"units": [{**rows[0], **values}], **_shares(rows[:1])}
    said = told({"study": "x", "rule": "y", "pictures": {"count": 20}, "subjects": {"01": entry}})
    assert "no unit has a reliability of 0.1" in said
    fails("name another one", lambda: require_other("torchvision/a@FILE", "torchvision/a"))

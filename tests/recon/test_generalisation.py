"""Temporal generalisation: the diagonal is the time course, cells are those of plain regressions, clusters of loops."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from align.config import Config
from align.data.signals import Recording, Stimuli, Trials
from align.files import read_json
from recon.analysis.cells import draw_cells
from recon.analysis.clusters import cluster_map, cluster_test
from recon.analysis.figures import new_figure
from recon.analysis.generalisation import _reach, diagonal, generalisation
from recon.analysis.timecourse import Settings, _generalised, _scored, _subject, course
from recon.analysis.timecourse_text import _reached
from recon.analysis.windows import Fold, Window, decode, sliding_windows
from tests.recon.test_timecourse import command, study

__all__ = ["study"]  # a fixture
WALK = Settings(width=0.02, step=0.02, n_perm=200)
ALL = replace(WALK, generalise=True)
N, TIMES, CHANNELS = 90, 20, 12


def config() -> Config:
    base = Config()
    return replace(
        base, sweep=replace(base.sweep, folds=3), target=replace(base.target, components=8), cache_dir="none"
    )


def recording(lasting: bool, noise: float = 0.3) -> tuple[Recording, dict[str, np.ndarray]]:
    """One code from 0.04 s to 0.16 s: in the same channels all the time, or in others every 0.04 s."""
    rng = np.random.default_rng(0)
    code = rng.normal(size=(N, 6))
    x = noise * rng.normal(size=(N, CHANNELS, TIMES))
    mixing = rng.normal(size=(3, 6, CHANNELS))
    for k, start in enumerate((4, 8, 12)):
        x[:, :, start : start + 4] += (code @ mixing[0 if lasting else k])[:, :, None]
    train, test = np.arange(N - 20), np.arange(N - 20, N)
    stimuli = Stimuli(
        ids=tuple(f"p{i}" for i in range(N)),
        load=lambda i: np.zeros((8, 8, 3), np.uint8),
        groups=np.arange(N),
        concepts=("",) * N,
        captions=("",) * N,
    )
    sides = [Trials(x[rows].astype(np.float32), rows, np.zeros(len(rows), int)) for rows in (train, test)]
    names = tuple(f"E{i}" for i in range(CHANNELS))
    made = Recording("made", "01", sides[0], sides[1], stimuli, names, 100.0)
    return made, {"layer": code[:, None].astype(np.float32)}


def matrix(lasting: bool, settings: Settings = ALL) -> np.ndarray:
    made, tokens = recording(lasting)
    hits = course(config(), made, tokens, sliding_windows(made, settings.width, settings.step), settings)
    return hits["layer"].observed().mean(axis=0).reshape(10, 10)


@pytest.mark.parametrize("test", [False, True])
def test_the_diagonal_is_the_time_course(test: bool) -> None:
    """Exactly, with all that is made of it: intervals, clusters, onset, peak."""
    made, tokens = recording(lasting=True)
    windows = sliding_windows(made, WALK.width, WALK.step)
    alone, everywhere = (
        course(config(), made, tokens, windows, replace(settings, test=test))["layer"] for settings in (WALK, ALL)
    )
    np.testing.assert_array_equal(diagonal(everywhere.observed()), alone.observed())
    np.testing.assert_array_equal(everywhere.block, alone.block)
    plain = _subject({"layer": _scored(alone, 200, 0)}, windows, 0)
    full = _generalised({"layer": _scored(everywhere, 200, 0)}, windows, 0)
    found = full["layers"]["layer"].pop("generalisation")
    assert full == plain
    np.testing.assert_allclose(np.diag(found["top1"]), [p["top1"] for p in plain["layers"]["layer"]["points"]])
    np.testing.assert_allclose([found["ci95"][i][i] for i in range(10)], [p["ci95"] for p in plain_points(plain)])
    assert [found["p_uncorrected"][i][i] for i in range(10)] == [p["p_uncorrected"] for p in plain_points(plain)]


def plain_points(entry: dict) -> list[dict]:
    return entry["layers"]["layer"]["points"]


def test_a_code_that_lasts_fills_a_square_and_one_that_moves_a_line_of_blocks() -> None:
    """Windows 2 to 7 carry the code; it changes place every two windows."""
    square, blocks = matrix(lasting=True), matrix(lasting=False)
    carried = np.zeros((10, 10), bool)
    carried[2:8, 2:8] = True
    same = np.kron(np.eye(3), np.ones((2, 2))).astype(bool)
    assert square[carried].min() > 0.6 and square[~carried].max() < 0.2
    assert blocks[2:8, 2:8][same].min() > 0.6 and blocks[2:8, 2:8][~same].mean() < 0.15


def test_cells_are_those_of_scikit_learn() -> None:
    """The penalty given, decoders and scalers of scikit-learn fitted on one window and applied in another."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    made, tokens = recording(lasting=True, noise=3.0)
    windows = sliding_windows(made, 0.04, 0.04)
    settings = config()
    settings = replace(settings, encoder=replace(settings.encoder, alphas=[30.0]))
    fold = Fold(made.train, np.arange(N - 20), made.test, np.arange(20))
    found = decode(settings, [fold], tokens, np.arange(N), windows, everywhere=True)["layer"].observed()
    code = tokens["layer"][:, 0].astype(np.float64)
    scaled = StandardScaler().fit(code[: N - 20])
    axes = PCA(svd_solver="full").fit(scaled.transform(code[: N - 20]))
    fitted, target = (axes.transform(scaled.transform(part)) for part in (code[: N - 20], code[N - 20 :]))
    spread = np.sqrt(fitted.var(axis=0).mean())  # components of mean variance 1, so that penalties are comparable

    def flat(trials: Trials, window: Window) -> np.ndarray:
        return trials.x[:, :, window.start : window.stop].reshape(len(trials), -1).astype(np.float64)

    for i, own in enumerate(windows):
        scaler = StandardScaler().fit(flat(made.train, own))
        ridge = Ridge(alpha=30.0).fit(scaler.transform(flat(made.train, own)), fitted / spread)
        for j, other in enumerate(windows):
            estimate = ridge.predict(scaler.transform(flat(made.test, other)))
            unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (estimate, target)]
            hit = (unit[0] @ unit[1].T).argmax(axis=1) == np.arange(20)
            np.testing.assert_allclose(found[:, i * len(windows) + j], hit, rtol=0, atol=1e-6)
    assert 0.1 < found[:, [1 * 5 + 2, 2 * 5 + 1]].mean() < 0.95


def test_no_decoder_has_read_a_scored_row() -> None:
    """Pictures of noise and codes of noise: chance in every cell, with test rows and with held-out rows."""
    made, tokens = recording(lasting=True)
    rng = np.random.default_rng(4)
    wrong = {"layer": rng.normal(size=tokens["layer"].shape).astype(np.float32)}
    windows = sliding_windows(made, WALK.width, WALK.step)
    for test, candidates in ((False, 70 / 3), (True, 20)):
        hits = course(config(), made, wrong, windows, replace(ALL, test=test))["layer"]
        assert hits.candidates == pytest.approx(candidates, abs=0.1)
        rows = made.test if test else made.train
        assert sorted(hits.stimulus) == sorted(rows.stimulus)
        assert hits.observed().mean() < 2 * hits.chance
    blind = replace(made, test=replace(made.test, x=np.full_like(made.test.x, np.nan)))
    seen, unseen = (course(config(), part, tokens, windows, ALL)["layer"].observed() for part in (made, blind))
    np.testing.assert_array_equal(seen, unseen)


def map_by_loops(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Flood fill over sides of cells."""
    curves = np.concatenate([observed[None], null])
    z = (curves - curves.mean(axis=0)) / curves.std(axis=0)
    threshold = np.maximum(np.quantile(z, 0.95, axis=0), 0)
    largest, own = [], []
    for number, one in enumerate(z):
        open_, masses = {tuple(cell) for cell in np.argwhere(one > threshold)}, [0.0]
        while open_:
            todo, cells = [open_.pop()], []
            while todo:
                row, column = todo.pop()
                cells.append((row, column))
                for near in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                    if near in open_:
                        open_.remove(near)
                        todo.append(near)
            masses.append(sum(one[cell] for cell in cells))
            if number == 0:
                own.append(cells)
        largest.append(max(masses))
    found = np.full(observed.shape, np.nan)
    for cells in own:
        mass = sum(z[0][cell] for cell in cells)
        for cell in cells:
            found[cell] = np.mean(np.array(largest) >= mass - 1e-9)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_clusters_of_cells_are_those_of_a_flood_fill(seed: int) -> None:
    rng = np.random.default_rng(seed)
    null = ndimage.gaussian_filter(rng.normal(size=(100, 9, 7)), (0, 1, 1))
    observed = null[0] + np.where(np.indices((9, 7)).sum(axis=0) < 5, 3.0, 0.0)
    found = cluster_map(observed, null[1:])
    np.testing.assert_allclose(found, map_by_loops(observed, null[1:]))
    assert np.nanmin(found) <= 0.05


def test_clusters_of_a_single_line_are_those_over_time() -> None:
    rng = np.random.default_rng(0)
    null = np.cumsum(rng.normal(size=(150, 12)), axis=1)
    observed = null[0] + np.where(np.arange(12) % 5 < 2, 9.0, 0.0)
    line, expected = cluster_map(observed[None], null[1:, None])[0], np.full(12, np.nan)
    for cluster in cluster_test(observed, null[1:]).found:
        expected[cluster.first : cluster.last + 1] = cluster.p
    np.testing.assert_allclose(line, expected)


def test_the_reach_is_the_stretch_around_the_own_window() -> None:
    windows = [Window(k, k + 1, k / 10, k / 10 + 0.1) for k in range(6)]
    above = np.array([True, False, True, True, False, True])
    reach = [_reach(above, at, windows) for at in range(6)]
    assert reach[1] is None and reach[4] is None
    assert reach[0] == pytest.approx([0.05, 0.05]) and reach[2] == reach[3] == pytest.approx([0.25, 0.35])
    for best, said in ((0, "in its own window alone"), (1, "nowhere"), (3, "from 250 to 350 ms")):
        points = [{"centre": window.centre, "top1": float(k == best)} for k, window in enumerate(windows)]
        text = _reached({"points": points, "generalisation": {"reach": reach}})
        assert text == f"the decoder of {100 * best + 50} ms is above chance {said}"


def test_a_matrix_without_effect_has_no_cluster_and_a_single_window_a_figure() -> None:
    rng = np.random.default_rng(0)
    hits, null = (rng.random((50, 9)) < 0.1).astype(float), 0.1 + 0.04 * rng.normal(size=(200, 9))
    windows = [Window(k, k + 1, k / 10, k / 10 + 0.1) for k in range(3)]
    found = generalisation(hits, null, np.stack([hits.mean(axis=0)] * 4), windows)
    assert found["reach"] == [None] * 3 and np.shape(found["top1"]) == (3, 3) and np.shape(found["ci95"]) == (3, 3, 2)
    one = np.array([5.0])
    axes = new_figure(2, 2).subplots()
    draw_cells(axes, one, one, np.ones((1, 1)), np.ones((1, 1), bool), (0, 1))
    assert axes.get_xlim() == (4.0, 6.0)


def test_the_command_writes_matrix_table_and_figure(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(study, tmp_path, "--layers", "1", "2", "--json", "--generalise") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == read_json(tmp_path / "timecourse.json") and "row: window" in printed["generalisation"]
    rows = list(csv.DictReader((tmp_path / "generalisation.csv").read_text().splitlines()))
    assert len(rows) == 2 * 4 * 4
    curve = printed["subjects"]["01"]["layers"]["2"]
    row = rows[16 + 4 * 1 + 3]
    assert row["layer"] == "2"
    assert [float(row["fitted_at"]), float(row["scored_at"])] == pytest.approx([0.075, 0.175])
    assert float(row["top1"]) == curve["generalisation"]["top1"][1][3]
    assert [float(row[f"ci95_{end}"]) for end in ("low", "high")] == curve["generalisation"]["ci95"][1][3]
    with Image.open(tmp_path / "generalisation.png") as image:
        assert image.width > 300
    assert command(study, tmp_path) == 2  # another question
    capsys.readouterr()
    assert command(study, tmp_path, "--layers", "1", "2", "--overwrite") == 0
    assert not list(tmp_path.glob("generalisation*"))
    told = read_json(tmp_path / "timecourse.json")
    curve.pop("generalisation")
    assert told["subjects"]["01"]["layers"]["2"] == curve
    assert "generalisation" not in told

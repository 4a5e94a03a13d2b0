"""Time courses: the cluster test against loops, hits against `align.retrieval`, known times of the simulation."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from align import retrieval
from align.config import Config
from align.data.signals import Recording, Stimuli, Trials
from align.data.studies.simulated import brain
from align.files import read_json
from align.vision.backbones import load_backbone
from align.vision.fused import layer_targets
from recon import cli
from recon.analysis import timecourse
from recon.analysis.clusters import cluster_test
from recon.analysis.figures import new_figure
from recon.analysis.onsets import earliest_onset
from recon.analysis.timecourse import Settings, _mean, _Scored, _scored, _subject, course
from recon.analysis.timecourse_text import before_stimulus, format_time_course
from recon.analysis.windows import Hits, Window, _best, sliding_windows
from tests.align.fixture_studies import write_folder
from tests.one_line import fails

WALK = Settings(width=0.06, step=0.02, n_perm=300)


def config(**sections: object) -> Config:
    base = Config()
    sweep, target = replace(base.sweep, folds=2), replace(base.target, components=20)
    return replace(base, sweep=sweep, target=target, cache_dir="unused", **sections)


def recording(code: str, noise: float = 0.1, n: int = 150) -> tuple[Recording, dict[str, np.ndarray]]:
    """Signals that carry two unrelated codes at the simulation's own times; layers = the codes themselves."""
    rng = np.random.default_rng(5)
    early, late = (rng.normal(size=(n, k)) @ rng.normal(size=(k, width)) for k, width in ((12, 704), (8, 27)))
    clean = brain.evoked(early, late, np.arange(n), "01", code)
    x = clean + noise * brain.noise(rng, n)
    train = np.arange(n - 30)
    stimuli = Stimuli(
        ids=tuple(f"p{i}" for i in range(n)),
        load=lambda i: np.zeros((8, 8, 3), np.uint8),
        groups=np.arange(n),
        concepts=("",) * n,
        captions=("",) * n,
    )
    sides = [Trials(x[rows], rows, np.zeros(len(rows), int)) for rows in (train, np.arange(n - 30, n))]
    made = Recording("made", "01", sides[0], sides[1], stimuli, brain.CHANNELS, brain.SFREQ)
    return made, {"early": early[:, None].astype(np.float32), "late": late[:, None].astype(np.float32)}


def walked(code: str, settings: Settings = WALK, noise: float = 0.1) -> dict[str, dict]:
    made, tokens = recording(code, noise)
    windows = sliding_windows(made, settings.width, settings.step)
    hits = course(config(), made, tokens, windows, settings)
    return _subject({name: _scored(part, settings.n_perm, 0) for name, part in hits.items()}, windows, 0)


def test_the_early_code_is_found_before_the_late_one() -> None:
    entry = walked("mixed")
    early, late = entry["layers"]["early"], entry["layers"]["late"]
    assert early["peak"]["centre"] == pytest.approx(brain.EARLY_LATENCY[0], abs=0.03)
    assert late["peak"]["centre"] == pytest.approx(brain.LATE_LATENCY[0], abs=0.04)
    assert early["onset"]["centre"] < late["onset"]["centre"]
    assert early["clusters"][0]["p"] < 0.01 and late["clusters"][0]["p"] < 0.01
    gaps = entry["later_than"]["layers"]["late"]
    assert gaps["peak"]["ci95"][0] > 0.05
    assert 0 <= gaps["onset"]["ci95"][0] <= gaps["onset"]["median"] == pytest.approx(0.1, abs=0.03)
    assert (early["n"], early["candidates"], early["chance"]) == (120, 60, 1 / 60)
    assert all(point["ci95"][0] <= point["top1"] <= point["ci95"][1] for point in early["points"])


def test_what_is_not_there_is_not_found() -> None:
    sure = {
        (code, layer): any(cluster["p"] <= 0.01 for cluster in curve["clusters"])
        for code in ("late_only", "no_signal")
        for layer, curve in walked(code)["layers"].items()
    }
    assert [case for case, found in sure.items() if found] == [("late_only", "late")]


def test_cross_validation_reads_no_test_row_and_test_scores_each_once() -> None:
    made, tokens = recording("mixed")
    windows = sliding_windows(made, 0.1, 0.1)
    blind = replace(made, test=replace(made.test, x=np.full_like(made.test.x, np.nan)))
    seen, unseen = (course(config(), part, tokens, windows, Settings()) for part in (made, blind))
    np.testing.assert_array_equal(seen["early"].observed(), unseen["early"].observed())
    assert set(seen["early"].stimulus) == set(made.train.stimulus)
    tested = course(config(), made, tokens, windows, Settings(test=True))["early"]
    assert sorted(tested.stimulus) == sorted(made.test.stimulus)
    assert (tested.chance, tested.candidates) == (1 / 30, 30)
    assert tested.observed().mean(axis=0).max() > 0.3
    wrong = replace(made, test=replace(made.test, stimulus=np.roll(made.test.stimulus, 1)))
    assert course(config(), wrong, tokens, windows, Settings(test=True))["early"].observed().max(axis=1).mean() < 0.3


def test_hits_are_those_of_retrieval_and_their_null_that_of_permuted_targets() -> None:
    rng = np.random.default_rng(0)
    estimate, targets = rng.normal(size=(2, 12, 4))
    estimate += 0.7 * targets
    estimate[3], targets[5] = 0.0, targets[6]  # one that says nothing, and two pictures that tie
    block = np.array([0, 1] * 6)
    hits = Hits(block, np.arange(12), [_best(estimate, targets, block)])
    for number in (0, 1):
        rows = np.flatnonzero(block == number)
        expected = retrieval.per_stimulus(retrieval.scores(estimate[rows], targets[rows]))
        np.testing.assert_allclose(hits.observed()[rows, 0], expected["brain_to_image"]["top1"])
    assert (hits.chance, hits.candidates) == (pytest.approx(1 / 6), 6)
    null = hits.null(4000, seed=1)
    assert null.mean() == pytest.approx(hits.chance, abs=0.01)
    matrices = [
        retrieval.top1_matrix(retrieval.scores(estimate[block == b], targets[block == b]), np.arange(6)) for b in (0, 1)
    ]
    brute = [np.mean([m[np.arange(6), rng.permutation(6)] for m in matrices]) for _ in range(4000)]
    assert null.std() == pytest.approx(np.std(brute), rel=0.06)


def clusters_by_loops(observed: np.ndarray, null: np.ndarray) -> list[tuple[int, int, float]]:
    curves = np.vstack([observed[None], null])
    z = (curves - curves.mean(axis=0)) / curves.std(axis=0)
    threshold = np.maximum(np.quantile(z, 0.95, axis=0), 0)
    masses, found = [], []
    for row, values in enumerate(z):
        best, t = 0.0, 0
        while t < len(values):
            first, mass = t, 0.0
            while t < len(values) and values[t] > threshold[t]:
                mass, t = mass + values[t], t + 1
            if mass and row == 0:
                found.append((first, t - 1, mass))
            best, t = max(best, mass), t + (mass == 0.0)
        masses.append(best)
    return [(first, last, float(np.mean(np.array(masses) >= mass - 1e-9))) for first, last, mass in found]


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_those_of_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    null = np.cumsum(rng.normal(size=(200, 15)), axis=1)
    observed = null[0] + np.where(np.arange(15) % 7 < 3, 6.0, 0.0)
    found = cluster_test(observed, null[1:])
    assert [(c.first, c.last, pytest.approx(c.p)) for c in found.found] == clusters_by_loops(observed, null[1:])
    significant = [c.first for c in found.found if c.p <= 0.05]
    onset = found.onset()
    assert onset == (significant[0] if significant else None)
    bumped = np.vstack([observed, observed * 0 + null.mean(axis=0)])
    assert list(found.onsets(bumped)) == [-1 if onset is None else onset, -1]
    for earliest in range(16):
        reach = [max(c.first, earliest) for c in found.found if c.p <= 0.05 and c.last >= earliest]
        late = found.onset(earliest)
        assert late == (reach[0] if reach else None)
        assert list(found.onsets(bumped, earliest)) == [-1 if late is None else late, -1]


def test_p_of_the_largest_cluster_is_uniform_without_effect() -> None:
    from scipy.stats import kstest

    rng = np.random.default_rng(0)
    p = []
    for _ in range(200):
        curves = np.apply_along_axis(np.convolve, 1, rng.normal(size=(100, 24)), np.ones(3), "valid")
        found = cluster_test(curves[0], curves[1:]).found
        p.append(min((cluster.p for cluster in found), default=1.0))
    assert np.mean(np.array(p) <= 0.05) <= 0.09
    with_cluster = np.array([value for value in p if value < 1])
    assert kstest(with_cluster / with_cluster.max(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("begins", [-0.3, -0.11, -0.02, 0.0, 0.2])
def test_no_onset_is_before_the_stimulus(begins: float) -> None:
    """Noise before 0 s that touches the response, and responses that seem to come earlier, begin no interval there."""
    rng = np.random.default_rng(1)
    windows = [Window(k, k + 10, -0.5 + k / 100, -0.4 + k / 100) for k in range(0, 100, 2)]
    centres = np.array([window.centre for window in windows])
    null = rng.normal(0.02, 0.01, size=(400, len(windows)))
    rate = np.where(centres >= begins, 0.2, 0.02)
    rate[(centres >= -0.2) & (centres < begins)] = 0.06  # now and then above the threshold
    hits = (rng.random((300, len(windows))) < rate).astype(float)
    curve = _subject({"x": _Scored(hits, null, 0.02, 50)}, windows, 0)["layers"]["x"]
    onset = curve["onset"]
    assert 0 <= onset["ci95"][0] <= onset["centre"] <= onset["ci95"][1] and onset["centre"] <= max(begins, 0) + 0.021
    assert ("before the picture is shown" in before_stimulus(curve)) == any(
        c["begin"] <= -0.1 for c in curve["clusters"] if c["p"] <= 0.05
    )
    only_before = replace(windows[0], start=0)
    assert earliest_onset([only_before]) == 1 and earliest_onset(windows) == int(np.argmax(centres > -1e-9))


def test_what_is_before_the_stimulus_alone_has_no_onset() -> None:
    windows = [Window(k, k + 10, -0.5 + k / 100, -0.4 + k / 100) for k in range(0, 40, 2)]
    rng = np.random.default_rng(2)
    null = rng.normal(0.02, 0.01, size=(200, len(windows)))
    curve = _subject({"x": _Scored((rng.random((100, 20)) < 0.3).astype(float), null, 0.02, 50)}, windows, 0)
    assert curve["layers"]["x"]["onset"] is None and "before the picture" in before_stimulus(curve["layers"]["x"])
    text = format_time_course({"study": "toy", "backbone": "mini", "rule": "rule", "subjects": {"01": curve}})
    assert "no cluster above chance from 0 ms on; a cluster above chance (p 0.005) begins at -500 ms" in text
    assert "onset is" not in text


def test_the_p_of_an_onset_is_that_of_its_own_cluster() -> None:
    """A stronger cluster before the picture lent its p to a weaker one after it."""
    windows = [Window(k, k + 10, -0.5 + k / 100, -0.4 + k / 100) for k in range(0, 100, 2)]
    points = [{"centre": window.centre, "end": window.end} for window in windows]
    places = {(0, 9): 0.001, (12, 13): 0.6, (30, 36): 0.03, (40, 44): 0.04}
    clusters = [
        {"begin": windows[a].begin, "end": windows[b].end, "first_window": a, "last_window": b, "mass": 1.0, "p": p}
        for (a, b), p in places.items()
    ]
    onset = {"centre": windows[30].centre, "ci95": None}
    curve = {"onset": onset, "peak": {**onset, "top1": 0.5}, "chance": 0.1, "n": 9, "points": points}
    result = {"study": "toy", "backbone": "mini", "rule": "rule"}
    entry = {"layers": {"x": {**curve, "clusters": clusters}}}
    text = format_time_course({**result, "subjects": {"01": entry}})
    assert "cluster p 0.03; a cluster above chance (p 0.001) begins at -500 ms" in text
    none = {"layers": {"x": {**curve, "onset": None, "clusters": clusters[1:2]}}}
    assert "no cluster above chance; peak" in format_time_course({**result, "subjects": {"01": none}})


def test_windows_lie_inside_and_say_when() -> None:
    made, _ = recording("no_signal", n=40)
    made = replace(made, tmin=-0.1)
    found = sliding_windows(made, 0.1, 0.05)
    assert (found[0].begin, found[0].end, found[0].start, found[0].stop) == (-0.1, 0.0, 0, 10)
    assert (found[-1].stop, len(found)) == (50, 9)
    assert found[1].centre == pytest.approx(0.0)
    for width, step, words in (
        (0.001, 0.02, "--width 0.001 s is 0 samples"),
        (0.6, 0.02, "--width 0.6 s is 60 samples"),
        (0.1, 0.001, "--step 0.001 s is less than a sample"),
    ):
        fails(words, lambda w=width, s=step: sliding_windows(made, w, s))
    fails("no sampling rate", lambda: sliding_windows(replace(made, sfreq=None), 0.1, 0.1))


def test_subjects_are_joined_picture_by_picture_only_where_these_are_the_same() -> None:
    made, tokens = recording("mixed")
    windows = sliding_windows(made, 0.1, 0.1)
    part = _scored(course(config(), made, tokens, windows, Settings())["early"], 20, 0)
    empty = replace(part, hits=part.hits * 0, null=part.null * 0)
    found = {"01": {"early": part}, "02": {"early": empty}}
    joined = _mean(found, {"01": ["a", "b"], "02": ["a", "b"]})["mean"]["early"]
    np.testing.assert_allclose(joined.hits, part.hits / 2)
    np.testing.assert_allclose(joined.null, part.null / 2)
    assert _mean(found, {"01": ["a", "b"], "02": ["a", "c"]}) == {}
    assert _mean({"01": found["01"]}, {"01": ["a"]}) == {}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    rows = [
        {"row": i, "image": f"pic{i:03d}.png", "split": "train" if i < 24 else "test", "subject": "01"}
        for i in range(30)
    ]
    write_folder(folder, np.random.default_rng(0).normal(size=(30, 3, 20)).astype(np.float32), rows)
    (folder / "info.json").write_text(json.dumps({"sfreq": 100, "ch_names": ["O1", "Oz", "Fz"]}))
    load_backbone(Config().backbone)  # slow imports are no part of a test
    new_figure(1, 1)
    return folder


def command(study: Path, out: Path, *more: str) -> int:
    pairs = ["study.name=folder", f"study.root={study}", f"cache_dir={study / 'cache'}", "sweep.folds=2"]
    given = ["timecourse", "--out", str(out), "--width", "0.05", "--step", "0.05", "--permutations", "50"]
    return cli.main([*given, *more, *pairs, "target.components=4", "target.pooling=grid:2"])


def test_command_prints_what_it_writes(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(study, tmp_path, "--layers", "2", "1", "--json", "study.channels=^O") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == read_json(tmp_path / "timecourse.json")
    assert printed["layers"] == ["1", "2"] and printed["split"] == "train"
    assert printed["selection"]["channels"] == "^O" and printed["selection"]["n_channels"] == 2
    rows = list(csv.DictReader((tmp_path / "timecourse.csv").read_text().splitlines()))
    assert len(rows) == 2 * 4
    assert float(rows[0]["top1"]) == printed["subjects"]["01"]["layers"]["1"]["points"][0]["top1"]
    assert (tmp_path / "timecourse.png").read_bytes()[:4] == b"\x89PNG"
    assert command(study, tmp_path, "--test") == 2  # another question: what is there stays
    assert "timecourse.json of another configuration" in capsys.readouterr().err
    assert read_json(tmp_path / "timecourse.json") == printed
    assert command(study, tmp_path, "--test", "--overwrite") == 0
    told = capsys.readouterr().out
    assert "test rows scored once" in told and "chance 16.67 %, n 6" in told


def test_views_are_learnt_and_chosen_among(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def watched(config: Config, made: Recording, tokens: dict, windows: list, settings: Settings, among: dict) -> dict:
        given.append((made, tokens["2"], among["2"]))
        return course(config, made, tokens, windows, settings, among)

    monkeypatch.setattr(timecourse, "course", watched)
    views = "target.views=[blur:51,mosaic:40]"
    for more in ([], [views], [views, "--test"], [views, "--test", "target.candidate_views=false"]):
        assert command(study, tmp_path, "--layers", "2", "--json", "--overwrite", *more) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["views"] == (["blur:51", "mosaic:40"] if more else [])
        assert told["candidate_views"] == (len(more) < 3)
    made = given[0][0]
    backbone, place = load_backbone(Config().backbone), str(study / "cache")
    plain, altered = (
        layer_targets(backbone, made.stimuli, ["2"], "grid:2", place, False, each)["2"].tokens
        for each in ([], ["blur:51", "mosaic:40"])
    )
    assert np.abs(plain - altered).max() > 0.1
    for (_, tokens, among), learnt, chosen in zip(
        given, [plain, altered, altered, altered], [plain, altered, altered, plain], strict=True
    ):
        np.testing.assert_array_equal(tokens, learnt)
        np.testing.assert_array_equal(among, chosen)


def test_candidates_of_other_tokens_are_those_that_are_ranked() -> None:
    made, tokens = recording("mixed")
    windows = sliding_windows(made, 0.1, 0.1)
    early = {"early": tokens["early"]}
    for settings in (Settings(), Settings(test=True)):
        same, turned = (
            course(config(), made, early, windows, settings, among)["early"].observed().mean(axis=0).max()
            for among in (early, {"early": np.roll(tokens["early"], 1, axis=0)})
        )
        assert same > 0.3 and turned < 0.15


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["target.uncertain_views=[blur:3,blur:5,blur:9]"], "take target.views=[blur:5]"),
        (["--width", "3"], "--width 3 s is 300 samples"),
        (["--subject", "1"], "no subject '1'; did you mean '01'"),
        (["--permutations", "0"], "--permutations 0"),
        (["--layers", "99"], "99"),
        (["study.window=0:9"], "study.window=0:9 leaves"),
    ],
)
def test_bad_input_is_one_line(
    study: Path, tmp_path: Path, more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(study, tmp_path, *more) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and words in told[0]

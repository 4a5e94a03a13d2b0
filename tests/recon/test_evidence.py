"""Maps of evidence of a tiny run, drawn by a real tiny Stable Diffusion, against pictures and sums made here."""

from __future__ import annotations

import dataclasses
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from align.checkpoint import Run, load_run
from align.config import Config, load_config
from align.data.signals import Trials
from align.errors import UserError
from align.seeding import derive
from recon import cli
from recon.decoder import Decoder
from recon.drawing import Sampling
from recon.evidence import LEVEL, difference, evidence, grey, safe_threshold, shares
from recon.folders import PictureFolders, base_label, read_index, write_pictures
from recon.gallery.extras import read_extras
from recon.generate import generate
from recon.generation.adapters import load_adapter
from recon.generation.bridges.choose import Conditioning
from recon.generation.bridges.pairs import components_of
from recon.generation.conditioner import Conditioner, ConditionerInfo, save_conditioner
from recon.generation.pipeline import Generator
from recon.generation.sketch import load_sketch
from recon.low_level import decoded_pixels
from recon.null_brain import GAUSSIAN, PLUS_MINUS, gaussian, null_condition, null_signals, plus_minus, unexplained
from recon.predict import load_predictions, open_recording, picture_tokens, run_id, signals_at_rest
from tests.align.fixture_studies import picture, write_folder
from tests.recon.tiny import tiny_generator

N_TRAIN, N_TEST, REPETITIONS, NULLS = 30, 12, 5, 11
QUICK = Sampling(steps=2, batch_size=5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Ridge on pixels mixed into 30 voxels; every test picture is shown five times."""
    from align.train import train

    folder, rng, n = tmp_path_factory.mktemp("evidence"), np.random.default_rng(0), N_TRAIN + N_TEST
    small = np.stack([np.asarray(picture(i).resize((4, 4))).ravel() for i in range(n)]) / 255
    clean = (small - small.mean(0)) @ rng.normal(size=(48, 30))
    shown = [*range(N_TRAIN), *(i for i in range(N_TRAIN, n) for _ in range(REPETITIONS))]
    rows = [
        {"row": k, "image": f"pic{i:03d}.png", "split": "train" if i < N_TRAIN else "test", "subject": "01"}
        for k, i in enumerate(shown)
    ]
    signals = 5 + clean[shown] + 0.5 * rng.normal(size=(len(shown), 30))
    write_folder(folder / "study", signals.astype(np.float32), rows)
    pairs = ["study.name=folder", f"study.root={folder / 'study'}", "subjects=[01]", "target.layer=2"]
    pairs += ["target.pooling=grid:2", "target.components=8", "encoder.name=ridge"]
    train(load_config(Config, None, [*pairs, f"run_dir={folder / 'run'}", f"cache_dir={folder / 'cache'}"]), False)
    return load_run(folder / "run")


@pytest.fixture(scope="module")
def tiny(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A generator, and a conditioner of the width of the run's tokens where the run finds it (RECON_HOME)."""
    home = tmp_path_factory.mktemp("home")
    folder, _, unet, _ = tiny_generator(tmp_path_factory.mktemp("tiny"))
    n_tokens, width = run.aligner.targets.token_shape
    info = ConditionerInfo("mini", "2", "grid:2", n_tokens, width, str(folder))
    conditioner = Conditioner(unet, info, torch.zeros(width), torch.ones(width), num_tokens=3, hidden=64)
    for processor in conditioner.ip_adapter:
        processor.to_v_ip[0].weight.data.mul_(3).add_(0.3)
    path = home / "runs" / "recon" / "tiny" / "ip_adapter.safetensors"
    path.parent.mkdir(parents=True)
    save_conditioner(conditioner, path)
    return folder, home


@pytest.fixture(autouse=True)
def found(tiny: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_HOME", str(tiny[1]))


@pytest.fixture(scope="module")
def made(run: Run, tiny: tuple[Path, Path]) -> dict:
    """What the command returns, maps in the run folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECON_HOME", str(tiny[1]))
        return evidence(run, str(tiny[0]), QUICK, nulls=NULLS)


def folders_of(run: Run, tiny: tuple[Path, Path]) -> PictureFolders:
    return PictureFolders(run.path, base_label(str(tiny[0])), run.subject)


def model_of(tiny: tuple[Path, Path]) -> Generator:
    return Generator.load(str(tiny[0]), next(tiny[1].rglob("*.safetensors")))


def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`difference` of 16 px pictures written out: the box is one pixel."""
    return np.sqrt(((a - b) ** 2).mean(1))


def test_plus_minus_has_the_noise_of_the_average_and_no_response() -> None:
    rng = np.random.default_rng(0)
    response = 100 * rng.normal(size=20_000)
    for k, used in ((2, 2), (5, 4), (6, 6)):
        x = response + 3 * rng.normal(size=(k, 20_000))
        noise = plus_minus(x, rng)
        assert noise.std() == pytest.approx(3 / np.sqrt(used), rel=0.03)
        assert abs(np.corrcoef(noise, response)[0, 1]) < 0.03


def test_null_brains_are_rest_and_a_split_of_the_repetitions_of_one_picture(run: Run) -> None:
    recording = open_recording(run)
    null = null_signals(run, recording, NULLS, seed=3)
    assert (null.kind, null.left_out, len(set(null.ids))) == (PLUS_MINUS, NULLS, NULLS)
    test = {recording.stimuli.ids[i]: i for i in recording.test.stimulus}
    for name, row in zip(null.ids, null.x - signals_at_rest(run), strict=True):
        x = recording.test.x[recording.test.stimulus == test[name]]
        splits = [
            (x[list(plus)].sum(0) - x[list(minus)].sum(0)) / 4
            for plus in combinations(range(5), 2)
            for minus in combinations(sorted(set(range(5)) - set(plus)), 2)
        ]
        assert min(np.abs(row - split).max() for split in splits) < 1e-4
    assert null_signals(run, recording, NULLS, seed=4).ids != null.ids
    assert len(null_signals(run, recording, 100, seed=3).ids) == N_TEST


def test_without_repetitions_the_noise_is_what_pictures_do_not_explain(run: Run) -> None:
    recording = open_recording(run)
    shown, rng = np.unique(recording.train.stimulus), np.random.default_rng(0)
    seen = components_of(run, picture_tokens(run, recording), shown).numpy()
    x = 9 + 3 * seen @ rng.normal(size=(seen.shape[1], 400)) + 0.5 * rng.normal(size=(len(shown), 400))
    linear = dataclasses.replace(recording, train=Trials(x.astype(np.float32), shown, shown * 0))
    assert x.std() > 5 and 0.5 < unexplained(run, linear).std() < 0.8  # more than the noise by what weights err
    test = recording.test.averaged()
    null = null_signals(run, dataclasses.replace(recording, test=test), NULLS, seed=0)
    assert null.kind == GAUSSIAN and null.left_out == 0 and null.x.shape == (NULLS, 30)
    left = unexplained(run, recording)
    assert (null.x - signals_at_rest(run)).std() == pytest.approx(np.sqrt((left**2).mean()), rel=0.25)


def test_gaussian_noise_has_the_shrunken_covariance() -> None:
    rng = np.random.default_rng(1)
    left = rng.normal(size=(9, 3)) @ rng.normal(size=(3, 3))
    drawn = np.stack([gaussian(left, rng) for _ in range(20_000)])
    whole = left.T @ left / 9
    expected = 0.5 * whole + 0.5 * np.diag(np.diag(whole))
    np.testing.assert_allclose(drawn.T @ drawn / len(drawn), expected, atol=0.05 * whole.max())


def test_difference_is_large_where_pictures_differ_and_nowhere_else() -> None:
    a = torch.full((2, 3, 64, 64), 0.2)
    b = a.clone()
    b[1, 0, 16:32, 20:40] += 0.6
    found = difference(a, b)
    assert found.shape == (2, 64, 64)
    assert found[0].max() == 0
    assert found[1, 20:28, 24:36] == pytest.approx(0.6 / np.sqrt(3), abs=1e-5)
    assert found[1, :12].max() == 0 and found[1, :, 45:].max() == 0
    assert found[1].sum() == pytest.approx(16 * 20 * 0.6 / np.sqrt(3), rel=1e-4)
    assert 0 < found[1, 15, 30] < 0.3  # smoothed over 4 px
    assert difference(torch.zeros(1, 3, 512, 512), torch.ones(1, 3, 512, 512)).shape == (1, 256, 256)


def test_the_map_is_lighter_than_middle_grey_where_it_is_lit() -> None:
    values = np.linspace(0, 0.3, 997).reshape(1, 1, 997)
    pixels = np.round(255 * grey(values, 0.1234))
    assert (np.diff(pixels[0, 0]) >= 0).all() and (pixels[0, 0, 0], pixels[0, 0, -1]) == (0, 255)
    np.testing.assert_array_equal(pixels > 127, values > 0.1234)
    assert shares(values, 0.1234)[0] == pytest.approx((pixels > 127).mean())
    assert grey(np.array([0.0, 0.1]), 0.0).tolist() == [0.0, 1.0]


def test_the_threshold_is_the_lowest_that_keeps_null_brains_dark_for_sure() -> None:
    rng = np.random.default_rng(2)
    alike = np.tile(rng.random(1000), (6, 1)).reshape(6, 10, 100)
    assert safe_threshold(alike) == (np.quantile(alike, LEVEL), LEVEL)

    def null(n: int) -> np.ndarray:
        return rng.lognormal(0, 0.4, (n, 1, 1)) * np.abs(rng.normal(size=(n, 16, 16)))

    def limit(maps: np.ndarray, threshold: float) -> float:
        lit = (maps > threshold).reshape(len(maps), -1).mean(1)
        return lit.mean() + student.ppf(0.95, len(lit) - 1) * lit.std(ddof=1) / np.sqrt(len(lit))

    dark = plain = 0
    for _ in range(100):
        maps, further = null(16), null(16)
        threshold, quantile = safe_threshold(maps)
        assert quantile > LEVEL and limit(maps, threshold) <= 0.05
        assert limit(maps, float(np.quantile(maps, quantile - 0.0005))) > 0.05
        dark += shares(further, threshold).mean() <= 0.05
        plain += shares(further, float(np.quantile(maps, LEVEL))).mean() <= 0.05
    assert dark >= 70 and plain < 60


def test_threshold_and_check_come_from_different_null_brains(run: Run, tiny: tuple[Path, Path], made: dict) -> None:
    null = null_signals(run, open_recording(run), NULLS, seed=0)
    seeds = [derive(0, "noise", name) % 2**31 for name in null.ids]
    model = model_of(tiny)
    rest = run.aligner.predict(np.repeat(signals_at_rest(run), NULLS, 0))["tokens"]
    sketch = load_sketch(next(tiny[1].rglob("*.safetensors")))
    assert sketch is not None

    def pictures(told: np.ndarray) -> np.ndarray:
        tokens = torch.from_numpy(told)
        with torch.no_grad():
            start = model.decode(sketch(tokens))
        return model.generate(tokens, seeds, steps=2, start=start).numpy()

    drawn, plain = pictures(run.aligner.predict(null.x)["tokens"]), pictures(rest)
    maps = apart(drawn, plain)
    threshold, quantile = safe_threshold(maps[::2])
    lit = (maps[1::2] > threshold).mean((1, 2))
    told = made["null"]
    assert (told["n_threshold"], told["n"], told["kind"], told["left_out"]) == (6, 5, PLUS_MINUS, NULLS)
    assert told["quantile"] == pytest.approx(quantile)
    assert told["threshold"] == pytest.approx(threshold, rel=1e-3)
    assert told["lit"] == pytest.approx(lit.mean(), abs=0.01)
    assert told["lit"] != pytest.approx((maps[::2] > threshold).mean(), abs=0.002)
    half = student.ppf(0.975, 4) * lit.std(ddof=1) / np.sqrt(5)
    assert told["interval"] == pytest.approx([lit.mean() - half, lit.mean() + half], abs=0.02)


def test_maps_are_those_of_the_pictures_that_generate_draws(
    run: Run, tiny: tuple[Path, Path], made: dict, tmp_path: Path
) -> None:
    from recon.evaluation.pictures import read_pictures, read_seed

    told = generate(run, str(tiny[0]), tmp_path, QUICK)
    ids = load_predictions(run).ids
    pictures = {
        name: read_pictures(Path(folder), read_seed(Path(folder), 0), ids).numpy()
        for name, folder in told["folders"].items()
    }
    threshold, plain = made["null"]["threshold"], pictures["zero_brain"]
    for name, key in (("reconstructions", "lit"), ("shuffled", "shuffled"), ("oracle", "oracle")):
        lit = (apart(pictures[name], plain) > threshold).mean((1, 2))
        assert [made["rows"][i][key] for i in ids] == pytest.approx(lit.tolist(), abs=0.06)
        assert made["median"][key] == pytest.approx(np.median(lit), abs=0.06)
    maps = read_extras(folders_of(run, tiny), ids, 0, run_id(run)).evidence
    graded = np.minimum(1, apart(pictures["reconstructions"], plain) / (2 * threshold))
    assert np.abs(np.stack([maps[i] for i in ids]) / 255 - graded).mean() < 0.05


def test_the_gallery_reads_maps_shares_and_rule(run: Run, tiny: tuple[Path, Path], made: dict) -> None:
    folders, ids = folders_of(run, tiny), load_predictions(run).ids
    extras = read_extras(folders, ids, 0, run_id(run))
    assert set(extras.evidence) == set(extras.lit) == set(ids)
    for name in ids:
        assert extras.lit[name] == pytest.approx((extras.evidence[name] > 127).mean(), abs=0.005)
    assert len({extras.evidence[name].tobytes() for name in ids}) == N_TEST
    assert "half the repetitions" in extras.rule and f"{100 * made['null']['lit']:.1f} %" in extras.rule
    stored = json.loads((folders.evidence / "evidence.json").read_text())
    assert stored["settings"]["steps"] == 2 and stored["settings"]["seeds"] == [0]
    assert {**stored, "folder": made["folder"]}.keys() == made.keys()


def test_null_brains_start_from_their_own_pixels(run: Run, tiny: tuple[Path, Path]) -> None:
    adapter = load_adapter(next(tiny[1].rglob("*.safetensors")))
    wanted = Conditioning(low_level="pixels")
    decoder, recording = Decoder(run, adapter, wanted), open_recording(run)
    null = null_signals(run, recording, NULLS, seed=0)
    condition = null_condition(decoder, adapter, wanted, null, 0)
    assert condition.pixels is not None and condition.owners == ("",) * NULLS
    np.testing.assert_allclose(condition.pixels, decoded_pixels(run, recording, null.x), atol=1e-6)
    np.testing.assert_allclose(condition.tokens, run.aligner.predict(null.x)["tokens"], atol=1e-6)


def test_the_command_says_what_is_lit(
    run: Run, tiny: tuple[Path, Path], made: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evidence", "--subject", "01", "--run", str(run.path), "--generator", str(tiny[0]), "--steps", "2"]
    assert cli.main([*words, "--nulls", str(NULLS), "--limit", "3"]) == 0
    out = capsys.readouterr().out
    assert f"lit under a null brain: {100 * made['null']['lit']:.1f} %" in out and "median of 3 pictures" in out
    assert len(read_index(folders_of(run, tiny).evidence)) == 3
    for bad, told in ((["--nulls", "3"], "--nulls 3"), (["--limit", "1"], "--limit 1"), (["--strength", "0"], "0.0")):
        assert cli.main([*words, *bad]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("recon evidence: ") and told in error
    cli.main([*words, "--nulls", str(NULLS)])  # all maps again


def test_what_is_no_single_picture_is_refused(run: Run, tiny: tuple[Path, Path]) -> None:
    for sampling, wanted, told in (
        (dataclasses.replace(QUICK, seeds=(0, 1)), Conditioning(), "one seed"),
        (QUICK, Conditioning(best_of=2), "best-of-n"),
        (QUICK, Conditioning(match="none"), "match spread"),
    ):
        with pytest.raises(UserError, match=told):
            evidence(run, str(tiny[0]), sampling, conditioning=wanted)


def test_a_map_of_other_pictures_than_those_in_the_run_is_refused(
    run: Run, tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    elsewhere = dataclasses.replace(run, path=tmp_path / "run")
    ids = load_predictions(elsewhere).ids
    folders = folders_of(elsewhere, tiny)
    write_pictures(folders.reconstructions, ids, torch.zeros(N_TEST, 3, 16, 16), seed=0, run_id=run_id(run))
    with pytest.raises(UserError, match="made in another way"):
        evidence(elsewhere, str(tiny[0]), QUICK, nulls=4, limit=2)
    assert not (folders.evidence / "index.csv").exists()
    write_pictures(folders.reconstructions, ids, torch.zeros(N_TEST, 3, 16, 16), seed=0, run_id="another training")
    evidence(elsewhere, str(tiny[0]), QUICK, nulls=4, limit=2)

"""Maps of evidence of a tiny run, drawn by a real tiny Stable Diffusion, against pictures and sums made here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from align.checkpoint import Run, load_run
from align.config import Config, load_config
from align.data.signals import Recording, Trials
from align.errors import UserError
from align.files import read_json
from align.seeding import derive
from recon import cli
from recon.decoding.bridges.choose import Conditioning
from recon.decoding.bridges.pairs import components_of
from recon.decoding.conditions import derangement
from recon.decoding.decoder import RunDecoder
from recon.decoding.halves import BASE, AddedNoise, Repetitions, halves_of, null_signals, unexplained
from recon.decoding.low_level import LowLevel
from recon.decoding.plan import Sampling
from recon.decoding.predict import load_predictions, open_recording, picture_tokens, run_id, signals_at_rest
from recon.drawing.agreement import safe_threshold
from recon.drawing.evidence import evidence
from recon.drawing.folders import PictureFolders, base_label, read_index, write_pictures
from recon.drawing.generate import generate
from recon.gallery.extras import read_extras
from recon.generation.adapters import load_adapter
from recon.generation.conditioner import Conditioner, ConditionerInfo, save_conditioner
from recon.generation.pipeline import Generator
from recon.generation.sketch import Sketch, load_sketch
from tests.align.fixture_studies import picture, write_folder
from tests.recon.tiny import tiny_generator

N_TRAIN, N_TEST, REPETITIONS, NULLS = 30, 20, 5, 7
QUICK = Sampling(steps=2, batch_size=5, strength=0.5)


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
    conditioner = Conditioner(unet, info, torch.zeros(width), torch.ones(width))
    for processor in conditioner.ip_adapter:
        processor.to_v_ip[0].weight.data.mul_(3).add_(0.3)
    path = home / "runs" / "recon" / "tiny" / "ip_adapter.safetensors"
    path.parent.mkdir(parents=True)
    torch.manual_seed(1)
    save_conditioner(conditioner, path, sketch=Sketch(n_tokens, width, 4, 8, hidden=16, depth=1))
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


def names(recording: Recording) -> dict[str, int]:
    return {name: i for i, name in enumerate(recording.stimuli.ids)}


class Drawn:
    """Pictures and maps written out: of 16 px the box is one pixel."""

    def __init__(self, run: Run, tiny: tuple[Path, Path], base: np.ndarray) -> None:
        self._run, self._base = run, base
        path = next(tiny[1].rglob("*.safetensors"))
        self._model, self._sketch = Generator.load(str(tiny[0]), path), load_sketch(path)
        assert self._sketch is not None

    def of_tokens(self, tokens: np.ndarray, ids: tuple[str, ...]) -> np.ndarray:
        told, seeds = torch.from_numpy(tokens), [derive(0, "noise", name) % 2**31 for name in ids]
        with torch.no_grad():
            start = self._model.decode(self._sketch(told))
        return self._model.generate(told, seeds, steps=2, start=start, strength=QUICK.strength).numpy()

    def of(self, x: np.ndarray, ids: tuple[str, ...]) -> np.ndarray:
        return self.of_tokens(self._run.aligner.predict(x.astype(np.float32))["tokens"], ids)

    def map(self, a: np.ndarray, b: np.ndarray, ids: tuple[str, ...]) -> np.ndarray:
        """Of the pictures of two halves."""
        one, two, three, four = (self.of(np.repeat(x[None], len(ids), 0), ids) for x in self._base)
        return ((a - (one + three) / 2) * (b - (two + four) / 2)).mean(1)


@pytest.fixture(scope="module")
def drawn(run: Run, tiny: tuple[Path, Path]) -> Drawn:
    recording = open_recording(run)
    return Drawn(run, tiny, null_signals(run, recording, Repetitions(recording, 0), NULLS, 0).base)


def test_null_brains_are_rest_and_the_noise_of_halves_of_different_pictures(run: Run) -> None:
    recording = open_recording(run)
    source, index = halves_of(run, recording, seed=3), names(recording)
    assert isinstance(source, Repetitions)
    null = null_signals(run, recording, source, NULLS, seed=3)
    assert (len(set(null.ids)), null.left_out) == (NULLS, 2 * NULLS + BASE)
    rows = np.concatenate([null.a, null.b, null.base]) - signals_at_rest(run)
    noise = {i: source.null(i) for name, i in index.items() if i in recording.test.stimulus}
    whose = [min(noise, key=lambda i: float(np.abs(row - noise[i]).max())) for row in rows]
    assert len(set(whose)) == len(rows) == 2 * NULLS + BASE
    assert [recording.stimuli.ids[i] for i in whose[:NULLS]] == list(null.ids)
    assert max(np.abs(row - noise[i]).max() for row, i in zip(rows, whose, strict=True)) < 1e-4
    assert null_signals(run, recording, source, NULLS, seed=4).ids != null.ids
    assert len(null_signals(run, recording, source, 100, seed=3).ids) == (N_TEST - BASE) // 2
    few = dataclasses.replace(recording, test=recording.test.take(np.arange(11 * REPETITIONS)))
    with pytest.raises(UserError, match="12 test pictures, folder has 11"):
        null_signals(run, few, source, NULLS, seed=0)


def test_of_single_rows_the_noise_is_what_pictures_do_not_explain(run: Run) -> None:
    recording = open_recording(run)
    shown, rng = np.unique(recording.train.stimulus), np.random.default_rng(0)
    seen = components_of(run, picture_tokens(run, recording), shown).numpy()
    x = 9 + 3 * seen @ rng.normal(size=(seen.shape[1], 400)) + 0.5 * rng.normal(size=(len(shown), 400))
    linear = dataclasses.replace(recording, train=Trials(x.astype(np.float32), shown, shown * 0))
    assert x.std() > 5 and 0.5 < unexplained(run, linear).std() < 0.8  # more than the noise by what weights err
    single = dataclasses.replace(recording, test=recording.test.averaged())
    mixed = dataclasses.replace(recording, test=recording.test.take(np.arange(REPETITIONS * 2 + 1)))
    assert isinstance(halves_of(run, mixed, 0), AddedNoise)
    source = halves_of(run, single, seed=0)
    assert isinstance(source, AddedNoise)
    null = null_signals(run, single, source, NULLS, seed=0)
    left = np.sqrt((unexplained(run, recording) ** 2).mean())
    noise = np.concatenate([null.a, null.b, null.base]) - signals_at_rest(run)
    assert null.left_out == 0 and noise.std() == pytest.approx(np.sqrt(3) * left, rel=0.2)


def test_threshold_and_check_come_from_different_pairs_of_null_brains(run: Run, drawn: Drawn, made: dict) -> None:
    recording = open_recording(run)
    null = null_signals(run, recording, Repetitions(recording, 0), NULLS, seed=0)
    maps = drawn.map(drawn.of(null.a, null.ids), drawn.of(null.b, null.ids), null.ids)
    threshold, quantile = safe_threshold(maps[::2])
    lit = (maps[1::2] > threshold).mean((1, 2))
    told = made["null"]
    assert (told["n_threshold"], told["n"], told["kind"]) == (4, 3, "repetitions")
    assert told["left_out"] == 2 * NULLS + BASE
    assert told["quantile"] == pytest.approx(quantile)
    assert told["threshold"] == pytest.approx(threshold, rel=1e-3)
    assert told["lit"] == pytest.approx(lit.mean(), abs=0.01)


def test_maps_are_the_agreement_of_halves_of_the_repetitions(
    run: Run, tiny: tuple[Path, Path], drawn: Drawn, made: dict
) -> None:
    recording, ids = open_recording(run), load_predictions(run).ids
    index = names(recording)
    a, b = np.stack([Repetitions(recording, 0).two(index[name]) for name in ids], axis=1)
    cycle = derangement(N_TEST, 0)
    true = drawn.of_tokens(picture_tokens(run, recording)[[index[name] for name in ids]].astype(np.float32), ids)
    maps = {
        "lit": drawn.map(drawn.of(a, ids), drawn.of(b, ids), ids),
        "shuffled": drawn.map(drawn.of(a[cycle], ids), drawn.of(b[cycle], ids), ids),
        "oracle": drawn.map(true, true, ids),
    }
    threshold = made["null"]["threshold"]
    for name, found in maps.items():
        lit = (found > threshold).mean((1, 2))
        assert [made["rows"][i][name] for i in ids] == pytest.approx(lit.tolist(), abs=0.01)
        assert made["median"][name] == pytest.approx(np.median(lit), abs=0.01)
    assert np.ptp([row["lit"] for row in made["rows"].values()]) > 0.05
    stored = read_extras(folders_of(run, tiny), ids, 0, run_id(run)).evidence
    graded = np.clip(maps["lit"] / (2 * threshold), 0, 1)
    assert np.abs(np.stack([stored[i] for i in ids]) / 255 - graded).max() < 0.02


def test_the_gallery_reads_maps_shares_and_rule(run: Run, tiny: tuple[Path, Path], made: dict) -> None:
    folders, ids = folders_of(run, tiny), load_predictions(run).ids
    extras = read_extras(folders, ids, 0, run_id(run))
    assert set(extras.evidence) == set(extras.lit) == set(ids)
    for name in ids:
        assert extras.lit[name] == pytest.approx((extras.evidence[name] > 127).mean(), abs=0.005)
    assert len({extras.evidence[name].tobytes() for name in ids}) == N_TEST
    assert "two disjoint halves" in extras.rule and f"{100 * made['null']['lit']:.1f} %" in extras.rule
    stored = read_json(folders.evidence / "evidence.json")
    assert stored["settings"]["steps"] == 2 and stored["settings"]["seeds"] == [0]
    assert stored["halves"] == "repetitions"
    assert {**stored, "folder": made["folder"]}.keys() == made.keys()


def test_halves_start_from_their_own_pixels(run: Run, tiny: tuple[Path, Path]) -> None:
    adapter = load_adapter(next(tiny[1].rglob("*.safetensors")))
    wanted = Conditioning(low_level="pixels")
    decoder, recording = RunDecoder(run, adapter, wanted), open_recording(run)
    x = recording.test.x[:9]
    condition = decoder.of_signals(x, 0)
    assert condition.pixels is not None and condition.owners == ("",) * 9
    np.testing.assert_allclose(condition.pixels, LowLevel.fit(run, recording)(x)[0], atol=1e-6)
    np.testing.assert_allclose(condition.tokens, run.aligner.predict(x)["tokens"], atol=1e-6)


def test_single_rows_get_added_noise_and_the_file_says_so(
    run: Run, tiny: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = open_recording(run)
    single = dataclasses.replace(recording, test=recording.test.averaged())
    monkeypatch.setattr("recon.decoding.predict.open_recording", lambda _: single)
    told = evidence(dataclasses.replace(run, path=tmp_path / "run"), str(tiny[0]), QUICK, nulls=4, limit=2)
    stored = json.loads((Path(told["folder"]) / "evidence.json").read_text())
    assert (stored["halves"], stored["null"]["kind"], stored["null"]["left_out"]) == ("added noise", "added noise", 0)
    assert "plus and minus drawn noise" in stored["rule"] and len(stored["rows"]) == 2


def test_the_command_says_what_is_lit(
    run: Run, tiny: tuple[Path, Path], made: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evidence", "--subject", "01", "--run", str(run.path), "--generator", str(tiny[0]), "--steps", "2"]
    words += ["--strength", "0.5"]
    assert cli.main([*words, "--nulls", str(NULLS), "--limit", "3"]) == 0
    out = capsys.readouterr().out
    assert f"lit under a null brain: {100 * made['null']['lit']:.1f} %" in out and "median of 3 pictures" in out
    assert len(read_index(folders_of(run, tiny).evidence)) == 3
    for bad, told in ((["--nulls", "3"], "--nulls 3"), (["--limit", "1"], "--limit 1"), (["--strength", "2"], "2.0")):
        assert cli.main([*words, *bad]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("recon evidence: ") and told in error
    cli.main([*words, "--nulls", str(NULLS)])  # all maps again


def test_what_is_no_single_picture_is_refused(run: Run, tiny: tuple[Path, Path]) -> None:
    for sampling, wanted, told in (
        (dataclasses.replace(QUICK, seeds=(0, 1)), Conditioning(), "one seed"),
        (QUICK, Conditioning(best_of=2), "best-of-n"),
        (QUICK, Conditioning(match="none"), "match='spread'"),
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


def test_maps_of_the_pictures_in_the_run_are_made(run: Run, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(run, path=tmp_path / "run")
    generate(elsewhere, str(tiny[0]), None, QUICK)
    assert len(evidence(elsewhere, str(tiny[0]), QUICK, nulls=4, limit=3)["rows"]) == 3
    folder = folders_of(elsewhere, tiny).evidence
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match="made in another way"):
        evidence(elsewhere, str(tiny[0]), dataclasses.replace(QUICK, strength=0.0), nulls=4, limit=2)
    assert (folder / "index.csv") in before
    assert {path: path.read_bytes() for path in folder.iterdir()} == before, "the maps that were there stay whole"


def test_without_steps_a_map_explains_the_coarse_picture(run: Run, tiny: tuple[Path, Path], tmp_path: Path) -> None:
    elsewhere, coarse = dataclasses.replace(run, path=tmp_path / "run"), dataclasses.replace(QUICK, strength=0.0)
    generate(elsewhere, str(tiny[0]), None, coarse)
    told = evidence(elsewhere, str(tiny[0]), coarse, nulls=4, limit=2)
    assert told["settings"]["strength"] == 0 and 0 <= told["median"]["oracle"] <= 1
    with pytest.raises(UserError, match="--low-level none"):
        evidence(elsewhere, str(tiny[0]), coarse, conditioning=Conditioning(low_level="none"))

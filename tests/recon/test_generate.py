"""Predictions and picture files of a real small run, drawn by a real tiny Stable Diffusion."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image

from align.checkpoint import Run, load_run, save_run
from align.config import Config, load_config
from align.data.splits import manifest
from align.data.studies import open_study
from align.errors import UserError
from align.training.fit import fit
from recon.decoding.bridges.choose import Conditioning
from recon.decoding.conditions import derangement
from recon.decoding.plan import Plan, Sampling, fingerprint
from recon.decoding.predict import load_predictions, open_recording, predict, read_predictions
from recon.drawing.folders import DRAWING, SIGNALS, find_folders, read_index, safe_names
from recon.drawing.generate import generate
from recon.drawing.sets import FolderPlan, draw
from recon.evaluation.pictures import read_scored
from recon.evaluation.recordings import RunData
from recon.generation.pipeline import Generator
from tests.align.fixture_studies import write_folder
from tests.recon.tiny import N_TOKENS, WIDTH, tiny_generator

IDS = ("a/b c", "A/b c", "ü")
QUICK = Sampling(steps=2, batch_size=2)
FEW = ("shuffled", "zero_brain")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Generator]:
    folder, conditioner, _, _ = tiny_generator(tmp_path_factory.mktemp("tiny"))
    return folder, conditioner, Generator.load(str(folder), conditioner)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Ridge on a folder study: subject 08, 16 training pictures, 3 test pictures shown twice, random tokens."""
    lines = [("train", i) for i in range(16)] + [("test", i) for i in (16, 17, 18) for _ in range(2)]
    rows = [
        {"row": n, "image": f"pic{i:03d}.png", "split": split, "subject": "08"} for n, (split, i) in enumerate(lines)
    ]
    rng = np.random.default_rng(0)
    write_folder(tmp_path / "study", rng.normal(2, 3, (len(rows), 4, 5)).astype(np.float32), rows)
    overrides = ["study.name=folder", f"study.root={tmp_path / 'study'}", "encoder.name=ridge", "target.layer=2"]
    config = load_config(Config, None, [*overrides, "target.pooling=grid:2", "target.components=5"])
    recording = open_study(config).recording("08")
    tokens = rng.normal(size=(len(recording.stimuli), N_TOKENS, WIDTH)).astype(np.float32)
    aligner = fit(config, recording.train.x, tokens, recording.train.stimulus)
    save_run(tmp_path / "run", aligner, config, manifest(recording), {})
    return load_run(tmp_path / "run")


def pictures(folder: Path, tokens: np.ndarray, run_id: str = "r") -> FolderPlan:
    return FolderPlan("reconstructions", folder, IDS, tokens, IDS, run_id)


@pytest.fixture
def tokens() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(3, N_TOKENS, WIDTH)).astype(np.float32)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("n", [2, 3, 10, 200])
def test_derangement_has_no_fixed_point(n: int) -> None:
    order = derangement(n, seed=4)
    assert sorted(order) == list(range(n))
    assert not (order == np.arange(n)).any()
    assert (order == derangement(n, seed=4)).all()
    if n > 3:
        assert (order != derangement(n, seed=5)).any()


def test_a_single_stimulus_cannot_be_shuffled() -> None:
    with pytest.raises(UserError, match="at least 2"):
        derangement(1, 0)


def test_safe_names_are_distinct_on_every_file_system_and_reversible() -> None:
    ids = ["a/b", "A/b", "../x", ".hidden", "ü", "a b", "C:\\x", "", "x" * 400]
    names = safe_names(ids)
    assert len({name.casefold() for name in names}) == len(ids)
    assert not any(set(name) & set('/\\:*?"<>| ') or name.startswith(".") or len(name) > 150 for name in names)
    told = [unquote(name.partition("=")[0]) for name in names if "~" not in name]
    assert told == ["a/b", "A/b", "../x", ".hidden", "ü", "a b", "C:\\x", "%"]


def test_drawn_files_are_what_the_generator_gives(tmp_path: Path, tiny: tuple, tokens: np.ndarray) -> None:
    folder = tmp_path / "out"
    assert draw(tiny[2], pictures(folder, tokens), QUICK, "w") == 3
    index = read_index(folder)
    assert [row["stimulus_id"] for row in index] == list(IDS)
    seeds = [int(row["noise_seed"]) for row in index]
    assert len(set(seeds)) == 3
    direct = tiny[2].generate(torch.from_numpy(tokens), seeds, steps=2).numpy()
    for row, expected in zip(index, direct, strict=True):
        stored = np.asarray(Image.open(folder / row["file"]), dtype=np.float32).transpose(2, 0, 1) / 255
        assert np.abs(stored - expected).max() < 1.01 / 255


def test_only_what_changed_is_drawn_again(tmp_path: Path, tiny: tuple, tokens: np.ndarray) -> None:
    folder = tmp_path / "out"
    draw(tiny[2], pictures(folder, tokens), QUICK, "w")
    before = files(folder)
    assert draw(tiny[2], pictures(folder, tokens), QUICK, "w") == 0
    (folder / read_index(folder)[1]["file"]).unlink()
    assert draw(tiny[2], pictures(folder, tokens), QUICK, "w") == 1
    assert files(folder) == before
    changed = tokens.copy()
    changed[2] += 5
    assert draw(tiny[2], pictures(folder, changed), QUICK, "w") == 1
    assert draw(tiny[2], pictures(folder, changed), QUICK, "other weights") == 3
    for option in ({"steps": 3}, {"guidance_scale": 3.0}, {"scale": 0.5}):
        assert draw(tiny[2], pictures(folder, changed), dataclasses.replace(QUICK, **option), "other weights") == 3
        assert draw(tiny[2], pictures(folder, changed), dataclasses.replace(QUICK, batch_size=3), "other weights") == 3
        assert draw(tiny[2], pictures(folder, changed), QUICK, "other weights") == 0
    start = np.random.default_rng(2).random((3, 3, 16, 16), dtype=np.float32)
    started = dataclasses.replace(pictures(folder, changed), start=start)
    quick = dataclasses.replace(QUICK, strength=0.5)
    assert draw(tiny[2], started, quick, "w") == 3
    assert draw(tiny[2], started, quick, "w") == 0
    assert draw(tiny[2], started, dataclasses.replace(quick, strength=1.0), "w") == 3
    texts = dataclasses.replace(started, prompts=("a red disk on brick", "", "a blue star on fur"))
    assert draw(tiny[2], texts, quick, "w") == 3
    assert draw(tiny[2], dataclasses.replace(texts, prompts=("", "", "a blue star on fur")), quick, "w") == 1


def test_a_generator_that_reads_a_sketch_draws_from_noise_beside_it(tmp_path: Path, tokens: np.ndarray) -> None:
    folder, conditioner, _, _ = tiny_generator(tmp_path / "sketching", reads_sketch=True)
    model = Generator.load(str(folder), conditioner)
    assert model.reads_sketch and model.defaults.strength == 1
    coarse = np.random.default_rng(2).random((3, 3, 16, 16), dtype=np.float32)
    item = dataclasses.replace(pictures(tmp_path / "out", tokens), start=coarse)

    def drawn(sampling: Sampling) -> tuple[int, np.ndarray]:
        n = draw(model, item, sampling, "w")
        rows = read_index(item.folder)
        return n, np.stack([np.asarray(Image.open(item.folder / row["file"]), dtype=float) for row in rows])

    n, from_noise = drawn(QUICK)
    seeds = [int(row["noise_seed"]) for row in read_index(item.folder)]
    given = torch.from_numpy(tokens)
    direct = model.generate(given, seeds, steps=2, sketch=torch.from_numpy(coarse)).numpy()
    assert n == 3 and np.abs(from_noise / 255 - direct.transpose(0, 2, 3, 1)).max() < 1.01 / 255
    assert np.abs(direct - model.generate(given, seeds, steps=2).numpy()).max() > 0.02  # the sketch matters
    assert drawn(dataclasses.replace(QUICK, strength=1.0))[0] == 0  # that is what it is meant for
    n, started = drawn(dataclasses.replace(QUICK, strength=0.5))
    both = {"start": torch.from_numpy(coarse), "sketch": torch.from_numpy(coarse), "strength": 0.5}
    direct = model.generate(given, seeds, steps=2, **both).numpy()
    assert n == 3 and np.abs(started / 255 - direct.transpose(0, 2, 3, 1)).max() < 1.01 / 255
    n, shown = drawn(dataclasses.replace(QUICK, strength=0.0))
    assert n == 3 and np.abs(shown / 255 - coarse.transpose(0, 2, 3, 1)).max() < 1.01 / 255


def test_stimuli_and_seeds_share_batches_and_the_hook_knows_its_rows(
    tmp_path: Path, tiny: tuple, tokens: np.ndarray
) -> None:
    both = dataclasses.replace(QUICK, seeds=(4, 2), batch_size=4)
    seen: list[np.ndarray] = []

    def look(x0: torch.Tensor, step: int, rows: np.ndarray) -> torch.Tensor:
        seen.append(rows)
        return x0

    assert draw(tiny[2], pictures(tmp_path / "both", tokens), both, "w", look) == 6
    assert [rows.tolist() for rows in seen[:: QUICK.steps]] == [[0, 1, 2, 0], [1, 2]]
    for seed in (2, 4):
        draw(tiny[2], pictures(tmp_path / "apart", tokens), dataclasses.replace(QUICK, seeds=(seed,)), "w")
    together, apart = files(tmp_path / "both"), files(tmp_path / "apart")
    assert set(together) == set(apart)
    for name in set(together) - {"index.csv"}:
        one, other = (np.asarray(Image.open(tmp_path / where / name)).astype(int) for where in ("both", "apart"))
        assert np.abs(one - other).max() <= 1


def test_the_fingerprint_changes_with_files_and_settings(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter.safetensors"
    (tmp_path / "unet").mkdir()
    weights = tmp_path / "unet" / "w.safetensors"
    seen = []
    for content, inside, settings in ((b"1", b"1", ["fp32"]), (b"2", b"1", ["fp32"]), (b"1", b"2", ["fp32"])):
        adapter.write_bytes(content)
        weights.write_bytes(inside)
        seen.append(fingerprint(tmp_path, adapter, "ridge 1", *settings))
    seen += [fingerprint(tmp_path, adapter, "ridge 2", "fp32"), fingerprint(tmp_path, adapter, "ridge 1", "bf16")]
    assert len(set(seen)) == 5
    assert seen[2] == fingerprint(tmp_path, adapter, "ridge 1", "fp32")


def test_seeds_live_side_by_side_and_a_new_training_forgets_them(
    tmp_path: Path, tiny: tuple, tokens: np.ndarray
) -> None:
    folder = tmp_path / "out"
    draw(tiny[2], pictures(folder, tokens), QUICK, "w")
    draw(tiny[2], pictures(folder, tokens), dataclasses.replace(QUICK, seeds=(1,)), "w")
    assert sorted(row["seed"] for row in read_index(folder)) == ["0"] * 3 + ["1"] * 3
    assert draw(tiny[2], pictures(folder, tokens), QUICK, "w") == 0
    draw(tiny[2], pictures(folder, tokens + 1, "another run"), QUICK, "w")
    assert [row["seed"] for row in read_index(folder)] == ["0"] * 3


def test_a_killed_drawing_continues_to_the_same_files(
    tmp_path: Path, tiny: tuple, tokens: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tiny[2], pictures(tmp_path / "whole", tokens), QUICK, "w")
    original, calls = Image.Image.save, []

    def dying(self: Image.Image, *args: object, **kwargs: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(self, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", dying)
    with pytest.raises(KeyboardInterrupt):
        draw(tiny[2], pictures(tmp_path / "cut", tokens), QUICK, "w")
    monkeypatch.setattr(Image.Image, "save", original)
    assert len(read_index(tmp_path / "cut")) == 2
    assert draw(tiny[2], pictures(tmp_path / "cut", tokens), QUICK, "w") == 1
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_predictions_are_those_of_averaged_test_trials(run: Run) -> None:
    stored = read_predictions(predict(run))
    recording = open_study(run.config).recording("08")
    assert stored.ids == tuple(recording.stimuli.ids[i] for i in np.unique(recording.test.stimulus))
    x = np.stack([recording.test.x[recording.test.stimulus == i].mean(0) for i in np.unique(recording.test.stimulus)])
    direct = run.aligner.predict(x)
    assert np.allclose(stored.tokens, direct["tokens"], atol=1e-5)
    assert np.allclose(stored.embeds, direct["embeds"], atol=1e-5)
    resting = run.aligner.predict(recording.train.x.mean(0)[None])["tokens"][0]
    assert np.allclose(stored.zero_tokens, resting, atol=1e-4)
    assert not np.allclose(stored.zero_tokens, stored.tokens[0], atol=1e-2)


def test_predictions_of_another_training_are_not_used(run: Run) -> None:
    first = load_predictions(run)
    stamp = first.path.stat().st_mtime_ns
    assert load_predictions(run).path.stat().st_mtime_ns == stamp
    retrained = dataclasses.replace(run, meta={**run.meta, "weights_hash": "f" * 64})
    assert load_predictions(retrained).run_id != first.run_id


def test_changed_test_pictures_are_refused(run: Run) -> None:
    study = Path(run.config.study.root)
    Image.new("RGB", (20, 20), (9, 90, 200)).save(study / "images" / "pic017.png")
    with pytest.raises(UserError, match="differ from those"):
        open_recording(run)


def test_generate_writes_reconstructions_and_controls(
    run: Run, tiny: tuple, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "home" / "runs" / "recon" / "tiny"
    place.mkdir(parents=True)
    (place / "ip_adapter.safetensors").write_bytes(tiny[1].read_bytes())
    monkeypatch.setenv("RECON_HOME", str(tmp_path / "home"))
    told = generate(run, str(tiny[0]), sampling=QUICK, controls=("shuffled", "zero_brain"))
    assert (told["n_stimuli"], told["sampled"]) == (3, 9)
    index = {name: read_index(Path(folder)) for name, folder in told["folders"].items()}
    noise = [[row["noise_seed"] for row in rows] for rows in index.values()]
    assert len(noise) == 3 and noise[0] == noise[1] == noise[2]
    ids = [row["stimulus_id"] for row in index["reconstructions"]]
    assert [row["tokens_of"] for row in index["reconstructions"]] == ids
    owners = [row["tokens_of"] for row in index["shuffled"]]
    assert sorted(owners) == sorted(ids) and all(a != b for a, b in zip(owners, ids, strict=True))
    assert [row["tokens_of"] for row in index["zero_brain"]] == ["", "", ""]
    assert generate(run, str(tiny[0]), sampling=QUICK, controls=("shuffled", "zero_brain"))["sampled"] == 0


def test_a_missing_conditioner_names_the_command(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_HOME", str(tmp_path))
    run.config.target.pooling = "grid:7"
    with pytest.raises(UserError, match=r"accelerate launch recon/train\.py"):
        generate(run, conditioning=Conditioning(tokens="predicted"))
    run.config.backbone.name = "torchvision/alexnet"
    with pytest.raises(UserError, match=r"accelerate launch recon/train\.py"):
        generate(run)


@pytest.fixture
def home(tiny: tuple, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The tiny generator, whose conditioner is found."""
    place = tmp_path / "home" / "runs" / "recon" / "tiny"
    place.mkdir(parents=True)
    (place / "ip_adapter.safetensors").write_bytes(tiny[1].read_bytes())
    monkeypatch.setenv("RECON_HOME", str(tmp_path / "home"))
    return str(tiny[0])


def test_controls_of_a_drawing_that_was_killed_are_not_scored_with_it(
    run: Run, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recon.drawing import generate as module

    def scored() -> None:
        read_scored(RunData(run), find_folders(run), 0, False)

    def dying(model: Generator, pictures: FolderPlan, *args: object) -> int:
        if pictures.name != "reconstructions":
            raise KeyboardInterrupt
        return draw(model, pictures, *args)  # type: ignore[arg-type]

    generate(run, home, controls=FEW, sampling=QUICK)
    other = dataclasses.replace(QUICK, steps=3)
    monkeypatch.setattr(module, "draw", dying)
    with pytest.raises(KeyboardInterrupt):
        generate(run, home, controls=FEW, sampling=other)
    with pytest.raises(UserError, match=r"shuffled.* drawn with other settings .* recon generate again"):
        scored()
    monkeypatch.setattr(module, "draw", draw)
    assert generate(run, home, controls=FEW, sampling=other)["sampled"] == 6
    folders = find_folders(run)
    drawn = [folders.reconstructions, *map(folders.control, FEW)]
    stamps = {row[DRAWING] for folder in drawn for row in read_index(folder)}
    assert len(stamps) == 1 and len(stamps.pop()) == 16


def test_every_setting_is_another_drawing(run: Run, home: str) -> None:
    def of(conditioning: Conditioning | None = None, **sampling: object) -> str:
        return Plan.of(run, home, conditioning, dataclasses.replace(QUICK, **sampling)).drawing  # type: ignore[arg-type]

    others = [of(), of(steps=3), of(guidance_scale=3.0), of(scale=0.5), of(Conditioning(match="none"))]
    assert len(set(others)) == len(others)
    assert of(seeds=(1, 2), batch_size=1) == others[0]


def test_a_smaller_limit_drops_nothing(run: Run, home: str, caplog: pytest.LogCaptureFixture) -> None:
    whole = generate(run, home, controls=FEW, sampling=QUICK)
    before = {name: files(Path(folder)) for name, folder in whole["folders"].items()}
    with caplog.at_level("WARNING"):
        again = generate(run, home, controls=FEW, sampling=QUICK, limit=2)
    assert again["sampled"] == 0
    assert {name: files(Path(folder)) for name, folder in again["folders"].items()} == before
    assert [r.getMessage() for r in caplog.records if "--limit asks for 2; nothing is drawn" in r.getMessage()]
    both = generate(run, home, controls=FEW, sampling=dataclasses.replace(QUICK, seeds=(0, 1)), limit=2)
    rows = read_index(Path(both["folders"]["zero_brain"]))
    assert both["sampled"] == 6 and [row["seed"] for row in rows] == ["0"] * 3 + ["1"] * 2
    generate(
        run, home, controls=FEW, sampling=dataclasses.replace(QUICK, steps=3), limit=2
    )  # other settings take their place
    assert [row["seed"] for row in read_index(Path(both["folders"]["zero_brain"]))] == ["0"] * 2 + ["1"] * 2


def test_rows_beyond_the_drawn_ones_stay_where_they_were_drawn_alike(
    tmp_path: Path, tiny: tuple, tokens: np.ndarray
) -> None:
    def fill(n: int, drawing: str) -> list[str]:
        plan = FolderPlan("oracle", tmp_path, IDS[:n], tokens[:n], IDS[:n], "r", drawing=drawing, signals=drawing * 16)
        draw(tiny[2], plan, QUICK, "w")
        return [row["stimulus_id"] for row in read_index(tmp_path)]

    assert fill(3, "a") == list(IDS) and sorted(fill(2, "a")) == sorted(IDS)
    assert fill(2, "b") == list(IDS[:2])
    assert {row[SIGNALS] for row in read_index(tmp_path)} == {"b" * 16}

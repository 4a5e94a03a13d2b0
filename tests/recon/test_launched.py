"""Two processes that were launched together leave the files and numbers of one; a killed one leaves nothing half."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from align.files import launched, read_json, read_tensors
from benchmarks import parallel_commands
from recon import cli
from recon.drawing.folders import merge_index, read_index, write_index
from recon.train import main as train_conditioner
from tests.recon.together import die_at, launch

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="starts commands as copies of this process")

CLOCKED = {"seconds", "measured", "recon_checksum"}  # what no two calls share
PLAIN = ["evaluate.networks=false", "evaluate.n_boot=20", "evaluate.n_perm=20"]


@pytest.fixture(scope="module")
def commands() -> ModuleType:
    parallel_commands.warm()
    return parallel_commands


@pytest.fixture(scope="module")
def base(commands: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small study, and a run that was trained on it."""
    return commands.prepare(tmp_path_factory.mktemp("launched") / "base")


@pytest.fixture
def place(commands: ModuleType, base: Any, tmp_path: Path) -> Callable[[str], Any]:
    """A copy of the base under another name."""

    def copied(name: str) -> Any:
        shutil.copytree(base.path, tmp_path / name)
        return commands.Place(tmp_path / name)

    return copied


def alone(commands: ModuleType, words: Sequence[str], logs: Path) -> str:
    assert commands.together([["recon", *words]], logs) == [0], (logs / "0.log").read_text()
    return (logs / "0.log").read_text(encoding="utf-8")


def left(folder: Path) -> dict[str, object]:
    """What is in a folder: digests of files, JSON without what depends on the clock; hidden files too, logs not."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or "logs" in path.relative_to(folder).parts:
            continue
        if path.suffix == ".json":
            found[name] = _timeless(json.loads(path.read_text(encoding="utf-8").replace(str(folder), "BASE")))
        else:
            found[name] = hashlib.sha256(path.read_bytes().replace(str(folder).encode(), b"BASE")).hexdigest()
    return found


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in CLOCKED}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def _sampled(said: str) -> int:
    return int(said.split("sampled: ")[1].split()[0])


def own_words(said: str) -> str:
    """What a process said, without the line in which some versions of torch say that they are connected."""
    return "".join(line for line in said.splitlines(keepends=True) if not line.startswith("[Gloo]"))


def test_generate_after_a_kill_and_evaluate(commands: ModuleType, place: Callable[[str], Any]) -> None:
    """The candidates of ``--best-of`` and plain pictures; the first one chooses, and writes what is written once."""
    one, two = place("one"), place("two")
    for at in (one, two):
        shutil.rmtree(at.run / "predictions", ignore_errors=True)
    draw = ["--steps", "1", "--batch-size", "1", "--limit", "2", "--best-of", "2"]
    every = _sampled(alone(commands, one.of_run("generate", *draw)[1:], one.path / "logs"))
    words = two.of_run("generate", *draw)[1:]
    killed, said = launch(words, two.path / "logs", {1: die_at("recon.drawing.sets", "write_png", 2)})
    assert killed[1] == -9 and killed[0] not in (0, -9), killed
    assert said[0].count("recon generate:") == 1 and "the same command continues from here" in said[0], said[0]
    for folder, rows in commands._indexes(two.run):
        assert all((folder / row["file"]).is_file() for row in rows)
    assert not list(two.run.glob("reconstructions/**/*.png")), "no choice without all candidates"
    codes, said = launch(words, two.path / "logs")
    assert codes == [0, 0] and own_words(said[1]) == "", said
    assert 0 < _sampled(said[0]) < every, "what was drawn before is kept"
    assert left(two.path) == left(one.path)
    alone(commands, one.of_run("evaluate", *PLAIN)[1:], one.path / "logs")
    codes, said = launch(two.of_run("evaluate", *PLAIN)[1:], two.path / "logs")
    assert codes == [0, 0] and own_words(said[1]) == "", said
    assert left(two.path) == left(one.path) and read_json(two.run / "report_sub-01.json")["n_stimuli"] == 2


def test_pictures_of_another_drawing_are_not_kept_beside_new_ones(tmp_path: Path) -> None:
    """While several processes draw, the index names pictures of this drawing alone, whoever has drawn them."""
    settings = {"run": "r", "file": "x.png", "noise_seed": "1", "tokens_of": "a"}
    rows = [{"stimulus_id": name, "seed": seed, "settings": "new", **settings} for name in "ab" for seed in "01"]
    old = [{**rows[0], "settings": "old"}, {**rows[3], "settings": "old"}, {**rows[0], "seed": "7"}]
    write_index(tmp_path, old)
    merge_index(tmp_path, rows[:1], [0, 1], "r", rows)
    assert [(row["stimulus_id"], row["seed"], row["settings"]) for row in read_index(tmp_path)] == [
        ("a", "0", "new"),
        ("a", "7", "new"),
    ]
    merge_index(tmp_path, rows[2:], [0, 1], "r", rows)
    assert {row["stimulus_id"] + row["seed"] for row in read_index(tmp_path)} == {"a0", "b0", "b1", "a7"}


def test_targets_after_a_kill_in_the_share_and_in_the_joining(
    commands: ModuleType, place: Callable[[str], Any]
) -> None:
    one, two = place("one"), place("two")
    for at in (one, two):
        shutil.rmtree(at.path / "cache")
    alone(commands, ["targets", *one.pairs, "sweep.layers=[1]"], one.path / "logs")
    for rank, slain in (
        (1, die_at("align.vision.targets", "_half", 1)),  # in its share; that of the first one is kept
        (0, die_at("align.vision.part", "_header", 1)),  # the shares are there, the first one joins them
    ):
        codes, said = launch(["targets", *two.pairs, "sweep.layers=[1]"], two.path / "logs", {rank: slain})
        assert codes[rank] == -9, said
        assert not list((two.path / "cache").rglob("*.safetensors"))
    codes, said = launch(["targets", *two.pairs, "sweep.layers=[1]"], two.path / "logs")
    assert codes == [0, 0] and own_words(said[1]) == "", said
    assert left(two.path / "cache") == left(one.path / "cache")
    assert not [path for path in (two.path / "cache").rglob("*") if ".part" in path.name or "lock" in path.name]


def test_pictures_of_others(commands: ModuleType, tmp_path: Path) -> None:
    import torch
    import torchvision

    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "squeeze.pth")
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "shown.npy", shown)
    np.save(tmp_path / "drawn.npy", np.stack([shown // 2 + rng.integers(0, 99, shown.shape, dtype=np.uint8)] * 2, 1))
    words = ["evaluate-images", "--reconstructions", str(tmp_path / "drawn.npy")]
    words += [
        "--targets",
        str(tmp_path / "shown.npy"),
        "--metrics",
        "PixCorr",
        "SSIM",
        "SqueezeNet(1.1)",
        "LPIPS(squeeze)",
    ]
    for network in ("squeezenet1_1", "lpips_squeeze"):
        words += ["--weights-file", f"{network}={tmp_path / 'squeeze.pth'}"]
    alone(commands, [*words, "--out", str(tmp_path / "one.json")], tmp_path / "logs")
    codes, said = launch([*words, "--out", str(tmp_path / "two.json")], tmp_path / "logs")
    assert codes == [0, 0] and own_words(said[1]) == "", said
    one, two = (_timeless(read_json(tmp_path / f"{name}.json")) for name in ("one", "two"))
    assert one == two and len(one["metrics"]) > 4, one  # type: ignore[index, call-overload]


@pytest.mark.long
def test_a_published_recipe(commands: ModuleType, place: Callable[[str], Any]) -> None:
    one, two = place("one"), place("two")

    def words(at: Any) -> list[str]:
        pairs = [pair for pair in at.pairs if not pair.startswith(("encoder", "sweep.layers"))]
        return [
            "reproduce",
            "ubp",
            "--adapt",
            *pairs,
            "train.epochs=1",
            "target.uncertain_views=[]",
            "sweep.seeds=1",
            f"run_dir={at.path / 'out'}",
        ]

    alone(commands, words(one), one.path / "logs")
    codes, said = launch(words(two), two.path / "logs", {1: die_at("recon.reproduce.curves", "fit_curve", 1)})
    assert codes[1] == -9, said
    codes, said = launch(words(two), two.path / "logs")
    assert codes == [0, 0] and own_words(said[1]) == "", said
    ours, theirs = (sorted((at.path / "out" / "curves").iterdir()) for at in (two, one))
    assert [path.name for path in ours] == [path.name for path in theirs] and len(ours) == 3
    for ours_, theirs_ in zip(ours, theirs, strict=True):
        (mine, facts), (his, same) = read_tensors(ours_), read_tensors(theirs_)
        assert facts == same
        np.testing.assert_allclose(mine["loss"], his["loss"], rtol=1e-3)  # trained: rounding differs now and then
    for name in ("choice.json", "reproduction.json"):
        assert set(read_json(two.path / "out" / name)) == set(read_json(one.path / "out" / name))


ALONE = [["info", "x"], ["train"], ["sweep", "--list"], ["table", "x"], ["predict", "--subject", "1"]]


@pytest.mark.parametrize("words", ALONE)
def test_the_work_of_one_process_is_refused_to_a_launch(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    meet = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in meet.items():
        monkeypatch.setenv(name, value)
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert f"recon {words[0]} is the work of one process, and a launcher started 2;" in err and err.count("\n") == 1
    assert "recon generate" in err and "align/train.py" in err
    assert train_conditioner([]) == 2 and "recon/train.py is the work of one process" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert cli.main(["info", "x"]) == 2 and "'x' does not exist" in capsys.readouterr().err


def test_a_mistake_is_told_once_by_torchrun(tmp_path: Path) -> None:
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "recon.cli",
    ]
    command = [*launcher, "targets", "--backbones", "mini", f"study.root={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and own_words(done.stdout) == ""
    assert done.stderr.count("recon targets: --backbones and --pictures belong to --costs") == 1, done.stderr


def test_one_process_has_all_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(6).reshape(3, 2)
    launched.join()
    assert launched.place() == (0, 1) and launched.is_first() and launched.total(4) == 4
    assert launched.own_share([1, 2, 3]) == [1, 2, 3] and launched.of_all(rows) is rows
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert not launched.launched()

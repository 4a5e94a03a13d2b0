"""The shell around the functions: grammar, exit codes, one-line errors, JSON, speed."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from align.config import Config, load_config
from align.errors import UserError
from recon import cli
from tests.conftest import PROJECT

COMMANDS = (
    "demo",
    "data",
    "targets",
    "sweep",
    "adapt",
    "predict",
    "retrieve",
    "tune-pictures",
    "generate",
    "evaluate",
    "gallery",
    "pretrain",
    "evaluate-images",
    "score",
    "score-votes",
    "timecourse",
    "universality",
    "rsa",
    "rosetta",
    "encode",
    "brain-score",
    "sheet",
    "aligned-cut",
    "maximize",
    "repeats",
    "curves",
    "caption",
    "evidence",
    "reproduce",
    "table",
    "audit",
    "info",
)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "recon.cli", *words], capture_output=True, text=True)


def test_help_is_quick_and_names_every_command() -> None:
    """Quick: of all other packages, only the reader of configurations is imported."""
    done = command("--help")
    assert done.returncode == 0
    assert all(re.search(rf"^    {name}\s", done.stdout, re.MULTILINE) for name in COMMANDS)
    code = """
        import sys
        before = set(sys.modules)
        from recon.cli import main
        try:
            main(["--help"])
        except SystemExit:
            print(*set(sys.modules) - before)
    """
    told = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    imported = {name.partition(".")[0] for name in told.stdout.splitlines()[-1].split()}
    others = {name for name in imported - set(sys.stdlib_module_names) if not name.startswith(("_", "cython"))}
    assert others == {"align", "recon", "yaml"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.parse([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: recon {name}" in capsys.readouterr().out


def test_no_command_fails_on_a_terminal_without_utf8(tmp_path: Path) -> None:
    code = f"""
        from recon import cli
        from recon.generation.places import mini_folder
        for name in {COMMANDS}:
            try:
                cli.main([name, "--help"])
            except SystemExit as stop:
                assert stop.code == 0
        assert cli.main(["info", str(mini_folder() / "conditioners" / "mini_1.safetensors")]) == 0
        cli.show({{"text": "LPIPS ↓  − 0.1"}}, False)
        cli.main(["info", "Größe.safetensors"])
    """
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    (tmp_path / "all.py").write_text(textwrap.dedent(code), encoding="utf-8")
    words = [sys.executable, str(tmp_path / "all.py")]
    done = subprocess.run(words, capture_output=True, encoding="ascii", env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("LPIPS v  - 0.1\n") and r"Gr\xf6\xdfe.safetensors" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["generate"], "--subject"),
        (["generat", "--subject", "01"], "generat"),
        (["generate", "--subject", "01", "--sed", "1"], "--sed"),
        (["generate", "--subject", "01", "--steps", "many"], "many"),
        (["info", "x", "seed=1"], "seed=1"),
        (["info", "nowhere.safetensors"], "nowhere.safetensors"),
        (["data", "check", "simulate"], "did you mean 'simulated'"),
        (["data", "check", "folder"], "study.root"),
        (["data", "check", "folder", "--root", "nowhere"], "nowhere"),
        (["targets", "target.lyer=3"], "target.layer"),
        (["targets", "train.epochs=many"], "many"),
        (["targets", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["predict", "--subject", "01"], "recon train --subject 01"),
        (["predict", "--subject", "01", "study.rot=x"], "did you mean 'study.root'"),
        (["audit", "nowhere", "cache_dri=x"], "did you mean 'cache_dir'"),
        (["retrieve", "--subject", "01", "--bank", "x"], "--against text"),
        (["retrieve", "--subject", "01", "--against", "words"], "--against"),
        (["predict", "--subject", "01", "--run", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(words)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1 and err.endswith("\n") and told in err
    assert list(tmp_path.iterdir()) == []


def test_broken_yaml_names_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text("seed: 0\ntrain: [1, 2\n")
    assert cli.main(["targets", "--config", str(tmp_path / "bad.yaml")]) == 2
    assert "bad.yaml is not valid YAML at line" in capsys.readouterr().err


def test_debug_shows_the_trace() -> None:
    with pytest.raises(UserError, match="nowhere"):
        cli.main(["info", "nowhere.json", "--debug"])


def test_pairs_may_stand_anywhere_and_values_of_options_are_no_pairs() -> None:
    args = cli.parse(
        ["sweep", "seed=1", "--layers", "2", "4", "subjects=[01,010]", "--config", "a=b.yaml", "--json", "x.y=2"]
    )
    assert args.overrides == ["seed=1", "subjects=[01,010]", "x.y=2"]
    assert (args.layers, args.config, args.json) == (["2", "4"], [Path("a=b.yaml")], True)


RUN_COMMANDS = (
    *(
        "predict",
        "retrieve",
        "tune-pictures",
        "generate",
        "evaluate",
        "gallery",
        "repeats",
        "curves",
        "caption",
        "evidence",
    ),
)
WITH_PAIRS = [  # the shortest call of every command that takes key=value pairs
    *(
        ["targets"],
        ["sweep"],
        ["train"],
        ["adapt"],
        ["timecourse"],
        ["universality", "--backbones", "a,b"],
        ["rsa", "--backbones", "a"],
        ["rosetta", "--backbones", "a,b", "--images", "c"],
        ["encode"],
        ["brain-score"],
        ["sheet"],
        ["aligned-cut"],
        ["maximize", "--pictures", "a", "--judge", "b", "--judge-layer", "c"],
        ["pretrain"],
        ["reproduce", "nice"],
        ["audit", "run"],
    ),
    *(["data", "check", "nsd"], ["data", "convert", "nsd"], ["score-votes", "votes.csv"]),
    *([name, "--subject", "01"] for name in RUN_COMMANDS),
]


def test_flags_and_pairs_may_stand_in_any_order_in_every_command() -> None:
    (commands,) = (action.choices for action in cli.build_parser()._actions if action.dest == "command")
    taking = {name for name, command in commands.items() if command.get_default("takes_pairs")}
    assert {words[0] for words in WITH_PAIRS} == {*taking, "data"}
    for words in WITH_PAIRS:
        parser = commands[words[0]]
        for action in parser._actions:
            parser = action.choices[words[1]] if isinstance(action.choices, dict) else parser
        flags = {action.option_strings[0] for action in parser._actions if action.const is True}
        assert {"--json", "--debug"} <= flags
        for flag in flags:
            args = cli.parse([*words, flag, "study.root=a b", "--debug", "seed=1"])
            assert args.overrides == ["study.root=a b", "seed=1"], (words, flag)
            assert getattr(args, flag[2:].replace("-", "_")) is True


def test_a_value_behind_an_option_is_no_pair() -> None:
    args = cli.parse(["audit", "run", "--strict", "study.root=X", "--out", "a=b.json", "cache_dir=c"])
    assert (args.overrides, args.out, args.strict) == (["study.root=X", "cache_dir=c"], Path("a=b.json"), True)
    args = cli.parse(["targets", "--config=a.yaml", "seed=1"])
    assert (args.overrides, args.config) == (["seed=1"], [Path("a.yaml")])


@pytest.mark.parametrize("out", ["x" * 300 + ".json", "new/" + "x" * 300 + "/r.json"])
def test_a_name_that_is_too_long_is_one_line(out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.eye(4))
    words = ["score", "--brain", str(tmp_path / "x.npy"), "--images", str(tmp_path / "x.npy"), "--n-perm", "3"]
    assert cli.main([*words, "--n-boot", "3", "--no-transductive", "--out", str(tmp_path / out)]) == 2
    assert "too long" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "words", [["targets"], ["sweep"], ["timecourse"], ["pretrain"], ["reproduce", "nice"]], ids=lambda words: words[0]
)
def test_config_may_be_given_again(words: list[str]) -> None:
    args = cli.parse([*words, "--config", "a.yaml", "seed=1", "--config", "b.yaml"])
    assert (args.config, args.overrides) == ([Path("a.yaml"), Path("b.yaml")], ["seed=1"])
    assert cli.parse(words).config is None


def test_sweep_lists_every_configuration_file(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(PROJECT / "configs" / "align" / f"{name}.yaml") for name in ("things_eeg2", "simulated")]
    words = ["--config", files[0], "--config", files[1], "--layers", "1", "sweep.folds=2"]
    assert cli.main(["sweep", *words, "--list"]) == 0
    first = shlex.split(capsys.readouterr().out.splitlines()[0], comments=True)
    assert first[:6] == ["recon", "sweep", *words[:4]] and first[-2:] == ["--cell", "0"]


def test_sweep_says_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my sweep"
    result = SimpleNamespace(folder=folder, summary={}, table=lambda: "the table")
    monkeypatch.setattr("align.sweep.run.run", lambda *args, **options: result)
    assert cli.main(["sweep"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("next: recon ")
    args = cli.parse(shlex.split(last)[2:])
    assert (args.command, args.config) == ("train", [folder / "best.yaml"])


def test_retrieve_takes_several_runs() -> None:
    several = [["--run", "a", "--run", "b", "--run", "c"], ["--run", "a", "b", "c"]]
    for words in several:
        args = cli.parse(["retrieve", "--subject", "01", *words, "--out", "d", "evaluate.n_boot=9"])
        assert ([str(path) for path in args.run], str(args.out)) == (["a", "b", "c"], "d")
    assert cli.parse(["retrieve", "--subject", "01"]).run is None
    assert cli.parse(["evaluate", "--subject", "01", "--run", "a"]).run == Path("a")


def _options(parser: Any, words: list[str]) -> Iterator[tuple[list[str], argparse.Action, list[str]]]:
    """Every option with several values: the words of its command, itself, and what that command needs beside it."""
    needed = [action for action in parser._actions if action.required]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _options(inner, [*words, name])
        elif action.option_strings and action.nargs in ("+", "*"):
            beside = [
                word
                for other in needed
                if other is not action and other.dest not in ("command", "action")
                for word in (*other.option_strings[:1], str(next(iter(other.choices)) if other.choices else "1"))
            ]
            yield words, action, beside


def test_every_option_of_several_values_may_be_given_again() -> None:
    found = 0
    for words, action, beside in _options(cli.build_parser(), []):
        a, b, c = ("2", "3", "4") if action.type is int else ("a.b", "b.b", "c.b")
        name = action.option_strings[0]
        source = ["--bdpy", "x"] if words == ["data", "import"] and name not in SOURCES else []
        args = cli.build_parser().parse_args([*words, *beside, *source, name, a, b, name, c])
        assert getattr(args, action.dest) == [action.type(one) if action.type else one for one in (a, b, c)], words
        found += 1
    assert found > 20


SOURCES = ("--epochs", "--betas", "--embeddings", "--arrays")


def test_regions_may_be_several_masks_and_the_option_may_be_given_again() -> None:
    start = ["data", "import", "--betas", "b", "--out", "o", "--mask", "m", "--roi", "V1=v1.nii"]
    for more in (["FFA=ffa.nii"], ["--roi", "FFA=ffa.nii"], ["FFA=ffa.nii", "--link"]):
        args = cli.parse([*start, *more])
        assert (args.roi, args.overrides) == (["V1=v1.nii", "FFA=ffa.nii"], [])
    args = cli.parse([*start, "--roi-names", "a=b", "c=d"])
    assert (args.roi, args.roi_names) == (["V1=v1.nii"], ["a=b", "c=d"])
    with pytest.raises(SystemExit):
        cli.parse([*start, "--link", "train.epochs=2"])


def test_json_prints_the_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("seed: 7\nsubjects: [010]\n")
    assert cli.main(["info", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["config"]["seed"], told["config"]["subjects"]) == ("alignment configuration", 7, ["010"])


def test_info_tells_files_apart(tmp_path: Path) -> None:
    import torch

    from align.files import save_tensors, write_json
    from recon.commands.info import describe

    save_tensors(tmp_path / "a.safetensors", {"image_proj.x": torch.ones(2, 3), "ip_adapter.1.y": torch.ones(4)})
    told = describe(tmp_path / "a.safetensors")
    assert (told["kind"], told["tensors"], told["parameters"]) == ("conditioner (IP-Adapter layout)", 2, 10)
    save_tensors(tmp_path / "p.safetensors", {"embeds": torch.ones(2, 3)}, {"ids": '["a", "b"]'})
    assert describe(tmp_path / "p.safetensors")["kind"] == "predictions"
    report = {"schema": 1, "study": "s", "subject": "010", "retrieval": {"brain_to_image": {"top1": 0.5}}}
    write_json(tmp_path / "report.json", report)
    assert describe(tmp_path / "report.json")["top1"] == {"brain_to_image": 0.5}
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-5])
    with pytest.raises(UserError, match="not a whole"):
        describe(tmp_path / "cut.safetensors")


def test_demo_runs_the_recipe_of_the_simulated_study() -> None:
    from recon.commands.demo import RECIPE

    path = PROJECT / "configs" / "align" / "simulated.yaml"
    assert load_config(Config, None, RECIPE) == load_config(Config, path)


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
def test_a_file_that_goes_to_standard_output_stays_whole(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(12, 4)))
    words = ["score", "--brain", "x.npy", "--images", "x.npy", "--n-boot", "20", "--n-perm", "20", "--out"]
    command = [sys.executable, "-c", "import sys; from recon.cli import main; sys.exit(main())", *words]
    done = subprocess.run([*command, "/dev/stdout"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["kind"] == "score" and "brain_to_image" in done.stderr
    plain = subprocess.run([*command, "x.json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert plain.stdout.strip() == done.stderr.strip() and plain.stderr == ""

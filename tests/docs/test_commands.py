"""Every command and every piece of code in README, CONTRIBUTING and docs/ is one that exists and would be accepted."""

from __future__ import annotations

import ast
import importlib
import json
import re
import tomllib
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.config import Config, load_config
from recon import cli
from tests.conftest import PROJECT
from tests.docs.pages import DOCS, PAGES, README, blocks, commands

ALL = [(page.name, words) for page in PAGES for words in commands(page)]
PYTHON = ("python", "python3")
CONFIGURED = (  # commands whose key=value pairs are fields of Config
    "targets",
    "sweep",
    "timecourse",
    "universality",
    "rsa",
    "rosetta",
    "encode",
    "brain-score",
    "sheet",
    "aligned-cut",
    "maximize",
)
RUNS = ("retrieve", "evaluate", "curves", "caption")  # commands that take evaluate.* pairs


def check(words: list[str]) -> None:
    """Fails unless the command would be accepted by the program it is for."""
    while "=" in words[0]:  # variables of the environment
        words = words[1:]
    if words[0] == "recon":
        check_recon(cli.parse(words[1:]))
    elif words[0] == "torchrun" and "-m" in words:  # a command that several processes share
        assert words[words.index("-m") + 1] == "recon.cli"
        check(["recon", *words[words.index("-m") + 2 :]])
        assert words[words.index("-m") + 2] in cli.SHARED
    elif words[:2] == ["accelerate", "launch"]:
        check_launch(words[2:])
    elif words[0] == "torchrun":
        check_launch(words[next(i for i, word in enumerate(words) if word.endswith(".py")) :])
    elif words[0] == "make":
        check_make(words[1:])
    elif words[0] == "docker":
        check_docker(words[1:])
    elif words[0] == "pip":
        check_pip(words[1:])
    elif words[0] in PYTHON:
        check_python(words[1:])
    else:
        assert words[:2] == ["git", "clone"] or is_activation(words) or words[0] == "pre-commit", words


def check_recon(args: Any) -> None:
    """Key=value pairs are fields; recipes and configuration files exist."""
    from recon.config import PretrainConfig
    from recon.evaluation.settings import EvaluateConfig

    paths = getattr(args, "config", None)
    if args.command in CONFIGURED:
        check_config(paths, args.overrides, Config)
    elif args.command == "pretrain":
        check_config(paths, args.overrides, PretrainConfig)
    elif args.command == "reproduce":
        assert (PROJECT / "configs" / "papers" / f"{args.recipe}.yaml").is_file()
        check_config(paths, args.overrides, Config)
    elif args.command in RUNS:
        own = [pair.removeprefix("evaluate.") for pair in args.overrides if pair.startswith("evaluate.")]
        check_config([], own, EvaluateConfig)


def check_config(paths: list[Path] | None, overrides: list[str], tree: type) -> None:
    load_config(tree, [PROJECT / path for path in paths or []], overrides, check=False).check()  # no files of a reader


def check_launch(words: list[str]) -> None:
    from recon.config import ConditionerConfig

    trees = {"align/train.py": Config, "recon/train.py": ConditionerConfig}
    assert words[0] in trees and (PROJECT / words[0]).is_file()
    paths = [Path(word) for last, word in pairwise(words) if last == "--config"]
    paths = [path for path in paths if path.name != "best.yaml"]  # written by the sweep that stands before it
    check_config(paths, [word for word in words[1:] if "=" in word], trees[words[0]])


def check_make(words: list[str]) -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = [word for word in words if "=" not in word]
    assert targets and all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    variables = [word.partition("=")[0] for word in words if "=" in word]
    assert all(f"$({name})" in makefile for name in variables), variables


def check_docker(words: list[str]) -> None:
    """Arguments of the build are declared; what follows the name of the image is a command of `recon`."""
    dockerfile = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    arguments = [word.partition("=")[0] for last, word in pairwise(words) if last == "--build-arg"]
    assert words[0] in ("build", "run") and all(f"ARG {name}=" in dockerfile for name in arguments), arguments
    image = next(i for i, word in enumerate(words) if word.startswith("shallow-recon"))
    if words[0] == "run" and words[image + 1 :]:
        check_recon(cli.parse(words[image + 1 :]))


def check_pip(words: list[str]) -> None:
    """Extras of the project exist; other packages have a tested version; constraint files are there."""
    assert words[0] == "install"
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = {line.partition("==")[0].lower() for line in lines}
    for last, word in pairwise(words):
        if last == "-c":
            assert (PROJECT / word).is_file(), word
        elif not word.startswith("-"):
            named = re.fullmatch(r"\.(?:\[([\w,]+)\])?", word)
            assert set((named[1] or "").split(",")) - {""} <= set(extras) if named else word in tested, word


def check_python(words: list[str]) -> None:
    """A module of ours, of the suite or of Python itself; or a script that exists."""
    if words[:2] == ["-m", "pip"]:
        check_pip(words[2:])
    elif words[0] == "-m":
        assert importlib.util.find_spec(words[1]) is not None, words[1]
    else:
        assert (PROJECT / words[0]).is_file(), words[0]


def is_activation(words: list[str]) -> bool:
    return words in (["source", ".venv/bin/activate"], [".venv/Scripts/Activate.ps1"])


@pytest.mark.parametrize(("page", "words"), ALL, ids=[f"{page}: {' '.join(words)}" for page, words in ALL])
def test_every_command_is_valid(page: str, words: list[str]) -> None:
    check(words)


@pytest.mark.parametrize(
    "line",
    [
        "recon sweep --confg x.yaml",
        "recon generat --subject 01",
        "recon sweep --config configs/align/nowhere.yaml",
        "recon targets target.lyer=3",
        "recon evaluate --subject 01 evaluate.downlod=true",
        "recon reproduce nothing",
        "accelerate launch align/train.py train.epoch=3",
        "accelerate launch align/nowhere.py",
        "torchrun --nproc_per_node 2 align/train.py sed=1",
        "make dmo",
        "make demo TORCH_IDX=x",
        "docker build -t shallow-recon --build-arg DEVIC=cuda .",
        "docker run --rm shallow-recon scor --brain E.npy",
        "pip install nowhere-package",
        "python -m pip install -c nowhere.txt -e .",
        "pip install .[nowhere]",
        "python benchmarks/nowhere.py",
        "python -m nowhere_module",
        "rm -rf runs",
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    from align.errors import UserError

    with pytest.raises((AssertionError, SystemExit, UserError)):
        check(line.split())


def test_the_readme_names_its_commands() -> None:
    lines = [" ".join(words) for words in commands(README)]
    for expected in ("make demo", "make test", "recon generate --subject", "recon train --config"):
        assert any(expected in line for line in lines), expected


CODE = [(page, text) for page in PAGES for text in blocks(page, "python")]


@pytest.mark.parametrize(("page", "text"), CODE, ids=[f"{page.name} {i}" for i, (page, _) in enumerate(CODE)])
def test_python_blocks_compile_and_their_imports_exist(page: Path, text: str) -> None:
    for node in ast.walk(ast.parse(text, page.name)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def run_block(page: Path, words: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run the one Python block of a page that holds ``words``, as it stands there; returns its names."""
    (text,) = (text for text in blocks(page, "python") if words in text)
    exec(compile(text, page.name, "exec"), names)  # noqa: S102 - our own page
    return names


@pytest.mark.parametrize("page", [README, DOCS / "scores.md"], ids=lambda page: page.name)
def test_the_readers_first_python_lines_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With arrays and a decoder of ours in place of the reader's."""
    import recon

    class Loaded:
        load = staticmethod(lambda path: Loaded())

        def predict(self, signals: Any) -> tuple[Any, Any]:
            return signals[:, None], signals

    monkeypatch.setattr(recon, "Decoder", Loaded, raising=False)
    rng = np.random.default_rng(0)
    names: dict[str, Any] = {"E": rng.normal(size=(8, 4)), "Z": rng.normal(size=(8, 4)), "signals": np.ones((2, 3))}
    names |= {"reconstructions": rng.random((4, 32, 32, 3)), "targets": rng.random((4, 32, 32, 3))}
    assert run_block(page, "score(E, Z)", names)["embeds"].shape == (2, 3)


def test_from_signals_to_pictures_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """README's study and decoder, with a quick encoder; then the saved decoder of scores.md."""
    import recon

    monkeypatch.chdir(tmp_path)
    real, rng = recon.Decoder, np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 2, 2, 3), dtype=np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    data: dict[str, Any] = {"signals": rng.normal(size=(60, 4, 5)), "images": images}
    data["stimulus"] = np.tile(np.arange(30), 2)
    data["test"] = data["stimulus"] >= 24
    quick = partial(real, encoder="ridge", settings={"target.components": 4})
    monkeypatch.setattr(recon, "Decoder", quick, raising=False)
    names = run_block(README, "Study.from_arrays", dict(data))
    assert len(names["pictures"]) == len(names["pictures"].targets) > 0 and (tmp_path / "pictures.html").is_file()
    names["decoder"].save("runs/demo")
    monkeypatch.setattr(recon, "Decoder", real)
    again = run_block(DOCS / "scores.md", "decoder.reconstruct", {})
    assert np.array_equal(again["pictures"].images, names["pictures"].images)
    run_block(DOCS / "own_recordings.md", "Study.from_arrays", dict(data))
    assert (tmp_path / "my_study" / "stimuli.csv").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_json_blocks_are_json(page: Path) -> None:
    for text in blocks(page, "json"):
        json.loads(text)


def test_the_stated_form_of_a_report_is_the_real_one() -> None:
    """Keys of the example in files.md are keys that the schema knows, or are explained below it."""
    (text,) = blocks(DOCS / "files.md", "json")
    page = (DOCS / "files.md").read_text(encoding="utf-8")
    for key in json.loads(text):
        assert f"`{key}`" in page or f"`{key}." in page or key == "schema" or key == "n_stimuli", key


def test_stock_diffusers_reproduces_the_stored_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of pictures.md, as it stands there, from the project's folder."""
    from PIL import Image

    monkeypatch.chdir(PROJECT)
    (code,) = (text for text in blocks(DOCS / "pictures.md", "python") if "WithTokens" in text)
    names: dict[str, Any] = {}
    exec(compile(code, "pictures.md", "exec"), names)  # noqa: S102 - our own page
    drawn = np.asarray(names["picture"], dtype=int)
    stored = np.asarray(Image.open("recon/assets/mini/example.png"), dtype=int)
    assert np.abs(drawn - stored).max() <= 2

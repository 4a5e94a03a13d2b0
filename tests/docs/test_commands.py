"""Every command and every piece of code in README, CONTRIBUTING and docs/ is one that exists and would be accepted."""

from __future__ import annotations

import ast
import importlib
import json
import re
import tomllib
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
CONFIGURED = ("targets", "sweep", "timecourse")  # commands whose key=value pairs are fields of Config
RUNS = ("retrieve", "evaluate", "curves")  # commands that take evaluate.* pairs


def check(words: list[str]) -> None:
    """Fails unless the command would be accepted by the program it is for."""
    while "=" in words[0]:  # variables of the environment
        words = words[1:]
    if words[0] == "recon":
        check_recon(cli.parse(words[1:]))
    elif words[:2] == ["accelerate", "launch"]:
        check_launch(words[2:])
    elif words[0] == "torchrun":
        check_launch(words[next(i for i, word in enumerate(words) if word.endswith(".py")) :])
    elif words[0] == "make":
        check_make(words[1:])
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
    assert all(re.search(rf"^{name} \?=", makefile, re.MULTILINE) for name in variables)


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
    for expected in ("make demo", "make test", "recon generate --subject", "accelerate launch align/train.py"):
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


@pytest.mark.parametrize("page", [README, DOCS / "scores.md"], ids=lambda page: page.name)
def test_the_readers_first_python_lines_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand there, with arrays and a run of ours in place of the reader's."""
    import recon

    class Run:
        def predict(self, signals: Any) -> dict[str, Any]:
            return {"tokens": signals}

    monkeypatch.setattr(recon, "load_run", lambda path: Run(), raising=False)
    rng = np.random.default_rng(0)
    names: dict[str, Any] = {"E": rng.normal(size=(8, 4)), "Z": rng.normal(size=(8, 4)), "signals": np.ones((2, 3))}
    names |= {"reconstructions": rng.random((4, 32, 32, 3)), "targets": rng.random((4, 32, 32, 3))}
    (text,) = (text for text in blocks(page, "python") if "load_run" in text)
    exec(compile(text, page.name, "exec"), names)  # noqa: S102 - our own page
    assert callable(names["score"])


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
    (code,) = (text for text in blocks(DOCS / "pictures.md", "python") if "StableDiffusionPipeline" in text)
    names: dict[str, Any] = {}
    exec(compile(code, "pictures.md", "exec"), names)  # noqa: S102 - our own page
    drawn = np.asarray(names["picture"], dtype=int)
    stored = np.asarray(Image.open("recon/assets/mini/example.png"), dtype=int)
    assert np.abs(drawn - stored).max() <= 2

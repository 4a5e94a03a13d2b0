"""The site: pages that follow the code, examples that run, a build without warnings (where Sphinx is installed)."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import PROJECT
from tests.docs.pages import DOCS

EXAMPLES = sorted((PROJECT / "examples").glob("plot_*.py"))
QUICK = ("plot_01_scores_of_embeddings", "plot_03_planted_leak", "plot_08_compare_methods")  # seconds; no training


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_api_page_lists_every_public_name(generate: ModuleType) -> None:
    import align
    import recon

    listed = set(re.findall(r"^   (\w+)$", generate.names_page(), re.MULTILINE))
    assert listed == {*recon.__all__, *getattr(align, "__all__", [])}
    assert {"score", "evaluate_images", "load_run"} <= listed


def test_the_commands_page_shows_every_command(generate: ModuleType) -> None:
    from tests.recon.test_cli import COMMANDS

    page = generate.commands_page()
    headings = re.findall(r"^## recon (.+)$", page, re.MULTILINE)
    assert set(COMMANDS) - {name.split()[0] for name in headings} == set()
    assert {"data check", "data import", "data download"} <= set(headings)
    assert page.count("usage: recon ") == len(headings)


def test_the_configuration_page_shows_every_field(generate: ModuleType) -> None:
    from align.config import Config, keys
    from recon.config import ConditionerConfig, PretrainConfig
    from recon.evaluation.settings import EvaluateConfig

    page = generate.configuration_page()
    for tree in (Config, PretrainConfig, ConditionerConfig):
        assert [key for key in keys(tree()) if f"    {key.split('.')[-1]}: " not in page] == []
    assert [field.name for field in dataclasses.fields(EvaluateConfig) if f"    {field.name}: " not in page] == []


def test_pages_are_written_once(generate: ModuleType, tmp_path: Path) -> None:
    generate.write_pages(tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert [path.name for path in files] == ["api_names.rst", "commands.md", "configuration.md"]
    before = [path.stat().st_mtime_ns for path in files]
    generate.write_pages(tmp_path)
    assert [path.stat().st_mtime_ns for path in files] == before


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_opens_with_a_title_and_shows_a_figure(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    lines = ast.get_docstring(ast.parse(source)).splitlines()
    assert re.fullmatch(r"=+", lines[1]) and len(lines[1]) == len(lines[0])
    assert "plt.show()" in source and "# %%" in source


@pytest.mark.parametrize("name", QUICK)
def test_quick_examples_run(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    script = PROJECT / "examples" / f"{name}.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    """Everything but the examples' figures, from a copy, so that nothing is left in the clone."""
    pytest.importorskip("sphinx", reason="pip install '.[docs]'")
    for name in ("docs", "examples"):
        ignored = shutil.ignore_patterns("_build", "auto_examples", "generated", "api_names.rst")
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=ignored)
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-D", "plot_gallery=0"]
    done = subprocess.run([*words, "docs", "site"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "generated" / "recon.score.html").is_file()
    assert (tmp_path / "site" / "auto_examples" / "index.html").is_file()

"""What installs the project agrees with itself: Pythons, image, hooks."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from tests.conftest import PROJECT

PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def text(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def test_every_place_names_the_same_pythons() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert project["requires-python"] == ">=3.11,<3.15"
    named = {line.rpartition(" ")[2] for line in project["classifiers"] if ":: Python :: 3." in line}
    assert named == set(PYTHONS)
    assert set(re.findall(r"python(3\.\d+)\b", text("Makefile"))) == set(PYTHONS)


@pytest.mark.parametrize(
    ("version", "fits"),
    [((3, 10, 13), False), ((3, 11, 0), True), ((3, 12, 1), True), ((3, 14, 9), True), ((3, 15, 0), False)],
)
def test_make_takes_the_pythons_that_fit(version: tuple[int, ...], fits: bool) -> None:
    (check,) = re.findall(r"^FITS := (.*)$", text("Makefile"), re.MULTILINE)
    code = f"import sys; sys.version_info = {version}; {check}"
    assert (subprocess.run([sys.executable, "-c", code]).returncode == 0) == fits


def test_the_image_gets_what_it_copies() -> None:
    sources = [
        word for line in re.findall(r"^COPY (.*) \S+$", text("Dockerfile"), re.MULTILINE) for word in line.split()
    ]
    allowed = re.findall(r"^!(.+)$", text(".dockerignore"), re.MULTILINE)
    assert sorted(sources) == sorted(allowed)
    assert all((PROJECT / name).exists() for name in sources)
    packages = tomllib.loads(text("pyproject.toml"))["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name for name in packages if "*" not in name} <= set(sources)
    assert re.findall(r"^ARG PYTHON=(.*)$", text("Dockerfile"), re.MULTILINE)[0] in PYTHONS


def test_hooks_run_the_linter_of_the_suite() -> None:
    hooks = {each["repo"].rpartition("/")[2]: each for each in yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]}
    assert f"ruff=={hooks['ruff-pre-commit']['rev'].removeprefix('v')}" in text("constraints.txt").splitlines()
    assert {hook["id"] for hook in hooks["ruff-pre-commit"]["hooks"]} == {"ruff-check", "ruff-format"}

"""The street plan: no import leads back to its module, few loose modules, one direction, every weight stored once."""

from __future__ import annotations

import ast
import hashlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import PROJECT

# Modules that stand in a package itself and not in one of its folders.
MOST_LOOSE = {"align": 7, "recon": 5}


def sources() -> dict[str, str]:
    """Module name to source text, of both packages; a package is named after its folder."""
    found = {}
    for package in MOST_LOOSE:
        for path in sorted((PROJECT / package).rglob("*.py")):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path.read_text(encoding="utf-8")
    return found


def imports_of(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """Which of these modules each of them imports: at its top, inside a function, or for its types alone."""
    graph: dict[str, set[str]] = {}
    for name, text in texts.items():
        found = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {module if module in texts else node.module for module in inside}
        graph[name] = {module for module in found if module in texts and module != name}
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach one another (strongly connected components of two or more)."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        open_ = list(graph[start])
        while open_:
            module = open_.pop()
            if module not in seen:
                seen.add(module)
                open_ += graph[module]
        reached[start] = seen
    groups = {tuple(sorted(m for m in graph if m in reached[name] and name in reached[m])) for name in graph}
    return sorted(list(group) for group in groups if group)


def rooms(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same graph between folders of a package; a loose module stands for itself."""

    def room(module: str) -> str:
        return ".".join(module.split(".")[:2])

    found: dict[str, set[str]] = {room(module): set() for module in graph}
    for module, others in graph.items():
        found[room(module)] |= {room(other) for other in others} - {room(module)}
    return found


@pytest.mark.parametrize(
    ("back", "found"),
    [
        ("from align.one import a", [["align.one", "align.two.deep"]]),
        ("import align.one", [["align.one", "align.two.deep"]]),
        ("def f():\n    from align import one", [["align.one", "align.two.deep"]]),
        ("if TYPE_CHECKING:\n    from align.one import a", [["align.one", "align.two.deep"]]),
        ("from align.other import b", []),
    ],
)
def test_a_planted_circle_is_found(back: str, found: list[list[str]]) -> None:
    texts = {"align": "", "align.one": "from align.two.deep import x", "align.other": "", "align.two.deep": back}
    assert circles(imports_of(texts)) == found
    assert circles(rooms(imports_of(texts))) == [["align.one", "align.two"]][: len(found)]


def test_no_import_leads_back_to_its_module() -> None:
    graph = imports_of(sources())
    assert graph["recon.cli"] and graph["align.train"]
    assert circles(graph) == []


def test_no_room_is_entered_twice() -> None:
    assert circles(rooms(imports_of(sources()))) == []


@pytest.mark.parametrize("package", MOST_LOOSE)
def test_few_modules_are_loose(package: str) -> None:
    loose = {path.stem for path in (PROJECT / package).glob("*.py")} - {"__init__"}
    assert len(loose) <= MOST_LOOSE[package], (
        f"{sorted(loose)}: move one into the folder where others would look for it"
    )


def test_every_folder_of_modules_says_what_it_is_for() -> None:
    folders = {path.parent for package in MOST_LOOSE for path in (PROJECT / package).rglob("*.py")}
    for folder in sorted(folders):
        init = folder / "__init__.py"
        assert init.is_file(), f"{folder} has no __init__.py"
        assert ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))), f"{init} has no docstring"


def test_align_stands_alone() -> None:
    """With recon out of reach every module of align is imported and the embedded backbone is loaded."""
    names = [name for name in sources() if name.split(".")[0] == "align"]
    code = (
        "import sys; sys.modules['recon'] = None\n"
        "import importlib\n"
        f"for name in {names}: importlib.import_module(name)\n"
        "from align.config import BackboneConfig\n"
        "from align.vision import mini_weights\n"
        "from align.vision.backbones import load_backbone\n"
        "assert len(load_backbone(BackboneConfig('mini')).layers) > 1\n"
        "print(mini_weights())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(PROJECT / "align")


def test_no_weights_are_stored_twice() -> None:
    large = [path for package in MOST_LOOSE for path in (PROJECT / package).rglob("*") if _size(path) > 50_000]
    assert len(large) > 5
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in large]
    assert len(set(hashes)) == len(hashes)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() and "__pycache__" not in path.parts else 0


def test_what_retrieval_offers_is_what_its_measures_define() -> None:
    from align import retrieval
    from align.retrieval import measures

    tree = ast.parse((PROJECT / "align" / "retrieval" / "measures.py").read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}
    assert set(retrieval.__all__) == defined
    assert all(getattr(retrieval, name) is getattr(measures, name) for name in defined)

"""What a generator folder may name: parts of the installed diffusers and transformers, and nothing to be run.

Asked before either library is: what they run of a folder has changed from version to version.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.files import read_json

LIBRARIES = ("diffusers", "transformers")
_CODE = (".py", ".pyc", ".pyo", ".pyw", ".pyd", ".so", ".dll", ".dylib", ".ipynb", ".pth", ".pkl", ".pickle")
_SAFETY = ["stable_diffusion", "StableDiffusionSafetyChecker"]  # a part of diffusers' pipelines, never loaded here
_ASKS = ("auto_map", "custom_pipelines", "custom_code", "trust_remote_code")  # keys that name code to run
_NAME = "_class_name"


def require_no_code(folder: Path, what: str) -> None:
    """Raise `UserError` for a folder with program files, or whose JSON files ask for code beside them.

    ``what`` names the folder in messages: "generator 'x'".
    """
    for path in _files(folder):
        name = path.name.lower()
        if name.endswith(_CODE):
            raise UserError(
                f"{what} holds {path.relative_to(folder).as_posix()!r}, a program or pickle; nothing of a folder is "
                "run here: take it out if the parts work without it"
            )
        if name.endswith(".json") and name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
            content = read_json(path, finite=False)
            asked = [key for key in _ASKS if isinstance(content, dict) and content.get(key)]
            if asked:
                raise UserError(
                    f"{what}: {path.relative_to(folder).as_posix()!r} asks for code of its maker ({asked[0]}); nothing "
                    "of a folder is run here"
                )


def require_known_parts(folder: Path, index: dict[str, Any], what: str) -> None:
    """Raise `UserError` unless every part of a model_index.json is a class of diffusers or transformers.

    The config.json of a part must not name another class than the index does.
    """
    for name, kind in index.items():
        if name.startswith("_") and not isinstance(kind, list):
            continue
        if not isinstance(kind, list):
            if isinstance(kind, dict):
                raise UserError(f"{what}: {name!r} of model_index.json is an object, not [library, class]")
            continue
        if kind in ([None, None], _SAFETY):
            continue
        if len(kind) != 2 or kind[0] not in LIBRARIES or not isinstance(kind[1], str) or not _has(*kind):
            raise UserError(
                f"{what}: part {name!r} is {str(kind)[:80]}; known are the classes of {' and '.join(LIBRARIES)} alone"
            )
        if Path(name).name != name or name in (".", ".."):
            raise UserError(f"{what}: part {name!r} of model_index.json leaves the folder")
        _require_class(folder / name, kind[1], f"{what}: part {name!r}")


def _require_class(part: Path, named: str, what: str) -> None:
    """Whether the files of a part say the same class as the index; only diffusers writes it there."""
    for path in sorted(part.glob("*config.json")):
        content = read_json(path, finite=False)
        stated = content.get(_NAME) if isinstance(content, dict) else None
        if isinstance(content, dict) and not (stated is None or isinstance(stated, str)):
            raise UserError(f"{what}: {_NAME} of {path.name!r} is {str(stated)[:80]}, not the name of a class")
        if isinstance(stated, str) and stated != named and not _has("diffusers", stated):
            raise UserError(f"{what}: {_NAME} of {path.name!r} is {stated[:80]!r}, which diffusers does not have")


def _has(library: str, name: str) -> bool:
    """Whether the library's own table of contents has a class of this name; no class is loaded for it."""
    return name.isidentifier() and name[:1].isupper() and name in _contents(library)


@functools.cache
def _contents(library: str) -> frozenset[str]:
    import diffusers
    import transformers

    return frozenset(dir({"diffusers": diffusers, "transformers": transformers}[library]))


def _files(folder: Path) -> Iterable[Path]:
    """Every file below ``folder``; links to folders are followed once each, as the libraries would."""
    seen, waiting = set(), [folder]
    while waiting:
        here = waiting.pop()
        if (real := here.resolve()) in seen:
            continue
        seen.add(real)
        for path in sorted(here.iterdir()):
            if path.is_dir():
                waiting.append(path)
            else:
                yield path

"""Pictures looked up by the names in tables of events: a path, the end of a path, a file name, with ending or not.

A name that fits two files is refused, as is one that fits none: guessing would pair trials with the wrong picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from align.data.reading.safe_load import IMAGE_SUFFIXES
from align.errors import UserError
from align.files.labels import tidy


def find_pictures(folder: Path, names: Iterable[str], strict: bool = True) -> dict[str, Path]:
    """The picture file of every name, anywhere below ``folder``.

    "cat.jpg", "animals/cat.jpg", "cat" and "animals/cat" all find ``folder/animals/cat.jpg``; so does
    "stimuli/cat.jpg", as BIDS counts from its folder stimuli, and the name of ``folder`` itself in its place. Accents
    may be composed or not. Raises `UserError` for a folder that is none, an unknown name (with the number of them) and
    a name of two files; without ``strict`` unknown names are left out.
    """
    if not folder.is_dir():
        raise UserError(f"{str(folder)!r} is not a folder; give the folder of the pictures")
    files = _by_tail(folder)
    wanted = sorted(set(names))
    found = {name: _candidates(files, folder, name) for name in wanted}
    missing = [name for name in wanted if not found[name]]
    if missing and strict:
        close = _other_case(files, missing[0])
        raise UserError(f"{str(folder)!r} lacks {len(missing)} of {len(wanted)} pictures, first {missing[0]!r}{close}")
    for name, candidates in found.items():
        if len(candidates) > 1:
            first, second = (str(path) for path in candidates[:2])
            raise UserError(f"two pictures are called {name!r}: {first!r} and {second!r}; name the folder too")
    return {name: candidates[0] for name, candidates in found.items() if candidates}


def short_names(files: Iterable[Path], folder: Path) -> dict[Path, str]:
    """What each picture is called in the layout: its file name, or its place below ``folder`` where two would clash."""
    distinct = list(dict.fromkeys(files))
    if len({path.name for path in distinct}) == len(distinct):
        return {path: path.name for path in distinct}
    return {path: path.relative_to(folder).as_posix() for path in distinct}


def _by_tail(folder: Path) -> dict[str, list[Path]]:
    """All pictures below ``folder`` by every end of their path, with and without the ending of the file."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        parts = path.relative_to(folder).parts
        for first in range(len(parts)):
            tail = tidy("/".join(parts[first:]))
            files.setdefault(tail, []).append(path)
            files.setdefault(tail.removesuffix(path.suffix), []).append(path)
    return files


def _other_case(files: dict[str, list[Path]], name: str) -> str:
    """What to say where a picture has the name in other letters of the case, or with another ending."""
    lower, stem = tidy(name).lower(), tidy(name).lower().rpartition(".")[0]
    for known, paths in files.items():
        if known.lower() in (lower, stem):
            return f"; {paths[0].name!r} is there: write names as the files have them, capital letters and ending too"
    return ""


def _candidates(files: dict[str, list[Path]], folder: Path, name: str) -> list[Path]:
    plain = tidy(name).replace("\\", "/").removeprefix("./")
    for known in (plain, plain.removeprefix(f"{tidy(folder.name)}/"), plain.removeprefix("stimuli/")):
        whole = [path for path in files.get(known, []) if tidy(path.relative_to(folder).as_posix()) == known]
        if whole or known in files:
            return whole or files[known]
    return []

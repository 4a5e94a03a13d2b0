"""Labels as names of files, and files that a table names.

Labels of subjects, stimuli, layers and the like come from anybody's files. `file_name` turns each into a name that is
legal on every system and different from that of every other label, also where letter case or the form of an accent does
not count. The label itself is stored in the index or the configuration, so nobody has to read it off the name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from align.errors import UserError

LONGEST = 150  # bytes of the name of one label: 255 less what stands before and after it, and a temporary ending
LONGEST_JOINED = 200  # bytes of several names in one
_DIGITS = 24  # of the hash at the end of a shortened name
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # what Windows keeps for itself
_OLD = re.compile(r"[A-Za-z0-9][\w.+-]*", re.ASCII)  # labels that were names as they are, capitals included


def file_name(label: str, longest: int = LONGEST) -> str:
    """The name of a label, 1 to ``longest`` ASCII characters of A-Z a-z 0-9 . _ + - % = ~; no two labels share one.

    Small letters, digits and ``. _ + -`` stay; everything else becomes %XX, byte by byte in UTF-8, and so do a dot at
    either end and the first letter of a device of Windows. A label with capitals ends in ``=`` and a number that says
    which letters they are: names also differ where case does not count. A name that would be too long ends in ``~``
    and the start of the label's SHA-256.
    """
    name = quote(label, safe="+", encoding="utf-8", errors="surrogatepass").replace("~", "%7E")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if name.endswith("."):
        name = f"{name[:-1]}%2E"
    if _DEVICE.match(name):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return _short((name or "%") + _capitals(label), label, longest)


def subject_name(subject: str) -> str:
    """``sub-`` and the name of a subject, without ``_``, which stands between the parts of a longer name."""
    return f"sub-{file_name(subject).replace('_', '%5F')}"


def joined_name(names: Sequence[str], told: object = None) -> str:
    """One name of several `file_name`: with ``_`` between; ``told``: JSON whose hash is added at the end."""
    name = "_".join(names) + ("" if told is None else f"~{_digest(json.dumps(told))[:_DIGITS]}")
    return _short(name, name, LONGEST_JOINED)


def labelled(folder: Path, pattern: str, label: str) -> Path:
    """``folder`` / ``pattern`` with the name of ``label`` in place of {}, such as "report_sub-{}.json".

    Older runs hold the label as it was: where only that is there, it is this one.
    """
    path, old = folder / pattern.format(file_name(label)), pattern.format(label)
    if path.name == old or not _OLD.fullmatch(label) or path.exists() or not folder.is_dir():
        return path
    return folder / old if old in os.listdir(folder) else path  # exists() knows no case on some systems


def listed_file(folder: Path, name: str | None, where: str) -> Path:
    """The file of ``folder`` that a table calls ``name``; ``where`` says which table and row.

    Raises `UserError` for a name that leaves the folder: absolute, with ``..``, a drive or a backslash, or by way of a
    symbolic link. Whether the file is there is not asked.
    """
    name = name or ""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or set(name) & set("\\:\0") or any(map(_leads_away, parts)):
        raise UserError(f"{where} names the file {name!r}; a name inside the folder of the table is needed")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise UserError(f"{where} names the file {name!r}, a link; put the file itself in the folder")
    return path


def refuse_links(base: Path, folder: Path) -> None:
    """Raise `UserError` where a folder on the way from ``base`` (itself left aside) to ``folder`` is a link."""
    path = base
    for part in folder.relative_to(base).parts:
        path = path / part
        if path.is_symlink():
            raise UserError(f"{str(path)!r} is a link that leads out of {str(base)!r}; put the folder itself there")


def strays(root: Path, paths: Sequence[Path]) -> list[int]:
    """Which of ``paths`` lie outside ``root``, also by way of a link."""
    home = Path(os.path.realpath(root))
    parents = {parent: Path(os.path.realpath(parent)) for parent in {path.parent for path in paths}}
    found = []
    for i, path in enumerate(paths):
        place = Path(os.path.realpath(path)) if path.is_symlink() else parents[path.parent] / path.name
        if not place.is_relative_to(home):
            found.append(i)
    return found


def _leads_away(part: str) -> bool:
    return part == ".." or _DEVICE.match(part) is not None


def _capitals(label: str) -> str:
    bits = "".join("1" if letter.isupper() else "0" for letter in label if letter.isascii() and letter.isalpha())
    return f"={int(bits, 2):x}" if "1" in bits else ""


def _short(name: str, label: str, longest: int) -> str:
    if len(name) <= longest:
        return name
    return f"{name[: longest - _DIGITS - 1]}~{_digest(label)[:_DIGITS]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

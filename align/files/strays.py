"""Temporary names that say whose they are, and the removal of what killed processes left under such names."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path

from align.errors import UserError

ABANDONED = 7 * 86400  # s without a change, after which a temporary file of another system is nobody's any more:
# whatever is still written changes every few minutes, and batch systems seldom let a job live for longer
_STEM = 40  # characters of a name that its temporary name or its lock shows: four bytes each are 160
_STRAY = re.compile(r"\.tmp-([0-9a-f]{6,16})-(\d+)-[0-9a-f]{8}(\.[^.]*)?$")
_tidied: set[str] = set()  # folders that this process has written to


def beside(path: Path, kind: str, suffix: str = "") -> Path:
    """A hidden name in the same folder that no file system finds too long, whatever the length of ``path``'s own.

    The working folder, ``.``, is called by its name. Raises `UserError` for the root of a file system.
    """
    if not path.name:
        path = Path(os.path.abspath(path))
        if not path.name:
            raise UserError(f"{str(path)!r} is the root of a file system; name a folder in it")
    stem = path.name.removesuffix(suffix) if suffix else path.name
    if len(stem) > _STEM:
        stem = f"{stem[:_STEM]}~{hashlib.sha256(stem.encode(errors='surrogateescape')).hexdigest()[:8]}"
    return path.with_name(f".{stem}.{kind}{suffix if len(suffix) <= _STEM else ''}")


def temporary_name(path: Path, suffix: str = "") -> Path:
    """A name beside ``path`` that no other process and no other thread is given; `remove_strays` knows it."""
    return beside(path, f"tmp-{system()}-{os.getpid()}-{secrets.token_hex(4)}", suffix)


def system() -> str:
    """Stands for what numbers our processes: this computer since its start, or one container on it.

    A process number of another container, or of another computer of the same name, says nothing here.
    """
    facts = [platform.node()]
    try:
        facts += [
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
            os.readlink("/proc/self/ns/pid"),
        ]
    except OSError:  # no Linux, where there are no such containers
        facts.append(str(uuid.getnode()))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:10]


def tidy(folder: Path) -> None:
    """`remove_strays`, once for each folder: a folder of many pictures is not searched for every one of them."""
    key = str(folder.absolute())
    if key not in _tidied:
        _tidied.add(key)
        remove_strays(folder)


def remove_strays(folder: str | Path) -> None:
    """Remove the temporary files and folders that processes left in ``folder`` when they were killed.

    Those of this system (`system`) go when their process is gone. Those of other computers and containers, and from
    before a restart, go when nothing in them has changed for `ABANDONED` seconds.
    """
    own = system()
    for found in Path(folder).glob(".*.tmp-*"):
        match = _STRAY.search(found.name)
        if match and (not _alive(int(match[2])) if match[1] == own else _age(found) > ABANDONED):
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found, ignore_errors=True)
            else:
                with suppress(OSError):
                    found.unlink()


def _age(path: Path) -> float:
    """Seconds since the last change of a file, or of anything in a folder; 0 where that cannot be seen."""
    try:
        inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
        return time.time() - max(found.lstat().st_mtime for found in (path, *inside))
    except OSError:
        return 0.0


def _alive(pid: int) -> bool:
    if os.name == "nt":  # where asking a process would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True

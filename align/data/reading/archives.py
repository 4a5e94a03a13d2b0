"""Reading zip and tar archives of strangers, member by member, without unpacking them.

Only regular files with plain relative names are read. A name that leaves the folder, a link, a device, two members of
one name, a locked member, and an archive that unpacks to far more than it holds (a bomb) are refused in one line. A
zip is checked whole before anything of it is read; a tar is checked as it is read, and twice over before unpacking.
"""

from __future__ import annotations

import gzip
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from align.errors import UserError
from align.files import atomic_path, no_file

GRACE = 1 << 26  # bytes that anything may unpack to, however small it is
PIECE = 1 << 20  # bytes read at once
LONGEST_NAME = 1000  # characters; 255 bytes between two slashes, as file systems have it


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to. ``ratio``: unpacked bytes per byte of the file, beyond `GRACE`."""

    member: int = 1 << 28  # bytes; `members` holds one at a time in memory
    total: int = 1 << 38
    count: int = 2_000_000
    ratio: int = 200


TO_DISK = Limits(member=1 << 37)  # extract() streams, so that one member may be larger than memory


def members(
    path: str | Path, wanted: Callable[[str], bool] | None = None, limits: Limits | None = None
) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the regular files of a zip or tar (plain or gzip), in the order of the archive.

    ``wanted(name)``: which to read (default all); the others are checked all the same. Names are relative, with ``/``.

    Raises
    ------
    UserError
        Missing, truncated, damaged or foreign archive, and everything the module refuses.
    """
    for name, size, file in _entries(Path(path), limits or Limits()):
        if wanted is None or wanted(name):
            yield name, b"".join(_pieces(Path(path), name, size, file))


def names_in(path: str | Path, wanted: Callable[[str], bool] | None = None, password: str | None = None) -> list[str]:
    """Names of the (wanted) regular files of a zip or tar, checked as `members` does; no content is read from a zip."""
    return [name for name, _, _ in _entries(Path(path), TO_DISK, password) if wanted is None or wanted(name)]


def extract(
    path: str | Path,
    folder: str | Path,
    wanted: Callable[[str], bool] | None = None,
    limits: Limits | None = None,
    password: str | None = None,
) -> list[Path]:
    """Unpack the wanted files under ``folder`` and return their paths; each file is whole or absent.

    ``password``: of a locked zip (the old ZIP encryption; the stronger AES one cannot be read). Nothing is written when
    any member is refused. Raises `UserError` as `members` does, for a wrong password, and for a full disk.
    """
    path, folder, limits = Path(path), Path(folder), limits or TO_DISK
    for _ in _entries(path, limits, password):  # a refused member is found before the first file is written
        pass
    written = []
    for name, size, file in _entries(path, limits, password):
        if wanted is not None and not wanted(name):
            continue
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.resolve().is_relative_to(folder.resolve()):
                raise UserError(f"{str(target.parent)!r} leads out of {str(folder)!r} through a link; remove the link")
            with atomic_path(target) as temporary, temporary.open("wb") as out:
                out.writelines(_pieces(path, name, size, file))
        except OSError as error:
            raise UserError(f"{str(target)!r} cannot be written ({error.strerror or error})") from error
        written.append(target)
    return written


def is_locked(path: str | Path) -> bool:
    """Whether a file is a zip with a locked member."""
    with _faults(Path(path)):
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any(info.flag_bits & 1 for info in archive.infolist())


def checked_zip(
    archive: zipfile.ZipFile, path: Path, limits: Limits | None = None, unlocked: bool = False
) -> dict[str, zipfile.ZipInfo]:
    """The regular files of an open zip by safe name; raises `UserError` for everything the module refuses."""
    limits = limits or TO_DISK
    found: dict[str, zipfile.ZipInfo] = {}
    guard = _Guard(path, limits)
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        name = guard.name(info.orig_filename)
        if info.is_dir():
            continue
        if kind not in (0, stat.S_IFREG):
            raise UserError(f"archive {str(path)!r}: {_shown(name)} is a link or device, which is refused")
        if info.flag_bits & 1 and not unlocked:
            raise UserError(f"archive {str(path)!r}: {_shown(name)} is locked with a password; unlock the archive")
        guard.size(name, info.file_size, info.compress_size)
        found[name] = info
    return found


def _pieces(path: Path, name: str, size: int, file: Callable[[], BinaryIO]) -> Iterator[bytes]:
    """Exactly ``size`` bytes of a member, `PIECE` at a time."""
    with _faults(path), file() as source:
        left = size
        while piece := source.read(min(PIECE, left)) if left else b"":
            left -= len(piece)
            yield piece
        if left or source.read(1):
            raise UserError(f"archive {str(path)!r} is truncated inside {_shown(name)}; fetch it again")


def _entries(
    path: Path, limits: Limits, password: str | None = None
) -> Iterator[tuple[str, int, Callable[[], BinaryIO]]]:
    """(name, size, opener) of every regular file, checked."""
    if not path.is_file():
        raise UserError(f"archive {str(path)!r} {no_file(path)}")
    with _faults(path), path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head.startswith(b"PK"):
            with zipfile.ZipFile(file) as archive:
                key = None if password is None else password.encode()
                for name, info in checked_zip(archive, path, limits, password is not None).items():
                    yield name, info.file_size, lambda info=info: cast(BinaryIO, archive.open(info, pwd=key))  # type: ignore[misc]
        elif head.startswith(b"\x1f\x8b"):
            with gzip.open(file) as unpacked:
                yield from _tar_entries(_Bounded(unpacked, path, limits), path, limits)
        else:
            yield from _tar_entries(_Bounded(file, path, limits), path, limits)


def _tar_entries(file: _Bounded, path: Path, limits: Limits) -> Iterator[tuple[str, int, Callable[[], BinaryIO]]]:
    guard = _Guard(path, limits)
    with tarfile.open(fileobj=cast(Any, file), mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # tarfile keeps them all
            name = guard.name(info.name)
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise UserError(f"archive {str(path)!r}: {_shown(name)} is a link, device or sparse file; refused")
            guard.size(name, info.size, info.size)
            yield name, info.size, lambda info=info: cast(BinaryIO, archive.extractfile(info))  # type: ignore[misc]
        file.seek(archive.offset)  # tarfile takes a damaged header for the end
        end = file.read(512)
        if len(end) < 512 or any(end) or any(file.read(1 << 16)):
            raise UserError(
                f"archive {str(path)!r} is truncated or corrupt after {guard.count} members; fetch it again"
            )


class _Guard:
    """Counts what an archive unpacks to and remembers its names."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self.count = self.total = 0
        self.most = min(limits.total, GRACE + limits.ratio * path.stat().st_size)
        self.names: set[str] = set()

    def name(self, name: str) -> str:
        """The name without ``./``; refuses what could land elsewhere and what was there before."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        drive = re.match(r"[A-Za-z]:", name)
        if name.startswith("/") or drive or ".." in parts or "\\" in name or not (parts or name in (".", "./")):
            raise UserError(f"archive {str(self.path)!r}: the name {_shown(name)} leads out of the folder; refused")
        if not name.isprintable() or len(name) > LONGEST_NAME or any(len(part.encode()) > 255 for part in parts):
            raise UserError(f"archive {str(self.path)!r}: the name {_shown(name)} is no plain file name; refused")
        plain = "/".join(parts)
        self.count += 1
        if plain in self.names:
            raise UserError(f"archive {str(self.path)!r} holds two members called {_shown(plain)}; refused")
        if self.count > self.limits.count:
            raise UserError(f"archive {str(self.path)!r} holds more than {self.limits.count} members; refused")
        self.names.add(plain)
        return plain

    def size(self, name: str, size: int, packed: int) -> None:
        """Count ``size`` bytes; refuses a bomb."""
        self.total += size
        if not 0 <= size <= self.limits.member:
            raise UserError(
                f"archive {str(self.path)!r}: {_shown(name)} has {size} bytes, more than {self.limits.member}; refused"
            )
        if self.total > self.most or size > GRACE + self.limits.ratio * packed:
            raise UserError(
                f"archive {str(self.path)!r} unpacks to more than {min(self.most, self.total)} bytes, far more than it "
                "holds; refused"
            )


class _Bounded:
    """A file for tarfile that neither reads much at once nor goes on for ever.

    tarfile takes headers of any size into memory, and a small gzip file may hold gigabytes of them.
    """

    def __init__(self, file: Any, path: Path, limits: Limits) -> None:
        self.file, self.name = file, str(path)
        self.most = min(limits.total, GRACE + limits.ratio * path.stat().st_size)

    def read(self, n: int) -> bytes:
        if not 0 <= n <= 4 * PIECE or self.file.tell() + n > self.most + GRACE:
            raise UserError(f"archive {self.name!r} unpacks to far more than it holds; refused")
        return cast(bytes, self.file.read(n))

    def seek(self, offset: int) -> int:
        if not 0 <= offset <= self.most + GRACE:
            raise UserError(f"archive {self.name!r} unpacks to far more than it holds; refused")
        return cast(int, self.file.seek(offset))

    def tell(self) -> int:
        return cast(int, self.file.tell())


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Whatever the archive libraries raise on broken bytes, as one `UserError`."""
    try:
        yield
    except (UserError, GeneratorExit):
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        if "assword" in text or "encryption" in text or isinstance(error, NotImplementedError):
            raise UserError(f"archive {str(path)!r} cannot be unlocked ({text}); check the password") from error
        raise UserError(f"archive {str(path)!r} is truncated or corrupt ({text}); fetch it again") from error


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 80 else name[:77] + "...")

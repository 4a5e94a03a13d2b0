"""What was fetched before: ``checksums.json`` at the study's root, and whether a file is there and still the same.

The SHA-256 of a file's first complete download is kept; where the publisher states none, later downloads of that file
are compared with it. A file whose size or time of change differs from the record is hashed again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.data.download.part import hash_file
from align.data.download.sources import File, Page
from align.data.download.transfer import Patience, fetch
from align.data.reading.archives import TO_DISK, extract, names_in
from align.errors import UserError
from align.files import beside, locked, read_json, remove_unheld, write_sealed

NAME = "checksums.json"


class Records:
    """The files below ``root`` and what is known of them; ``checksums.json`` changes with every `get` and `verify`."""

    def __init__(self, root: Path) -> None:
        self.root, self.path = root, root / NAME
        self.entries: dict[str, dict[str, Any]] = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.path.is_file():
            return {}
        content = read_json(self.path)
        files = content.get("files") if isinstance(content, dict) else None
        if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
            raise UserError(f"{str(self.path)!r} is not a list of checksums; move it away")
        return files

    def has(self, file: File) -> bool:
        """Whether the file, or what its archive holds, is there; its content is not looked at."""
        target = self.root / file.target
        if file.unpack is None:
            return target.is_file()
        folder = self.root / file.unpack
        waiting = target.exists() or target.with_name(f"{target.name}.part").exists()
        return folder.is_dir() and any(folder.iterdir()) and not waiting

    def verify(self, file: File) -> None:
        """Compare a file that is there with what is known of it, and remember it. Raises `UserError` if it differs.

        What a killed download left beside it goes.
        """
        self._tidy(self.root / file.target)
        if file.unpack is None:
            self._compare(file)

    def _compare(self, file: File) -> None:
        target, entry = self.root / file.target, self.entries.get(file.target, {})
        if entry and entry.get("size") == target.stat().st_size and entry.get("mtime_ns") == target.stat().st_mtime_ns:
            return
        found, expected = hash_file(target), self.expected(file)
        if expected is not None and found != expected:
            raise UserError(
                f"{str(target)!r} has SHA-256 {found}, {self.authority(file)} {expected}; it changed or is not whole: "
                "move it away and run the same command again"
            )
        self._remember(file, found)

    def get(
        self, file: File, patience: Patience | None = None, progress: bool = True, password: str | None = None
    ) -> None:
        """Fetch a file, remember its checksum, unpack it. Raises `UserError` as `fetch` and `extract` do."""
        target = self.root / file.target
        with locked(beside(target, "lock"), f"fetching {str(target)!r}", keep=False):
            if self.has(file):
                return
            if target.is_file():  # an archive that a killed download fetched and did not unpack
                self._compare(file)
            else:
                fetched = fetch(file.url, target, self.expected(file), patience, progress)
                self._remember(file, fetched.sha256)
            if file.unpack is not None:
                unpack(target, self.root, file.unpack, password)
                target.unlink()

    def _tidy(self, target: Path) -> None:
        """Remove locks that nobody holds and the note of a part whose file is whole."""
        notes = [target.with_name(f"{target.name}.part.{end}") for end in ("json", "lock")]
        lock = beside(target, "lock")
        if lock.exists() or any(note.exists() for note in notes):
            with locked(lock, f"fetching {str(target)!r}", keep=False):
                for note in notes:
                    note.unlink(missing_ok=True)
        remove_unheld(self._lock)

    @property
    def _lock(self) -> Path:
        return beside(self.path, "lock")

    def expected(self, file: File) -> str | None:
        """The published checksum, else that of the first download."""
        known = file.sha256 or self.entries.get(file.target, {}).get("sha256")
        return known if isinstance(known, str) else None

    def authority(self, file: File) -> str:
        """Whose checksum `expected` is."""
        return "its publisher states" if file.sha256 else "its first download had"

    def _remember(self, file: File, sha256: str) -> None:
        stat = (self.root / file.target).stat()
        entry = {"sha256": sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "url": file.url}
        with locked(self._lock, f"writing {str(self.path)!r}", wait=None, keep=False):
            entries = self._read() | {file.target: {**entry, "published": file.sha256 is not None}}
            self.entries = dict(sorted(entries.items()))
            write_sealed(self.path, {"schema": 1, "files": self.entries})


def is_there(page: Page, root: Path) -> bool:
    """Whether what a page asks for was put in its place."""
    return next(root.glob(page.expects), None) is not None


def unpack(archive: Path, root: Path, folder: str, password: str | None = None) -> None:
    """Unpack so that all lies below ``root/folder``, whether or not the archive itself holds that folder.

    Archives in the archive (``sub-01.zip``) are unpacked too, to a folder of their name, and removed.
    """
    names = names_in(archive, password=password)
    inside = any(name.startswith(f"{folder}/") for name in names)
    start = f"{folder}/" if inside else ""
    place = root if inside else root / folder
    extract(archive, place, lambda name: name.startswith(start) and not name.startswith("__MACOSX/"), TO_DISK, password)
    for inner in sorted((root / folder).rglob("*.zip")):
        unpack(inner, inner.parent, inner.stem)
        inner.unlink()

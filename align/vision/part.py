"""A file of target tokens under construction: the whole of it, or the rows that one of several processes extracts.

The whole is ``<key>.part``, a share of it ``<key>.<first>-<end>.part`` (rows alone, without a header). A note beside
it, ``.part.json``, says which rows are whole; a killed process continues there.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align.errors import Damaged
from align.files import naming, read_json, write_sealed

logger = logging.getLogger(__name__)
_AT_ONCE = 2**25  # bytes that are copied at once


class Part:
    """Header (of the whole), then rows of float16, then the count of rows known to be whole.

    ``n``: rows of the finished file; ``own``: those that this part holds in the end, None = all of them.
    """

    def __init__(self, folder: Path, key: str, n: int, batch_size: int, own: range | None = None) -> None:
        self.final, self.key, self.n, self.batch_size = folder / f"{key}.safetensors", key, n, batch_size
        self.own, self.is_whole = own or range(n), own is None
        name = key if own is None else f"{key}.{own.start}-{own.stop}"
        self.path, self.progress = folder / f"{name}.part", folder / f"{name}.part.json"
        self.rows, self.head, self.row_bytes, self.crc = 0, 0, 0, 0
        self.shape: tuple[int, ...] = ()
        if self.path.is_file() and self.progress.is_file():
            self._recall()
        if self.path.is_file() and self.path.stat().st_size < self.end:
            self.rows = self.head = self.row_bytes = self.crc = 0

    def _recall(self) -> None:
        """Take up what an interrupted call left; a damaged note of it counts as none."""
        try:
            done = read_json(self.progress)
            if done["key"] == self.key and done["batch_size"] == self.batch_size and (self.is_whole or done["shape"]):
                self.rows, self.head, self.row_bytes, self.crc = (
                    done[key] for key in ("rows", "head", "row_bytes", "crc32")
                )
                self.shape = tuple(done.get("shape", ()))
        except (Damaged, KeyError, TypeError):
            logger.info("%s is not whole; these targets are extracted from the start", self.progress)

    @property
    def next(self) -> int:
        """The row of the finished file that comes next."""
        return self.own.start + self.rows

    @property
    def end(self) -> int:
        """Byte after the last whole row."""
        return self.head + self.rows * self.row_bytes

    def append(self, tokens: np.ndarray, note: bool = True) -> None:
        """Add rows (b, N, D); they count once the note says so."""
        if self.rows == 0:
            header = _header(self.n, tokens.shape[1:], self.key) if self.is_whole else b""
            with naming(self.path):
                self.path.write_bytes(header)
            self.head, self.row_bytes, self.crc = len(header), tokens[0].nbytes, zlib.crc32(header)
            self.shape = tokens.shape[1:]
        with naming(self.path), self.path.open("r+b") as file:
            file.truncate(self.end)
            file.seek(self.end)
            written = tokens.tobytes()
            file.write(written)
        self.rows, self.crc = self.rows + len(tokens), zlib.crc32(written, self.crc)
        if note:
            self.note()

    def note(self) -> None:
        """Write down which rows are whole."""
        done = {name: getattr(self, name) for name in ("key", "rows", "head", "row_bytes", "batch_size")}
        # Not flushed: rows that a power cut takes do not have this checksum, and an empty note is a damaged one.
        write_sealed(self.progress, {**done, "shape": list(self.shape), "crc32": self.crc}, flush=False)

    def join(self, shares: Sequence[Part]) -> None:
        """Append the rows of ``shares``, which follow one another; noted when all are there, so that a killed process
        finds the shares and joins them again. Raises `Damaged` for a share that is not what was written."""
        for share in shares:
            for tokens in share._read(self.next):
                self.append(tokens, note=False)
        if shares:
            self.note()

    def _read(self, first: int) -> Iterator[np.ndarray]:
        """Rows from ``first`` of the finished file on, some at a time."""
        if self.rows != len(self.own):
            raise Damaged(f"{str(self.path)!r} is not whole; the same command continues from here")
        crc, step = 0, max(1, _AT_ONCE // self.row_bytes)
        with self.path.open("rb") as file:
            for start in range(self.own.start, self.own.stop, step):
                count = min(step, self.own.stop - start)
                read = file.read(count * self.row_bytes)
                crc = zlib.crc32(read, crc)
                rows = np.frombuffer(read, np.float16).reshape(count, *self.shape)[max(0, first - start) :]
                if len(rows):
                    yield rows
        if crc != self.crc:
            self.progress.unlink(missing_ok=True)
            raise Damaged(f"{str(self.path)!r} is not what was written; the same command extracts it again")

    def finish(self, info: dict[str, Any], health: Callable[[np.ndarray], dict[str, Any]]) -> dict[str, Any]:
        """Write the description, then give the file its name; returns what ``health`` says of the rows (n, N D)."""
        for share in self.path.parent.glob(f"{self.key}.*-*.part*"):
            share.unlink(missing_ok=True)
        with naming(self.path), self.path.open("r+b") as file:
            file.truncate(self.end)
            os.fsync(file.fileno())
            flat = np.memmap(file, dtype=np.float16, mode="r", offset=self.head, shape=(self.n, self.row_bytes // 2))
            report = health(flat)
            del flat  # Windows renames no file that is mapped
        write_sealed(self.final.with_suffix(".json"), {**info, "health": report, "crc32": self.crc})
        self.progress.unlink(missing_ok=True)  # first: nobody looks for it once the file has its name
        os.replace(self.path, self.final)
        return report


def _header(n: int, shape: tuple[int, ...], key: str) -> bytes:
    """The head of a safetensors file with one float16 tensor ``tokens`` (n, *shape)."""
    full = [n, *shape]
    entry = {"dtype": "F16", "shape": full, "data_offsets": [0, 2 * int(np.prod(full))]}
    text = json.dumps({"__metadata__": {"key": key}, "tokens": entry}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text

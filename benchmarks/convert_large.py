"""Memory and time of converting a large pickled recording, beside ``cp`` of the same file.

    python benchmarks/convert_large.py [--size 2.0] [--folder DIR] [--kinds nice,ubp]

Writes a file as it circulates (NICE/ATM: a pickle of protocol 4 under a .npy name, float64; UBP: a torch file with
numpy float16 as protocol-2 text) in pieces, without ever holding it, then converts it in a process of its own, at the
full and at half the size. Printed per file: time of ``cp`` and of the conversion (each after a warm-up), peak memory of
that process above what it had before. Private memory is ours; mapped pages of files are the page cache and told apart.
Needs four times ``--size`` in GB of free disk; everything is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PIECE = 1 << 22  # bytes of numbers made at once
CHANNELS, SAMPLES, REPETITIONS = 63, 250, 4
NAMES = [f"E{k:02d}" for k in range(CHANNELS)]


def numbers(rows: int, dtype: str) -> Iterator[bytes]:
    """Seeded noise of ``rows`` trials, about `PIECE` bytes at a time."""
    row = REPETITIONS * CHANNELS * SAMPLES
    step = max(1, PIECE // (row * np.dtype(dtype).itemsize))
    for start in range(0, rows, step):
        rng = np.random.default_rng(start)
        yield rng.standard_normal((min(step, rows - start), row), np.float32).astype(dtype).tobytes()


def rows_for(size: float, dtype: str) -> int:
    """Trials in ``size`` GB (10^9 bytes) of numbers."""
    return int(size * 1e9) // (REPETITIONS * CHANNELS * SAMPLES * np.dtype(dtype).itemsize)


def write_nice(path: Path, size: float) -> None:
    """What ``pickle.dump(dict, protocol 4)`` writes: a small array's pickle with the large one's facts in its place."""
    rows = rows_for(size, "f8")
    shape = (rows, REPETITIONS, CHANNELS, SAMPLES)
    small = np.zeros((2, 2, 2, 2))
    value = {"preprocessed_eeg_data": small, "ch_names": NAMES, "times": np.arange(300) / 250 - 0.2}
    plain = _without_frames(pickle.dumps(value, protocol=4))
    old_shape = b"(K\x02K\x02K\x02K\x02t"
    old_data = b"B" + struct.pack("<I", small.nbytes) if small.nbytes > 255 else b"C" + bytes([small.nbytes])
    at = plain.index(old_shape)
    data_at = plain.index(old_data + small.tobytes())
    with path.open("wb") as file:
        file.write(plain[:at] + b"(" + b"".join(b"J" + struct.pack("<i", n) for n in shape) + b"t")
        file.write(plain[at + len(old_shape) : data_at])
        file.write(b"\x8e" + struct.pack("<Q", math.prod(shape) * 8))
        file.writelines(numbers(rows, "f8"))
        file.write(plain[data_at + len(old_data) + small.nbytes :])


def _without_frames(plain: bytes) -> bytes:
    """The pickle without its FRAME marks, whose lengths would no longer hold (the stock reader does without)."""
    assert plain[2:3] == b"\x95"
    return plain[:2] + plain[11:]


def write_ubp(path: Path, size: float) -> None:
    """What ``torch.save(dict with a numpy float16 array)`` writes: numpy's bytes as UTF-8 text inside data.pkl.

    ``size``: GB of float16 numbers; as text they take about half as much again.
    """
    rows = rows_for(size, "f2")
    shape = (rows, REPETITIONS, CHANNELS, SAMPLES)
    small = np.zeros((2, 2, 2, 2), np.float16)
    plain = pickle.dumps({"eeg": small, "ch_names": NAMES}, protocol=2)
    old_shape, text = b"(K\x02K\x02K\x02K\x02t", small.tobytes().decode("latin-1").encode()
    old_data = b"X" + struct.pack("<I", len(text)) + text
    at, data_at = plain.index(old_shape), plain.index(old_data)
    length = sum(len(piece.decode("latin-1").encode()) for piece in numbers(rows, "f2"))
    assert length < 1 << 32, "protocol 2 knows no longer text"
    with zipfile.ZipFile(path, "w") as archive, archive.open("archive/data.pkl", "w", force_zip64=True) as file:
        file.write(plain[:at] + b"(" + b"".join(b"J" + struct.pack("<i", n) for n in shape) + b"t")
        file.write(plain[at + len(old_shape) : data_at] + b"X" + struct.pack("<I", length))
        for piece in numbers(rows, "f2"):
            file.write(piece.decode("latin-1").encode())
        file.write(plain[data_at + len(old_data) :])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "little")


WRITERS = {"nice": (write_nice, "preprocessed_eeg_data", "f8"), "ubp": (write_ubp, "eeg", "f2")}


def memory() -> dict[str, int]:
    """kB of this process: ``RssAnon`` (ours), ``RssFile`` (mapped files)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssFile"))}


def convert(path: Path, key: str, out: Path) -> None:
    """Run in the child: read and save three times, to warm up, for the time, for the memory; prints JSON.

    Watching takes the interpreter away from the copying, so the two are not measured at once.
    """
    from align.data.reading.containers import read_container

    before, peak, done = memory(), memory(), threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            for name, kilobytes in memory().items():
                peak[name] = max(peak[name], kilobytes)

    watcher = threading.Thread(target=watch)
    for _ in range(2):
        start = time.perf_counter()
        stored = read_container(path)[key]
        stored.save(out)
        seconds = time.perf_counter() - start
    watcher.start()
    read_container(path)[key].save(out)
    done.set()
    watcher.join()
    grown = {name: (peak[name] - before[name]) / 1024 for name in peak}
    print(json.dumps({"seconds": seconds, "shape": list(stored.shape), **grown}))


def check(out: Path, rows: int, dtype: str) -> None:
    """Every trial holds the numbers that were written."""
    found = np.load(out, mmap_mode="r").reshape(rows, -1)
    at = 0
    for piece in numbers(rows, dtype):
        wanted = np.frombuffer(piece, dtype).reshape(-1, found.shape[1])
        np.testing.assert_array_equal(found[at : at + len(wanted)], wanted)
        at += len(wanted)
    assert at == rows


def copy_seconds(path: Path, out: Path) -> float:
    """``cp`` after a warm-up run."""
    for _ in range(2):
        start = time.perf_counter()
        subprocess.run(["cp", str(path), str(out)], check=True)
        seconds = time.perf_counter() - start
    out.unlink()
    return seconds


def measure(kind: str, size: float, folder: Path) -> None:
    """Write, copy, convert, compare, print one line."""
    write, key, dtype = WRITERS[kind]
    path, out = folder / f"{kind}.npy", folder / "out.npy"
    write(path, size)
    copied = copy_seconds(path, folder / "copy")
    command = [sys.executable, __file__, "--convert", str(path), key, str(out)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout)
    check(out, rows_for(size, dtype), dtype)
    print(
        f"{kind:5s} {path.stat().st_size / 1e9:5.2f} GB  cp {copied:6.2f} s  convert {found['seconds']:6.2f} s "
        f"({found['seconds'] / copied:4.1f} x)  peak extra memory {found['RssAnon']:6.1f} MiB, "
        f"mapped {found['RssFile']:6.1f} MiB  shape {tuple(found['shape'])}"
    )
    path.unlink()
    out.unlink()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=2.0, help="GB of numbers; half of it is measured first")
    parser.add_argument("--kinds", default="nice,ubp", help="which of nice,ubp")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--convert", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.convert:
        path, key, out = arguments.convert
        convert(Path(path), key, Path(out))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if shutil.disk_usage(folder).free < 4e9 * arguments.size:
            sys.exit(f"{folder} has less than {4 * arguments.size:.0f} GB free; give another --folder")
        for kind in arguments.kinds.split(","):
            for size in (arguments.size / 2, arguments.size):
                measure(kind, size, Path(folder))


if __name__ == "__main__":
    main()

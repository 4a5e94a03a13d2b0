"""Memory of pretraining on seven people, one hour of NSD-shaped fMRI each, whose trials stay in their files.

    python benchmarks/stream_people.py [--people 7] [--trials 688] [--voxels 15724] [--tokens N,D] [--batch 256]

Writes one memory-mappable file per person (seeded noise, float32) and one with the tokens of all pictures (float16).
Then, in a process of its own for each kind of trunk (mlp: linear fronts; mindbridge: signals pooled to 8,192 values,
with ways back), runs `align.adaptation.trunk.share` with hidden width 1024 and four blocks. Printed:
peak resident memory of that process, memory after loading the libraries, seconds, steps, numbers trained. Noise and
real trials need the same memory. ``--tokens``: N,D of a picture (16,384); 256,1664 is what MindEye2 predicts. What is
written is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TRUNKS = ("mlp", "mindbridge")
WIDTH, BLOCKS, COMPONENTS = 1024, 4, 400
AT_ONCE = 64  # rows written at once


def write(path: Path, shape: tuple[int, ...], dtype: type, seed: int) -> None:
    """Noise as .npy, some rows at a time."""
    rng, file = np.random.default_rng(seed), np.lib.format.open_memmap(path, "w+", dtype, shape)
    for start in range(0, shape[0], AT_ONCE):
        rows = min(AT_ONCE, shape[0] - start)
        file[start : start + rows] = rng.standard_normal((rows, *shape[1:]), np.float32)
    file.flush()


def memory_gib() -> dict[str, float]:
    """Resident memory of this process, now and at its peak; pages of mapped files count."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kib = {line.split(":")[0]: int(line.split()[1]) for line in status.splitlines() if line.endswith("kB")}
    return {"now_gib": round(kib["VmRSS"] / 2**20, 2), "peak_gib": round(kib["VmHWM"] / 2**20, 2)}


def measure(folder: Path, trunk: str, epochs: int, batch: int) -> dict[str, Any]:
    """Pretrain one trunk on the files in ``folder``."""
    from align.adaptation.people import Person, Pictures
    from align.adaptation.trunk import share
    from align.config import Config, load_config
    from align.train import use_all_cores

    use_all_cores()
    sizes = [f"encoder.name={trunk}", f"encoder.width={WIDTH}", f"encoder.blocks={BLOCKS}", f"train.epochs={epochs}"]
    target = [f"target.components={COMPONENTS}", "target.spread=0", f"train.batch_size={batch}", "train.mixco=0.15"]
    config = load_config(Config, None, [*sizes, *target])
    tokens, people = np.load(folder / "tokens.npy", mmap_mode="r"), []
    for path in sorted(folder.glob("person-*.npy")):
        x, start = np.load(path, mmap_mode="r"), sum(map(len, people))
        ids = tuple(str(start + i) for i in range(len(x)))
        pictures = Pictures(ids, np.zeros((len(x), 768), np.float32))
        people.append(Person(path.stem, x, tokens[start : start + len(x)], np.arange(len(x)), pictures))
    before, started = memory_gib(), time.monotonic()
    shared = share(config, people, (tokens.shape[2],), bridge=trunk == "mindbridge")
    return {
        "trunk": trunk,
        "libraries_gib": before["now_gib"],
        **memory_gib(),
        "seconds": round(time.monotonic() - started, 1),
        "steps": epochs * -(-sum(map(len, people)) // batch),
        "numbers": sum(value.numel() for name, value in shared.tensors.items() if name.startswith("network.")),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=7)
    parser.add_argument("--trials", type=int, default=688)
    parser.add_argument("--voxels", type=int, default=15_724)
    parser.add_argument("--tokens", default="16,384", metavar="N,D")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--trunks", nargs="+", choices=TRUNKS, default=list(TRUNKS))
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure[0]), options.measure[1], options.epochs, options.batch)))
        return 0
    folder, shape = Path(tempfile.mkdtemp(dir=options.folder)), tuple(map(int, options.tokens.split(",")))
    try:
        for person in range(options.people):
            write(folder / f"person-{person}.npy", (options.trials, options.voxels), np.float32, person)
        write(folder / "tokens.npy", (options.people * options.trials, *shape), np.float16, 99)
        for trunk in options.trunks:
            steps = ["--epochs", str(options.epochs), "--batch", str(options.batch)]
            command = [sys.executable, __file__, "--measure", str(folder), trunk, *steps]
            subprocess.run(command, check=True)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

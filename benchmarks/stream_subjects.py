"""Share of computing in the time of an epoch over many subjects whose trials stay in their files.

    python benchmarks/stream_subjects.py [--subjects 10] [--channels 17] [--encoder mlp] [--steps 0] [--baseline 0]

Writes one memory-mappable file per subject in the shape of THINGS-EEG2 (16,540 pictures x 4 repetitions, C channels x
250 samples, float32, seeded noise; 1.1 GB each with 17 channels), and tokens of 16,540 pictures. Then, in a process of
its own, fits one encoder to the single trials of all subjects: every step reads its own 1,024 rows at random. Printed:
processor time of the reading thread and of the whole epoch (their ratio does not depend on what else the machine does),
seconds that the loop waited for rows, seconds per step beside those of batches that are in memory already (the least of
60 before and 60 after), time of the statistics (one pass over all files), peak memory.
``--baseline``: also so many steps of the published TSConv loop with all trials in memory (`published_tsconv.py`).
``--steps``: only so many steps of an epoch (0: all). Everything written is removed at the end.
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

PICTURES, REPETITIONS, SAMPLES, BATCH = 16_540, 4, 250, 1024
TOKENS = (16, 384)
AT_ONCE = 2_048  # trials made at once
WARM = 60  # steps on batches in memory, before and after


def write_subject(path: Path, channels: int, seed: int) -> None:
    """Noise (66,160, C, 250) float32 as .npy."""
    from align.data.signals import save_rows

    rng, rows = np.random.default_rng(seed), PICTURES * REPETITIONS
    shape = (rows, channels, SAMPLES)
    pieces = (
        rng.standard_normal((min(AT_ONCE, rows - start), *shape[1:]), np.float32) for start in range(0, rows, AT_ONCE)
    )
    save_rows(path, shape, pieces)


def config_of(encoder: str) -> Any:
    """The recipe of configs/align/things_eeg2.yaml for one epoch of single trials."""
    from align.config import Config, load_config

    recipe = Path(__file__).parents[1] / "configs" / "align" / "things_eeg2.yaml"
    pairs = [f"encoder.name={encoder}", "train.epochs=1", "target.spread=0", "train.average_repetitions=false"]
    return load_config(Config, recipe, [*pairs, f"train.batch_size={BATCH}"])


def measure(folder: Path, encoder: str, steps: int) -> dict[str, Any]:
    """Seconds and memory of one epoch (or ``steps`` steps of it) over all files in ``folder``."""
    import torch

    from align.data.rows import Rows
    from align.model.aligner import Network
    from align.model.spaces import SignalSpace, TargetSpace
    from align.train import use_all_cores
    from align.training import optimise as loop
    from align.training.batches import Pairs, StreamedSignals
    from align.training.optimise import StateFolder
    from align.training.schedule import steps_per_epoch

    use_all_cores()
    config = config_of(encoder)
    files = sorted(folder.glob("sub-*.npy"))
    maps = [np.load(path, mmap_mode="r") for path in files]
    picture = np.repeat(np.arange(PICTURES), REPETITIONS)
    rows = Rows([(x, np.arange(len(x))) for x in maps])
    started = time.monotonic()
    targets = TargetSpace.fit(np.load(folder / "tokens.npy", mmap_mode="r"), config.target.components)
    components = targets.encode_all(Rows.of(np.load(folder / "tokens.npy", mmap_mode="r")))
    tokens_seconds = time.monotonic() - started
    started = time.monotonic()
    space = SignalSpace.fit(rows)
    statistics_seconds = time.monotonic() - started
    stimulus = torch.from_numpy(np.tile(picture, len(files)))
    pairs = Pairs(StreamedSignals(rows, space), components, stimulus)
    if steps:
        pairs = pairs.subset(np.random.default_rng(0).permutation(len(rows))[: steps * BATCH])
    cost = {"reader_cpu_s": 0.0, "waited_s": 0.0}

    class Timed(loop.Ahead):
        def __iter__(self) -> Any:
            make = self.make

            def timed(step: int) -> Any:
                started = time.thread_time()
                batch = make(step)
                cost["reader_cpu_s"] += time.thread_time() - started
                return batch

            self.make = timed
            yield from super().__iter__()
            cost["waited_s"] += self.waited

    plain, seconds, cpu = loop.Ahead, {}, {}
    few = min(WARM, steps_per_epoch(len(pairs), BATCH))
    held = pairs.batch(np.random.default_rng(1).permutation(len(pairs))[: few * BATCH])
    in_memory = Pairs(held.signals, components, held.stimulus)
    for name, data in (("warm-up", in_memory), ("before", in_memory), ("streamed", pairs), ("after", in_memory)):
        network = Network(config, space.out_shape, targets.components)
        started, used = time.monotonic(), time.process_time()
        if data is pairs:
            loop.Ahead = Timed  # type: ignore[misc]
        loop.optimise(network, config, data, targets.gain, "train", StateFolder(config, data), progress=True)
        loop.Ahead = plain  # type: ignore[misc]
        seconds[name] = (time.monotonic() - started) / steps_per_epoch(len(data), BATCH)
        cpu[name] = time.process_time() - used
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    memory = {line.split(":")[0]: int(line.split()[1]) / 1e6 for line in status.splitlines() if line.endswith("kB")}
    return {
        "trials": len(pairs),
        "steps": steps_per_epoch(len(pairs), BATCH),
        "seconds_per_step": seconds,
        "compute_share_of_cpu": 1 - cost["reader_cpu_s"] / cpu["streamed"],
        "compute_share_by_steps": min(seconds["before"], seconds["after"]) / seconds["streamed"],
        **cost,
        "epoch_cpu_s": cpu["streamed"],
        "epoch_s": seconds["streamed"] * steps_per_epoch(len(pairs), BATCH),
        "statistics_s": statistics_seconds,
        "tokens_s": tokens_seconds,
        "peak_gb": memory["VmHWM"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=10)
    parser.add_argument("--channels", type=int, default=17)
    parser.add_argument("--encoder", default="mlp")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument(
        "--baseline", type=int, default=0, metavar="STEPS", help="of the published TSConv loop, in memory"
    )
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.measure, options.encoder, options.steps)))
        return 0
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        for subject in range(options.subjects):
            write_subject(folder / f"sub-{subject + 1:02d}.npy", options.channels, subject)
        rng = np.random.default_rng(99)
        np.save(folder / "tokens.npy", rng.standard_normal((PICTURES, *TOKENS), np.float32).astype(np.float16))
        command = [sys.executable, __file__, "--measure", str(folder), "--encoder", options.encoder]
        done = subprocess.run(
            [*command, "--steps", str(options.steps)], stdout=subprocess.PIPE, encoding="utf-8", check=True
        )
        found = {"streamed": json.loads(done.stdout)}
        if options.baseline:
            published = Path(__file__).with_name("published_tsconv.py")
            command = [sys.executable, str(published), str(folder), str(options.baseline)]
            done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
            found["published"] = json.loads(done.stdout)
        print(json.dumps(found, indent=2))
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

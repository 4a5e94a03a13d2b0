"""How long a sweep takes, and what one launch per cell would take: layers x sessions x seeds on macaque V4.

    python benchmarks/sweep_speed.py study.root=V4_compact_models backbone.weights=squeezenet1_1.pth
    python benchmarks/sweep_speed.py --launches 6 --out runs/sweep_speed study.root=... cache_dir=...

A cell is one layer x session x seed: one fit of configs/align/cowley2023_v4.yaml (encoder mlp), scored on one held-out
third of the training rows; seed i holds out fold i (``sweep.rotate``), so three seeds score every training row once.
Test rows are not scored. Targets are cached first, outside the clock. Then, in one run:

1. ``recon sweep --no-test``: all cells, in one process per core;
2. ``python -m align.train`` for single cells, spread evenly over the plan, with every core, one after the other, and
   without the extra fit that prepares tokens for pictures (target.spread=0). A launch fits all training rows, a cell
   2/3 of them; the number is therefore given a second time, times 2/3 as if only the rows mattered;
3. ``recon sweep --cell`` for the same cells into an empty folder, to compare their scores with those of the sweep.

The time of all launches is the mean of those that ran times the number of cells: an extrapolation. Seconds of the
processors are given beside those of the clock, for machines that compute something else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from align.config import Config, dump_yaml, load_config
from align.data.studies import open_study
from align.errors import UserError
from align.sweep.grid import Cell, GridWalk, build_grid, plan
from align.tracking import setup_logging

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "align" / "cowley2023_v4.yaml"
LAYERS = [f"features.{i}" for i in (3, 4, 6, 7, 8, 9, 10, 11, 12)]
LARGEST = 10 * 60  # s allowed for the sweep
TIMES = 4  # the sweep should be faster than launches by this factor


def settings(overrides: list[str]) -> Config:
    """The recipe with the cells of the benchmark in it."""
    own = [f"sweep.layers=[{','.join(LAYERS)}]", "sweep.encoders=[mlp]", "sweep.seeds=3", "sweep.rotate=true"]
    return load_config(Config, CONFIG, [*own, *overrides])


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds of a command by the clock and by the processors; its messages are shown when it fails."""
    started, before = time.monotonic(), _processors()
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(command[:4])} ended with {done.returncode}: {done.stderr[-500:]}")
    return time.monotonic() - started, _processors() - before


def _processors() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sweep(config: Config, folder: Path, cores: int) -> tuple[float, float]:
    """All cells by ``cores`` processes into ``folder``."""
    path = stored(replace(config, run_dir=str(folder)), folder)
    command = ["-m", "recon.cli", "sweep", "--config", str(path), "--no-test", "--processes", str(cores)]
    return timed([sys.executable, *command])


def launch(config: Config, cell: Cell, folder: Path) -> tuple[float, float]:
    """One ``python -m align.train`` for the layer, session and seed of a cell."""
    target = replace(config.target, layer=cell.variant.layer, spread=0.0)
    encoder = replace(config.encoder, name=cell.variant.encoder)
    own = replace(config, target=target, encoder=encoder, seed=cell.seed, subjects=[cell.subject])
    path = stored(replace(own, run_dir=str(folder / "run")), folder)
    return timed([sys.executable, "-m", "align.train", "--config", str(path)])


def single_cell(config: Config, number: int, folder: Path) -> tuple[float, float]:
    """``recon sweep --cell``: seconds, and the validation top-1."""
    path = stored(replace(config, run_dir=str(folder)), folder)
    seconds, _ = timed([sys.executable, "-m", "recon.cli", "sweep", "--config", str(path), "--cell", str(number)])
    return seconds, next(iter(scores(folder).values()))


def scores(folder: Path) -> dict[tuple[str, str, int, str], float]:
    """Validation top-1 of every stored cell by layer, subject, seed, fold."""
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "cells").glob("*.json"))]
    names = ("layer", "subject", "seed", "fold")
    return {tuple(cell[name] for name in names): cell["scores"]["brain_to_image"]["top1"] for cell in cells}


def stored(config: Config, folder: Path) -> Path:
    """The configuration as a file beside its results."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")
    return folder / "config.yaml"


def fill_cache(config: Config) -> GridWalk:
    """Extract the targets of all subjects and layers where they are not there yet."""
    study = open_study(config)
    walk = plan(config, study)
    build_grid(walk, study, walk.subjects, progress=True)
    return walk


def measure(config: Config, launches: int, folder: Path) -> dict[str, Any]:
    """Everything that is printed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    walk = fill_cache(config)
    cells = walk.cells()
    whole, whole_cpu = sweep(config, folder / "sweep", cores)
    found = scores(folder / "sweep")
    picked = np.unique(np.linspace(0, len(cells) - 1, launches).round().astype(int)).tolist()
    rows: list[dict[str, Any]] = []
    for number in picked:
        cell = cells[number]
        seconds, busy = launch(config, cell, folder / f"launch-{number}")
        alone, top1 = single_cell(config, number, folder / f"cell-{number}")
        swept = found[cell.variant.layer, cell.subject, cell.seed, str(cell.fold)]
        row = {"cell": str(cell), "launch_s": seconds, "launch_cpu_s": busy, "cell_s": alone}
        rows.append({**row, "top1_alone": top1, "top1_sweep": swept})
    mean = float(np.mean([row["launch_s"] for row in rows]))
    by_seed = [np.std([value for key, value in found.items() if key[:2] == pair]) for pair in {k[:2] for k in found}]
    return {
        "cores": cores,
        "cells": len(cells),
        "sweep_s": whole,
        "sweep_cpu_s": whole_cpu,
        "launch_cpu_s": float(np.mean([row["launch_cpu_s"] for row in rows])),
        "launches_timed": len(rows),
        "launch_s": mean,
        "launches_extrapolated_s": mean * len(cells),
        "times_faster": mean * len(cells) / whole,
        "times_faster_two_thirds": mean * len(cells) / whole * 2 / 3,
        "cell_command_times_faster": float(np.mean([row["cell_s"] for row in rows])) * len(cells) / whole,
        "largest_difference_of_top1": max(abs(row["top1_alone"] - row["top1_sweep"]) for row in rows),
        "deviation_over_seeds_and_folds": float(np.mean(by_seed)),
        "rows": rows,
    }


def told(found: dict[str, Any]) -> str:
    """The lines that are printed."""
    lines = [f"{found['cells']} cells on {found['cores']} cores, validation only"]
    lines.append(f"recon sweep, one process per core: {found['sweep_s']:.0f} s (bar {LARGEST} s)")
    ratio = found["launch_cpu_s"] * found["cells"] / found["sweep_cpu_s"]
    lines.append(
        f"by the processors: sweep {found['sweep_cpu_s']:.0f} s, a launch {found['launch_cpu_s']:.1f} s, all of them "
        f"{ratio:.1f} times the sweep"
    )
    lines.append(
        f"python -m align.train: {found['launch_s']:.1f} s a launch ({found['launches_timed']} timed), extrapolated to "
        f"{found['launches_extrapolated_s']:.0f} s: {found['times_faster']:.1f} times the sweep (bar {TIMES}); 2/3 of "
        f"that for the rows: {found['times_faster_two_thirds']:.1f}"
    )
    lines.append(f"recon sweep --cell, one launch per cell: {found['cell_command_times_faster']:.1f} times the sweep")
    lines += [
        f"  {row['cell']}: launch {row['launch_s']:.1f} s; top-1 alone {row['top1_alone']:.4f}, "
        f"in the sweep {row['top1_sweep']:.4f}"
        for row in found["rows"]
    ]
    lines.append(
        f"largest difference {found['largest_difference_of_top1']:.4f}; deviation over seeds and their folds "
        f"{found['deviation_over_seeds_and_folds']:.4f}"
    )
    return "\n".join(lines)


def main() -> int:
    """0 when both bars are met, 1 when not, 2 with one line on stderr for a mistake of the user."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launches", type=int, default=6, help="single launches to time (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="keep the results here (default: a temporary folder)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=f"laid over {CONFIG.name}")
    options = parser.parse_intermixed_args()
    setup_logging()
    try:
        if options.launches < 1:
            raise UserError(f"--launches {options.launches}: give 1 or more")
        with tempfile.TemporaryDirectory() as place:
            found = measure(settings(options.overrides), options.launches, (options.out or Path(place)).resolve())
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(told(found))
    return 0 if found["sweep_s"] <= LARGEST and found["times_faster"] >= TIMES else 1


if __name__ == "__main__":
    sys.exit(main())

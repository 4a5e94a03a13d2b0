"""Time and memory of universality at the size of a published set: 2,500 pictures, 5,000 dimensions, 3 networks.

    python benchmarks/universality_scale.py                # all of it
    python benchmarks/universality_scale.py --pictures 500 # a quick look

Every network has as many channels as dimensions. Made-up features of a falling spectrum; nothing is read or written.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from align.comparison.predictability import Regression
from align.comparison.universality import universality


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2500)
    parser.add_argument("--dimensions", type=int, default=5000)
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--permutations", type=int, default=200)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    shared, features, dimensions = rng.normal(size=(args.pictures, 100)), {}, {}
    for k in range(args.networks):
        own = rng.normal(size=(args.pictures, args.dimensions))
        own[:, :100] += shared
        dimensions[f"net{k}"] = own / np.arange(1, args.dimensions + 1)
        features[f"net{k}"] = own[:, rng.permutation(args.dimensions)]
    order = rng.permutation(args.pictures)
    folds = [(np.setdiff1d(order, part), np.sort(part)) for part in np.array_split(order, 5)]
    began, worked = time.perf_counter(), time.process_time()
    found = universality(dimensions, features, folds, Regression(), args.permutations, rng)
    wall, cpu = time.perf_counter() - began, time.process_time() - worked
    median = np.concatenate([one.median for one in found.values()])
    print(
        f"{args.pictures} pictures, {args.dimensions} dimensions, {args.networks} networks: {wall:.0f} s,"
        f" CPU {cpu:.0f} s"
    )
    print(f"median universality of shared dimensions {np.median([one.median[:100] for one in found.values()]):.3f}")
    print(f"of the others {np.median([one.median[100:] for one in found.values()]):.3f}; {len(median)} in all")
    print(f"largest memory {peak_memory():.1f} GiB")


def peak_memory() -> float:
    """GiB that the process has held at most (Linux)."""
    with open("/proc/self/status", encoding="utf-8") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


if __name__ == "__main__":
    main()

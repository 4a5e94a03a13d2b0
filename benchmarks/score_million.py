"""Rank among a million candidates: speed, memory and exactness of `align.retrieval.ranks.standing`, beside FAISS where
installed.

    python benchmarks/score_million.py                                          # 1,000 queries x 1,000,000 x 512
    python benchmarks/score_million.py --queries 100 --candidates 20000 --width 128

Prints JSON. ``extra_gib`` is the highest resident memory above that with the data loaded. FAISS (IndexFlatIP, exact)
is asked for its top 5 only, which is less than a rank, and needs its own copy of the candidates.
"""

from __future__ import annotations

import argparse
import importlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from align.retrieval.ranks import standing
from recon.scoring.retrieval import score

PAGE = 4096


def main() -> None:
    """Make data, score it, check a subset against brute force, print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--checked", type=int, default=20, help="queries compared with brute force")
    parser.add_argument("--noise", type=float, default=8.0, help="of a query, over its picture")
    parser.add_argument("--whole", action="store_true", help="time the whole of recon.score too")
    args = parser.parse_args()
    brain, images, index = _data(args)
    seconds, extra, (better, equal) = _watched(lambda: standing(brain, images, index))
    result: dict[str, Any] = {"queries": len(brain), "candidates": len(images), "width": args.width}
    result["ranks"] = {"seconds": seconds, "queries_per_second": len(brain) / seconds, "extra_gib": extra}
    result["median_rank"] = float(np.median(1 + better + equal / 2))
    subset = np.linspace(0, len(brain) - 1, min(args.checked, len(brain))).astype(int)
    brute = np.array([_brute_force(brain[i], images, index[i]) for i in subset])
    result["checked"] = len(subset)
    result["equal_to_brute_force"] = bool((better[subset] == brute).all() and (equal[subset] == 0).all())
    if args.whole:
        names = [str(i) for i in range(len(images))]
        ids = [names[i] for i in index]
        seconds, extra, _ = _watched(lambda: score(brain, images, ids=ids, image_ids=names))
        result["whole_score"] = {"seconds": seconds, "queries_per_second": len(brain) / seconds, "extra_gib": extra}
    result["faiss"] = _faiss(brain, images)
    print(json.dumps(result, indent=2))


def _data(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """brain (n, E), images (K, E), both float32, and the right picture of each row (n,)."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((args.candidates, args.width), dtype=np.float32)
    index = np.sort(rng.choice(args.candidates, args.queries, replace=False))
    noise = rng.standard_normal((args.queries, args.width), dtype=np.float32)
    return images[index] + np.float32(args.noise) * noise, images, index


def _brute_force(query: np.ndarray, images: np.ndarray, target: int) -> int:
    """Candidates of higher cosine than the right one, all in float64."""
    query = query.astype(np.float64)
    cosine = np.concatenate([
        (part := images[start : start + 10_000].astype(np.float64)) @ query / np.linalg.norm(part, axis=1)
        for start in range(0, len(images), 10_000)
    ])  # fmt: skip
    return int((cosine > cosine[target]).sum())


def _faiss(brain: np.ndarray, images: np.ndarray) -> dict[str, Any] | str:
    try:
        faiss = importlib.import_module("faiss")
    except ImportError:
        return "not installed"
    index = faiss.IndexFlatIP(images.shape[1])
    step = 65536
    for start in range(0, len(images), step):
        part = images[start : start + step]
        index.add(part / np.linalg.norm(part, axis=1, keepdims=True))
    unit = brain / np.linalg.norm(brain, axis=1, keepdims=True)
    seconds, _extra, _result = _watched(lambda: index.search(unit, 5))
    return {"version": faiss.__version__, "seconds": seconds, "queries_per_second": len(brain) / seconds}


def _watched(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds, highest resident memory above the start in GiB (looked at every 5 ms), and the result."""
    start, peak, done = _resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    before = time.perf_counter()
    try:
        result = work()
    finally:
        seconds = time.perf_counter() - before
        done.set()
        watcher.join()
    return seconds, max(peak[0] - start, 0) / 2**30, result


def _resident() -> int:
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * PAGE


if __name__ == "__main__":
    main()

"""Do maps of evidence light the object of a simulated picture, and leave null brains dark?

    python benchmarks/evidence_check.py RUN [--generator mini] [--limit 50] [--nulls 100] [--out FILE.json]

RUN: a run on the simulated study, whose pictures are known from their ids: one object on a texture. Printed and stored:

``contains``     share of pictures whose lit region contains the object: at least half of its pixels are lit, and its
                 centre is; bar .90
``inside``       mean lit share of the object's pixels, and ``outside`` of the others'
``null``         lit share of the area under pairs of null brains that took no part in the threshold; bar .05

and ``contains``, ``inside``, ``outside`` once more for maps of the pictures that other stimuli's tokens give, and with
the masks of other pictures' objects over the own maps: what would be lit anyway. Lit everywhere contains everything, so
the first number means something only beside these and beside ``outside``. ``oracle``: true tokens in both halves, i.e.
what a brain that decides everything would light.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

BARS = {"contains": 0.90, "null": 0.05}
_AWAY = -9.0  # where an object is out of the picture


def object_mask(stimulus_id: str) -> np.ndarray:
    """(64, 64) bool: where the rendering with the object differs from the one without."""
    from align.data.studies.simulated.rendering import render, scene_of

    scene = scene_of(stimulus_id)
    without = render(dataclasses.replace(scene, x=_AWAY, y=_AWAY))
    mask: np.ndarray = (render(scene) != without).any(axis=2)
    return mask


def centre(stimulus_id: str, side: int) -> tuple[int, int]:
    """Row and column of the middle of the object."""
    from align.data.studies.simulated.rendering import scene_of

    scene = scene_of(stimulus_id)
    return int(scene.y * side), int(scene.x * side)


def region(lit: np.ndarray, stimulus_id: str) -> dict[str, float]:
    """``lit`` (64, 64) bool against the object of a picture: 1 or 0 for contains, lit shares inside and outside."""
    mask = object_mask(stimulus_id)
    inside = float(lit[mask].mean())
    contains = inside >= 0.5 and bool(lit[centre(stimulus_id, len(lit))])
    return {"contains": float(contains), "inside": inside, "outside": float(lit[~mask].mean())}


def summary(maps: dict[str, np.ndarray], objects: dict[str, str]) -> dict[str, float]:
    """Means of `region` over maps by stimulus id; ``objects``: whose object is looked for in which map."""
    rows = [region(lit, objects[name]) for name, lit in maps.items()]
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def check(run_dir: Path, generator: str, limit: int | None, nulls: int) -> dict[str, Any]:
    """Draw the maps (into the run folder) and compare them with the objects."""
    from align.checkpoint import load_run
    from align.errors import UserError
    from recon.decoding.plan import Sampling
    from recon.drawing.evidence import evidence

    run = load_run(run_dir)
    if run.study != "simulated":
        raise UserError(f"run {run_dir} is of study {run.study!r}; objects are known for simulated pictures alone")
    kept: dict[str, dict[str, np.ndarray]] = {"reconstructions": {}, "shuffled": {}, "oracle": {}}

    def keep(name: str, stimulus_id: str, lit: np.ndarray) -> None:
        kept[name][stimulus_id] = lit

    told = evidence(run, generator, Sampling(), limit, nulls, on_map=keep)
    ids = list(kept["reconstructions"])
    own, others = dict(zip(ids, ids, strict=True)), dict(zip(ids, ids[1:] + ids[:1], strict=True))
    return {
        "run": told["run"],
        "generator": generator,
        "n": len(ids),
        "null": told["null"],
        "median_lit": told["median"],
        "own": summary(kept["reconstructions"], own),
        "shuffled": summary(kept["shuffled"], own),
        "oracle": summary(kept["oracle"], own),
        "objects_of_others": summary(kept["reconstructions"], others),
        "bars": BARS,
        "passed": {
            "contains": summary(kept["reconstructions"], own)["contains"] >= BARS["contains"],
            "null": told["null"]["lit"] <= BARS["null"],
        },
    }


def main(argv: list[str] | None = None) -> None:
    """Print the numbers of one run."""
    parser = argparse.ArgumentParser(description="Maps of evidence against the objects of simulated pictures.")
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--generator", default="mini")
    parser.add_argument("--limit", type=int, help="only the first test pictures")
    parser.add_argument("--nulls", type=int, default=100)
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    args = parser.parse_args(argv)
    found = check(args.run, args.generator, args.limit, args.nulls)
    for name in ("own", "shuffled", "oracle", "objects_of_others"):
        print(f"{name:18s}" + "  ".join(f"{key} {value:.3f}" for key, value in found[name].items()))
    null = found["null"]
    low, high = null["interval"]
    print(f"null brains       lit {null['lit']:.3f} ({low:.3f} to {high:.3f}, n {null['n']}, {null['kind']})")
    print(f"n {found['n']}, bars {found['bars']}, passed {found['passed']}")
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

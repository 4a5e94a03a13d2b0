"""Planted differences of a new person: does Skip-LoRA learn a non-linear one, and lose nothing where it is linear?

    python benchmarks/planted_difference.py

Two people share features and a trunk; the new one has 250 rows. Its features are one-sided in 6 projections of its
signals (no linear map finds them), or linear in them. Printed: mean reciprocal rank among 100 rows that were not
seen, for a linear front, for `lora`, and for `skip_lora` with several weights of L_skip. About 8 minutes on one core.
Needs the tests of this repository beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from align.adaptation.skip_lora import SkipLora
from tests.align.fixture_people import linear_person, one_sided_person
from tests.align.test_adaptation_networks import WIDTHS, config, method, score

WEIGHTS = (1.5, 0.5, 0.15, 0.05, 0.015, 0.0)


def main() -> None:
    torch.set_num_threads(1)
    arms = {"linear": method("linear"), "lora": method("lora")}
    arms |= {f"skip_lora {weight:g}": SkipLora(weight=weight) for weight in WEIGHTS}
    for blocks in (0, 1):
        more = [f"encoder.blocks={blocks}", "train.mixco=0", "target.spread=0", "encoder.skip_rank=8", "train.lr=2e-2"]
        known = [linear_person("a", 200, 12), linear_person("b", 200, 9, seed=1)]
        base = method("lora").share(config("train.epochs=20", *more), known, WIDTHS)
        for draw in range(3):
            settings = config("train.epochs=40", *more, f"seed={draw}")
            one, two = 2 + 10 * draw, 7 + 10 * draw
            people = {
                "one-sided": (one_sided_person(250, 20, one), one_sided_person(100, 20, two)),
                "linear": (linear_person("new", 250, 11, seed=one), linear_person("new", 100, 11, seed=two)),
            }
            for kind, (new, tested) in people.items():
                found = {name: score(arm.adapt(settings, base, new).aligner, tested) for name, arm in arms.items()}
                told = "  ".join(f"{name} {value:.3f}" for name, value in found.items())
                print(f"{blocks} blocks, draw {draw}, {kind}: {told}", flush=True)


if __name__ == "__main__":
    main()

"""Encoding of V4 by five networks, and readouts against ridge: the rule, the commands, and the tables from their files.

    python benchmarks/encoding_v4.py commands STUDY_ROOT WEIGHTS_DIR OUT     # prints what to run
    python benchmarks/encoding_v4.py depth OUT                               # scores over depth, scaling, peaks
    python benchmarks/encoding_v4.py readouts OUT                            # readouts against ridge, paired per unit

The rule, fixed before test rows were scored. Depth: every layer named below, ridge, grouped 4-fold cross-validation on
training pictures of the seven sessions; test pictures are not scored. Readouts: features.9 of SqueezeNet 1.1, the layer
with the highest mean r of ridge over depth; 4 x 4 places, roots of activations, pictures at 112 px; each readout with
its defaults, fitted to 50, 100, 300 and all training pictures (the same ones for all), scored once on the 200 test
pictures of every session, next to ridge. Sizes and steps of readouts that are trained were set on training pictures of
the sessions 190927 and 210224. STUDY_ROOT holds data_V4_responses/; WEIGHTS_DIR holds state dicts of SqueezeNet.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from recon.encoding.peaks import scaling

RESULT = "encoding_pictures-to-responses.json"
SQUEEZE = "features.1 features.3 features.4 features.5 features.6 features.7 features.8 features.9 features.10 features.12 classifier"
LITE = "bn1 blocks.0 blocks.1 blocks.2 blocks.3 blocks.4 blocks.5 blocks.6 bn2 classifier"
READOUTS = ("spatial_feature", "attention", "joint", "in_context")


def commands(root: str, weights: str, out: Path) -> list[str]:
    """One command for each network, then one for each readout."""
    base = f"recon encode --config configs/align/cowley2023_v4.yaml study.root={root} backbone.image_size=112 target.root=true"
    lines = []
    for version in ("1_0", "1_1"):
        own = f"backbone.name=torchvision/squeezenet{version} backbone.weights={weights}/squeezenet{version}_imagenet.safetensors"
        lines.append(f"{base} {own} --layers {SQUEEZE} --folds 4 --permutations 200 --out {out}/depth_s{version}")
    for k in range(3):
        own = f"backbone.name=timm/tf_efficientnet_lite{k}"
        lines.append(f"{base} {own} --layers {LITE} --folds 4 --permutations 200 --out {out}/depth_l{k}")
    own = f"backbone.weights={weights}/squeezenet1_1_imagenet.safetensors --layers features.9 --test --permutations 200"
    for name in READOUTS:
        lines.append(f"{base} {own} --pictures 50,100,300,all --method ridge,{name} --out {out}/check5_{name}")
    return lines


def depth(out: Path) -> None:
    """Tables of check 3."""
    found, parameters = [], {}
    for folder in sorted(out.glob("depth_*")):
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        (network, facts), (peak,) = next(iter(result["backbones"].items())), result["peaks"]
        found.append(peak)
        parameters[network] = facts["parameters"]
        best = max(result["mean"], key=lambda row: row["r"])
        known = {name: entry["ceiling"] for name, entry in result["subjects"].items() if entry["ceiling"]}
        print(f"{network}, {facts['parameters']:,} parameters; ceilings {known}")
        for row in result["mean"]:
            print(
                f"  {row['set']:<14} {_with(row, 'r', 't95')}  corrected {row['corrected']:.3f}  top-1 {_with(row, 'identification', 'identification_t95')}"
            )
        print(
            f"  best over sessions {best['set']}; best of each session: r {_with(peak, 'r', 'r_t95')}, depth {_with(peak, 'depth', 'depth_t95')}, "
            f"top-1 {_with(peak, 'top1', 'top1_t95')}, depth {_with(peak, 'identification_depth', 'identification_depth_t95')}"
        )
    print(json.dumps(scaling(found, parameters), indent=1))


def readouts(out: Path) -> None:
    """Tables of check 5."""
    for name in READOUTS:
        result = json.loads((out / f"check5_{name}" / RESULT).read_text(encoding="utf-8"))
        for row in result["mean"]:
            print(
                f"{row['method']:<16} {row['pictures']!s:>5}  {_with(row, 'r', 't95')}  corrected {row['corrected']:.3f}"
            )
        for pair in result["paired"]:
            p = pair["wilcoxon_p"]
            print(
                f"  {pair['a']} - {pair['b']}, {pair['pictures']}: {_with(pair, 'difference', 't95')}, higher in "
                f"{100 * pair['better']:.0f} % of {pair['units']} units (Wilcoxon p {p:.2g}), p over sessions {pair['p']:.3f}"
            )


def _with(row: dict[str, Any], name: str, interval: str) -> str:
    low, high = row[interval]
    return f"{row[name]:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["commands", "depth", "readouts"])
    parser.add_argument("places", nargs="+")
    args = parser.parse_args()
    if args.what == "commands":
        root, weights, out = args.places
        print("\n".join(commands(root, weights, Path(out))))
    else:
        (depth if args.what == "depth" else readouts)(Path(args.places[0]))


if __name__ == "__main__":
    main()

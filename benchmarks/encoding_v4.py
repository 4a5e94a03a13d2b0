"""Encoding of V4 by five networks, and readouts against ridge: the rule, the commands, and the tables from their files.

    python benchmarks/encoding_v4.py commands STUDY_ROOT WEIGHTS OUT     # prints what to run
    python benchmarks/encoding_v4.py depth OUT                           # scores over depth, scaling, peaks
    python benchmarks/encoding_v4.py readouts OUT                        # readouts against ridge, paired per unit

The rule, fixed before test rows were scored. Depth: every layer named below, ridge, grouped 4-fold cross-validation on
training pictures of the seven sessions; test pictures are not scored. Readouts: features.9 of SqueezeNet 1.1, the layer
with the highest mean r of ridge over depth; 4 x 4 places, roots of activations, pictures at 112 px; each readout with
its defaults, fitted to 50, 100, 300 and all training pictures (the same ones for all), scored once on the 200 test
pictures of every session, next to ridge. Sizes and steps of readouts that are trained were set on training pictures of
the sessions 190927 and 210224. STUDY_ROOT holds data_V4_responses/; WEIGHTS holds state dicts of SqueezeNet.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from recon.encoding.peaks import scaling

RESULT = "encoding_pictures-to-responses.json"
SQUEEZE = "features.1 features.3 features.4 features.5 features.6 features.7 features.8 features.9 features.10"
SQUEEZE = f"{SQUEEZE} features.12 classifier"
LITE = "bn1 blocks.0 blocks.1 blocks.2 blocks.3 blocks.4 blocks.5 blocks.6 bn2 classifier"
READOUTS = ("spatial_feature", "attention", "joint", "in_context")


def commands(root: str, weights: str, out: Path) -> list[str]:
    """One command for each network, then one for each readout."""
    base = f"recon encode --config configs/align/cowley2023_v4.yaml study.root={root} backbone.image_size=112"
    base, scores = f"{base} target.root=true --permutations 200", "--folds 4"

    def squeezenet(version: str) -> str:
        return f"backbone.name=torchvision/{version} backbone.weights={weights}/{version}_imagenet.safetensors"

    lines = []
    for version in ("squeezenet1_0", "squeezenet1_1"):
        lines.append(f"{base} {squeezenet(version)} --layers {SQUEEZE} {scores} --out {out}/depth_{version}")
    for version in ("lite0", "lite1", "lite2"):
        name = f"backbone.name=timm/tf_efficientnet_{version}"
        lines.append(f"{base} {name} --layers {LITE} {scores} --out {out}/depth_{version}")
    own = f"{squeezenet('squeezenet1_1')} --layers features.9 --test --pictures 50,100,300,all"
    return lines + [f"{base} {own} --method ridge,{name} --out {out}/readout_{name}" for name in READOUTS]


def depth(out: Path) -> None:
    """Tables of scores over depth."""
    found, parameters = [], {}
    for folder in sorted(out.glob("depth_*")):
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        (network, facts), (peak,) = next(iter(result["backbones"].items())), result["peaks"]
        found.append(peak)
        parameters[network] = facts["parameters"]
        print(f"{network}, {facts['parameters']:,} parameters")
        for row in result["mean"]:
            top1 = _with(row, "identification", "identification_t95")
            print(f"  {row['set']:<14} {_with(row, 'r', 't95')}  corrected {row['corrected']:.3f}  top-1 {top1}")
        for name in ("r", "depth", "top1", "identification_depth"):
            print(f"  best layer of each session, {name}: {_with(peak, name, f'{name}_t95')}")
    ceilings = {name: entry["ceiling"] for name, entry in result["subjects"].items() if entry["ceiling"]}
    print(json.dumps({"ceilings": ceilings, "scaling": scaling(found, parameters)}, indent=1))


def readouts(out: Path) -> None:
    """Tables of readouts and ridge."""
    for name in READOUTS:
        file = out / f"readout_{name}" / RESULT
        if not file.is_file():  # not run yet
            continue
        result = json.loads(file.read_text(encoding="utf-8"))
        for row in result["mean"]:
            r = f"{_with(row, 'r', 't95')}  corrected {row['corrected']:.3f}"
            print(f"{row['method']:<16} {row['pictures']!s:>5}  {r}")
        for pair in result["paired"]:
            gain = _with(pair, "difference", "t95")
            share = (
                f"higher in {100 * pair['better']:.0f} % of {pair['units']} units, Wilcoxon p {pair['wilcoxon_p']:.2g}"
            )
            print(f"  {pair['a']} - {pair['b']}, {pair['pictures']}: {gain}, {share}, p over sessions {pair['p']:.3f}")


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

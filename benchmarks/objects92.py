"""Layers of networks beside human and monkey IT: 92 object pictures (Kriegeskorte et al. 2008), through `recon rsa`.

    python benchmarks/objects92.py --data ../shared/data/objects92 --weights ../shared/weights --out runs/objects92

``--data``: the .mat files of the public repository rsagroup/rsatoolbox. ``--weights``: SqueezeNet's state dicts. Makes
a folder of pictures and .npy files, then runs the command on the trained and on the untrained networks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat

from align.comparison.rdm import pairs_of
from recon import cli

SQUEEZENETS = ("squeezenet1_0", "squeezenet1_1")
LITE = tuple(f"timm/tf_efficientnet_lite{k}" for k in range(3))


def convert(data: Path, out: Path) -> list[str]:
    """Pictures by number, monkey IT (1, 92, 92), human IT of four subjects (mean of sessions); words."""
    supplement = loadmat(data / "Kriegeskorte_Neuron2008_supplementalData.mat")
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(supplement["stimuli_92objs"].flat):
        Image.fromarray(picture["image"]).save(out / "pictures" / f"{number:02d}.png")
    by_name = {str(one["name"].item())[:3]: one["RDM"].ravel() for one in supplement["RDMs_mIT_hIT_fig1"].flat}
    monkey = np.zeros((92, 92))
    monkey[pairs_of(92)] = by_name["mIT"]
    human = np.array(
        [[one["RDM"] for one in row] for row in loadmat(data / "92_brainRDMs.mat")["RDMs"][0]], dtype=float
    )
    human = human.mean(axis=1)
    human = (human + human.transpose(0, 2, 1)) / 2  # float32 triangles differ in the last digit
    human[:, np.arange(92), np.arange(92)] = 0
    np.save(out / "monkey.npy", monkey + monkey.T)
    np.save(out / "human.npy", human)
    return ["--rdm", f"monkey IT={out / 'monkey.npy'}", "--rdm", f"human IT={out / 'human.npy'}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rdms = convert(args.data, args.out)
    names = ["mini", *(f"torchvision/{name}" for name in SQUEEZENETS), *LITE]
    weights = {f"torchvision/{name}": f"@{args.weights / name}_imagenet.safetensors" for name in SQUEEZENETS}
    kinds = {
        "trained": ",".join(name + weights.get(name, "") for name in names),
        "untrained": ",".join(f"{name}@untrained" for name in names),
    }
    for kind, backbones in kinds.items():
        words = [
            "rsa",
            "--backbones",
            backbones,
            "--images",
            str(args.out / "pictures"),
            *rdms,
            "--boot",
            "500",
        ]
        if cli.main([*words, "--overwrite", "--out", str(args.out / kind), f"cache_dir={args.out / 'cache'}"]):
            raise SystemExit(2)


if __name__ == "__main__":
    main()

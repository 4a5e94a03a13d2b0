"""Does a generator obey true tokens? Photographs that nobody trained on, their tokens, pictures drawn from noise.

    python benchmarks/generator_check.py --pictures photographs.zip [--v4 V4_compact_models] --out DIR

For every set of pictures (``--pictures``: some of a zip file or folder; ``--v4``: the test pictures of each recording
session): PixCorr, power beyond 8 cycles over that of the seen pictures, two-way identification by both judges and how
often the target is the nearest of its set, for the drawn pictures, for the conditioner's sketch and for the VAE alone;
then drawn minus sketch, paired over pictures. ``DIR`` gets ``scores.json`` and a sheet of the first pictures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recon.metrics.feature_nets import FeatureNets
from recon.metrics.fine_power import fine_power_ratios
from recon.metrics.identification import correlations, two_way_of
from recon.metrics.metrics import METRICS
from recon.metrics.stats import bootstrap_ci, sign_flip_p

JUDGES = ("efficientnet_lite0", "squeezenet1_0")
SHOWN = 24


def main() -> None:
    """Draw, score, print, store."""
    options = _options()
    from align.config import BackboneConfig
    from align.vision.backbones import load_backbone
    from recon.generation.conditioner import read_info
    from recon.generation.pipeline import Generator, find_conditioner

    path = options.conditioner or find_conditioner(options.backbone, options.layer, options.pooling, Path.cwd())
    info = read_info(path)
    backbone = load_backbone(BackboneConfig(info.backbone, options.weights))
    model = Generator.load(options.generator, path)
    files = {"squeezenet1_0": options.judge_weights} if options.judge_weights else {}
    nets = FeatureNets(files=files)
    out: dict[str, Any] = {"conditioner": str(path), "guidance": options.guidance, "steps": options.steps, "sets": {}}
    for name, images in _sets(options).items():
        tokens = _tokens(backbone, images, info)
        seen = torch.cat([_fitted(image, model.size) for image in images])
        noise = list(range(options.seed, options.seed + len(tokens)))
        drawn = model.generate(tokens, noise, options.steps, options.guidance, progress=name)
        rows = {"drawn": drawn, "sketch": _sketched(model, tokens), "vae": _through(model, seen)}
        rows = {kind: pictures for kind, pictures in rows.items() if pictures is not None}
        out["sets"][name] = _scores(rows, seen, nets, options.seed)
        _sheet(Path(options.out) / f"{name}.png", seen, rows)
        print(
            name, json.dumps({kind: {k: v["value"] for k, v in row.items()} for kind, row in out["sets"][name].items()})
        )
        nets.clear()
    Path(options.out).mkdir(parents=True, exist_ok=True)
    (Path(options.out) / "scores.json").write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--pictures", help="zip file or folder of photographs")
    add("--n", type=int, default=400, help="how many of them, evenly spaced by name (default: %(default)s)")
    add("--v4", help="folder that holds data_V4_responses/")
    add("--generator", default="mini")
    add("--conditioner", type=Path, help="default: the one that fits --backbone, --layer, --pooling")
    add("--backbone", default="torchvision/squeezenet1_1")
    add("--layer", default="features.6")
    add("--pooling", default="grid:7")
    add("--weights", help="of the backbone")
    add("--judge-weights", help="of SqueezeNet 1.0")
    add("--guidance", type=float)
    add("--steps", type=int)
    add("--seed", type=int, default=0)
    add("--out", required=True)
    return parser.parse_args()


def _sets(options: argparse.Namespace) -> dict[str, list[np.ndarray]]:
    """Pictures uint8 (H, W, 3) by the name of their set."""
    from align.data.studies.cowley2023 import test_images_of
    from recon.pretraining.pictures import read_source

    sets = {}
    if options.pictures:
        every = [image for _, image in read_source(Path(options.pictures))]
        sets["photographs"] = [every[i] for i in np.linspace(0, len(every) - 1, options.n).astype(int)]
    if options.v4:
        sets |= test_images_of(options.v4)
    return sets


def _tokens(backbone: Any, images: list[np.ndarray], info: Any) -> torch.Tensor:
    tensors = [torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255 for image in images]
    batches = [torch.stack(tensors[i : i + 32]) for i in range(0, len(tensors), 32)]
    return torch.cat([backbone.tokens(batch, [info.layer], info.pooling)[info.layer].float() for batch in batches])


def _fitted(image: np.ndarray, size: int) -> torch.Tensor:
    """(1, 3, size, size) in [0, 1]."""
    from PIL import Image

    small = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 255


@torch.no_grad()
def _sketched(model: Any, tokens: torch.Tensor) -> torch.Tensor | None:
    parts = [model.sketched(batch) for batch in tokens.split(64)]
    return None if parts[0] is None else torch.cat(parts)


@torch.no_grad()
def _through(model: Any, seen: torch.Tensor) -> torch.Tensor:
    return torch.cat([model.decode(model.encode(batch)) for batch in seen.split(64)])


def _scores(rows: dict[str, torch.Tensor], seen: torch.Tensor, nets: FeatureNets, seed: int) -> dict[str, Any]:
    values: dict[str, dict[str, np.ndarray]] = {
        kind: {"PixCorr": METRICS["PixCorr"](x, seen)} for kind, x in rows.items()
    }
    for judge in JUDGES:
        truth = nets.features(judge, seen)
        for kind, pictures in rows.items():
            r = correlations(nets.features(judge, pictures), truth)
            values[kind][f"two_way {judge}"] = two_way_of(r)
            values[kind][f"nearest {judge}"] = (r.argmax(0) == np.arange(len(r))).astype(float)
    out: dict[str, Any] = {
        kind: {name: _summary(value, seed) for name, value in row.items()} for kind, row in values.items()
    }
    for kind, power in fine_power_ratios(rows, seen, seed=seed).items():
        out[kind]["fine_power"] = power
    if "sketch" in rows:
        gain = {name: values["drawn"][name] - values["sketch"][name] for name in values["drawn"]}
        out["drawn minus sketch"] = {
            name: {**_summary(value, seed), "p": sign_flip_p(value, seed=seed)} for name, value in gain.items()
        }
    return out


def _summary(values: np.ndarray, seed: int) -> dict[str, Any]:
    return {"value": float(values.mean()), "ci95": bootstrap_ci(values, seed=seed), "n": len(values)}


def _sheet(path: Path, seen: torch.Tensor, rows: dict[str, torch.Tensor]) -> None:
    """Seen pictures, below them each row, the first `SHOWN` of the set."""
    from PIL import Image

    lines = [torch.cat(list(x[:SHOWN]), dim=2) for x in (seen, *rows.values())]
    sheet = (torch.cat(lines, dim=1).permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)


if __name__ == "__main__":
    main()

"""Speed of `recon.evaluate_images` beside the loop over pictures that published evaluations run, on equal work.

    python benchmarks/evaluate_images.py                              # 1,000 pairs of 256 px, two threads
    python benchmarks/evaluate_images.py --pictures 100 --repeats 3 --weights-dir FOLDER

Both score PixCorr, SSIM, and two-way identification by AlexNet(2), AlexNet(5) and SqueezeNet 1.1, from the same
folders of PNG.

The loop follows Brain-Diffuser's ``evaluate_reconstruction.py`` and ``eval_extract_features.py``: every pass opens the
files anew; per picture a resize to 425 px, ``np.corrcoef``, ``rgb2gray`` and scikit-image's ``structural_similarity``;
one ``np.corrcoef`` over all features. Its networks are fed one picture at a time, and are cut behind the node that is
read, as in MindEye's notebook; like both it runs AlexNet once for each of its rows, where `evaluate_images` reads both
nodes in one pass. Brain-Diffuser feeds 64 at a time: timed as ``loop_networks_by_64``. Both loops load
their networks beforehand, `evaluate_images` reads and hashes the weights within its time and adds intervals.

Without ``--weights-dir`` the networks have random weights: that changes the scores, not the work. Prints JSON;
``factor`` is of the whole, ``factor_pixels`` of PixCorr and SSIM alone; ``extra_gib`` is the highest resident memory
above that at the start. On a busy machine the times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from recon import evaluate_images
from recon.metrics.networks import IMAGENET, NETWORKS

PIXELS = ("PixCorr", "SSIM")
NODES = {"AlexNet(2)": "alexnet_2", "AlexNet(5)": "alexnet_5", "SqueezeNet(1.1)": "squeezenet1_1"}
BARS = {"factor": 3.0, "difference": 1e-5}


def main() -> None:
    """Make pictures, score them both ways in turn, print times and differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=1, help="each way in turn; the quickest time counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights-dir", type=Path, help="folder with the official weights (default: random ones)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        sides = write_pictures(Path(folder), args.pictures, args.size)
        weights = args.weights_dir or random_weights(Path(folder))
        models = {name: cut_network(network, weights) for name, network in NODES.items()}
        few = write_pictures(Path(folder) / "few", 4, args.size)
        published(*few, models, 1)  # first calls import and allocate
        ours(*few, weights, (*PIXELS, *NODES))
        ways: dict[str, Callable[[], Any]] = {
            "loop": lambda: published(*sides, models, 1),
            "evaluate_images": lambda: ours(*sides, weights, (*PIXELS, *NODES)),
            "loop_networks_by_64": lambda: published(*sides, models, 64),
            "loop_pixels": lambda: published(*sides, {}, 1),
            "evaluate_images_pixels": lambda: ours(*sides, weights, PIXELS),
            "evaluate_images_with_controls": lambda: ours(*sides, weights, (*PIXELS, *NODES), controls=True),
        }
        rounds = [{name: watched(way) for name, way in ways.items()} for _ in range(args.repeats)]
    facts: dict[str, Any] = {"pictures": args.pictures, "size": args.size, "threads": torch.get_num_threads()}
    facts["weights"] = "official" if args.weights_dir else "random"
    print(json.dumps({**facts, **report(rounds)}, indent=2))


def write_pictures(folder: Path, n: int, size: int) -> tuple[Path, Path]:
    """Folders of smooth random targets and of copies mostly of something else, ``<i>.png``."""
    rng = np.random.default_rng(0)
    sides = (folder / "recons", folder / "targets")
    for side in sides:
        side.mkdir(parents=True)
    for i in range(n):
        coarse = torch.from_numpy(rng.random((2, 3, 16, 16), dtype=np.float32))
        truth, other = interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1).permute(0, 2, 3, 1).numpy()
        recon = np.clip(0.2 * truth + 0.8 * other + 0.05 * rng.normal(size=truth.shape), 0, 1)
        for side, pixels in zip(sides, (recon, truth), strict=True):
            Image.fromarray(np.round(255 * pixels).astype(np.uint8)).save(side / f"{i}.png")
    return sides


def random_weights(folder: Path) -> Path:
    """Freshly initialised networks as weights files, under the names that are looked for."""
    import torchvision

    torch.manual_seed(0)
    for network in ("alexnet_2", "squeezenet1_1"):
        model = getattr(torchvision.models, NETWORKS[network].stem)(weights=None)
        torch.save(model.state_dict(), folder / NETWORKS[network].file)
    return folder


def cut_network(network: str, folder: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """The torchvision network up to its node, as `create_feature_extractor` gives it, for pictures in [0, 1]."""
    import torchvision
    from torchvision.models.feature_extraction import create_feature_extractor

    spec = NETWORKS[network]
    model = getattr(torchvision.models, spec.stem)(weights=None)
    (path,) = folder.glob(f"{spec.stem}*.pth")
    model.load_state_dict(torch.load(path, weights_only=True))
    nodes = create_feature_extractor(model.eval(), {spec.node: "node"})
    normalize = torchvision.transforms.Normalize(*IMAGENET)

    def features(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = nodes(normalize(resize(images, spec.size)))["node"]
        return found.mean((2, 3)) if spec.pool else found.flatten(1)

    return features


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """`torchvision.transforms.Resize` as torchvision 0.16 did it on tensors: bilinear, no antialiasing."""
    from torchvision.transforms.functional import InterpolationMode
    from torchvision.transforms.functional import resize as torchvision_resize

    return torchvision_resize(images, [size, size], InterpolationMode.BILINEAR, antialias=False)


def published(
    recons: Path, targets: Path, models: dict[str, Callable[[torch.Tensor], torch.Tensor]], batch: int
) -> dict[str, np.ndarray]:
    """Values per picture of each metric, (n,), by the loop."""
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity

    n = len(list(targets.iterdir()))
    found: dict[str, Any] = {"PixCorr": [], "SSIM": []}
    how: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    for i in range(n):
        a, b = (resize(opened(side, [i]), 425)[0].permute(1, 2, 0).numpy() for side in (recons, targets))
        found["PixCorr"].append(np.corrcoef(a.reshape(1, -1), b.reshape(1, -1))[0, 1])
        found["SSIM"].append(structural_similarity(rgb2gray(a), rgb2gray(b), **how))
    for name, model in models.items():
        told, truth = (
            np.concatenate([model(opened(side, range(i, min(i + batch, n)))).numpy() for i in range(0, n, batch)])
            for side in (recons, targets)
        )
        r = np.corrcoef(truth, told)[:n, n:]
        found[name] = (r < np.diag(r)).sum(0) / (n - 1)
    return {name: np.asarray(values) for name, values in found.items()}


def opened(side: Path, numbers: Iterable[int]) -> torch.Tensor:
    """Pictures of a folder as float (b, 3, H, W) in [0, 1]."""
    pixels = np.stack([np.asarray(Image.open(side / f"{number}.png")) for number in numbers])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def ours(
    recons: Path, targets: Path, weights: Path, metrics: tuple[str, ...], controls: bool = False
) -> dict[str, np.ndarray]:
    """Values per picture of each metric, (n,), by `evaluate_images`; intervals are computed too."""
    table = evaluate_images(recons, targets, metrics=metrics, n_way=(), weights_dir=weights, controls=controls)
    assert not table.attrs["skipped"], table.attrs["skipped"]
    return {name: np.asarray(table.attrs["per_stimulus"][name]) for name in metrics}


@dataclass
class Watched:
    """Wall and processor seconds, highest resident memory above the start in GiB, values per picture."""

    seconds: float
    cpu_seconds: float
    extra_gib: float
    values: dict[str, np.ndarray]


def watched(work: Callable[[], dict[str, np.ndarray]]) -> Watched:
    """Run ``work``; memory is looked at every 5 ms."""
    start, peak, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    before, cpu = time.perf_counter(), time.process_time()
    try:
        values = work()
    finally:
        seconds, cpu = time.perf_counter() - before, time.process_time() - cpu
        done.set()
        watcher.join()
    return Watched(seconds, cpu, max(peak[0] - start, 0) / 2**30, values)


def resident() -> int:
    """Resident memory of this process in bytes (Linux)."""
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def report(rounds: list[dict[str, Watched]]) -> dict[str, Any]:
    """Times, factors and differences, ready for JSON."""
    best = {
        name: {key: min(getattr(told[name], key) for told in rounds) for key in ("seconds", "cpu_seconds")}
        | {"extra_gib": max(told[name].extra_gib for told in rounds)}
        for name in rounds[0]
    }
    loop, own = rounds[0]["loop"].values, rounds[0]["evaluate_images"].values
    means = {name: abs(float(own[name].mean() - loop[name].mean())) for name in own}

    def factor(slow: str, quick: str = "evaluate_images") -> float:
        return best[slow]["seconds"] / best[quick]["seconds"]

    return {
        **best,
        "factor": factor("loop"),
        "factor_networks_by_64": factor("loop_networks_by_64"),
        "factor_pixels": factor("loop_pixels", "evaluate_images_pixels"),
        "difference_of_scores": means,
        "largest_difference_of_a_picture": {name: float(np.abs(own[name] - loop[name]).max()) for name in own},
        "scores": {name: float(values.mean()) for name, values in own.items()},
        "passed": factor("loop") >= BARS["factor"] and max(means.values()) <= BARS["difference"],
    }


if __name__ == "__main__":
    main()

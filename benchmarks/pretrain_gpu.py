"""What `pretrain_gpu.sh` does before and after the training on a GPU that sees nothing but one small folder.

pack     photographs (64 px JPEG, evenly spaced, V4 training pictures among them, no twin of a test picture), classes,
         SqueezeNet's weights and the parts trained so far: one folder of at most 60 MB
resume   the parts of a folder become finished stages, or the starting weights of the one that was cut off
collect  finished stages and the averages of the one that was cut off, half precision, in pieces of at most 15 MB
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from align.files import read_tensors, save_tensors
from recon.config import STAGES, PicturesConfig
from recon.pretraining.parts import DONE
from recon.pretraining.pictures import read_photographs

LIMIT, PIECE = 60e6, 15_000_000  # bytes
PARTS = "parts.safetensors"


def pack(options: argparse.Namespace) -> None:
    """Write the folder that travels; the share of the photographs is what fits."""
    out = Path(options.folder)
    out.mkdir(parents=True, exist_ok=True)
    sources = PicturesConfig(photographs=options.photographs, classes=options.classes, v4_root=options.v4)
    every = [(name, _jpeg(image)) for name, image in read_photographs(sources)]
    (out / "classes.csv").write_bytes(Path(options.classes).read_bytes())
    weights, _ = read_tensors(options.squeezenet)
    save_tensors(out / "squeezenet.safetensors", weights)
    others = sum(path.stat().st_size for path in out.iterdir() if path.name != "photographs.zip")
    room = LIMIT - 2e6 - others
    n = min(len(every), int(len(every) * room / sum(len(data) + 2 * len(name) + 120 for name, data in every)))
    with zipfile.ZipFile(out / "photographs.zip", "w", zipfile.ZIP_STORED) as archive:
        for i in np.linspace(0, len(every) - 1, n).astype(int):
            archive.writestr(f"{Path(every[i][0]).with_suffix('')}.jpg", every[i][1])
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{n} of {len(every)} photographs, {size / 1e6:.1f} MB")
    if size > LIMIT:
        raise SystemExit(f"{out} has {size / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}")


def resume(options: argparse.Namespace) -> None:
    """From the pieces in ``folder`` to ``run``; prints what ``recon pretrain`` needs to know of them."""
    pieces = sorted(Path(options.folder).glob(f"{PARTS}.*"))
    run = Path(options.run)
    run.mkdir(parents=True, exist_ok=True)
    if pieces:
        joined = run / PARTS
        joined.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
        tensors, facts = read_tensors(joined)
        for stage, finished in json.loads(facts["stages"]).items():
            own = {key.partition("|")[2]: x.float() for key, x in tensors.items() if key.startswith(f"{stage}|")}
            save_tensors(run / (stage if finished else f"start/{stage}") / DONE, own)
        if "tokenizer" in facts:
            (run / "clip").mkdir(exist_ok=True)
            (run / "clip" / "tokenizer.json").write_text(facts["tokenizer"], encoding="utf-8")
    print(f"start_from={run / 'start'}" if (run / "start").is_dir() else "start_from=null")


def collect(options: argparse.Namespace) -> None:
    """From ``run`` to pieces in ``folder``."""
    run, out = Path(options.run), Path(options.folder)
    out.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    stages = {}
    for stage in STAGES:
        finished = (run / stage / DONE).is_file()
        path = run / stage / (DONE if finished else "state.safetensors")
        if not path.is_file():
            continue
        stages[stage] = finished
        own = read_tensors(path)[0] if finished else _averages(path)
        tensors |= {f"{stage}|{key}": x.half() if x.is_floating_point() else x for key, x in own.items()}
    tokenizer = run / "clip" / "tokenizer.json"
    facts = {"tokenizer": tokenizer.read_text(encoding="utf-8")} if tokenizer.is_file() else {}
    save_tensors(run / PARTS, tensors, {"stages": json.dumps(stages), **facts})
    for old in out.glob(f"{PARTS}.*"):
        old.unlink()
    data = (run / PARTS).read_bytes()
    for k, start in enumerate(range(0, len(data), PIECE)):
        (out / f"{PARTS}.{k:02d}").write_bytes(data[start : start + PIECE])
    print(
        f"{len(data) / 1e6:.1f} MB: "
        + ", ".join(f"{name}{'' if done else ' (cut off)'}" for name, done in stages.items())
    )


def _averages(path: Path) -> dict[str, torch.Tensor]:
    """The moving averages in a state of `run_stage`, under the names of the parts, or the weights where it has none."""
    with safe_open(str(path), framework="pt") as file:
        names = file.keys()
        keys = [key for key in names if not key.startswith("optimizer/")]
        averaged = [key for key in keys if key.startswith("ema.")]
        return {key.removeprefix("ema."): file.get_tensor(key) for key in averaged or keys}


def _jpeg(image: np.ndarray) -> bytes:
    small = Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "jpeg", quality=90)
    return buffer.getvalue()


def main() -> None:
    """Grammar of the three steps."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(required=True)
    step = steps.add_parser("pack")
    step.add_argument("folder")
    step.add_argument("--photographs", nargs="+", required=True)
    step.add_argument("--classes", required=True)
    step.add_argument("--v4")
    step.add_argument("--squeezenet", required=True)
    step.set_defaults(run_step=pack)
    for name, function in (("resume", resume), ("collect", collect)):
        step = steps.add_parser(name)
        step.add_argument("folder")
        step.add_argument("run")
        step.set_defaults(run_step=function)
    options = parser.parse_args()
    options.run_step(options)


if __name__ == "__main__":
    main()

"""Predicted tokens to picture files, with the controls that need the generator; resumable picture by picture.

    <run>/reconstructions/<generator>/sub-01/<safe id>_seed-0.png    from the predicted tokens
    <run>/controls/shuffled/<generator>/sub-01/...                   from another stimulus's predicted tokens
    <run>/controls/zero_brain/<generator>/sub-01/...                 from the tokens of all-zero signals
    <run>/controls/oracle/<generator>/sub-01/...                     from the true tokens of the picture that was seen

Every folder has an index.csv. The starting noise of a stimulus is the same in all four.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from align.errors import UserError
from align.files import atomic_path, write_atomic
from align.seeding import derive

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.generation.pipeline import Generator

CONTROLS = ("shuffled", "zero_brain", "oracle")
INDEX_COLUMNS = ("stimulus_id", "file", "seed", "noise_seed", "tokens_of", "run", "settings")
_LARGE = 10**8  # bytes
_LONGEST = 150  # characters of a file name; ids beyond it keep their start and gain a hash


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled. None = the generator's own default. ``batch_size`` never changes a picture."""

    seed: int = 0
    steps: int | None = None
    guidance_scale: float | None = None
    batch_size: int = 32


@dataclass(frozen=True)
class PictureSet:
    """One folder to fill: ``tokens`` (n, N, D) for ``ids``; ``tokens_of`` names whose tokens row i holds."""

    name: str
    folder: Path
    ids: tuple[str, ...]
    tokens: np.ndarray
    tokens_of: tuple[str, ...]
    run_id: str


def generate(
    run: Run,
    generator: str = "mini",
    out: Path | None = None,
    sampling: Sampling = Sampling(),
    controls: Sequence[str] = CONTROLS,
    limit: int | None = None,
) -> dict[str, Any]:
    """Sample one picture per test stimulus, and per control, into ``out`` (default: the run folder).

    ``generator``: name or folder of a generator; its conditioner must fit the run's backbone, layer and pooling, else
    `UserError` names the command that trains one. ``limit``: only the first stimuli, in the order of the split.
    Returns folders, number of pictures and settings.
    """
    from align.checkpoint import home
    from recon.generation.pipeline import Generator, find_conditioner
    from recon.predict import load_predictions

    if limit is not None and limit < 2:
        raise UserError(f"--limit {limit} should be 2 or more: the shuffled control needs another stimulus")
    if sampling.steps is not None and sampling.steps < 1:
        raise UserError(f"--steps {sampling.steps} should be 1 or more")
    predictions = load_predictions(run)
    if predictions.tokens is None or predictions.zero_tokens is None:
        raise UserError(f"run {run.path} predicts no tokens (loss.regression 0); train one with loss.regression=1")
    target = run.config.target
    conditioner = find_conditioner(run.config.backbone.name, target.layer, target.pooling, home(), generator)
    model = Generator.load(generator, conditioner=conditioner)
    weights = fingerprint(generator, conditioner)
    n = len(predictions.ids) if limit is None else min(limit, len(predictions.ids))
    ids, tokens = predictions.ids[:n], predictions.tokens[:n]
    label, base = generator_label(generator), out or run.path
    sets = [
        PictureSet(
            "reconstructions", reconstruction_folder(base, label, run.subject), ids, tokens, ids, predictions.run_id
        )
    ]
    for control in controls:
        control_tokens, owners = _control(control, run, ids, tokens, predictions.zero_tokens, sampling.seed)
        folder = control_folder(base, control, label, run.subject)
        sets.append(PictureSet(control, folder, ids, control_tokens, owners, predictions.run_id))
    made = {item.name: draw(model, item, sampling, weights) for item in sets}
    return {
        "study": run.study,
        "subject": run.subject,
        "run": str(run.path),
        "layer": target.layer,
        "generator": label,
        "n_stimuli": n,
        "sampled": sum(made.values()),
        "folders": {item.name: str(item.folder) for item in sets},
    }


def fingerprint(generator: str, conditioner: Path) -> str:
    """16 digits that change with the generator's folder or the conditioner: content of small files, size and time of
    files beyond 100 MB."""
    from recon.generation.assets import mini_folder

    folder = mini_folder() if generator == "mini" else Path(generator).expanduser()
    digest = hashlib.sha256(conditioner.read_bytes())
    for path in sorted(found for found in folder.rglob("*") if found.suffix in (".safetensors", ".json")):
        stat = path.stat()
        content = path.read_bytes() if stat.st_size < _LARGE else str((stat.st_size, stat.st_mtime_ns)).encode()
        digest.update(str(path.relative_to(folder)).encode() + hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def generator_label(generator: str) -> str:
    """Folder name of a generator: its own name, or the last part of its path or hub id."""
    return quote(generator.rstrip("/").rsplit("/", 1)[-1], safe="") or "generator"


def reconstruction_folder(base: Path, label: str, subject: str) -> Path:
    """Folder of the pictures from predicted tokens."""
    return base / "reconstructions" / label / f"sub-{subject}"


def control_folder(base: Path, control: str, label: str, subject: str) -> Path:
    """Folder of the pictures of one control."""
    return base / "controls" / control / label / f"sub-{subject}"


def draw(model: Generator, pictures: PictureSet, sampling: Sampling, weights: str) -> int:
    """Sample the pictures that the folder does not yet hold under the same settings; returns how many were sampled.

    ``weights`` names the generator's weights (`fingerprint`). Rows of other seeds of the same run stay in the index.
    """
    import torch

    from align.tracking import progress_bar

    rows, noise = _plan(weights, pictures, sampling)
    known = read_index(pictures.folder)
    others = [row for row in known if row["seed"] != str(sampling.seed) and row["run"] == pictures.run_id]
    kept = {(row["file"], row["settings"]) for row in known}
    have = [(row["file"], row["settings"]) in kept and (pictures.folder / row["file"]).is_file() for row in rows]
    todo = [i for i, found in enumerate(have) if not found]
    options: dict[str, Any] = {"steps": sampling.steps, "guidance_scale": sampling.guidance_scale}
    options = {name: value for name, value in options.items() if value is not None}
    with progress_bar(len(todo), f"generate {pictures.name}", show=bool(todo), unit="picture") as bar:
        for start in range(0, len(todo), sampling.batch_size):
            batch = todo[start : start + sampling.batch_size]
            tokens = torch.from_numpy(np.ascontiguousarray(pictures.tokens[batch]))
            images = model.generate(tokens, [noise[i] for i in batch], batch_size=sampling.batch_size, **options)
            for i, image in zip(batch, images.cpu().numpy(), strict=True):
                _write_png(pictures.folder / rows[i]["file"], image)
                have[i] = True
            _write_index(pictures.folder, others + [row for row, found in zip(rows, have, strict=True) if found])
            bar.update(len(batch))
    if not todo:
        _write_index(pictures.folder, others + rows)
    return len(todo)


def derangement(n: int, seed: int) -> np.ndarray:
    """A permutation (n,) without fixed point, a pure function of ``seed``: one random cycle (Sattolo 1986)."""
    if n < 2:
        raise UserError(f"the shuffled control needs at least 2 stimuli, not {n}")
    rng = np.random.default_rng(derive(seed, "shuffled"))
    order = np.arange(n)
    for i in range(n - 1, 0, -1):
        j = int(rng.integers(0, i))
        order[[i, j]] = order[[j, i]]
    return order


def safe_names(ids: Sequence[str]) -> list[str]:
    """File-name stems for stimulus ids: percent-encoded, short, distinct also where letter case does not count."""
    seen: set[str] = set()
    names = []
    for stimulus_id in ids:
        name = quote(stimulus_id, safe="")
        if name.startswith("."):
            name = "%2E" + name[1:]
        if not name or len(name) > _LONGEST or name.casefold() in seen:
            name = f"{name[: _LONGEST - 13]}~{hashlib.sha256(stimulus_id.encode()).hexdigest()[:12]}"
        seen.add(name.casefold())
        names.append(name)
    return names


def read_index(folder: Path) -> list[dict[str, str]]:
    """Rows of a folder's index.csv; empty where there is none."""
    path = folder / "index.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and not set(INDEX_COLUMNS) <= set(rows[0]):
        raise UserError(
            f"{str(path)!r} lacks a column among {', '.join(INDEX_COLUMNS)}; delete the folder and generate again"
        )
    return rows


def _control(
    name: str, run: Run, ids: tuple[str, ...], tokens: np.ndarray, zero: np.ndarray, seed: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Tokens (n, N, D) of one control, and whose they are."""
    if name == "shuffled":
        order = derangement(len(ids), seed)
        return tokens[order], tuple(ids[i] for i in order)
    if name == "zero_brain":
        return np.broadcast_to(zero, tokens.shape), ("",) * len(ids)
    if name == "oracle":
        return true_tokens(run, ids), ids
    raise UserError(f"control {name!r} is not known; known: {', '.join(CONTROLS)}")


def true_tokens(run: Run, ids: Sequence[str]) -> np.ndarray:
    """Tokens (n, N, D) float32 that the backbone gives for the pictures themselves, from the targets cache."""
    from recon.predict import open_recording, picture_tokens

    recording = open_recording(run)
    row = {stimulus_id: i for i, stimulus_id in enumerate(recording.stimuli.ids)}
    return np.asarray(picture_tokens(run, recording)[[row[stimulus_id] for stimulus_id in ids]], dtype=np.float32)


def _plan(weights: str, pictures: PictureSet, sampling: Sampling) -> tuple[list[dict[str, str]], list[int]]:
    """The index rows of a finished folder, and the noise seed of each; ``settings`` changes with what changes a row."""
    noise = [derive(sampling.seed, "noise", stimulus_id) % 2**31 for stimulus_id in pictures.ids]
    rows = []
    for i, name in enumerate(safe_names(pictures.ids)):
        options = [weights, sampling.steps, sampling.guidance_scale, noise[i]]
        digest = hashlib.sha256(json.dumps(options).encode())
        digest.update(np.ascontiguousarray(pictures.tokens[i]).tobytes())
        values = (
            pictures.ids[i],
            f"{name}_seed-{sampling.seed}.png",
            str(sampling.seed),
            str(noise[i]),
            pictures.tokens_of[i],
            pictures.run_id,
            digest.hexdigest()[:16],
        )
        rows.append(dict(zip(INDEX_COLUMNS, values, strict=True)))
    return rows, noise


def _write_png(path: Path, image: np.ndarray) -> None:
    """``image``: float (3, H, W) in [0, 1]."""
    from PIL import Image

    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def _write_index(folder: Path, rows: list[dict[str, str]]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, INDEX_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / "index.csv", buffer.getvalue())

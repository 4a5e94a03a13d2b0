"""Predicted tokens to picture files, with the controls that need the generator; resumable picture by picture.

    <run>/reconstructions/<generator>/sub-01/<safe id>_seed-0.png    from the predicted tokens
    <run>/controls/shuffled/<generator>/sub-01/...                   from another stimulus's predicted tokens
    <run>/controls/zero_brain/<generator>/sub-01/...                 from the tokens of all-zero signals
    <run>/controls/oracle/<generator>/sub-01/...                     from the true tokens of the picture that was seen

Every folder has an index.csv. The starting noise of a stimulus is the same in all four. Pictures made through a public
adapter lie under <generator>_<adapter>_<bridge>.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from align.errors import UserError
from align.files import atomic_path, write_atomic
from align.seeding import derive

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run
    from recon.generation.bridges.choose import Conditioning
    from recon.generation.pipeline import Generator
    from recon.generation.runtime import Runtime

CONTROLS = ("shuffled", "zero_brain", "oracle")
INDEX_COLUMNS = ("stimulus_id", "file", "seed", "noise_seed", "tokens_of", "run", "settings")
# latents (B, C, h, w) of the pictures by then, index of the step, rows (B,) of the set; returns latents
Hook = Callable[["torch.Tensor", int, np.ndarray], "torch.Tensor"]
_LARGE = 10**8  # bytes
_LONGEST = 150  # characters of a file name; ids beyond it keep their start and gain a hash


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled. None = what the generator is meant for. ``batch_size`` never changes a picture.

    ``seeds``: samples of every stimulus. ``scale``: of the adapter, 0 = the generator without it. ``strength``: for
    sets with start pictures.
    """

    seeds: tuple[int, ...] = (0,)
    steps: int | None = None
    guidance_scale: float | None = None
    batch_size: int = 32
    scale: float = 1.0
    strength: float = 0.5


@dataclass(frozen=True)
class PictureSet:
    """One folder to fill: ``tokens`` (n, N, D) for ``ids``; ``tokens_of`` names whose tokens row i holds.

    ``start`` (n, 3, H, W) in [0, 1]: pictures to start from. ``prompts`` (n): texts beside the tokens.
    """

    name: str
    folder: Path
    ids: tuple[str, ...]
    tokens: np.ndarray
    tokens_of: tuple[str, ...]
    run_id: str
    start: np.ndarray | None = None
    prompts: tuple[str, ...] | None = None


def generate(
    run: Run,
    generator: str = "mini",
    out: Path | None = None,
    sampling: Sampling = Sampling(),
    controls: Sequence[str] = CONTROLS,
    limit: int | None = None,
    conditioning: Conditioning | None = None,
    runtime: Runtime | None = None,
) -> dict[str, Any]:
    """Sample pictures of every test stimulus, one per seed, and per control, into ``out`` (default: the run folder).

    ``generator``: "mini", a folder or a hub id. ``conditioning``: adapter, bridge and matching (default: the own
    conditioner that fits the run's backbone, layer and pooling, else `UserError` names the command that trains one).
    ``runtime``: number format, device and the like. ``limit``: only the first stimuli, in the order of the split.
    Returns folders, number of pictures and settings.
    """
    from recon.generation.bridges.choose import Conditioning, adapter_and_bridge
    from recon.generation.bridges.matching import matched_tokens
    from recon.generation.loading import family_of
    from recon.generation.pipeline import Generator
    from recon.generation.places import generator_folder
    from recon.generation.runtime import Runtime, check_runtime
    from recon.predict import load_predictions, run_id

    _check(sampling, limit)
    conditioning, runtime = conditioning or Conditioning(), runtime or Runtime()
    device = check_runtime(runtime)
    folder = generator_folder(generator)
    all_tokens, zero = matched_tokens(run, conditioning.match)
    adapter, bridge = adapter_and_bridge(run, conditioning, generator, family_of(folder), device)
    model = Generator.load(generator, adapter, runtime, bridge)
    weights = fingerprint(folder, adapter.path, bridge.key, *runtime.key)
    all_ids = load_predictions(run).ids
    n = len(all_ids) if limit is None else min(limit, len(all_ids))
    ids, tokens = all_ids[:n], all_tokens[:n]
    label, base, own = generator_label(generator, conditioning), out or run.path, run_id(run)
    folder = reconstruction_folder(base, label, run.subject)
    sets = [PictureSet("reconstructions", folder, ids, tokens, ids, own)]
    for control in controls:
        control_tokens, owners = _control(control, run, ids, tokens, zero)
        folder = control_folder(base, control, label, run.subject)
        sets.append(PictureSet(control, folder, ids, control_tokens, owners, own))
    made = {item.name: draw(model, item, sampling, weights) for item in sets}
    return {
        "study": run.study,
        "subject": run.subject,
        "run": str(run.path),
        "layer": run.config.target.layer,
        "generator": label,
        "bridge": bridge.name,
        "match": conditioning.match,
        "n_stimuli": n,
        "seeds": list(sampling.seeds),
        "sampled": sum(made.values()),
        "folders": {item.name: str(item.folder) for item in sets},
    }


def _check(sampling: Sampling, limit: int | None) -> None:
    if limit is not None and limit < 2:
        raise UserError(f"--limit {limit} should be 2 or more: the shuffled control needs another stimulus")
    if sampling.steps is not None and sampling.steps < 1:
        raise UserError(f"--steps {sampling.steps} should be 1 or more")
    if sampling.batch_size < 1:
        raise UserError(f"--batch-size {sampling.batch_size} should be 1 or more")
    if not sampling.seeds or len(set(sampling.seeds)) < len(sampling.seeds) or min(sampling.seeds) < 0:
        raise UserError(f"--seeds {' '.join(map(str, sampling.seeds))}: give different whole numbers, 0 or more")


def fingerprint(folder: Path, adapter: Path, *settings: object) -> str:
    """16 digits that change with the generator's folder, the adapter's file and any of ``settings``: content of small
    files, size and time of files beyond 100 MB."""
    digest = hashlib.sha256(json.dumps(settings).encode())
    files = [path for path in folder.rglob("*") if path.suffix in (".safetensors", ".bin", ".json")]
    for path in [adapter, *sorted(files)]:
        stat = path.stat()
        content = path.read_bytes() if stat.st_size < _LARGE else str((stat.st_size, stat.st_mtime_ns)).encode()
        name = path.relative_to(folder) if path is not adapter else "adapter"
        digest.update(str(name).encode() + hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def generator_label(generator: str, conditioning: Conditioning | None = None) -> str:
    """Folder name of a generator: its own name, or the last part of its path or hub id; adapter and bridge where the
    adapter was named, matching where it is not the usual one."""
    names = [generator]
    if conditioning is not None and conditioning.adapter is not None:
        names += [conditioning.adapter.removesuffix(".safetensors").removesuffix(".bin"), conditioning.bridge]
    if conditioning is not None and conditioning.match != "spread":
        names.append(conditioning.match)
    return "_".join(quote(name.rstrip("/").rsplit("/", 1)[-1], safe="") or "generator" for name in names)


def reconstruction_folder(base: Path, label: str, subject: str) -> Path:
    """Folder of the pictures from predicted tokens."""
    return base / "reconstructions" / label / f"sub-{subject}"


def control_folder(base: Path, control: str, label: str, subject: str) -> Path:
    """Folder of the pictures of one control."""
    return base / "controls" / control / label / f"sub-{subject}"


def draw(model: Generator, pictures: PictureSet, sampling: Sampling, weights: str, guide: Hook | None = None) -> int:
    """Sample the pictures that the folder does not yet hold under the same settings; returns how many were sampled.

    ``weights`` names the weights and whatever else the generator was made of (`fingerprint`). ``guide(x0, step, rows)``
    is called as `Generator.generate` says, with the rows of ``pictures`` in place of those of a batch; ``weights`` must
    change with it. Rows of other seeds of the same run stay in the index.
    """
    import torch

    from align.tracking import progress_bar

    plan = _plan(model, weights, pictures, sampling)
    known = read_index(pictures.folder)
    seeds = {str(seed) for seed in sampling.seeds}
    others = [row for row in known if row["seed"] not in seeds and row["run"] == pictures.run_id]
    kept = {(row["file"], row["settings"]) for row in known}
    for item in plan:
        item.have = (item.row["file"], item.row["settings"]) in kept and (pictures.folder / item.row["file"]).is_file()
    todo = [item for item in plan if not item.have]
    options: dict[str, Any] = {"steps": sampling.steps, "guidance_scale": sampling.guidance_scale}
    options |= {"batch_size": sampling.batch_size, "scale": sampling.scale}
    with progress_bar(len(todo), f"generate {pictures.name}", show=bool(todo), unit="picture") as bar:
        for start in range(0, len(todo), sampling.batch_size):
            batch = todo[start : start + sampling.batch_size]
            own = [item.stimulus for item in batch]
            tokens = torch.from_numpy(np.ascontiguousarray(pictures.tokens[own]))
            extra = _beside(pictures, own, sampling, guide)
            seeds_of = [item.noise for item in batch]
            images = model.generate(tokens, seeds_of, **options, **extra)
            for item, image in zip(batch, images.numpy(), strict=True):
                _write_png(pictures.folder / item.row["file"], image)
                item.have = True
            _write_index(pictures.folder, others + [item.row for item in plan if item.have])
            bar.update(len(batch))
    if not todo:
        _write_index(pictures.folder, others + [item.row for item in plan])
    return len(todo)


def _beside(pictures: PictureSet, own: list[int], sampling: Sampling, guide: Hook | None) -> dict[str, Any]:
    """Start pictures, prompts and hook for the stimuli ``own``, as the generator takes them."""
    import torch

    extra: dict[str, Any] = {}
    if pictures.start is not None:
        start = np.ascontiguousarray(pictures.start[own], dtype=np.float32)
        extra |= {"start": torch.from_numpy(start), "strength": sampling.strength}
    if pictures.prompts is not None:
        extra["prompts"] = [pictures.prompts[i] for i in own]
    if guide is not None:
        extra["guide"] = lambda x0, step, rows: guide(x0, step, np.asarray(own)[list(rows)])
    return extra


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
    name: str, run: Run, ids: tuple[str, ...], tokens: np.ndarray, zero: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Tokens (n, N, D) of one control, and whose they are. Who gets whose is the same for every seed of the noise."""
    if name == "shuffled":
        order = derangement(len(ids), 0)
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


@dataclass
class _Planned:
    """One picture: its stimulus, its noise seed, its row of the index, whether the folder has it."""

    stimulus: int
    noise: int
    row: dict[str, str]
    have: bool = False


def _plan(model: Generator, weights: str, pictures: PictureSet, sampling: Sampling) -> list[_Planned]:
    """Every picture of a finished folder, seed by seed; ``settings`` changes with what changes a picture."""
    steps = model.defaults.steps if sampling.steps is None else sampling.steps
    guidance = model.defaults.guidance_scale if sampling.guidance_scale is None else sampling.guidance_scale
    shared = [weights, steps, guidance, sampling.scale]
    digests = []
    for i in range(len(pictures.ids)):
        digest = hashlib.sha256(np.ascontiguousarray(pictures.tokens[i]).tobytes())
        if pictures.start is not None:
            digest.update(np.ascontiguousarray(pictures.start[i], dtype=np.float32).tobytes())
            digest.update(str(sampling.strength).encode())
        if pictures.prompts is not None:
            digest.update(pictures.prompts[i].encode())
        digests.append(digest.hexdigest())
    plan = []
    for seed in sampling.seeds:
        for i, name in enumerate(safe_names(pictures.ids)):
            noise = derive(seed, "noise", pictures.ids[i]) % 2**31
            settings = hashlib.sha256(json.dumps([*shared, noise, digests[i]]).encode()).hexdigest()[:16]
            file, owner = f"{name}_seed-{seed}.png", pictures.tokens_of[i]
            values = (pictures.ids[i], file, str(seed), str(noise), owner, pictures.run_id, settings)
            plan.append(_Planned(i, noise, dict(zip(INDEX_COLUMNS, values, strict=True))))
    return plan


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

"""A scored tiny run for the tests of the galleries, and the optional things a run may hold beside its pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from align.checkpoint import Run
from recon.drawing.folders import DIGEST, INDEX_COLUMNS, file_digest, read_index, safe_names, write_index
from recon.evaluation import judges, report
from recon.evaluation.settings import EvaluateConfig
from recon.metrics import metrics
from tests.recon import tiny_run

RULE = "lit = differs from what a null brain gives; <b>measured</b> on training rows"


def scored_run(folder: Path) -> Run:
    """A trained, predicted and evaluated tiny run in ``folder``/run."""
    made = tiny_run.make_run(folder)
    tiny_run.add_pictures(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "PIXEL_SIZE", 64)  # quicker; the true size is tested with the metrics
        patch.setenv("TORCH_HOME", str(folder / "no weights"))
        patch.setattr(judges, "load_judge", tiny_run.only_pixels)
        report.evaluate_run(made, settings=EvaluateConfig(judge="torchvision/squeezenet1_0", n_boot=100, n_perm=99))
    return made


def folder_of(run: Run, kind: str) -> Path:
    return run.path / kind / tiny_run.GENERATOR / f"sub-{run.subject}"


def add_rows(folder: Path, ids: list[str], pictures: list[np.ndarray], seed: int, run_id: str) -> None:
    """Pictures uint8 beside those that the folder holds; grey ones as 8-bit grey PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = read_index(folder)
    for stimulus_id, name, pixels in zip(ids, safe_names(ids), pictures, strict=True):
        Image.fromarray(pixels).save(folder / f"{name}_seed-{seed}.png")
        values = (stimulus_id, f"{name}_seed-{seed}.png", str(seed), "0", stimulus_id, run_id, "x")
        digest = file_digest(folder / f"{name}_seed-{seed}.png")
        rows.append(dict(zip((*INDEX_COLUMNS, DIGEST), (*values, digest), strict=True)))
    write_index(folder, rows)


def flat(ids: list[str], start: int) -> list[np.ndarray]:
    """One colour per stimulus, all different."""
    return [np.full((64, 64, 3), (start, 10 * k % 256, 255 - k), dtype=np.uint8) for k in range(len(ids))]


def add_extras(run: Run, ids: list[str]) -> None:
    """Seeds 1 and 7 of all stimuli, low-level pictures of the first 20, evidence of the first 15."""
    from recon.decoding.predict import run_id

    own = run_id(run)
    for seed in (7, 1):
        add_rows(folder_of(run, "reconstructions"), ids, flat(ids, 100 + seed), seed, own)
    add_rows(folder_of(run, "low_level"), ids[:20], flat(ids[:20], 50), 0, own)
    maps = []
    for k in range(15):
        grey = np.zeros((64, 64), dtype=np.uint8)
        grey[: 2 * k + 2] = 255
        maps.append(grey)
    add_rows(folder_of(run, "evidence"), ids[:15], maps, 0, own)
    lit = {stimulus_id: {"lit": (2 * k + 2) / 64} for k, stimulus_id in enumerate(ids[:15])}
    text = json.dumps({"rule": RULE, "rows": lit})
    (folder_of(run, "evidence") / "evidence.json").write_text(text, encoding="utf-8")


def noise(count: int, size: int, seed: int = 0) -> list[np.ndarray]:
    """Pictures uint8 (size, size, 3) with the 1/f spectrum of photographs, but no smooth area: harder to compress."""
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    weight = 1 / np.maximum(np.hypot(rows, columns), 1 / size)
    made = []
    for _ in range(count):
        grey, *colours = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(4, size, size))) * weight, s=(size, size))
        pixels = grey + 0.3 * np.stack(colours)
        made.append(np.clip(128 + 60 * pixels / pixels.std(), 0, 255).astype(np.uint8).transpose(1, 2, 0))
    return made

"""The simulated brain: an early retinotopic code and a late categorical code, seen through 63 noisy EEG channels.

It knows nothing of any vision backbone. Early: oriented energy and opponent colours on an 8 x 8 retinotopic grid, about
100 ms, over occipital channels. Late: the concept's attributes (shape, pattern, texture), about 200 ms, over
temporo-parietal channels. Both codes are there by construction: that a shallow layer wins with ``mixed`` and a deep one
with ``late_only`` tests the toolkit, and is no finding about brains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from align.data.studies.simulated.rendering import PATTERNS, SHAPES, TEXTURES, scene_of
from align.seeding import derive

SFREQ = 100.0  # Hz
N_TIMES = 50  # samples, 0 to 0.5 s after onset
CHANNELS = tuple(
    str.split(
        "Fp1 F3 F7 FT9 FC5 FC1 C3 T7 TP9 CP5 CP1 Pz P3 P7 O1 Oz O2 P4 P8 TP10 CP6 CP2 Cz C4 T8 FT10 FC6 FC2 F4 F8 Fp2 "
        "AF7 AF3 AFz F1 F5 FT7 FC3 FCz C1 C5 TP7 CP3 P1 P5 PO7 PO3 POz PO4 PO8 P6 P2 CPz CP4 TP8 C6 C2 FC4 FT8 F6 F2 "
        "AF4 AF8"
    )
)
OCCIPITAL = tuple(str.split("O1 Oz O2 PO7 PO3 POz PO4 PO8 P7 P8 P5 P6 P3 P4 P1 P2 Pz"))
TEMPORAL = tuple(str.split("T7 T8 TP7 TP8 TP9 TP10 P7 P8 CP5 CP6 C5 C6 P5 P6 FT9 FT10"))

# Chosen with linear readouts of the two codes themselves (no backbone): 200-way identification of test pictures from
# the early features .45, from the attributes .23. Revised once, see "Choices" in the README.
GRID = 8
EARLY_SOURCES, EARLY_LATENCY, EARLY_WIDTH = 96, (0.100, 0.018), 0.014  # s
LATE_SOURCES, LATE_LATENCY, LATE_WIDTH = 32, (0.200, 0.025), 0.030
EARLY_GAIN, LATE_GAIN = 1.0, 0.2
# Standard deviation of one trial's 1/f noise, in units of the early signal. ``low``: a linear readout of the mean of
# four trials names shape and pattern of new concepts in .997 of the training pictures (``eeg``: .18 and .27).
NOISE = {"eeg": 2.0, "low": 0.1}
GAINS = {"mixed": (EARLY_GAIN, LATE_GAIN), "late_only": (0.0, LATE_GAIN), "no_signal": (0.0, 0.0)}


def early_features(images: np.ndarray, batch: int = 256) -> np.ndarray:
    """uint8 (n, H, W, 3) to float32 (n, 704): log energy of 8 Gabor pairs and 3 opponent channels on the 8 x 8 grid."""
    bank = _gabors()
    rows = []
    for start in range(0, len(images), batch):
        rgb = torch.from_numpy(np.ascontiguousarray(images[start : start + batch])).permute(0, 3, 1, 2).float() / 255
        light = rgb.mean(1, keepdim=True)
        even, odd = F.conv2d(light, bank, padding="same").chunk(2, dim=1)
        energy = torch.log(0.02 + F.adaptive_avg_pool2d((even.square() + odd.square()).sqrt(), GRID))
        opponent = torch.cat([rgb[:, :1] - rgb[:, 1:2], rgb[:, 2:] - rgb[:, :2].mean(1, keepdim=True), light], dim=1)
        rows.append(torch.cat([energy, 3 * F.adaptive_avg_pool2d(opponent, GRID)], dim=1).flatten(1).numpy())
    return np.concatenate(rows)


def late_features(stimulus_ids: Sequence[str]) -> np.ndarray:
    """Ids to float32 (n, 27): one-hot shape, pattern and texture."""
    rows = np.zeros((len(stimulus_ids), len(SHAPES) + len(PATTERNS) + len(TEXTURES)), dtype=np.float32)
    for row, name in zip(rows, stimulus_ids, strict=True):
        scene = scene_of(name)
        row[SHAPES.index(scene.shape)] = 1
        row[len(SHAPES) + PATTERNS.index(scene.pattern)] = 1
        row[len(SHAPES) + len(PATTERNS) + TEXTURES.index(scene.texture)] = 1
    return rows


def evoked(early: np.ndarray, late: np.ndarray, fit: np.ndarray, subject: str, code: str) -> np.ndarray:
    """Noise-free responses float32 (n, 63, 50) of one subject; features are standardised on the rows ``fit``.

    ``early`` (n, 704), ``late`` (n, 27). Every subject has an own mixing: receptive fields, latencies, topographies.
    """
    rng = np.random.default_rng(derive(0, "brain", subject))
    early_gain, late_gain = GAINS[code]
    first = _standardised(_standardised(early, fit) @ _receptive_fields(rng), fit)
    second = _standardised(_standardised(late, fit) @ rng.normal(size=(late.shape[1], LATE_SOURCES)), fit)
    out = early_gain * _project(first, rng, OCCIPITAL, EARLY_LATENCY, EARLY_WIDTH)
    return (out + late_gain * _project(second, rng, TEMPORAL, LATE_LATENCY, LATE_WIDTH)).astype(np.float32)


def noise(rng: np.random.Generator, n: int, level: str = "eeg") -> np.ndarray:
    """1/f noise float32 (n, 63, 50), standard deviation `NOISE`, a third of its variance shared by all channels."""
    shape = (n, len(CHANNELS) + 1, N_TIMES // 2 + 1)
    frequency = np.maximum(np.arange(shape[-1]), 1.0)
    spectrum = (rng.standard_normal(shape, dtype=np.float32) + 1j * rng.standard_normal(shape, dtype=np.float32)) * (
        frequency**-0.5
    ).astype(np.float32)
    waves = np.fft.irfft(spectrum, n=N_TIMES, axis=-1).astype(np.float32)
    waves /= waves.std()
    return NOISE[level] * (np.sqrt(2 / 3) * waves[:, 1:] + np.sqrt(1 / 3) * waves[:, :1])


def trials(response: np.ndarray, repetitions: int, seed: int, level: str = "eeg") -> Iterator[np.ndarray]:
    """Per repetition, ``response`` (n, 63, 50) plus fresh noise, float32."""
    for repetition in range(repetitions):
        yield response + noise(np.random.default_rng(derive(seed, "noise", repetition)), len(response), level)


def _gabors() -> torch.Tensor:
    """(16, 1, 11, 11): even then odd filters, four orientations at wavelengths of 4 and 8 px; zero mean, unit norm."""
    axis = torch.arange(-5, 6, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    filters: list[list[torch.Tensor]] = [[], []]
    for wavelength in (4.0, 8.0):
        envelope = torch.exp(-(x**2 + y**2) / (2 * (0.4 * wavelength) ** 2))
        for k in range(4):
            angle = torch.tensor(k * torch.pi / 4)
            phase = 2 * torch.pi * (x * angle.cos() + y * angle.sin()) / wavelength
            for bank, wave in zip(filters, (phase.cos(), phase.sin()), strict=True):
                filtered = envelope * wave
                filtered = filtered - filtered.mean()
                bank.append(filtered / filtered.norm())
    return torch.stack(filters[0] + filters[1])[:, None]


def _receptive_fields(rng: np.random.Generator) -> np.ndarray:
    """(704, 96): each source reads all features around one place of the grid, with random weights."""
    cells = np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID), indexing="ij"), axis=-1).reshape(-1, 2)
    centres = rng.uniform(0, GRID - 1, size=(EARLY_SOURCES, 2))
    near = np.exp(-np.square(cells[:, None] - centres).sum(-1) / (2 * 0.9**2))  # (cells, sources)
    weights = rng.normal(size=(11, 1, EARLY_SOURCES)) * near
    return weights.reshape(11 * GRID * GRID, EARLY_SOURCES)


def _project(
    sources: np.ndarray,
    rng: np.random.Generator,
    region: tuple[str, ...],
    latency: tuple[float, float],
    width: float,
) -> np.ndarray:
    """Sources (n, S) to (n, 63, 50): one waveform and topography per source; unit variance inside the region's peak."""
    n_sources = sources.shape[1]
    times = np.arange(N_TIMES) / SFREQ
    centres = latency[0] + latency[1] * rng.standard_normal((n_sources,))
    waves = np.exp(-np.square(times - centres[:, None]) / (2 * width**2))
    waves -= 0.5 * np.exp(-np.square(times - centres[:, None] - 3 * width) / (2 * (1.5 * width) ** 2))
    gain = np.array([1.0 if name in region else 0.15 for name in CHANNELS])
    maps = rng.normal(size=(n_sources, len(CHANNELS))) * gain
    response: np.ndarray = np.einsum("ns,sct->nct", sources, maps[:, :, None] * waves[:, None, :], optimize=True)
    inside = np.isin(CHANNELS, region)
    peak = response[:, inside][:, :, np.abs(times - latency[0]) <= 2 * width]
    scaled: np.ndarray = response / peak.std()
    return scaled


def _standardised(x: np.ndarray, fit: np.ndarray) -> np.ndarray:
    mean, std = x[fit].mean(0), x[fit].std(0)
    return (x - mean) / np.where(std > 1e-6, std, 1)

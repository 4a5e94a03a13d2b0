"""Pictures that an encoder predicts a high response to: put together, drawn by the generator, then up a gradient.

All three go on from what the one before has found; the first starts from the best natural pictures. Luo et al. 2023
(arXiv 2306.03089, "BrainDiVE") steer a diffusion model by the gradient of an encoder; here the gradient goes through
the decoder of the latents and through no UNet, which is cheap, and drawn pictures are chosen among.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import pad

from align.seeding import derive
from align.tracking import progress_bar
from recon.decoding.guidance import Guidance, ascend

if TYPE_CHECKING:
    from recon.generation.pipeline import Generator

Predict = Callable[[torch.Tensor], torch.Tensor]
Tokens = Callable[[torch.Tensor], torch.Tensor]
_REACH = 8  # part of a picture's side by which it is moved about at most, so that no single pixel counts
_NOISE = 0.05  # deviation of the noise on its pixels
_TRIED = 8  # patches of each unit in a round
_SIZES = (0.1, 0.4)  # radius of a patch, in sides of the picture


@dataclass(frozen=True)
class Search:
    """``patched`` rounds in which soft patches of other natural pictures are laid on. ``rounds`` of ``drawn`` pictures
    of each unit, of which the best stays; ``strength``: how far a drawing leaves the picture that it starts from. Then
    ``steps`` up the gradient, each of ``scale`` deviations of the latents."""

    patched: int = 80
    rounds: int = 1
    drawn: int = 4
    strength: float = 0.5
    steps: int = 32
    scale: float = 0.1
    seed: int = 0


def put_together(predict: Predict, pool: torch.Tensor, search: Search) -> torch.Tensor:
    """(K, 3, H, W): for each unit its best natural picture with soft round patches of others, by its own prediction.

    ``pool`` (K, S, 3, H, W): natural pictures of each unit, the best first. Every round tries `_TRIED` patches on what
    is kept, moved about and mirrored at random; the best stays where it is better. Natural detail stays natural, which
    a gradient does not promise, and nothing but predictions is needed.
    """
    count, several = pool.shape[:2]
    kept = pool[:, 0]
    with torch.no_grad(), progress_bar(search.patched, "maximize: patches", True, unit="round") as bar:
        best = own(predict(kept), 1)[:, 0]
        for number in range(search.patched):
            rng = np.random.default_rng(derive(search.seed, "patch", number))
            other = pool[np.arange(count)[:, None], rng.integers(0, several, (count, _TRIED))].flatten(0, 1)
            tried = _patched(kept.repeat_interleave(_TRIED, dim=0), other, rng)
            value, place = own(predict(tried), _TRIED).max(dim=1)
            better = value > best
            chosen = tried.unflatten(0, (count, _TRIED))[torch.arange(count), place]
            kept = torch.where(better[:, None, None, None], chosen, kept)
            best = torch.where(better, value, best)
            bar.update()
    return kept


def _patched(pictures: torch.Tensor, others: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Pictures (n, 3, H, W), each with one soft disc of another (n, 3, H, W)."""
    height, width = pictures.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    found = []
    for picture, other in zip(pictures, others, strict=True):
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), height * rng.uniform(*_SIZES)
        down, right = (int(value) for value in rng.integers(-height // 4, height // 4 + 1, 2))
        part = (other.flip(2) if rng.random() < 0.5 else other).roll((down, right), (1, 2))
        away = ((rows - y) ** 2 + (columns - x) ** 2).sqrt()
        mask = torch.sigmoid((radius - away) / (height / 32))
        found.append(picture * (1 - mask) + part * mask)
    return torch.stack(found)


def draw(
    generator: Generator,
    tokens: Tokens,
    predict: Predict,
    kept: torch.Tensor,
    starts: torch.Tensor,
    search: Search,
) -> torch.Tensor:
    """(K, 3, H, W): for each unit the best picture after all rounds, by its own prediction.

    ``kept`` (K, 3, H, W): what there is. ``starts`` (K, S, 3, H, W): the best natural pictures of each unit. A drawing
    takes its picture and half of its tokens from what is kept, the other half from one of the starts. ``predict``:
    pictures (B, 3, H, W) to (B, K).
    """
    count, several = starts.shape[:2]
    best = own(predict(kept), 1)[:, 0]
    for number in range(search.rounds):
        rng = np.random.default_rng(derive(search.seed, "draw", number))
        other = torch.from_numpy(rng.integers(0, several, (count, search.drawn)))
        mixed = _mixed(tokens(kept), tokens(starts.flatten(0, 1)).unflatten(0, (count, several)), other, rng)
        seeds = [derive(search.seed, "noise", number, i) % 2**31 for i in range(count * search.drawn)]
        begin = kept.repeat_interleave(search.drawn, dim=0)
        found = generator.generate(
            mixed, seeds, start=begin, strength=search.strength, progress=f"round {number + 1} of {search.rounds}"
        )
        value, place = own(predict(found), search.drawn).max(dim=1)
        better = value > best
        chosen = found.unflatten(0, (count, search.drawn))[torch.arange(count), place]
        kept = torch.where(better[:, None, None, None], chosen, kept)
        best = torch.where(better, value, best)
    return kept


def own(values: torch.Tensor, each: int) -> torch.Tensor:
    """(K, each) of predictions (K * each, K): of every unit's pictures the prediction of this unit."""
    count = values.shape[1]
    return values.unflatten(0, (count, each))[torch.arange(count), :, torch.arange(count)]


def _mixed(kept: torch.Tensor, starts: torch.Tensor, other: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Tokens (K * n, N, D): every place from what is kept (K, N, D) or from start ``other`` (K, n) of (K, S, N, D)."""
    count, drawn = other.shape
    places = torch.from_numpy(rng.random((count, drawn, kept.shape[1])) < 0.5)
    second = starts[torch.arange(count)[:, None], other]
    return torch.where(places[..., None], kept[:, None], second).flatten(0, 1)


def climb(
    generator: Generator, predict: Predict, pictures: torch.Tensor, search: Search, batch: int = 8
) -> torch.Tensor:
    """(K, 3, H, W): each picture (K, 3, h, w) after all steps up the gradient of its own unit's prediction.

    The picture is moved about and gets noise at every step, so that what is found does not hang on single pixels.
    """
    parts = []
    groups = torch.arange(len(pictures)).split(batch)
    bar = progress_bar(len(groups) * search.steps, "maximize: up the gradient", True)
    for rows in groups:
        with torch.no_grad():
            latents = generator.encode(pictures[rows]).detach()
        for step in range(search.steps):
            noise = torch.Generator().manual_seed(derive(search.seed, "step", step))

            def score(x: torch.Tensor, noise: torch.Generator = noise, rows: torch.Tensor = rows) -> torch.Tensor:
                return predict(_moved(generator.decode(x), noise))[torch.arange(len(rows)), rows]

            latents = ascend(latents, score, Guidance(search.scale, 1))
            bar.update()
        with torch.no_grad():
            parts.append(generator.decode(latents).float())
    bar.close()
    return torch.cat(parts)


def _moved(images: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    height, width = images.shape[-2:]
    reach = max(1, min(height, width) // _REACH)
    top, left = torch.randint(0, 2 * reach + 1, (2,), generator=noise).tolist()
    moved = pad(images, (reach,) * 4, mode="reflect")[..., top : top + height, left : left + width]
    return (moved + _NOISE * torch.randn(1, *moved.shape[1:], generator=noise)).clamp(0, 1)

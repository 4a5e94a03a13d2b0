"""The sketch: from tokens straight to latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recon.generation.conditioner import read_adapter, save_conditioner
from recon.generation.latents import LatentScale
from recon.generation.sketch import Sketch, load_sketch, takes
from recon.pretraining.sketching import Teacher, fine_contrast
from tests.recon.tiny import N_TOKENS, WIDTH, tiny_conditioner, tiny_unet, tiny_vae


def test_only_square_grids_are_taken() -> None:
    assert [n for n in range(1, 20) if takes(n)] == [1, 2, 4, 5, 9, 10, 16, 17]


def sketch(n_tokens: int = 4, width: int = 6, size: int = 8) -> Sketch:
    torch.manual_seed(0)
    return Sketch(n_tokens, width, 4, size, hidden=16, depth=1)


def test_a_cls_token_in_front_plays_no_part() -> None:
    net, tokens = sketch(5), torch.randn(2, 5, 6)
    found = net(tokens)
    assert found.shape == (2, 4, 8, 8)
    other = tokens.clone()
    other[:, 0] += 9
    torch.testing.assert_close(net(other), found)
    other[:, 1] += 9
    assert not torch.allclose(net(other), found)


def test_places_of_the_grid_stay_where_they_are() -> None:
    """A change of the first token moves the upper left of the latents more than the lower right."""
    net, tokens = sketch(49, size=16), torch.randn(1, 49, 6)
    changed = tokens.clone()
    changed[:, 0] += 1
    moved = (net(changed) - net(tokens)).abs().mean(1)[0]
    assert moved[:4, :4].mean() > 3 * moved[-4:, -4:].mean()


def test_the_file_takes_raw_tokens_and_the_adapter_ignores_it(tmp_path: Path) -> None:
    conditioner, net = tiny_conditioner(tiny_unet(), "g"), sketch(N_TOKENS, WIDTH)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path / "ip_adapter.safetensors"
    save_conditioner(conditioner, path, sketch=net)
    stored = load_sketch(path)
    assert stored is not None and not any(p.requires_grad for p in stored.parameters())
    raw = torch.randn(3, N_TOKENS, WIDTH) * 2 + 1
    expected = net(conditioner.standardised(raw))
    torch.testing.assert_close(stored(raw), expected, atol=0.05, rtol=0.05)  # half precision on disk
    assert expected.std() > 0.3
    assert set(read_adapter(path)) == {"image_proj", "ip_adapter"}
    assert any(name.startswith("sketch.") for name in load_file(path))


def test_a_file_without_a_sketch_gives_none(tmp_path: Path) -> None:
    save_conditioner(tiny_conditioner(tiny_unet(), "g"), tmp_path / "a.safetensors")
    assert load_sketch(tmp_path / "a.safetensors") is None


def test_the_teacher_wants_the_true_latents_and_pictures() -> None:
    """Written out for three rows of a pool, of which two are decoded."""
    torch.manual_seed(0)
    net, vae, conditioner = (
        sketch(N_TOKENS, WIDTH),
        tiny_vae().requires_grad_(False),
        tiny_conditioner(tiny_unet(), "g"),
    )
    tokens, images = torch.randn(5, N_TOKENS, WIDTH), torch.rand(2, 3, 16, 16)
    moments = np.random.default_rng(0).normal(size=(6, 8, 8, 8)).astype(np.float32)
    mean, std = torch.randn(1, 4, 1, 1), torch.rand(1, 4, 1, 1) + 0.5
    teacher = Teacher(vae, LatentScale(0.7, mean, std), moments, lambda a, b: (a - b).abs().max())
    given = conditioner.standardised(tokens[[1, 3, 4]])
    rows, few = np.array([2, 4, 5]), np.array([0, 1])
    total, parts = teacher.loss(net, given, rows, few, images)
    told = net(given)
    shown = vae.decode(told[:2] * std / 0.7 + mean).sample
    latents = (told - 0.7 * (torch.from_numpy(moments[rows, :4]) - mean) / std).abs().mean()
    apart = shown - (2 * images - 1)
    texture = (fine_contrast(shown) - fine_contrast(2 * images - 1)).abs().mean()
    expected = latents + apart.abs().mean() + apart.square().mean() + 0.3 * apart.abs().max() + texture
    torch.testing.assert_close(total, expected)
    assert set(parts) == {"latents", "pixels", "perceptual", "texture"}
    total.backward()
    assert all(p.grad is not None for p in net.parameters())


def test_fine_contrast_knows_strength_but_not_place() -> None:
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    board = 0.4 * (-1.0) ** (rows + columns).expand(1, 3, 32, 32)
    inner = (..., slice(1, -1), slice(1, -1))  # the border is reflected
    found = fine_contrast(board)[inner]
    torch.testing.assert_close(found, torch.full_like(found, 0.4 * 24 / 25), atol=1e-3, rtol=0)
    torch.testing.assert_close(fine_contrast(-board)[inner], found)
    assert fine_contrast(0 * board + 0.3).max() < 0.011


def test_it_learns_what_tokens_settle() -> None:
    """Latents that are a linear map of the tokens, cell by cell."""
    torch.manual_seed(0)
    net, mapping = Sketch(16, 6, 4, 4, hidden=32, depth=1), torch.randn(6, 4)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    losses = []
    for _ in range(120):
        tokens = torch.randn(32, 16, 6)
        latents = (tokens @ mapping).transpose(1, 2).unflatten(2, (4, 4))
        loss = (net(tokens) - latents).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("size", [8, 16])
def test_latents_have_the_size_of_the_generator(size: int) -> None:
    assert sketch(size=size)(torch.zeros(1, 4, 6)).shape == (1, 4, size, size)

"""Conditioner and pipeline on a tiny Stable Diffusion of the real classes."""

import pytest
import torch
from diffusers import StableDiffusionPipeline

from align.errors import UserError
from recon.generation import pipeline
from recon.generation.conditioner import null_embeds, positions, read_adapter, read_info, with_positions
from tests.recon.tiny import N_TOKENS, WIDTH, tiny_generator


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_generator(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def generator(tiny):
    return pipeline.Generator.load(str(tiny[0]), tiny[1])


@pytest.fixture
def tokens():
    return torch.randn(3, N_TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)) * 2


def test_the_saved_adapter_is_what_was_trained(tiny, tokens):
    """Stock loading of the public layout, standardisation folded in = the module that was trained."""
    folder, path, unet, conditioner = tiny
    latents, t = torch.randn(3, 4, 8, 8), torch.tensor([5, 300, 900])
    text = torch.randn(3, 7, 16)
    with torch.no_grad():
        trained = conditioner.denoise(unet, latents, t, text, conditioner.standardised(tokens))
        stock = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
        stock.load_ip_adapter(str(path.parent), subfolder="", weight_name=path.name, image_encoder_folder=None)
        embeds = [with_positions(tokens)[:, None]]
        loaded = stock.unet(latents, t, text, added_cond_kwargs={"image_embeds": embeds}).sample
        plain = unet(latents, t, text).sample
    assert torch.allclose(trained, loaded, atol=2e-3)  # half precision on disk
    assert not torch.allclose(plain, loaded, atol=2e-2)
    assert read_info(path).layer == "2"
    assert set(read_adapter(path)) == {"image_proj", "ip_adapter"}


def test_negative_input_is_the_mean_token(tiny):
    mean = torch.linspace(-3, 3, WIDTH)
    assert torch.allclose(null_embeds(tiny[1])[0, :, :WIDTH], mean.expand(N_TOKENS, -1), atol=1e-4)


def test_scale_zero_is_plain_generation(tiny, generator, tokens):
    stock = StableDiffusionPipeline.from_pretrained(tiny[0], local_files_only=True)
    stock.set_progress_bar_config(disable=True)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    plain = stock("", latents=latents, num_inference_steps=3, guidance_scale=1.0, output_type="pt").images
    ours = generator.generate(tokens[:1], [7], steps=3, guidance_scale=1.0, scale=0.0)
    assert torch.allclose(ours, plain, atol=1e-4)
    assert not torch.allclose(generator.generate(tokens[:1], [7], steps=3, guidance_scale=1.0), plain, atol=1e-3)


def test_batch_equals_one_by_one_with_different_tokens(generator, tokens):
    together = generator.generate(tokens, [1, 2, 3], steps=3, batch_size=3)
    apart = torch.cat([generator.generate(tokens[i : i + 1], [i + 1], steps=3) for i in range(3)])
    assert torch.allclose(together, apart, atol=1e-5)
    assert not torch.allclose(together, generator.generate(tokens.flip(0), [1, 2, 3], steps=3), atol=1e-3)


def test_swapping_two_tokens_changes_the_picture(generator, tokens):
    swapped = tokens[:, [1, 0, *range(2, N_TOKENS)]]
    first, second = (generator.generate(x, [1, 2, 3], steps=3) for x in (tokens, swapped))
    assert (first - second).abs().max() > 1e-3


def test_positions_differ_and_cls_has_none():
    grid = positions(16)
    assert len(torch.unique(grid, dim=0)) == 16
    assert not positions(17)[0].any()
    assert torch.equal(positions(17)[1:], grid)
    assert len(torch.unique(positions(7), dim=0)) == 7


def test_wrong_tokens_folders_and_files_are_refused(tiny, generator, tokens, tmp_path):
    with pytest.raises(UserError, match="do not fit the conditioner of mini layer 2"):
        generator.generate(tokens[:, :2], [0, 0, 0])
    with pytest.raises(UserError, match="2 seeds for 3 rows"):
        generator.generate(tokens, [0, 0])
    with pytest.raises(UserError, match="no diffusers folder"):
        pipeline.Generator.load(str(tmp_path), tiny[1])
    (tmp_path / "x.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="not a conditioner"):
        read_info(tmp_path / "x.safetensors")


def test_find_conditioner_prefers_what_fits(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "mini_folder", lambda: tmp_path / "none")
    folder = tmp_path / "runs" / "recon" / "mine"
    folder.mkdir(parents=True)
    (folder / "ip_adapter.safetensors").write_bytes(tiny[1].read_bytes())
    assert pipeline.find_conditioner("mini", "2", "grid:2", tmp_path, str(tiny[0])).parent == folder
    with pytest.raises(UserError, match=r"no conditioner of mini"):
        pipeline.find_conditioner("mini", "2", "grid:2", tmp_path)
    with pytest.raises(UserError, match=r"recon/train.py generator=.* backbone.name=mini layer=3"):
        pipeline.find_conditioner("mini", "3", "grid:2", tmp_path, str(tiny[0]))

"""Tokens to pictures: any Stable Diffusion in diffusers layout with a conditioner loaded through stock code.

The denoising loop is our own for one reason: the stock pipeline lets every picture of a batch attend to the image
tokens of all of them (seen with diffusers 0.42), here each picture has one row. Batch size never changes a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from align.errors import UserError
from recon.generation.assets import mini_folder
from recon.generation.conditioner import WEIGHTS, null_embeds, read_adapter, read_info, with_positions


class Generator:
    """A frozen Stable Diffusion with one conditioner. Build it with `Generator.load`."""

    def __init__(self, pipe: object, adapter: Path, name: str) -> None:
        self.name = name
        self.conditioner_info = read_info(adapter)
        self._pipe = pipe
        self._null = null_embeds(adapter)
        pipe.load_ip_adapter(read_adapter(adapter), subfolder=None, weight_name=None, image_encoder_folder=None)  # type: ignore[attr-defined]
        self._unet: nn.Module = pipe.unet.eval()  # type: ignore[attr-defined]
        with torch.no_grad():
            self._text = pipe.encode_prompt("", "cpu", 1, False)[0]  # type: ignore[attr-defined]

    @classmethod
    def load(cls, name: str = "mini", conditioner: str | Path | None = None) -> Generator:
        """``name``: "mini" or a local folder in diffusers layout; ``conditioner``: an ip_adapter.safetensors.

        Raises `UserError` when a folder or file is missing.
        """
        from diffusers import StableDiffusionPipeline
        from diffusers.utils import logging

        folder = mini_folder() if name == "mini" else Path(name).expanduser()
        if not (folder / "model_index.json").is_file():
            raise UserError(
                f"generator {name!r} is no diffusers folder (no model_index.json); use mini or a local folder"
            )
        if conditioner is None:
            raise UserError("a generator needs a conditioner; train one with: accelerate launch recon/train.py")
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        pipe = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
        return cls(pipe, Path(conditioner), name)

    @torch.no_grad()
    def generate(
        self,
        tokens: torch.Tensor,
        seeds: Sequence[int],
        steps: int = 12,
        guidance_scale: float = 2.0,
        batch_size: int = 32,
        scale: float = 1.0,
        progress: str | None = None,
    ) -> torch.Tensor:
        """Raw tokens (n, N, D) and one noise seed each to pictures (n, 3, H, W) in [0, 1].

        ``scale`` 0 = the generator without its conditioner. ``progress``: label of a bar, None for silence.
        """
        info = self.conditioner_info
        if tuple(tokens.shape[1:]) != (info.n_tokens, info.width):
            raise UserError(
                f"tokens of shape {tuple(tokens.shape[1:])} do not fit the conditioner, which takes "
                f"({info.n_tokens}, {info.width}) from {info.backbone} layer {info.layer} {info.pooling}"
            )
        if len(seeds) != len(tokens):
            raise UserError(f"{len(seeds)} seeds for {len(tokens)} rows of tokens; give one seed each")
        self._pipe.set_ip_adapter_scale(scale)  # type: ignore[attr-defined]
        embeds = with_positions(tokens.float())
        chunks = list(range(0, len(tokens), batch_size))
        if progress:
            from tqdm import tqdm

            chunks = tqdm(chunks, desc=progress)  # type: ignore[assignment]
        pictures = [
            self._sample(embeds[i : i + batch_size], seeds[i : i + batch_size], steps, guidance_scale) for i in chunks
        ]
        return torch.cat(pictures) if pictures else torch.zeros(0, 3, 8, 8)

    def _sample(self, embeds: torch.Tensor, seeds: Sequence[int], steps: int, guidance_scale: float) -> torch.Tensor:
        scheduler, unet = self._pipe.scheduler, self._pipe.unet  # type: ignore[attr-defined]
        scheduler.set_timesteps(steps)
        shape = (1, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        latents = torch.cat(noise) * scheduler.init_noise_sigma
        guided = guidance_scale != 1.0
        rows = torch.cat([self._null.expand(len(embeds), -1, -1), embeds]) if guided else embeds
        text = self._text.expand(len(rows), -1, -1)
        for t in scheduler.timesteps:
            x = scheduler.scale_model_input(torch.cat([latents, latents]) if guided else latents, t)
            out = unet(x, t, encoder_hidden_states=text, added_cond_kwargs={"image_embeds": [rows[:, None]]}).sample
            if guided:
                plain, conditioned = out.chunk(2)
                out = plain + guidance_scale * (conditioned - plain)
            latents = scheduler.step(out, t, latents).prev_sample
        vae = self._pipe.vae  # type: ignore[attr-defined]
        decoded = vae.decode(latents / vae.config.scaling_factor).sample
        return (decoded / 2 + 0.5).clamp(0, 1)


def find_conditioner(
    backbone: str, layer: str, pooling: str, home: Path | None = None, generator: str = "mini"
) -> Path:
    """The newest conditioner under ``<home>/runs/recon`` for these tokens and this generator, else the embedded one.

    Raises `UserError` naming the command that trains one.
    """
    folder = (home or Path.cwd()) / "runs" / "recon"
    trained = sorted(folder.glob(f"*/{WEIGHTS}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in [*trained, *sorted((mini_folder() / "conditioners").glob("*.safetensors"))]:
        info = read_info(path)
        if (info.backbone, info.layer, info.pooling, info.generator) == (backbone, layer, pooling, generator):
            return path
    raise UserError(
        f"no conditioner of {generator} takes {pooling} tokens of {backbone} layer {layer}; train one: "
        f"accelerate launch recon/train.py generator={generator} backbone.name={backbone} layer={layer} "
        f"pooling={pooling} 'pictures.photographs=[FOLDER]'"
    )

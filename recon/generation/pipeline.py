"""Tokens to pictures: SD 1.5, SDXL and their few-step kin in diffusers layout, conditioned through an IP-Adapter.

The denoising loop is our own for one reason: the stock pipeline lets every picture of a batch attend to the image
tokens of all of them (seen with diffusers 0.42), here each picture has one row. Batch size never changes a picture.
For a single picture the result is that of the stock pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from align.errors import UserError
from recon.config import STRENGTH
from recon.generation.adapters import Adapter, installed, load_adapter, require_fit
from recon.generation.bridge import Bridge, own_bridge
from recon.generation.conditioner import WEIGHTS, ConditionerInfo, read_info
from recon.generation.control import Control, load_control
from recon.generation.kept import kept_keys
from recon.generation.latents import LatentScale
from recon.generation.loading import FAMILIES, defaults_of, load_pipeline, reads_sketch
from recon.generation.named import full_name
from recon.generation.places import generator_folder, mini_folder
from recon.generation.runtime import Runtime, check_runtime
from recon.generation.sampling import Guide, denoise, own_noise, set_steps
from recon.generation.sketch import load_sketch
from recon.generation.texts import Texts, added_conditions, joined

_LARGE = 512  # px from which the VAE decodes one picture at a time


class Generator:
    """A frozen generator with one adapter and the bridge to it. Build it with `Generator.load`."""

    def __init__(
        self,
        pipe: Any,
        adapter: Adapter,
        bridge: Bridge,
        name: str,
        runtime: Runtime | None = None,
        control: Control | None = None,
    ) -> None:
        runtime = runtime or Runtime()
        self.name, self.bridge, self.runtime, self.control = name, bridge, runtime, control
        self.family = FAMILIES[type(pipe).__name__]
        self._device = check_runtime(runtime)
        self._pipe = pipe
        require_fit(adapter, pipe.unet, name)
        if runtime.attention == "xformers":  # before the adapter, whose processors are made to match
            pipe.enable_xformers_memory_efficient_attention()
        projection = installed(adapter, pipe)
        self.conditioner_info = adapter.info  # of an own conditioner
        self.defaults = defaults_of(pipe, adapter.kind)
        self._sketch = load_sketch(adapter.path) if adapter.kind == "own" else None
        unet = pipe.unet.eval()
        # Image tokens are the same at every step: projected once per picture, not inside every call of the UNet.
        self._projection = projection.to(self._device, torch.float32)
        unet.encoder_hid_proj = None
        unet.register_to_config(encoder_hid_dim_type=None)
        self._place(unet)
        self._control = None
        if control is not None:
            channels = self._vae.config.latent_channels
            self._control = load_control(control, unet, channels, self.size, runtime.dtype, self._device)
        self._texts = Texts(pipe, self.family, self._device)
        self._run: Any = torch.compile(unet, dynamic=False) if runtime.compile else unet

    @classmethod
    def load(
        cls,
        name: str = "mini",
        conditioner: str | Path | Adapter | None = None,
        runtime: Runtime | None = None,
        bridge: Bridge | None = None,
        control: Control | None = None,
    ) -> Generator:
        """``name``: "mini", a local folder in diffusers layout, or a hub id. ``conditioner``: an adapter file; our own
        bring their bridge along, public ones need ``bridge``. ``control``: a ControlNet or T2I-Adapter beside it.

        Raises `UserError` when a folder or file is missing, when the adapter is of another generator, and for a
        ``runtime`` that cannot be had here.
        """
        runtime = runtime or Runtime()
        check_runtime(runtime)
        folder = generator_folder(name, runtime.half)
        if conditioner is None:
            raise UserError("a generator needs a conditioner; train one with: accelerate launch recon/train.py")
        adapter = conditioner if isinstance(conditioner, Adapter) else load_adapter(conditioner)
        bridge = own_bridge(adapter) if bridge is None else bridge
        return cls(load_pipeline(folder, runtime), adapter, bridge, name, runtime, control)

    @property
    def reads_sketch(self) -> bool:
        """Whether the UNet has input channels for a sketch (`recon.generation.loading.reads_sketch`)."""
        return reads_sketch(self._pipe)

    @property
    def size(self) -> int:
        """Side of the pictures, px."""
        return self._pipe.unet.config.sample_size * self._pipe.vae_scale_factor

    @torch.no_grad()
    def generate(
        self,
        tokens: torch.Tensor,
        seeds: Sequence[int],
        steps: int | None = None,
        guidance_scale: float | None = None,
        batch_size: int = 32,
        scale: float = 1.0,
        progress: str | None = None,
        *,
        start: torch.Tensor | None = None,
        strength: float = STRENGTH,
        prompts: Sequence[str] | None = None,
        guide: Guide | None = None,
        control: torch.Tensor | None = None,
        sketch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens (n, N, D) of the bridge's layer and one noise seed each to pictures (n, 3, H, W) float32 in [0, 1].

        ``steps``, ``guidance_scale``: None = what the generator is meant for; 1 or less = no guidance. ``scale``: of
        the adapter, 0 = the generator without it. ``progress``: label of a bar, None for silence.

        ``start`` (n, 3, h, w) in [0, 1]: pictures to start from (their latents, with the same noise as without them,
        at the step that leaves ``strength`` of all steps). ``prompts``: a text for each picture, "" where None.
        ``guide(x0, step, rows)``: called at every step with the latents (B, C, h, w) of the picture as the model sees
        it by then, for the pictures ``rows`` of this call; what it returns is used instead. ``control`` (n, 3, h, w)
        in [0, 1]: what the ControlNet or T2I-Adapter of the generator reads (`Control.picture`). ``sketch``
        (n, 3, h, w) in [0, 1]: what a generator that `reads_sketch` has beside the noise; None = that of the
        conditioner's own tokens, nothing where the conditioner has none. `encode` and `decode` go between latents and
        pictures; gradients are off unless the hook turns them on.
        """
        n = len(tokens)
        if (control is None) != (self._control is None):
            raise UserError("a control picture and a ControlNet or T2I-Adapter belong together; give both or neither")
        if sketch is not None and not self.reads_sketch:
            raise UserError(f"generator {self.name!r} reads no sketch; give it as a start picture instead")
        beside = {"seeds": seeds, "start pictures": start, "prompts": prompts, "sketches": sketch}
        beside["control pictures"] = control
        for what, given in beside.items():
            if given is not None and len(given) != n:
                raise UserError(f"{len(given)} {what} for {n} rows of tokens; give one each")
        steps = self.defaults.steps if steps is None else steps
        guidance = self.defaults.guidance_scale if guidance_scale is None else guidance_scale
        self._pipe.set_ip_adapter_scale(scale)
        chunks: Any = [range(i, min(n, i + batch_size)) for i in range(0, n, batch_size)]
        if progress:
            from tqdm import tqdm

            chunks = tqdm(chunks, desc=progress)
        pictures = []
        for rows in chunks:
            own = slice(rows.start, rows.stop)
            count = batch_size if self.runtime.compile else len(rows)  # one shape for the compiler
            padded = [*rows, *[rows[-1]] * (count - len(rows))]
            timesteps = set_steps(self._pipe.scheduler, steps, None if start is None else strength, self._device)
            noise, generators = own_noise([seeds[i] for i in padded], self._latent_shape())
            latents = self._starting(noise.to(self._device), None if start is None else start[own], timesteps)
            words = [prompts[i] if prompts else "" for i in padded]
            drawn = None if sketch is None else sketch[padded]
            hint = self._hint(tokens[padded], drawn)
            held = None if control is None else control[padded]
            model = self._model(tokens[padded], words, guidance, held, hint)
            hook = None if guide is None else partial(_on_rows, guide, rows)
            with self._keeping():
                latents = denoise(self._pipe.scheduler, timesteps, model, latents, generators, hook)
            pictures.append(self.decode(latents[: len(rows)]).float().cpu())
            if self.runtime.offload:
                self._pipe.maybe_free_model_hooks()
        return torch.cat(pictures) if pictures else torch.zeros(0, 3, self.size, self.size)

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w) float32 of pictures (B, 3, H, W) in [0, 1], resized to the generator's size: the mean of
        the posterior, scaled as the UNet reads it."""
        size = (self.size, self.size)
        if tuple(pictures.shape[-2:]) != size:
            pictures = interpolate(pictures.float(), size, mode="bilinear", align_corners=False, antialias=True)
        pixels = (2 * pictures - 1).to(self._device, self._vae.dtype)
        return self._scale.scaled(self._vae.encode(pixels).latent_dist.mode().float())

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) in [0, 1] of latents (B, C, h, w)."""
        decoded = self._vae.decode(self._scale.raw(latents).to(self._vae.dtype)).sample
        return (decoded.float() / 2 + 0.5).clamp(0, 1)

    @property
    def _vae(self) -> Any:
        return self._pipe.vae

    @property
    def _scale(self) -> LatentScale:
        return LatentScale.of(self._vae)

    def _latent_shape(self) -> tuple[int, int, int]:
        size = self._pipe.unet.config.sample_size
        return self._vae.config.latent_channels, size, size

    def _place(self, unet: nn.Module) -> None:
        """Everything onto the device (or, with offload, part by part when it runs)."""
        vae = self._vae
        if self.runtime.precision == "fp16" and getattr(vae.config, "force_upcast", False):
            vae.to(torch.float32)  # the VAE of SDXL overflows in half precision
        if self.size >= _LARGE:
            vae.enable_slicing()
        if self.runtime.offload:
            self._pipe.enable_model_cpu_offload(device=self._device)
        else:
            self._pipe.to(self._device)
        vae.to(memory_format=torch.channels_last)
        if self._device.type == "cuda":  # small maps on a CPU gain nothing
            unet.to(memory_format=torch.channels_last)

    def _starting(self, noise: torch.Tensor, start: torch.Tensor | None, timesteps: torch.Tensor) -> torch.Tensor:
        scheduler = self._pipe.scheduler
        if start is None:
            return noise * scheduler.init_noise_sigma
        clean = self.encode(start)
        clean = torch.cat([clean, clean[-1:].expand(len(noise) - len(clean), -1, -1, -1)])
        return scheduler.add_noise(clean, noise, timesteps[:1].expand(len(noise)))

    def _hint(self, tokens: torch.Tensor, drawn: torch.Tensor | None) -> torch.Tensor | None:
        """Unscaled latents (B, C, h, w) of the sketch for the second input channels, None where there are none."""
        if not self.reads_sketch:
            return None
        if drawn is not None:
            return self._scale.raw(self.encode(drawn))
        if self._sketch is None:
            return torch.zeros(len(tokens), *self._latent_shape(), device=self._device)
        return self._scale.raw(self._sketch(tokens.float()).to(self._device))

    def sketched(self, tokens: torch.Tensor) -> torch.Tensor | None:
        """Pictures (n, 3, H, W) in [0, 1] that the conditioner's sketch gives for tokens (n, N, D); None for none."""
        return None if self._sketch is None else self.decode(self._sketch(tokens.float()).to(self._device))

    def _keeping(self) -> AbstractContextManager[None]:
        """On a CPU; GPUs gain next to nothing and would pay with their memory, compiled networks are left alone."""
        plain = self._device.type == "cpu" and not self.runtime.compile
        return kept_keys(self._pipe.unet) if plain else nullcontext()

    def _model(
        self,
        tokens: torch.Tensor,
        prompts: Sequence[str],
        guidance: float,
        control: torch.Tensor | None = None,
        hint: torch.Tensor | None = None,
    ) -> Any:
        """The UNet, with guidance, as a function of the noisy latents and the timestep."""
        distilled = self._pipe.unet.config.time_cond_proj_dim is not None  # guidance is an input (LCM)
        guided = guidance > 1 and not distilled
        dtype = self._pipe.unet.dtype
        given = self.bridge(tokens).to(self._device, torch.float32)
        negative = self.bridge.negative.to(given)
        text = self._texts.batch(prompts)
        if guided:
            given = torch.cat([negative.expand(len(given), *negative.shape[1:]), given])
            text = joined([*[self._texts.negative] * len(prompts), text])
        image = self._projection([given[:, None]])[0].to(dtype)
        condition: dict[str, Any] = {"encoder_hidden_states": (text.states.to(self._device, dtype), [image])}
        if distilled:
            strength = torch.full((len(given),), guidance - 1)
            embedding = self._pipe.get_guidance_scale_embedding(strength, self._pipe.unet.config.time_cond_proj_dim)
            condition["timestep_cond"] = embedding.to(self._device, dtype)
        condition["added_cond_kwargs"] = added_conditions(self._pipe, text, self.size, self._device, dtype)

        added = None if self._control is None or control is None else self._control.residuals(control, guided)
        if hint is not None:  # guidance compares with no tokens and no sketch
            hint = (torch.cat([torch.zeros_like(hint), hint]) if guided else hint).to(dtype)

        def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            both = (torch.cat([x, x]) if guided else x).to(dtype)
            if hint is not None:
                both = torch.cat([both, hint], dim=1)
            residuals = {} if added is None else added(both, t, condition)
            out = self._run(both, t, **condition, **residuals, return_dict=False)[0].float()
            if not guided:
                return out
            plain, conditioned = out.chunk(2)
            return plain + guidance * (conditioned - plain)

        return model


def _on_rows(guide: Guide, rows: range, x0: torch.Tensor, step: int) -> torch.Tensor:
    """The hook sees the pictures of the call, not those that fill a batch up for the compiler."""
    changed = guide(x0[: len(rows)], step, rows)
    return torch.cat([changed, x0[len(rows) :]])


def own_conditioners(backbone: str, home: Path | None = None, generator: str = "mini") -> dict[Path, ConditionerInfo]:
    """Files for tokens of ``backbone`` and this generator: those under ``<home>/runs/recon``, newest first, then the
    embedded ones."""
    folder = (home or Path.cwd()) / "runs" / "recon"
    trained = sorted(folder.glob(f"*/{WEIGHTS}"), key=lambda path: path.stat().st_mtime, reverse=True)
    every = {
        path: read_info(path) for path in [*trained, *sorted((mini_folder() / "conditioners").glob("*.safetensors"))]
    }
    return {
        path: info
        for path, info in every.items()
        if info.backbone == backbone and full_name(info.generator) == full_name(generator)
    }


def find_conditioner(
    backbone: str, layer: str, pooling: str, home: Path | None = None, generator: str = "mini"
) -> Path:
    """The first of `own_conditioners` for these tokens; raises `UserError` naming the command that trains one."""
    for path, info in own_conditioners(backbone, home, generator).items():
        if (info.layer, info.pooling) == (layer, pooling):
            return path
    raise UserError(
        f"no conditioner of {generator} takes {pooling} tokens of {backbone} layer {layer}; train one: "
        f"accelerate launch recon/train.py generator={generator} backbone.name={backbone} layer={layer} "
        f"pooling={pooling} 'pictures.photographs=[FOLDER]'"
    )

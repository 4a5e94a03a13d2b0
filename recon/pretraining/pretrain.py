"""`recon pretrain`: builds the embedded miniature Stable Diffusion, stage by stage, each resumable.

    recon pretrain --config configs/recon/mini.yaml

clip    image encoder (the `mini` backbone) and text encoder, contrastively, on pictures and captions
reader  the attribute reader, judge of the simulated study
vae     64 px pictures to 16 x 16 latents
decoder what turns latents into pictures, once more: as much fine detail as the true pictures have
unet    the denoiser on captions, together with two conditioners (mini tokens, SqueezeNet 1.1 tokens)
sketch  straight from either tokens to latents: the coarse picture that the diffusion may start from
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from align.config import BackboneConfig
from align.data.studies.simulated.rendering import scene_of
from align.errors import UserError
from align.files import locked
from align.vision.backbones import load_backbone
from align.vision.fused import require_pooling
from recon.config import PretrainConfig
from recon.generation.loop import run_stage
from recon.metrics.reader import AttributeReader, degrade, labels_of, reader_loss
from recon.pretraining import miniature
from recon.pretraining.denoiser import train_sketches, train_unet
from recon.pretraining.export import export_generator, export_reader, export_towers
from recon.pretraining.parts import (
    DONE,
    MEAN,
    STD,
    assets_folder,
    finish,
    images_at,
    perceptual_distance,
    restore,
    stage_of,
    tokenizer_for,
)
from recon.pretraining.pictures import Pool, load_pool
from recon.pretraining.same_stage import require_same
from recon.pretraining.sketching import fine, fine_contrast

log = logging.getLogger(__name__)


def run(config: PretrainConfig) -> Path:
    """Run the stages of ``config.stages`` that are not finished; returns the folder of the finished model.

    Raises `UserError` for a bad configuration, a device that is not there, an unreadable source of pictures, a stage
    that was begun with another configuration, or while another process does the same there.
    """
    config.check()
    if config.device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"device={config.device!r} is not available here; use device=cpu (configs/recon/mini.yaml)")
    if "unet" in config.stages and not (config.pictures.photographs or config.pictures.v4_root):
        raise UserError("stage unet needs photographs: give 'pictures.photographs=[ZIP_OR_FOLDER]' or pictures.v4_root")
    _require_layers(config)
    out = Path(config.out)
    with _alone(out), _alone(assets_folder(config)):
        pool = load_pool(config.pictures, out)
        for name in config.stages:
            log.info("stage %s", name)
            train, export = STAGES[name]
            require_same(config, name, out / name)
            if not (out / name / DONE).is_file():
                train(config, pool, out / name)
            if export:
                export(config, pool)
    return assets_folder(config)


def _alone(folder: Path) -> AbstractContextManager[None]:
    """Keep every other pretraining out of a folder: of checkpoints, or of the finished model, which may lie apart."""
    return locked(folder / ".pretrain.lock", f"pretraining into {str(folder)!r}", keep=False)


def _require_layers(config: PretrainConfig) -> None:
    """Layers and poolings of the conditioners can be had, before hours of earlier stages."""
    if not {"unet", "sketch"} & set(config.stages):
        return
    mini = load_backbone(BackboneConfig("mini"))  # the architecture that stage clip trains
    squeezenet = load_backbone(BackboneConfig("torchvision/squeezenet1_1", config.squeezenet_weights))
    require_pooling(mini, [config.mini_layer], config.mini_pooling)
    require_pooling(squeezenet, [config.squeezenet_layer], config.squeezenet_pooling)


# ---------------------------------------------------------------------------------------------------------- clip


def captions_for_clip(pool: Pool, rows: np.ndarray, rng: np.random.Generator) -> list[str]:
    """One way of naming per batch: the shape, shape and pattern, or the whole concept (now and then with its colour).

    A batch that names shapes alone can only be solved by shape: with whole concepts, pattern and texture tell almost
    every pair of a batch apart and shape is never learned. Place and size are never named.
    """
    naming = rng.choice(("shape", "pattern", "concept"), p=(0.4, 0.2, 0.4))
    texts = []
    for row in rows:
        if row >= pool.n_rendered:
            texts.append(pool.captions[row])
            continue
        scene = scene_of(pool.ids[row])
        words = scene.shape if naming == "shape" else f"{scene.pattern} {scene.shape}"
        if naming == "concept":
            colour = f"{scene.colour} " if rng.random() < 0.2 else ""
            words = f"{colour}{words} on {scene.texture}"
        texts.append(f"a {words}")
    return texts


def clip_loss(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE in which pictures of one caption are all positives; ``same`` (B, B) bool."""
    logits = scale.exp() * F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T
    wanted = same.float() / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2


def train_clip(config: PretrainConfig, pool: Pool, folder: Path) -> None:
    """Both towers. The mean of the patch tokens and one patch token drawn at random are trained like CLS, so that
    every token of the last layer is semantic; flips and swapped colour channels teach it to ignore the rest."""
    tokenizer = tokenizer_for(pool, folder)
    torch.manual_seed(config.seed)
    vision = miniature.build_image_encoder().to(config.device)
    text = miniature.build_text_encoder(tokenizer).to(config.device)
    scale = nn.ParameterDict({"logit_scale": nn.Parameter(torch.tensor(2.66))}).to(config.device)
    captioned = np.array([i for i in range(pool.n_rendered, len(pool.ids)) if pool.captions[i]], dtype=np.int64)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        images, texts = clip_batch(config, pool, captioned, rng)
        batch = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").to(config.device)
        embeds = text(**batch).text_embeds
        same = torch.tensor([[a == b for b in texts] for a in texts], device=config.device)
        hidden = vision.vision_model(pixel_values=((images - MEAN) / STD).to(config.device)).last_hidden_state
        drawn = torch.from_numpy(rng.integers(1, hidden.shape[1], len(images)))
        views = {"cls": hidden[:, 0], "mean": hidden[:, 1:].mean(1), "patch": hidden[torch.arange(len(images)), drawn]}
        s = scale["logit_scale"].clamp(max=4.6)
        parts = {
            name: clip_loss(vision.visual_projection(vision.vision_model.post_layernorm(view)), embeds, s, same)
            for name, view in views.items()
        }
        return torch.stack(list(parts.values())).mean(), {name: float(part.detach()) for name, part in parts.items()}

    modules = {"image_encoder": vision, "text_encoder": text, "scale": scale}
    finish(folder, run_stage(stage_of(config, "clip", modules=modules, loss=loss, folder=folder, weight_decay=0.1)))


def clip_batch(
    config: PretrainConfig, pool: Pool, captioned: np.ndarray, rng: np.random.Generator
) -> tuple[torch.Tensor, list[str]]:
    """Augmented pictures (B, 3, 64, 64) and a caption for each; three fifths are photographs, where there are any."""
    n_photographs = round(0.6 * config.clip.batch_size) if len(captioned) else 0
    rows = rng.integers(0, pool.n_rendered, config.clip.batch_size - n_photographs)
    rows = np.concatenate([rows, rng.choice(captioned, n_photographs)]) if n_photographs else rows
    texts = captions_for_clip(pool, rows, rng)
    images = images_at(pool, rows)
    flip = torch.from_numpy(rng.random(len(rows)) < 0.5)
    images[flip] = images[flip].flip(-1)
    for i, (row, words) in enumerate(zip(rows, texts, strict=True)):
        names_colour = len(words.split()) == 6
        if row >= pool.n_rendered:
            images[i] = cropped(images[i], rng)
        if row < pool.n_rendered and not names_colour and rng.random() < 0.5:
            images[i] = images[i][torch.from_numpy(rng.permutation(3))]
    return images, texts


def cropped(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A random part (at least half of the area) of a picture (3, H, W), enlarged to its size."""
    side = image.shape[-1]
    part = round(side * float(rng.uniform(0.7, 1)))
    top, left = rng.integers(0, side - part + 1, 2)
    piece = image[None, :, top : top + part, left : left + part]
    return F.interpolate(piece, (side, side), mode="bilinear", align_corners=False, antialias=True)[0]


# -------------------------------------------------------------------------------------------------------- reader


def train_reader(config: PretrainConfig, pool: Pool, folder: Path) -> None:
    """The attribute reader, on rendered pictures and degraded copies of them."""
    torch.manual_seed(config.seed + 1)
    reader = AttributeReader().to(config.device)
    labels = torch.tensor([labels_of(scene_of(i)) for i in pool.ids[: pool.n_rendered]])

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = torch.randint(pool.n_rendered, (config.reader.batch_size,), generator=generator).numpy()
        images = degrade(images_at(pool, rows), generator).to(config.device)
        return reader_loss(reader, images, labels[rows].to(config.device)), {}

    stage = stage_of(config, "reader", modules={"reader": reader}, loss=loss, folder=folder, weight_decay=0.05)
    finish(folder, run_stage(stage))


# ----------------------------------------------------------------------------------------------------------- vae


def train_vae(config: PretrainConfig, pool: Pool, folder: Path) -> None:
    """Absolute and squared error + perceptual distance (SqueezeNet 1.1) + a little KL."""
    torch.manual_seed(config.seed + 2)
    vae = miniature.build_vae().to(config.device)
    perceptual = perceptual_distance(config.squeezenet_weights, config.device)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        images = drawn_images(config, pool, config.vae.batch_size, generator)
        posterior = vae.encode(images).latent_dist
        decoded = vae.decode(posterior.sample()).sample.float()
        pixels = F.l1_loss(decoded, images) + F.mse_loss(decoded, images) + F.l1_loss(fine(decoded), fine(images))
        kl = posterior.kl().mean() / images[0].numel()
        seen = perceptual(decoded, images)
        total = pixels + 0.1 * seen + 1e-5 * kl
        return total, {"pixels": float(pixels.detach()), "perceptual": float(seen.detach()), "kl": float(kl.detach())}

    parts = run_stage(stage_of(config, "vae", modules={"vae": vae}, loss=loss, folder=folder, ema_decay=0.995))
    averaged = parts["vae"].cpu()
    with torch.no_grad():
        rows = pool.sample(np.random.default_rng(0), 512, config.pictures.share_photographs)
        latents = torch.cat([averaged.encode(b * 2 - 1).latent_dist.mean for b in images_at(pool, rows).split(64)])  # type: ignore[operator]
    finish(folder, parts, {"scaling_factor": 1 / latents.std()})


def drawn_images(config: PretrainConfig, pool: Pool, n: int, generator: torch.Generator) -> torch.Tensor:
    """(n, 3, 64, 64) in [-1, 1] of the pool, on the device."""
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    rows = pool.sample(rng, n, config.pictures.share_photographs)
    return images_at(pool, rows).to(config.device) * 2 - 1


def train_decoder(config: PretrainConfig, pool: Pool, folder: Path) -> None:
    """The VAE's decoder alone, so that latents stay what they are: errors of pixels, and strength of fine detail."""
    torch.manual_seed(config.seed + 5)
    out = Path(config.out)
    vae = restore(out / "vae", "vae", miniature.build_vae()).to(config.device)
    parts = {name: vae.get_submodule(name).requires_grad_(True) for name in ("post_quant_conv", "decoder")}
    perceptual = perceptual_distance(config.squeezenet_weights, config.device)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        images = drawn_images(config, pool, config.decoder.batch_size, generator)
        with torch.no_grad():
            latents = vae.encode(images).latent_dist.mean  # type: ignore[operator]
        decoded = vae.decode(latents).sample.float()  # type: ignore[operator]
        pixels = F.l1_loss(decoded, images) + F.mse_loss(decoded, images) + F.l1_loss(fine(decoded), fine(images))
        seen = perceptual(decoded, images)
        texture = F.l1_loss(fine_contrast(decoded), fine_contrast(images))
        total = pixels + 0.1 * seen + 2 * texture
        return total, {"pixels": float(pixels.detach()), "texture": float(texture.detach())}

    stage = stage_of(config, "decoder", modules=parts, loss=loss, folder=folder, ema_decay=0.99)
    finish(folder, {name: part.cpu() for name, part in run_stage(stage).items()})


STAGES: dict[str, tuple[Callable[..., None], Callable[..., None] | None]] = {
    "clip": (train_clip, export_towers),
    "reader": (train_reader, export_reader),
    "vae": (train_vae, None),
    "decoder": (train_decoder, None),
    "sketch": (train_sketches, None),
    "unet": (train_unet, export_generator),
}

"""`recon pretrain`: builds the embedded miniature Stable Diffusion, stage by stage, each resumable.

    recon pretrain --config configs/recon/mini.yaml

clip    image encoder (the `mini` backbone) and text encoder, contrastively, on pictures and captions
reader  the attribute reader, judge of the simulated study
vae     64 px pictures to 16 x 16 latents
unet    the denoiser on captions, together with two conditioners (mini tokens, SqueezeNet 1.1 tokens)
sketch  straight from either tokens to latents: the coarse picture that the diffusion may start from
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from align.config import BackboneConfig
from align.data.rendering import scene_of
from align.errors import UserError
from align.files import read_json, read_tensors, save_tensors, write_json
from recon.config import PretrainConfig
from recon.generation import miniature
from recon.generation.denoiser import train_sketches, train_unet
from recon.generation.export import assets_folder, export_generator, export_reader, export_towers
from recon.generation.loop import Stage, run_stage
from recon.generation.pictures import Pool, load_pool
from recon.generation.sketching import fine
from recon.generation.reader import AttributeReader, degrade, labels_of, reader_loss

log = logging.getLogger(__name__)
DONE = "done.safetensors"
MEAN = STD = 0.5  # of the image encoder's input, all channels


def run(config: PretrainConfig) -> Path:
    """Run the stages of ``config.stages`` that are not finished; returns the folder of the finished model.

    Raises `UserError` for an unknown stage, a device that is not there, or an unreadable source of pictures.
    """
    unknown = [name for name in config.stages if name not in STAGES]
    if unknown:
        raise UserError(f"stages={unknown[0]!r} is not known; the stages are {', '.join(STAGES)}")
    if config.device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"device={config.device!r} is not available here; use device=cpu (configs/recon/mini.yaml)")
    if "unet" in config.stages and not (config.pictures.photographs or config.pictures.v4_root):
        raise UserError("stage unet needs photographs: give 'pictures.photographs=[ZIP_OR_FOLDER]' or pictures.v4_root")
    out = Path(config.out)
    pool = load_pool(config.pictures, out)
    for name in config.stages:
        log.info("stage %s", name)
        train, export = STAGES[name]
        if not (out / name / DONE).is_file():
            train(config, pool, out / name)
        if export:
            export(config, pool)
    return assets_folder(config)


def images_at(pool: Pool, rows: np.ndarray) -> torch.Tensor:
    """(B, 3, 64, 64) in [0, 1]."""
    return torch.from_numpy(np.array(pool.images[rows])).permute(0, 3, 1, 2).float() / 255


def stage_of(config: PretrainConfig, name: str, modules: dict[str, nn.Module], **kwargs: object) -> Stage:
    """A `Stage` with the settings every stage shares; its modules start from ``config.start_from``, if given."""
    if config.start_from is not None and (Path(config.start_from) / name).is_dir():
        start_from(Path(config.start_from) / name, modules)
    shared = {"seed": config.seed, "checkpoint_every": config.checkpoint_every, "precision": config.precision}
    return Stage(name=name, modules=modules, config=getattr(config, name), **(shared | kwargs))  # type: ignore[arg-type]


def start_from(folder: Path, modules: dict[str, nn.Module]) -> None:
    """Copy what an earlier `finish` wrote wherever name and shape agree; the rest keeps its random start.

    Raises `UserError` when that stage was not finished or nothing fits.
    """
    if not (folder / DONE).is_file():
        raise UserError(f"start_from: {folder / DONE} is missing; finish that stage first or leave start_from out")
    tensors, _ = read_tensors(folder / DONE)
    own = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    fits = [key for key in own if key in tensors and tensors[key].shape == own[key].shape]
    if not fits:
        raise UserError(f"start_from: nothing in {folder / DONE} has the names and shapes of this stage")
    with torch.no_grad():
        for key in fits:
            own[key].copy_(tensors[key])
    log.info("%d of %d tensors start from %s", len(fits), len(own), folder)


def finish(folder: Path, parts: dict[str, nn.Module], extra: dict[str, torch.Tensor] | None = None) -> None:
    """Write the trained parts of a stage, float32: ``done.safetensors``."""
    tensors = {f"{name}/{key}": value for name, module in parts.items() for key, value in module.state_dict().items()}
    save_tensors(folder / DONE, {k: v.clone() for k, v in (tensors | (extra or {})).items()})


def restore(folder: Path, name: str, module: nn.Module) -> nn.Module:
    """Load one part that `finish` wrote, strictly; frozen."""
    tensors, _ = read_tensors(folder / DONE)
    own = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}/")}
    module.load_state_dict(own)
    return module.eval().requires_grad_(False)


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


def tokenizer_for(pool: Pool, folder: Path):  # type: ignore[no-untyped-def]
    """The tokenizer of the pool's captions, learned once and stored as JSON beside the clip stage."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        tokenizer = miniature.build_tokenizer([caption for caption in pool.captions if caption])
        vocab, merges = miniature.tables_of(tokenizer)
        write_json(path, {"vocab": vocab, "merges": merges})
    tables = read_json(path)
    return miniature.make_tokenizer(tables["vocab"], [tuple(pair) for pair in tables["merges"]])


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
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        rows = pool.sample(rng, config.vae.batch_size, config.pictures.share_photographs)
        images = images_at(pool, rows).to(config.device) * 2 - 1
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


def perceptual_distance(weights: str | None, device: str):  # type: ignore[no-untyped-def]
    """Mean squared difference of channel-normalised SqueezeNet 1.1 features at three depths."""
    from align.vision.backbones import load_backbone

    model = load_backbone(BackboneConfig("torchvision/squeezenet1_1", weights)).model.to(device)
    net = list(model.get_submodule("features").children())
    mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=device).view(3, 1, 1)

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        x = (torch.cat([a, b]) / 2 + 0.5 - mean) / std
        total = torch.zeros((), device=device)
        for index, layer in enumerate(net):
            x = layer(x)
            if index in (1, 4, 7):
                first, second = F.normalize(x.float(), dim=1, eps=1e-4).chunk(2)
                total = total + (first - second).square().sum(1).mean()
            if index == 7:
                break
        return total

    return distance


def load_vae(out: Path) -> tuple[nn.Module, float]:
    """The trained VAE and its scaling factor."""
    tensors, _ = read_tensors(out / "vae" / DONE)
    return restore(out / "vae", "vae", miniature.build_vae()), float(tensors["scaling_factor"])


def load_text(out: Path, pool: Pool) -> tuple[nn.Module, object]:
    """The trained text tower and its tokenizer."""
    tokenizer = tokenizer_for(pool, out / "clip")
    return restore(out / "clip", "text_encoder", miniature.build_text_encoder(tokenizer)), tokenizer


STAGES: dict[str, tuple[Callable[..., None], Callable[..., None] | None]] = {
    "clip": (train_clip, export_towers),
    "reader": (train_reader, export_reader),
    "vae": (train_vae, None),
    "sketch": (train_sketches, None),
    "unet": (train_unet, export_generator),
}

"""One loader per library of vision models. Each turns (model name, config) into a `Backbone`.

Weights: the library's own default where ``config.weights`` is None (needs the network once; pinned by
``config.revision`` where they lie on the Hugging Face hub), a local state dict in the library's own layout
(torchvision, timm, open_clip), or a local folder (timm, open_clip; transformers: see `transformers_models`).
The ``wrap_*`` functions take a model as it is, so that architectures can be measured without weights.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from align.config import BackboneConfig
from align.errors import UserError
from align.vision.packages import PACKAGED, packaged_state
from align.vision.taps import Backbone
from align.vision.weights import fetching, hub_file, load_strict, local_state_dict, local_weights
from align.vision.wrap import convnet, preprocessing, timm_parts, transformer

Loader = Callable[[str, BackboneConfig], Backbone]


def load_torchvision(model_name: str, config: BackboneConfig) -> Backbone:
    """Classification models of torchvision: convnets by module name, vision transformers by block.

    Their files are pinned by the hash in the file's name, so a revision is refused.
    """
    from torchvision import models

    require_known(config.name, model_name, models.list_models(module=models))
    if config.revision:
        raise UserError(f"backbone.revision={config.revision!r}: {config.name} is pinned by its file's hash; leave it")
    model = models.get_model(model_name, weights=None)
    state = local_state_dict(config)
    if state is None:
        with fetching(config):
            default = models.get_model_weights(model_name).DEFAULT
            state = default.get_state_dict(progress=False, check_hash=True, weights_only=True)
    load_strict(model, state, config)
    return wrap_torchvision(model_name, config, model)


def wrap_torchvision(model_name: str, config: BackboneConfig, model: Any) -> Backbone:
    """As `load_torchvision`, for a model at hand."""
    from torchvision import models

    own = models.get_model_weights(model_name).DEFAULT.transforms()
    facts = preprocessing(config.image_size or own.crop_size[0], own.mean, own.std, own.interpolation.value)
    if isinstance(model, models.VisionTransformer):
        return transformer(config, model, "encoder.layers", model.patch_size, facts)
    if isinstance(model, models.SwinTransformer):
        raise UserError(f"{config.name} keeps channels last; use timm's, such as timm/swin_tiny_patch4_window7_224")
    return convnet(config, model, facts)


def load_timm(model_name: str, config: BackboneConfig) -> Backbone:
    """Models of timm: vision transformers by block, everything else by module name.

    ``backbone.weights`` is a state dict or a folder with ``model.safetensors``, such as a snapshot of the hub. Without
    it, weights that an installed package carries come first (`align.vision.packages`), then the hub.
    """
    import timm

    require_known(config.name, model_name.split(".")[0], timm.list_models())
    state = local_state_dict(config, inside="model.safetensors")
    if state is None and config.revision is None and model_name.partition(".")[0] in PACKAGED:
        model = timm.create_model(model_name.partition(".")[0], pretrained=False)
        state = packaged_state(model_name, list(model.state_dict()))
    if state is None:
        with fetching(config):
            model = timm.create_model(model_name, pretrained=True, pretrained_cfg_overlay=_timm_file(config))
    else:
        model = timm.create_model(model_name, pretrained=False)
        load_strict(model, state, config)
    return wrap_timm(config, model)


def _timm_file(config: BackboneConfig) -> dict[str, str] | None:
    """The file on the hub, fetched before the model is built; None where the weights lie elsewhere."""
    import timm

    own = timm.get_pretrained_cfg(config.name.partition("/")[2])
    if own is not None and own.hf_hub_id and not own.hf_hub_filename:
        return {"file": str(hub_file(own.hf_hub_id, "model.safetensors", config.revision))}
    if config.revision:
        raise UserError(f"backbone.revision={config.revision!r}: {config.name} has no file of its own on the hub")
    return None


def wrap_timm(config: BackboneConfig, model: Any) -> Backbone:
    """As `load_timm`, for a model at hand."""
    import timm

    own = timm.data.resolve_model_data_config(model)
    size = config.image_size or own["input_size"][-1]
    if size != own["input_size"][-1] and hasattr(model, "set_input_size"):
        model.set_input_size(img_size=size)
    return timm_parts(config, model, model, "", preprocessing(size, own["mean"], own["std"], own["interpolation"]))


def load_open_clip(model_name: str, config: BackboneConfig) -> Backbone:
    """Vision towers of open_clip; the name is ``ARCHITECTURE:TAG``, the tag being optional with local weights.

    Weights that were trained with QuickGELU, as OpenAI's, get it under either name of their architecture.
    """
    import open_clip

    architecture, _, tag = model_name.partition(":")
    weights = local_weights(config)
    if weights is None and not tag:
        raise UserError(f"{config.name} names no weights; write {config.name}:TAG or pass backbone.weights=FILE or DIR")
    options: dict[str, Any] = {"require_pretrained": True, "pretrained_text": False}
    if config.image_size is not None:
        options["force_image_size"] = config.image_size
    with fetching(config):
        if weights is not None and weights.is_dir():
            model = open_clip.create_model(f"local-dir:{weights}", **options)
        else:
            require_known(config.name, architecture, open_clip.list_models())
            options |= open_clip_options(model_name)
            source = str(weights) if weights else _open_clip_source(config, architecture, tag)
            model = open_clip.create_model(architecture, pretrained=source, **options)
    return wrap_open_clip(config, model)


def open_clip_options(model_name: str) -> dict[str, Any]:
    """What the weights of a tag need, whichever file they come from: their preprocessing and activation."""
    import open_clip

    architecture, _, tag = model_name.partition(":")
    own = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    if tag and not own:
        known = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise UserError(f"open_clip/{architecture} has no weights {tag!r}; known: {known}")
    options: dict[str, Any] = {"force_quick_gelu": True} if own.get("quick_gelu") else {}
    if own:
        options["force_preprocess_cfg"] = {k: own[k] for k in ("mean", "std", "interpolation") if k in own}
    return options


def _open_clip_source(config: BackboneConfig, architecture: str, tag: str) -> str:
    """The tag itself, or with a revision the file that the hub had then."""
    import open_clip
    from open_clip.pretrained import download_pretrained_from_hf

    if not config.revision:
        return tag
    place = open_clip.get_pretrained_cfg(architecture, tag).get("hf_hub", "")
    repository, _, file = place.rpartition("/")
    if not repository:
        raise UserError(f"backbone.revision={config.revision!r}: {config.name} does not lie on the hub; leave it out")
    return str(download_pretrained_from_hf(repository, filename=file or None, revision=config.revision))


def wrap_open_clip(config: BackboneConfig, model: Any) -> Backbone:
    """As `load_open_clip`, for a model at hand; the text tower is let go."""
    import open_clip

    own = open_clip.get_model_preprocess_cfg(model)
    visual = model.visual.eval()
    size = own["size"] if isinstance(own["size"], int) else own["size"][0]
    facts = preprocessing(size, own["mean"], own["std"], own["interpolation"])
    if hasattr(visual, "trunk"):
        return timm_parts(config, visual, visual.trunk, "trunk.", facts)
    if hasattr(visual, "transformer"):
        return transformer(config, visual, "transformer.resblocks", visual.patch_size[0], facts)
    return convnet(config, visual, facts)


def require_known(name: str, model_name: str, known: list[str]) -> None:
    """Raise `UserError`, with the nearest name, unless the library knows the model."""
    if model_name not in known:
        near = difflib.get_close_matches(model_name, known, n=1, cutoff=0.4)
        hint = f"; did you mean {name.split('/')[0]}/{near[0]}?" if near else ""
        raise UserError(f"backbone {name!r} is not known{hint}")

"""How short texts in a configuration are written: pooling, views, a window of time, the name of a backbone."""

from __future__ import annotations

import difflib
import math

from align.errors import UserError

FAMILIES = ("mini", "torchvision", "timm", "open_clip", "transformers")  # of backbones; mini has one member, itself
VIEWS: dict[str, tuple[tuple[float, float], str]] = {  # altered copies of a picture: range of the strength, example
    "original": ((1, 1), "original"),
    "blur": ((3, 223), "blur:15"),
    "noise": ((0, 255), "noise:25"),
    "lowres": ((0.01, 1), "lowres:0.1"),
    "mosaic": ((1, 223), "mosaic:5"),
    "foveal": ((3, 223), "foveal:51"),
}


def parse_pooling(pooling: str) -> tuple[str, int]:
    """``("grid", n)`` for ``grid:n``, else ``(name, 0)``; raises `UserError` for anything unknown."""
    kind, colon, size = pooling.partition(":")
    if kind == "grid" and size.isdecimal() and int(size) > 0:
        return kind, int(size)
    if kind in ("tokens", "mean", "max", "cls") and not colon:
        return kind, 0
    raise UserError(f"pooling {pooling!r} is not known; use tokens, mean, max, cls or grid:n such as grid:4")


def parse_view(view: str) -> tuple[str, float]:
    """``("blur", 15.0)`` for ``blur:15``; raises `UserError` for an unknown name or a strength out of range."""
    name, _, text = view.partition(":")
    if name not in VIEWS:
        raise UserError(f"view {view!r} is not known; use {', '.join(example for _, example in VIEWS.values())}")
    allowed, example = VIEWS[name]
    try:
        strength = float(text) if name != "original" else float(not text)
    except ValueError:
        strength = float("nan")
    if not allowed[0] <= strength <= allowed[1]:
        limits = f"a strength of {allowed[0]:g} to {allowed[1]:g}" if name != "original" else "no strength"
        raise UserError(f"view {view!r} should have {limits}, such as {example}")
    return name, strength


def parse_window(text: str) -> tuple[float, float]:
    """``0.05:0.35`` as (first sample kept, first no longer kept) in s; raises `UserError` for anything else."""
    try:
        start, stop = (float(part) for part in text.split(":"))
    except ValueError:
        raise UserError(f"window {text!r} is not FROM:TO in seconds, such as 0.05:0.35") from None
    if not (math.isfinite(start) and math.isfinite(stop) and start < stop):
        raise UserError(f"window {text!r} should run from an earlier to a later time in seconds")
    return start, stop


def network_names(backbone: str) -> tuple[str, ...]:
    """The networks of a name: itself, or those that it joins by ``+``. Raises `UserError` for unknown families."""
    names = tuple(backbone.split("+"))
    for name in names:
        split_name(name)
    return names


def split_name(backbone: str) -> tuple[str, str]:
    """Family and model of ``family/model``; the model of ``mini`` is empty.

    Raises `UserError` for unknown families and for several networks.
    """
    if "+" in backbone:
        raise UserError(f"{backbone!r} are several networks; name one here")
    family, _, model_name = backbone.partition("/")
    if family not in FAMILIES or bool(model_name) != (family != "mini"):
        near = difflib.get_close_matches(family, FAMILIES, n=1, cutoff=0.5)
        example = {"mini": "mini", "open_clip": "open_clip/ViT-B-32:laion2b_s34b_b79k"}
        hint = f"did you mean {example.get(near[0], near[0] + '/MODEL')!r}? " if near else ""
        raise UserError(f"backbone {backbone!r} is not known; {hint}Families: {', '.join(FAMILIES)}")
    return family, model_name

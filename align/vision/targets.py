"""Target tokens on disk: extracted once, in one pass for all layers, streamed, resumable, keyed by all they depend on.

A layer's cache is ``<cache_dir>/targets/<key>.safetensors`` (one tensor ``tokens`` (n, N, D) float16) with
``<key>.json`` beside it. While it grows it is ``<key>.part`` with the rows done in ``<key>.part.json``; a killed
process continues there and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.config import Config
from align.data.signals import Stimuli
from align.errors import Damaged, UserError
from align.files import beside, launched, locked, read_json, remove_unheld
from align.files.checksums import require_crc
from align.vision.part import Part
from align.vision.views import canonical, views_of

if TYPE_CHECKING:
    import torch

    from align.vision.taps import Backbone

logger = logging.getLogger(__name__)

ANISOTROPIC = 0.5  # mean cosine of two random pictures above which a warning is due
_HEALTH_ROWS = 256


@dataclass(frozen=True)
class Targets:
    """Tokens of one layer for a list of pictures.

    ``tokens``: (n, N, D) float16, mapped from the file (pages are read when touched; writes never reach the file).
    Row i belongs to ``ids[i]`` with pixel hash ``hashes[i]``.
    """

    tokens: np.ndarray
    ids: tuple[str, ...]
    hashes: tuple[str, ...]
    key: str
    path: Path
    layer: str
    health: dict[str, Any]
    widths: tuple[int, ...] = ()  # of the layers that D joins
    view_tokens: tuple[np.ndarray, ...] = ()  # tokens of the weak and of the strong view, where training wants them


def cached_targets(
    backbone: Backbone,
    images: Stimuli,
    layers: Sequence[str],
    pooling: str,
    cache_dir: str | Path,
    batch_size: int = 16,
    progress: bool = True,
    views: Sequence[str] = (),
    shared: bool = False,
) -> dict[str, Targets]:
    """Targets of every layer, from the cache where they are, else extracted on the backbone's device.

    The result is keyed by the layer as asked for; ``Targets.layer`` is its resolved name. Memory stays at one batch.
    ``views``: altered copies of every picture (see `align.vision.views`), whose tokens are averaged.
    ``shared``: all processes of a launch come here and extract a share each (see `align.files.launched`); without,
    whoever comes first extracts, and the others wait for it.

    Raises
    ------
    UserError
        Unknown layer, pooling or view, an unreadable picture or cache file, tokens that are not finite in float16.
    """
    from align.vision.taps import resolve_layer

    folder = Path(cache_dir) / "targets"
    names = {layer: resolve_layer(backbone, layer) for layer in layers}
    keys = {name: target_key(backbone, images, name, pooling, views) for name in names.values()}

    def absent(say: bool = False) -> dict[str, str]:
        return {name: key for name, key in keys.items() if not _is_whole(folder / f"{key}.safetensors", say)}

    shared = shared and launched.place()[1] > 1
    decides = launched.is_first() or not shared
    lacking = absent() if decides else {}
    if lacking or shared:
        with _alone_with(folder, lacking):
            todo = {name: key for name, key in (absent(say=True) if lacking else {}).items() if name in lacking}
            if shared:
                todo = _told_by_first(keys, todo)
            if todo:
                _extract(backbone, images, todo, pooling, folder, batch_size, progress, views, shared)
            if shared:
                launched.wait()
    if decides:
        for key in keys.values():
            remove_unheld(_lock(folder, key))
    return {layer: open_targets(folder / f"{keys[name]}.safetensors") for layer, name in names.items()}


def _lock(folder: Path, key: str) -> Path:
    return beside(folder / f"{key}.safetensors", "lock")


def _told_by_first(keys: dict[str, str], todo: dict[str, str]) -> dict[str, str]:
    """What the first process of a launch has found to be done."""
    names = sorted(keys)
    wanted = launched.of_all(np.array([[name in todo for name in names]], dtype=np.int64))[0]
    return {name: keys[name] for name, due in zip(names, wanted, strict=True) if due}


@contextmanager
def _alone_with(folder: Path, keys: dict[str, str]) -> Iterator[None]:
    """Others extract other layers and pictures at the same time; whoever wants one of ``keys`` waits.

    Locks are taken in the order of the keys, so that two sets that overlap never wait for each other.
    """
    with ExitStack() as stack:
        for layer, key in sorted(keys.items(), key=lambda item: item[1]):
            doing = f"extracting targets of layer {layer} into {str(folder)!r}"
            stack.enter_context(locked(_lock(folder, key), doing, wait=None, keep=False))
        yield


def target_key(backbone: Backbone, images: Stimuli, layer: str, pooling: str, views: Sequence[str] = ()) -> str:
    """SHA-256 over all that changes the tokens: backbone, weights, layer, pooling, preprocessing, pictures, views."""
    return _key_of(_facts(backbone, images, layer, pooling, views))


def _key_of(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _facts(backbone: Backbone, images: Stimuli, layer: str, pooling: str, views: Sequence[str]) -> dict[str, Any]:
    """What the key is made of and the cache's JSON file says; views are named where there are any."""
    facts = {
        "backbone": backbone.name,
        "weights_hash": backbone.weights_hash,
        "layer": layer,
        "pooling": pooling,
        "preprocessing": backbone.preprocessing,
        "ids": images.ids,
        "hashes": images.hashes,
    }
    return {**facts, "views": canonical(views)} if views else facts


def _is_whole(path: Path, say: bool) -> bool:
    """Whether a cache file is there and is what was written; with ``say`` a damaged one is told of."""
    if not (path.is_file() and path.with_suffix(".json").is_file()):
        return False
    try:
        open_targets(path)
    except Damaged as error:
        if say:
            logger.warning("%s; these targets are extracted again", error)
        return False
    return True


def open_targets(path: str | Path) -> Targets:
    """Map a cache file; raises `Damaged` when it is truncated, foreign, not what was written, or of another key."""
    path = Path(path)
    info = read_json(path.with_suffix(".json"))
    if _key_of({name: info.get(name) for name in info.keys() - {"health", "crc32"}}) != path.stem:
        raise Damaged(f"{str(path)!r} is of another layer, backbone or set of pictures than its name says")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length) if length < 100_000 else b"")
        shape = tuple(header["tokens"]["shape"])
        whole = path.stat().st_size == 8 + length + 2 * int(np.prod(shape)) and header["tokens"]["dtype"] == "F16"
        whole = whole and shape[0] == len(info["ids"])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise Damaged(f"{str(path)!r} is not a target cache") from error
    if not whole:
        raise Damaged(f"{str(path)!r} is truncated or damaged")
    if not isinstance(info.get("crc32"), int):  # as in caches from before there were checksums
        raise Damaged(f"{str(path)!r} has no checksum")
    require_crc(path, info["crc32"])
    tokens = np.memmap(path, dtype=np.float16, mode="c", offset=8 + length, shape=shape)
    ids, hashes = tuple(info["ids"]), tuple(info["hashes"])
    return Targets(tokens, ids, hashes, path.stem, path, info["layer"], info["health"])


def health(tokens: np.ndarray) -> dict[str, Any]:
    """Mean cosine between two random pictures, raw and after centring, over at most 256 evenly spread rows.

    Parameters
    ----------
    tokens
        (n, ...); every row is flattened.

    Returns
    -------
    dict
        ``cosine_raw``, ``cosine_centred`` (mean over all pairs), ``warning`` (a sentence, or None).
    """
    rows = np.unique(np.linspace(0, len(tokens) - 1, min(len(tokens), _HEALTH_ROWS)).astype(int))
    flat = np.asarray(tokens[rows], dtype=np.float32).reshape(len(rows), -1)
    raw, centred = _mean_cosine(flat), _mean_cosine(flat - flat.mean(0))
    warning = None
    if raw > ANISOTROPIC:
        warning = (
            f"two random pictures have a mean cosine of {raw:.2f} ({centred:.2f} after centring): raw features of this "
            "layer are strongly anisotropic, most of every vector is what all pictures share; compare them only after "
            "centring or standardising per dimension"
        )
    return {"cosine_raw": raw, "cosine_centred": centred, "warning": warning}


def run(config: Config, progress: bool = True) -> dict[str, Any]:
    """Extract and cache ``target.layer`` and ``sweep.layers`` for the subjects of a study (the command's function).

    Uses a GPU where there is one. Returns what was cached, by subject and layer.
    """
    import torch

    from align.data.studies import open_study
    from align.tracking import Stopwatch
    from align.vision.backbones import load_backbone

    config.check()
    watch, study = Stopwatch(), open_study(config)
    for subject in config.subjects:
        study.require_subject(subject)
    backbone = load_backbone(config.backbone).to("cuda" if torch.cuda.is_available() else "cpu")
    layers = list(dict.fromkeys("+".join([config.target.layer, *config.sweep.layers]).split("+")))
    subjects: dict[str, Any] = {}
    cache = config.cache_dir
    for subject in config.subjects or study.default_subjects:
        stimuli = study.recording(subject).stimuli
        found = cached_targets(backbone, stimuli, layers, config.target.pooling, cache, progress=progress, shared=True)
        subjects[subject] = {
            target.layer: {"path": str(target.path), "shape": list(target.tokens.shape), **target.health}
            for target in found.values()
        }
    return {
        "study": config.study.name,
        "backbone": backbone.name,
        "weights_hash": backbone.weights_hash,
        "pooling": config.target.pooling,
        "subjects": subjects,
        "measured": watch.read(),
    }


def _mean_cosine(rows: np.ndarray) -> float:
    """Mean cosine over all pairs of different rows: (|sum of unit rows|^2 - n) / (n (n - 1))."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    units = (rows / np.where(norms > 0, norms, 1)).astype(np.float64)
    n = len(units)
    if n < 2:
        return 0.0
    return float((np.square(units.sum(0)).sum() - np.square(units).sum()) / (n * (n - 1)))


def _extract(
    backbone: Backbone,
    images: Stimuli,
    keys: dict[str, str],
    pooling: str,
    folder: Path,
    batch_size: int,
    progress: bool,
    views: Sequence[str],
    shared: bool = False,
) -> None:
    """One pass over the pictures for all layers. Batches start at multiples of ``batch_size``, resumed or not, by one
    process or by several that were launched together (``shared``)."""
    parts = {layer: Part(folder, key, len(images), batch_size) for layer, key in keys.items()}
    if shared:
        _share(backbone, images, parts, pooling, progress, views)
    else:
        _fill(backbone, images, parts, pooling, progress, views)
    if shared and not launched.is_first():
        return
    reports = {}
    for layer, part in parts.items():
        reports[layer] = part.finish(_facts(backbone, images, layer, pooling, views), health)
    _warn(backbone.name, reports)


def _share(
    backbone: Backbone, images: Stimuli, parts: dict[str, Part], pooling: str, progress: bool, views: Sequence[str]
) -> None:
    """Every process of a launch extracts some batches of the rows that are open; the first one joins them."""
    one = next(iter(parts.values()))
    opened = range(min(part.rows for part in parts.values()), one.n, one.batch_size)
    pieces = [launched.share_of(opened, rank) for rank in range(launched.place()[1])]
    ranges = [range(piece[0], min(piece[-1] + one.batch_size, one.n)) if piece else None for piece in pieces]

    def share(part: Part, rows: range) -> Part:
        return Part(part.path.parent, part.key, part.n, part.batch_size, rows)

    own = ranges[launched.place()[0]]
    if own is not None:
        _fill(backbone, images, {name: share(part, own) for name, part in parts.items()}, pooling, progress, views)
    launched.wait()
    if launched.is_first():
        for part in parts.values():
            part.join([share(part, rows) for rows in ranges if rows is not None])


def _fill(
    backbone: Backbone, images: Stimuli, parts: dict[str, Part], pooling: str, progress: bool, views: Sequence[str]
) -> None:
    """Extract the rows that the parts lack."""
    from align.tracking import Forecast, progress_bar

    one = next(iter(parts.values()))
    start, end, size = min(part.next for part in parts.values()), one.own.stop, one.batch_size
    title = f"targets {backbone.name} ({len(parts)} layer{'s' if len(parts) > 1 else ''})"
    done, forecast = start - one.own.start, Forecast(title, end - start, "picture", progress)
    with progress_bar(len(one.own), title, progress, done, unit="picture") as bar:
        for first in range(start, end, size):
            rows = range(first, min(first + size, end))
            wanted = [layer for layer, part in parts.items() if part.next == first]
            tokens = _read(backbone, _pixels(backbone, images, rows, views), len(rows), wanted, pooling)
            for layer in wanted:
                parts[layer].append(_half(tokens.pop(layer), backbone.name, layer))
            bar.update(len(rows))
            forecast.done(len(rows))


def _read(
    backbone: Backbone, pixels: torch.Tensor, count: int, layers: list[str], pooling: str
) -> dict[str, torch.Tensor]:
    """Tokens of ``count`` pictures from the ``pixels`` of all their views, view after view: the mean over views."""
    if len(pixels) == count:
        return backbone.read(pixels, layers, pooling)
    import torch

    parts = [backbone.read(part, layers, pooling) for part in pixels.split(count)]
    return {layer: torch.stack([part[layer] for part in parts]).mean(0) for layer in layers}


def _warn(backbone: str, reports: dict[str, dict[str, Any]]) -> None:
    """One line for all layers: the worst in words, the others by name."""
    ill = sorted((layer for layer in reports if reports[layer]["warning"]), key=lambda k: -reports[k]["cosine_raw"])
    if ill:
        others = f" (likewise {', '.join(ill[1:])})" if len(ill) > 1 else ""
        logger.warning("%s layer %s%s: %s", backbone, ill[0], others, reports[ill[0]]["warning"])


def _pixels(backbone: Backbone, images: Stimuli, rows: range, views: Sequence[str]) -> torch.Tensor:
    """Pictures of any size, resized one by one: (B, 3, S, S) on the backbone's device; view after view, if any."""
    import torch

    ready: list[list[torch.Tensor]] = [[] for _ in views or [""]]
    for row in rows:
        picture = images.load(row)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            found = f"{picture.dtype} {picture.shape}"
            raise UserError(f"stimulus {images.ids[row]!r} is {found}, expected 8-bit RGB (H, W, 3)")
        for part, view in zip(ready, views_of(picture, views) if views else [picture], strict=True):
            part.append(backbone.preprocess(torch.tensor(view).permute(2, 0, 1)[None].float() / 255))
    device = next(backbone.parameters()).device
    return torch.cat([pixels for part in ready for pixels in part]).to(device)


def _half(tokens: torch.Tensor, backbone: str, layer: str) -> np.ndarray:
    half = tokens.half().cpu().numpy()
    if not np.isfinite(half).all():
        raise UserError(f"{backbone} layer {layer!r} gives values outside float16 (or NaN); choose another layer")
    return half

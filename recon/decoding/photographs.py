"""Further pictures for a library, from a folder or a zip (``--library``): tens of thousands, none held in memory.

What takes long is kept in ``<cache_dir>/libraries/<key>.safetensors`` under a key of all it depends on, with a
checksum: pixel hashes and thumbnails of the pictures, and the responses that a run predicts to them.

Peak memory: 2 KB for a picture and 12 bytes for each of its E predicted values; 60,000 pictures take 140 MB with 40
values (measured) and 260 MB with 200. Target tokens are held a batch at a time; of pictures that lend theirs, up to 256
MB are remembered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from align.data.signals import Stimuli, pixel_hash
from align.errors import UserError

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run
    from align.config import BackboneConfig
    from align.vision.taps import Backbone

_BATCH = 16
_BLOCK = 2048  # thumbnails compared at once
_REMEMBERED = 1 << 28  # bytes of tokens


@dataclass(frozen=True)
class Photographs:
    """n pictures, sorted by name. ``small`` (n, 16, 16, 3) uint8. ``digest``: of names and files, 64 digits."""

    stimuli: Stimuli
    small: np.ndarray
    digest: str
    _tokens: dict[tuple[str, str, int], np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.stimuli)

    def twins(self, images: Sequence[np.ndarray], hashes: Sequence[str]) -> np.ndarray:
        """Bool (n,): shows the scene of one of ``images`` or has one of their pixel ``hashes`` (`scene_twins`)."""
        from align.data.splits import scene_twins, thumbnails

        other, own = thumbnails(images), self.stimuli.hashes
        blocks = [slice(start, start + _BLOCK) for start in range(0, len(self), _BLOCK)]
        return np.concatenate([scene_twins(thumbnails(self.small[b]), other, own[b], hashes) for b in blocks])

    def tokens(self, rows: Iterable[int], config: BackboneConfig, layer: str, pooling: str) -> list[np.ndarray]:
        """Tokens (N, D) float16 of the pictures ``rows`` of ONE backbone, each made alone, so that the others of
        ``rows`` do not change it; up to 256 MB of them are remembered."""
        from align.vision.backbones import load_backbone

        rows = [int(row) for row in rows]
        new = [row for row in dict.fromkeys(rows) if (layer, pooling, row) not in self._tokens]
        found = {row: self._tokens[layer, pooling, row] for row in rows if row not in new}
        backbone = load_backbone(config) if new else None
        for row in new:
            assert backbone is not None
            found[row] = _tokens(backbone, [self.stimuli.load(row)], [layer], pooling)[0]
            if (len(self._tokens) + 1) * found[row].nbytes <= _REMEMBERED:
                self._tokens[layer, pooling, row] = found[row]
        return [found[row] for row in rows]

    def responses(self, run: Run) -> np.ndarray:
        """(n, E) float32: what an encoding model predicts; from the cache, else computed in batches."""
        import torch

        from align.tracking import progress_bar
        from align.vision.backbones import load_backbone
        from align.vision.fused import parts_of
        from recon.decoding.predict import run_id

        target, backbone = run.config.target, load_backbone(run.config.backbone)
        facts = [self.digest, backbone.name, backbone.weights_hash, backbone.preprocessing, target.layer]
        key = hashlib.sha256(json.dumps([*facts, target.pooling, run_id(run), run.number]).encode()).hexdigest()

        def make() -> dict[str, torch.Tensor]:
            backbone.to("cuda" if torch.cuda.is_available() else "cpu")
            width = run.aligner.width - (run.aligner.targets.constant is not None)
            predicted = np.empty((len(self), width), dtype=np.float32)
            with progress_bar(len(self), "responses to the library", True, unit="img") as bar:
                for start in range(0, len(self), _BATCH):
                    rows = range(start, min(start + _BATCH, len(self)))
                    images = [self.stimuli.load(row) for row in rows]
                    tokens = _tokens(backbone, images, parts_of(target.layer), target.pooling)
                    predicted[start : rows.stop] = run.aligner.responses_to(tokens, run.number)
                    bar.update(len(rows))
            return {"responses": torch.from_numpy(predicted)}

        found: np.ndarray = _cached(run.config.cache_dir, key, make)["responses"].numpy()
        return found


def read_photographs(path: str | Path, cache_dir: str | Path) -> Photographs:
    """Read a folder or zip of pictures; raises `UserError` for anything else, no picture, and an unreadable one."""
    import torch

    from align.data.reading.picture_files import PictureFiles
    from align.data.splits import THUMBNAIL
    from align.tracking import progress_bar

    files = PictureFiles(Path(path).expanduser(), "--library ")
    n = len(files)
    if not n:
        raise UserError(f"--library {str(path)!r} holds no picture (.jpg, .jpeg or .png)")
    digest = hashlib.sha256("\n".join(files.names).encode())
    for row in range(n):
        digest.update(files.digest(row))

    def make() -> dict[str, torch.Tensor]:
        from PIL import Image

        small, hashes = np.empty((n, THUMBNAIL, THUMBNAIL, 3), np.uint8), np.empty((n, 32), np.uint8)
        with progress_bar(n, "pictures of the library", True, unit="img") as bar:
            for row, (_, image) in enumerate(files):
                hashes[row] = np.frombuffer(bytes.fromhex(pixel_hash(image)), np.uint8)
                size = (THUMBNAIL, THUMBNAIL)  # as align.data.splits.thumbnails, which leaves pictures of this size
                small[row] = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
                bar.update()
        return {"small": torch.from_numpy(small), "hashes": torch.from_numpy(hashes)}

    found = _cached(cache_dir, digest.hexdigest(), make)
    known = tuple(bytes(row).hex() for row in found["hashes"].numpy())
    blank = ("",) * n
    stimuli = Stimuli(files.names, files.load, np.arange(n), blank, blank, lambda: known)
    return Photographs(stimuli, found["small"].numpy(), digest.hexdigest())


def _tokens(backbone: Backbone, images: Sequence[np.ndarray], layers: Sequence[str], pooling: str) -> np.ndarray:
    """(n, N, D) float16 of pictures of any size, joined over ``layers``, as `align.vision.targets` stores them."""
    import torch

    tensors = [torch.tensor(image).permute(2, 0, 1)[None].float() / 255 for image in images]
    pixels = torch.cat([backbone.preprocess(image) for image in tensors])
    found = backbone.read(pixels.to(next(backbone.parameters()).device), layers, pooling)
    half = torch.cat([found[layer] for layer in layers], dim=2).half().cpu().numpy()
    if not np.isfinite(half).all():
        raise UserError(f"{backbone.name} layer {'+'.join(layers)!r} gives values outside float16 (or NaN)")
    return half


def _cached(cache_dir: str | Path, key: str, make: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Tensors of ``<cache_dir>/libraries/<key>.safetensors``, made where there are none."""
    from align.files import read_made_for, save_tensors
    from align.files.checksums import MADE_FOR
    from align.files.made_once import made_once

    path = Path(cache_dir) / "libraries" / f"{key}.safetensors"
    what = f"what is read of a library into {str(path.parent)!r}"
    return made_once(path, lambda: read_made_for(path, key), lambda: save_tensors(path, make(), {MADE_FOR: key}), what)

"""What bridges learn from: layer-l components and pooled embeddings of a study's training pictures, no others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from align.errors import UserError
from recon.decoding.bridges.image_encoder import POOLED, ImageEncoder

if TYPE_CHECKING:
    from align.checkpoint import Run
    from align.data.signals import Recording, Stimuli

_AT_ONCE = 256  # rows of tokens


@dataclass(frozen=True)
class EmbeddingPairs:
    """``components`` (n, k): coordinates in which the run predicts tokens; ``embeds`` (n, E) of the same pictures;
    ``groups`` (n,): pictures of one scene or concept. ``key`` stands for pictures, layer and both networks."""

    components: torch.Tensor
    embeds: torch.Tensor
    groups: np.ndarray
    ids: tuple[str, ...]
    key: str


def training_pairs(run: Run, encoder: ImageEncoder) -> EmbeddingPairs:
    """Both sides for every training picture of the run's recording, from the targets cache or extracted into it.

    Raises `UserError` when a training picture stands among the test pictures of the run's manifest.
    """
    from align.vision.targets import cached_targets
    from recon.decoding.predict import open_recording, picture_tokens, run_id

    recording = open_recording(run)
    rows = np.unique(recording.train.stimulus)
    require_training(run, recording, rows)
    stimuli = subset(recording.stimuli, rows)
    tokens = picture_tokens(run, recording)
    found = cached_targets(encoder.backbone, stimuli, [POOLED], "mean", run.config.cache_dir)[POOLED]
    key = hashlib.sha256(f"{run_id(run)} {found.key}".encode()).hexdigest()[:16]
    embeds = torch.from_numpy(np.asarray(found.tokens[:, 0], dtype=np.float32))
    return EmbeddingPairs(components_of(run, tokens, rows), embeds, np.asarray(stimuli.groups), stimuli.ids, key)


def components_of(run: Run, tokens: np.ndarray, rows: np.ndarray) -> torch.Tensor:
    """Components (len(rows), k) of the given rows of tokens (n, N, D), in the run's own coordinates."""
    targets = run.aligner.targets
    parts = np.array_split(rows, max(1, -(-len(rows) // _AT_ONCE)))
    with torch.no_grad():
        return torch.cat([targets.encode(torch.from_numpy(np.asarray(tokens[p], dtype=np.float32))) for p in parts])


def require_training(run: Run, recording: Recording, rows: np.ndarray) -> None:
    """Raise `UserError` when a picture of ``rows`` is, by id or pixels, a test picture in the run's split.json."""
    from align.data.splits import manifest, read_split

    stored = run.path / "split.json"
    split = read_split(stored) if stored.is_file() else manifest(recording)
    tests = [split["test"], *split.get("test_of", {}).values(), manifest(recording)["test"]]
    ids, hashes = ({name for test in tests for name in test[key]} for key in ("ids", "hashes"))
    stimuli = recording.stimuli
    bad = [stimuli.ids[i] for i in rows if stimuli.ids[i] in ids or stimuli.hashes[i] in hashes]
    if bad:
        raise UserError(
            f"{bad[0]!r} ({len(bad)} such) is a test picture of {run.path}; bridges learn from training ones"
        )


def subset(stimuli: Stimuli, rows: np.ndarray) -> Stimuli:
    """The pictures of the given rows."""

    def take(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(values[i] for i in rows)

    return replace(
        stimuli,
        ids=take(stimuli.ids),
        load=lambda i: stimuli.load(int(rows[i])),
        groups=np.asarray(stimuli.groups)[rows],
        concepts=take(stimuli.concepts),
        captions=take(stimuli.captions),
        known_hashes=lambda: take(stimuli.hashes),
    )

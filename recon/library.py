"""The pictures that a decoded picture may be made of, each with the embed that the run gives it.

What is likely to be seen is given by examples (Naselaris et al. 2009, Neuron 63, "Bayesian reconstruction of natural
images from human brain activity"): the training pictures of the run, and further ones that the study names. No test
picture and no twin of one is among them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from align.data.signals import Stimuli

if TYPE_CHECKING:
    from align.checkpoint import Run
    from align.data.signals import Recording

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Library:
    """``responses`` (L, E): embeds of the pictures ``stimuli``; of an encoding model, the responses it predicts."""

    stimuli: Stimuli
    responses: np.ndarray

    def pixels(self, size: int) -> np.ndarray:
        """Pictures (L, 3, size, size) float32 in [0, 1]."""
        from PIL import Image

        def small(i: int) -> np.ndarray:
            image = Image.fromarray(self.stimuli.load(i))
            return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)

        return np.stack([small(i) for i in range(len(self.stimuli))]).transpose(0, 3, 1, 2) / 255


def read_library(run: Run) -> Library:
    """The library of a run: its training pictures, and the further ones that its study names."""
    from align.data.studies import open_study
    from align.vision.backbones import load_backbone
    from align.vision.fused import layer_targets
    from recon.predict import open_recording

    recording = open_recording(run)
    stimuli = _without_test(recording, open_study(run.config).further_pictures())
    target, backbone = run.config.target, load_backbone(run.config.backbone)
    tokens = layer_targets(backbone, stimuli, [target.layer], target.pooling, run.config.cache_dir)[target.layer].tokens
    return Library(stimuli, run.aligner.embed_images(tokens, subject=run.number))


def tokens_at(run: Run, stimuli: Stimuli, layer: str, pooling: str) -> np.ndarray:
    """Tokens (n, N, D) of a layer for a conditioner, which sees pictures at the backbone's own size; from the cache."""
    from dataclasses import replace

    from align.vision.backbones import load_backbone
    from align.vision.targets import cached_targets

    backbone = load_backbone(replace(run.config.backbone, image_size=None))
    return cached_targets(backbone, stimuli, [layer], pooling, run.config.cache_dir)[layer].tokens


def _without_test(recording: Recording, further: Stimuli | None) -> Stimuli:
    """The recording's training pictures and ``further``, each once, without test pictures and their twins."""
    from align.data.splits import scene_twins, thumbnails

    own, test = np.unique(recording.train.stimulus), np.unique(recording.test.stimulus)
    sources = [(recording.stimuli, own)] + ([(further, np.arange(len(further)))] if further is not None else [])
    hashes = [stimuli.hashes[i] for stimuli, rows in sources for i in rows]
    first = np.sort(np.unique(hashes, return_index=True)[1])
    places = [(stimuli, int(i)) for stimuli, rows in sources for i in rows]
    test_hashes = [recording.stimuli.hashes[i] for i in test]
    twin = scene_twins(
        thumbnails(places[k][0].load(places[k][1]) for k in first),
        thumbnails(recording.stimuli.load(int(i)) for i in test),
        [hashes[k] for k in first],
        test_hashes,
    )
    kept = [places[k] for k, drop in zip(first, twin, strict=True) if not drop]
    log.info("library: %d pictures, %d twins of test pictures left out", len(kept), int(np.sum(twin)))
    blank = ("",) * len(kept)
    return Stimuli(
        ids=tuple(stimuli.ids[i] for stimuli, i in kept),
        load=lambda k: kept[k][0].load(kept[k][1]),
        groups=np.arange(len(kept)),
        concepts=blank,
        captions=blank,
    )

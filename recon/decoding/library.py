"""The pictures that a decoded picture may be made of, each with the embed that the run gives it; which of them fit.

What is likely to be seen is given by examples (Naselaris et al. 2009, Neuron 63, "Bayesian reconstruction of natural
images from human brain activity"): the training pictures of the run, further ones that the study names, and those of a
folder or zip (``--library``, `recon.decoding.photographs`). No test picture and no twin of one is among them. Where
training and test share no concept, none of the study's pictures is of a concept of the test.

The encoding model scores pictures against a response (`cosines`). Over all pictures that are linear in the responses
that score is a Gaussian, whose mean is the estimate of lowest squared error (`LinearEstimate`). Both read training
pictures and the response alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from align.data.signals import Stimuli, pixel_hash

if TYPE_CHECKING:
    from align.checkpoint import Run
    from align.config import BackboneConfig
    from align.data.signals import Recording
    from recon.decoding.photographs import Photographs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Added:
    """Of the ``pictures`` in a folder or zip ``path``, ``added`` entered the library; ``twins`` of test pictures were
    left out, ``known`` were in it already. ``digest``: of the files, 64 digits."""

    path: str
    pictures: int
    added: int
    twins: int
    known: int
    digest: str


@dataclass(frozen=True)
class Library:
    """Picture i is picture ``places[i, 1]`` of ``sources[places[i, 0]]``, so that tokens are cached by source.

    ``responses`` (L, E): embeds of the pictures; of an encoding model, the responses it predicts. ``photographs``: the
    last source, where pictures of a folder or zip were ``added``; their tokens are made when they are asked for.
    """

    run: Run
    sources: tuple[Stimuli, ...]
    places: np.ndarray
    responses: np.ndarray
    photographs: Photographs | None = None
    added: Added | None = None

    def __len__(self) -> int:
        return len(self.places)

    @property
    def ids(self) -> tuple[str, ...]:
        """Stimulus ids of the pictures."""
        return tuple(self.sources[k].ids[i] for k, i in self.places)

    def id(self, row: int) -> str:
        """Stimulus id of one picture, or its name in the folder or zip."""
        source, i = self.places[row]
        return self.sources[source].ids[i]

    def load(self, row: int) -> np.ndarray:
        """One picture, uint8 (H, W, 3)."""
        source, i = self.places[row]
        return self.sources[source].load(int(i))

    def tokens(self, rows: np.ndarray, layer: str, pooling: str) -> np.ndarray:
        """Tokens (n, N, D) float32 of the pictures ``rows`` for a conditioner, from the targets cache."""
        found: list[np.ndarray] = [np.empty(0)] * len(rows)
        for k, source in enumerate(self.sources):
            own = np.flatnonzero(self.places[rows, 0] == k)
            if not len(own):
                continue
            places = self.places[rows[own], 1]
            if self.photographs is not None and source is self.photographs.stimuli:
                parts = self.photographs.tokens(places, _own_size(self.run), layer, pooling)
            else:
                tokens = tokens_at(self.run, source, layer, pooling)
                parts = [tokens[place] for place in places]
            for i, part in zip(own, parts, strict=True):
                found[i] = np.asarray(part, dtype=np.float32)
        return np.stack(found)

    def pixels(self, size: int) -> np.ndarray:
        """Pictures (L, 3, size, size) float32 in [0, 1]."""
        from PIL import Image

        def small(i: int) -> np.ndarray:
            image = Image.fromarray(self.load(i))
            return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)

        return np.stack([small(i) for i in range(len(self))]).transpose(0, 3, 1, 2) / 255


def read_library(run: Run) -> Library:
    """The library of a run: its training pictures, and the further ones that its study names.

    Raises `UserError` when backbone weights or pictures are not those the run was trained with.
    """
    from align.data.studies import open_study
    from align.vision.backbones import load_backbone
    from align.vision.fused import layer_targets
    from recon.decoding.predict import open_recording, picture_tokens

    recording = open_recording(run)
    picture_tokens(run, recording)  # refuses other weights before further pictures are made
    further = open_study(run.config).further_pictures()
    sources = (recording.stimuli,) if further is None else (recording.stimuli, further)
    places = _without_test(recording, sources)
    target, backbone = run.config.target, load_backbone(run.config.backbone)
    width = run.aligner.width - (run.aligner.targets.constant is not None)
    responses = np.empty((len(places), width), dtype=np.float32)
    for k, source in enumerate(sources):
        tokens = layer_targets(backbone, source, [target.layer], target.pooling, run.config.cache_dir)[target.layer]
        own = places[:, 0] == k
        responses[own] = run.aligner.responses_to(tokens.tokens[places[own, 1]], run.number)
    return Library(run, sources, places, responses)


def with_photographs(library: Library, path: str | Path) -> Library:
    """The library and the pictures of a folder or zip, without twins of test pictures and of what is in it already.

    Test pictures are those of the run's recording and all that the study keeps out (`Study.kept_out`). Memory: see
    `recon.decoding.photographs`. Raises `UserError` for a place without readable pictures.
    """
    from align.data.studies import open_study
    from recon.decoding.photographs import read_photographs
    from recon.decoding.predict import open_recording

    run, recording = library.run, open_recording(library.run)
    photographs = read_photographs(path, run.config.cache_dir)
    stimuli, test = recording.stimuli, np.unique(recording.test.stimulus)
    seen = [*(stimuli.load(int(i)) for i in test), *open_study(run.config).kept_out()]
    twin = photographs.twins(seen, [pixel_hash(image) for image in seen])
    hashes = photographs.stimuli.hashes
    first = np.zeros(len(photographs), dtype=bool)
    first[np.unique(hashes, return_index=True)[1]] = True
    new = first & ~np.isin(hashes, [library.sources[k].hashes[i] for k, i in library.places])
    kept = np.flatnonzero(new & ~twin)
    counts = len(photographs), len(kept), int(twin.sum()), int((~new & ~twin).sum())
    told = "library %s: %d pictures, %d added, %d twins of test pictures left out, %d there already"
    log.info(told, path, *counts)
    places = np.stack([np.full(len(kept), len(library.sources)), kept], axis=1)
    return replace(
        library,
        sources=(*library.sources, photographs.stimuli),
        places=np.concatenate([library.places, places]),
        responses=np.concatenate([library.responses, photographs.responses(run)[kept]]),
        photographs=photographs,
        added=Added(str(path), *counts, photographs.digest),
    )


def tokens_at(run: Run, stimuli: Stimuli, layer: str, pooling: str) -> np.ndarray:
    """Tokens (n, N, D) of a layer for a conditioner, which sees pictures at the backbone's own size; from the cache."""
    from align.vision.backbones import load_backbone
    from align.vision.targets import cached_targets

    backbone = load_backbone(_own_size(run))
    return cached_targets(backbone, stimuli, [layer], pooling, run.config.cache_dir)[layer].tokens


def _own_size(run: Run) -> BackboneConfig:
    return replace(run.config.backbone, image_size=None)


def _without_test(recording: Recording, sources: tuple[Stimuli, ...]) -> np.ndarray:
    """Places (L, 2): training and further pictures, each once, without test pictures and their twins."""
    from align.data.splits import scene_twins, thumbnails

    train, test = np.unique(recording.train.stimulus), np.unique(recording.test.stimulus)
    unseen = _unseen_concepts(recording.stimuli, train, test)
    further = [np.flatnonzero([name not in unseen for name in source.concepts]) for source in sources[1:]]
    rows = [train, *further]
    places = np.concatenate([np.stack([np.full(len(part), k), part], axis=1) for k, part in enumerate(rows)])
    hashes = [sources[k].hashes[i] for k, i in places]
    first = np.sort(np.unique(hashes, return_index=True)[1])
    twin = scene_twins(
        thumbnails(sources[k].load(int(i)) for k, i in places[first]),
        thumbnails(recording.stimuli.load(int(i)) for i in test),
        [hashes[k] for k in first],
        [recording.stimuli.hashes[i] for i in test],
    )
    log.info("library: %d pictures, %d twins of test pictures left out", len(first) - sum(twin), sum(twin))
    kept: np.ndarray = places[first[~np.asarray(twin)]]
    return kept


def _unseen_concepts(stimuli: Stimuli, train: np.ndarray, test: np.ndarray) -> set[str]:
    """Concepts of test pictures, where they have some and no training picture is of one of them; else none."""
    known, asked = ({stimuli.concepts[i] for i in rows} - {""} for rows in (train, test))
    return asked if not asked & known else set()


def cosines(responses: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(n, L): agreement of responses (n, E) with what pictures (L, E) should cause, -1 to 1; 0 for silence."""
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (responses, predicted))
    return a @ b.T


@dataclass(frozen=True)
class LinearEstimate:
    """Linear minimum mean square error estimate of values of pictures whose responses are known.

    Responses are whitened: what one has beyond its prediction has unit covariance.
    """

    mean: np.ndarray
    centre: np.ndarray
    weights: np.ndarray

    @classmethod
    def fit(cls, predicted: np.ndarray, values: np.ndarray) -> LinearEstimate:
        """From pictures that should cause ``predicted`` (L, E) and have ``values`` (L, P)."""
        mean, centre = values.mean(0), predicted.mean(0)
        x = (predicted - centre).astype(np.float64)
        gram = x.T @ x / len(x) + np.eye(x.shape[1])
        return cls(mean, centre, np.linalg.solve(gram, x.T @ (values - mean) / len(x)))

    def __call__(self, responses: np.ndarray) -> np.ndarray:
        """Values (n, P) float32 for ``responses`` (n, E)."""
        told: np.ndarray = (self.mean + (responses - self.centre) @ self.weights).astype(np.float32)
        return told

"""Two ways from the brain to text space, fitted on training pictures and their captions.

* **pivot** (Gong et al., AAAI 2025, MindTuner): a map from the tokens of pictures to their captions. The brain plays no
  part in the fit; its predicted tokens go through the same map.
* **joint** (Liu et al. 2023, BrainCLIP): a map from signals that is fitted to the pictures and to their captions at
  once. Pictures have their place in text space by the pivot map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recon.words.maps import LinearMap, Target, centred, fit_map

ALIGNMENTS = ("pivot", "joint")
TEXT_SHARE = 0.5  # of the loss of the joint fit


@dataclass(frozen=True)
class Alignment:
    """``name``: one of `ALIGNMENTS`. ``mapped``: from `pooled` tokens, or for joint from signals (n, P). ``pictures``:
    from pooled tokens, for pivot the same map. ``centre`` (E,): mean embedding of the training captions."""

    name: str
    mapped: LinearMap
    pictures: LinearMap
    centre: np.ndarray

    def brain(self, x: np.ndarray) -> np.ndarray:
        """(n, E) of pooled predicted tokens, or for joint of signals."""
        return self.mapped(x)

    def texts(self, embeds: np.ndarray) -> np.ndarray:
        """(K, E) of a tower's embeddings of texts, without what all training captions share."""
        return centred(embeds, self.centre)


def pooled(tokens: np.ndarray) -> np.ndarray:
    """Tokens (n, N, D) as (n, D) float32: the mean over the places of the picture."""
    mean: np.ndarray = np.asarray(tokens, dtype=np.float32).mean(axis=1)
    return mean


def fit_pivot(
    tokens: np.ndarray, captions: np.ndarray, groups: np.ndarray, fit: str = "ridge", seed: int = 0
) -> Alignment:
    """From pooled tokens of training pictures (n, D) and the embeddings of their captions (n, E); nothing else."""
    centre = captions.mean(axis=0)
    mapped = fit_map(tokens, [Target(centred(captions, centre))], groups, fit, seed)
    return Alignment("pivot", mapped, mapped, centre)


def fit_joint(
    signals: np.ndarray,
    tokens: np.ndarray,
    captions: np.ndarray,
    groups: np.ndarray,
    fit: str = "ridge",
    seed: int = 0,
) -> Alignment:
    """From signals (n, P) of the training pictures, one row each, with what `fit_pivot` takes."""
    pivot = fit_pivot(tokens, captions, groups, fit, seed)
    share = _shares(pivot.brain(tokens), pivot.texts(captions))
    return Alignment("joint", fit_map(signals, share, groups, fit, seed), pivot.pictures, pivot.centre)


def _shares(seen: np.ndarray, texts: np.ndarray) -> list[Target]:
    """Pictures in text space, and their texts."""
    return [Target(centred(seen, np.zeros(seen.shape[1])), 1 - TEXT_SHARE), Target(texts, TEXT_SHARE)]


def permuted_brains(
    alignment: Alignment,
    inputs: np.ndarray,
    tokens: np.ndarray,
    captions: np.ndarray,
    at: np.ndarray,
    orders: Iterator[np.ndarray],
) -> Iterator[np.ndarray]:
    """(m, E) of the inputs ``at`` (m, P) for each order of the captions, as if the alignment had been fitted to it.

    ``inputs`` (n, P), ``tokens`` (n, D), ``captions`` (n, E): what it was fitted to. Each fit is the closed form with
    the penalty of the true captions.
    """
    texts = alignment.texts(captions).astype(np.float64)
    there = alignment.mapped.closed_form(inputs, at)
    seen = alignment.pictures.closed_form(tokens, tokens) if alignment.name == "joint" else None
    for order in orders:
        values = texts[order]
        if seen is not None:
            values = sum(target.share * target.values for target in _shares(seen @ values, values))
        yield there @ values

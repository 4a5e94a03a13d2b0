"""Texts nearest to what a unit reads: its weights in the space of a text tower, by way of natural pictures.

Luo et al. 2024 (arXiv 2310.04420, "BrainSCUBA"): a linear map from picture embeddings to the response of a unit; its
weights, at length 1, are replaced by a mean of the embeddings of natural pictures, weighted by a softmax of their
agreement with the weights. That leads from directions no picture has to those that pictures have. There a captioner
reads the result; here the nearest texts of a bank are taken. Pictures and texts each lose their own mean first, for the
two sides of a tower lie apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from align.comparison.predictability import column_correlation
from align.comparison.ridge import SharedRidge
from align.response_models.ridge import SHARES
from recon.words.maps import centred

SHARP = 150.0  # of the softmax over agreements (cosines), so that few of some thousand pictures count
SHOWN = 5  # texts of a unit

Folds = Sequence[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Texts:
    """Of K units. ``texts``: nearest first, `SHOWN` at most; ``cosine``: of each. ``r`` (K,): of the map from picture
    embeddings on pictures left out: where it is near 0 the texts say nothing."""

    texts: tuple[tuple[str, ...], ...]
    cosine: tuple[tuple[float, ...], ...]
    r: np.ndarray


def nearest_texts(
    seen: np.ndarray,
    responses: np.ndarray,
    folds: Folds,
    natural: np.ndarray,
    texts: Sequence[str],
    embeds: np.ndarray,
) -> Texts:
    """``seen`` (n, E): embeddings of pictures with ``responses`` (n, K); ``natural`` (m, E): of natural pictures;
    ``embeds`` (t, E): of the different ``texts``. The rows that a fold fits are those of the map."""
    fitted = np.unique(np.concatenate([rows for rows, _ in folds]))
    weights, _ = SharedRidge(seen[fitted]).fit(responses[fitted], SHARES).slopes()
    places = projected(weights.T, natural)
    cosine = centred(places, natural.mean(axis=0)) @ centred(embeds, embeds.mean(axis=0)).T
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :SHOWN]
    return Texts(
        tuple(tuple(texts[int(i)] for i in row) for row in order),
        tuple(tuple(float(cosine[k, i]) for i in row) for k, row in enumerate(order)),
        _left_out(seen, responses, folds),
    )


def projected(weights: np.ndarray, natural: np.ndarray) -> np.ndarray:
    """(K, E) means of the natural pictures' embeddings (m, E), weighted by how well each agrees with weights (K, E)."""
    agreement = SHARP * (_unit(weights) @ _unit(natural - natural.mean(axis=0)).T)
    share = np.exp(agreement - agreement.max(axis=1, keepdims=True))
    return np.asarray(share @ natural / share.sum(axis=1, keepdims=True))


def _unit(rows: np.ndarray) -> np.ndarray:
    return centred(rows, np.zeros(rows.shape[1]))


def _left_out(seen: np.ndarray, responses: np.ndarray, folds: Folds) -> np.ndarray:
    """(K,) correlation with the scored rows, mean over folds."""
    found = [
        column_correlation(
            responses[scored], SharedRidge(seen[rows]).fit(responses[rows], SHARES).predict(seen[scored])
        )
        for rows, scored in folds
    ]
    return np.asarray(np.mean(found, axis=0))

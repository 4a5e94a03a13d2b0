"""Do universal dimensions resemble the brain? Rank correlation over dimensions, with intervals and a shuffled brain."""

from __future__ import annotations

from typing import Any

import numpy as np

from align.comparison.null import rank_correlation
from align.retrieval.people import over_people
from recon.metrics.stats import t_interval

N_BOOT = 1000


def association(
    universal: np.ndarray,
    by_subject: dict[str, np.ndarray],
    explained: np.ndarray,
    network: np.ndarray,
    layer: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """Spearman correlation of universality (T,) with brain similarity, plain and given the explained variance.

    ``network``, ``layer`` (T,): where each dimension is from. Intervals: t over subjects, t over networks, and 95 %
    over layers of networks drawn with replacement (dimensions of one layer are no independent draws).
    """
    similarity = np.mean(list(by_subject.values()), axis=0)
    found: dict[str, Any] = {"n_dimensions": len(universal)}
    names = list(dict.fromkeys(network.tolist()))
    for title, given in (("plain", None), ("given_variance", explained)):
        subjects = {name: rank_correlation(universal, r, given) for name, r in by_subject.items()}
        networks = {}
        for name in names:
            rows = network == name
            networks[str(name)] = rank_correlation(universal[rows], similarity[rows], _part(given, rows))
        found[title] = {
            "rho": rank_correlation(universal, similarity, given),
            "ci95_layers": _over_layers(universal, similarity, given, network, layer, seed),
            "by_subject": subjects,
            "t95_subjects": over_people(np.array(list(subjects.values()))),
            "by_network": networks,
            "t95_networks": t_interval(np.array(list(networks.values()))) if len(networks) > 1 else None,
        }
    return found


def _part(values: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if values is None else values[rows]


def _over_layers(
    universal: np.ndarray,
    similarity: np.ndarray,
    given: np.ndarray | None,
    network: np.ndarray,
    layer: np.ndarray,
    seed: int,
) -> list[float]:
    blocks = [np.flatnonzero((network == n) & (layer == k)) for n, k in sorted(set(zip(network, layer, strict=True)))]
    rng, drawn = np.random.default_rng([seed, 3]), np.empty(N_BOOT)
    for i in range(N_BOOT):
        rows = np.concatenate([blocks[k] for k in rng.integers(len(blocks), size=len(blocks))])
        drawn[i] = rank_correlation(universal[rows], similarity[rows], _part(given, rows))
    return [float(end) for end in np.percentile(drawn, [2.5, 97.5])]


def against_shuffled(
    universal: np.ndarray, similarity: np.ndarray, explained: np.ndarray, shuffled: np.ndarray
) -> dict[str, Any]:
    """One-sided p of both correlations: ``shuffled`` (B, T) is the similarity of brains in random order of pictures.

    Also their mean similarity, which chance puts at 0.
    """
    found: dict[str, Any] = {"n_dimensions": len(universal), "shuffles": len(shuffled)}
    if len(shuffled):
        found["mean_r"] = float(shuffled.mean())
    for title, given in (("plain", None), ("given_variance", explained)):
        rho = rank_correlation(universal, similarity, given)
        null = np.array([rank_correlation(universal, r, given) for r in shuffled])
        found[title] = {
            "rho": rho,
            "p": float((1 + (null >= rho - 1e-12).sum()) / (1 + len(null))),
            "null95": [float(end) for end in np.percentile(null, [2.5, 97.5])] if len(null) else None,
        }
    return found

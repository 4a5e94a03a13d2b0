"""What the attribute reader sees in the reconstructions of the simulated study, beside chance and controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.studies.simulated.rendering import scene_of
from recon.metrics.stats import bootstrap_ci, label_permutation_p, sign_flip_p

if TYPE_CHECKING:
    import torch

    from recon.evaluation.settings import EvaluateConfig

NOTHING_TO_BEAT = ("seen", "oracle", "blurred_target")


def true_labels(ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Attribute to class indices (n,) of the scenes that the stimulus ids stand for."""
    from recon.metrics.reader import ATTRIBUTES, labels_of

    labels = np.array([labels_of(scene_of(stimulus_id)) for stimulus_id in ids])
    return dict(zip(ATTRIBUTES, labels.T, strict=True))


def read_back(
    read: Callable[[torch.Tensor], dict[str, np.ndarray]],
    rows: dict[str, torch.Tensor],
    ids: Sequence[str],
    settings: EvaluateConfig,
) -> tuple[dict[str, dict[str, Any]], dict[str, list[float]]]:
    """Accuracy of every attribute for every row of pictures, and whether each reconstruction is right (n, 0 or 1).

    ``rows`` must hold "reconstruction".

    ``read``: pictures to {attribute: probabilities (n, classes)}. Per attribute: ``accuracy``, ``ci95``, ``n``,
    ``classes``, ``chance`` (always naming the commonest true class, never below 1 / classes), ``p_permutation``
    (permuting which picture belongs to which scene), ``controls`` {row: accuracy} and ``p_vs_control`` {row: p}
    (paired sign-flip of hits over stimuli).
    """
    from recon.metrics.reader import ATTRIBUTES

    truth = true_labels(ids)
    told = {
        row: {name: probabilities.argmax(axis=1) for name, probabilities in read(x).items()} for row, x in rows.items()
    }
    found, right = {}, {}
    for name, true in truth.items():
        hits = {row: (labels[name] == true).astype(np.float64) for row, labels in told.items()}
        own = hits.pop("reconstruction")
        right[name] = own.tolist()
        shares = np.bincount(true) / len(true)
        found[name] = {
            "accuracy": float(own.mean()),
            "ci95": bootstrap_ci(own, n_boot=settings.n_boot, seed=settings.seed),
            "n": len(true),
            "classes": len(ATTRIBUTES[name]),
            "chance": float(shares.max()),
            "p_permutation": label_permutation_p(
                told["reconstruction"][name], true, n_perm=settings.n_perm, seed=settings.seed
            ),
            "controls": {row: float(hit.mean()) for row, hit in hits.items()},
            "p_vs_control": {
                row: sign_flip_p(own - hit, n_perm=settings.n_perm, seed=settings.seed)
                for row, hit in hits.items()
                if row not in NOTHING_TO_BEAT
            },
        }
    return found, right

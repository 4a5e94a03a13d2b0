"""Retrieval: ranks and scores, corrections that use the whole test set, ensembles of runs.

The functions of `align.retrieval.measures` are offered here: ``from align import retrieval``.
"""

from align.retrieval.measures import (
    bootstrap_interval,
    both_directions,
    expected_hits,
    p_value,
    pairings,
    per_stimulus,
    permutation_p,
    report,
    retrieve,
    scores,
    top1_matrix,
)

__all__ = [
    "bootstrap_interval",
    "both_directions",
    "expected_hits",
    "p_value",
    "pairings",
    "per_stimulus",
    "permutation_p",
    "report",
    "retrieve",
    "scores",
    "top1_matrix",
]

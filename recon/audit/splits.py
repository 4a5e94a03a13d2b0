"""Stimuli, categories and clusters of features that stand on both sides of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from recon.audit.verdict import Finding, not_checked, some

_SHARE = 0.1  # of the test stimuli
_CLUSTERS, _WEAK_CLUSTERS = 0.5, 0.25  # silhouette widths, Kaufman & Rousseeuw 1990, table 4 of chapter 2
_ROWS, _DIMS, _REFERENCES = 300, 20, 9
_CUTS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 22, 25, 28, 32, 36, 40)
_MEMBERS = 2  # training pictures that make a cluster known: one stray picture does not


def repeated_stimuli(train_ids: Sequence[str], test_ids: Sequence[str]) -> Finding:
    """Stimulus ids whose repetitions lie on both sides of the split."""
    shared = sorted(set(train_ids) & set(test_ids))
    total = len(set(test_ids))
    found = f" ({some(shared)})" if shared else ""
    return Finding(
        "repeated_stimuli",
        "leak" if shared else "clear",
        f"{len(shared)} of {total} test stimuli also have training trials{found}",
        "any; ids are compared as text, no false alarms",
        {"shared": len(shared), "share": len(shared) / max(total, 1), "ids": shared},
    )


def shared_categories(train_labels: Sequence[str], test_labels: Sequence[str]) -> Finding:
    """Share of test stimuli whose category (concept) also has training stimuli; "" = no label."""
    labels = [label for label in test_labels if label]
    known = set(train_labels) - {""}
    if not labels or not known:
        return not_checked("shared_categories", "a category of training and test stimuli (--labels)")
    shared = sorted(set(labels) & known)
    share = sum(label in known for label in labels) / len(labels)
    ceiling = 1 - 0.5 * sum((count / len(labels)) ** 2 for count in Counter(labels).values())
    verdict = "leak" if share >= _SHARE else "suspect" if share > 0 else "clear"
    found = f" ({some(shared)}); naming the category alone gives two-way {ceiling:.3f}" if shared else ""
    return Finding(
        "shared_categories",
        verdict,
        f"{share:.0%} of {len(labels)} test stimuli are of a category seen in training: {len(shared)} of "
        f"{len(set(labels))} categories{found}",
        f"leak from {_SHARE:.0%} of the test stimuli, suspect from one; a design that shares them must say so and "
        "score within categories; no false alarms",
        {"share": share, "categories": shared, "two_way_of_category": ceiling},
    )


def feature_clusters(train: np.ndarray, test: np.ndarray, seed: int = 0) -> Finding:
    """Do the features of all pictures (N, F), (n, F) form clusters, and are those of the test pictures known ones?

    Ward clusters of at most 300 pictures in 20 principal components, cut where the mean silhouette is largest. They
    count only when that silhouette exceeds the largest of 9 Gaussian samples of the same covariance.
    """
    from scipy.cluster.hierarchy import fcluster

    rng = np.random.default_rng(seed)
    take = [rng.permutation(len(x))[: _ROWS // 2] for x in (train, test)]
    x = np.concatenate([train[np.sort(take[0])], test[np.sort(take[1])]]).astype(np.float64)
    is_test = np.repeat([False, True], [len(take[0]), len(take[1])])
    if min(len(take[0]), len(take[1])) < 4:
        return not_checked("feature_clusters", "features of 4 or more training and test pictures")
    x = _components(x)
    width, k, tree = _best_cut(x)
    reference = max(_best_cut(rng.normal(size=x.shape) * x.std(axis=0))[0] for _ in range(_REFERENCES))
    cluster = fcluster(tree, k, "maxclust")
    known = [c for c in np.unique(cluster[is_test]) if np.sum(~is_test & (cluster == c)) >= _MEMBERS]
    share = float(np.isin(cluster[is_test], known).mean())
    clustered = width > reference
    verdict = "clear"
    if clustered and width >= _WEAK_CLUSTERS and share >= _SHARE:
        verdict = "leak" if width >= _CLUSTERS and share >= 0.5 else "suspect"
    return Finding(
        "feature_clusters",
        verdict,
        f"{k} clusters of features with silhouette {width:.2f} (Gaussian features of the same covariance at most "
        f"{reference:.2f}); {len(known)} of {len(np.unique(cluster[is_test]))} clusters of test pictures, holding "
        f"{share:.0%} of them, are known from training",
        f"leak: silhouette {_CLUSTERS} (reasonable structure, Kaufman & Rousseeuw 1990) and half of the test "
        f"pictures in known clusters; suspect: {_WEAK_CLUSTERS} and {_SHARE:.0%}; "
        "unclustered features pass the reference 1 in 10 times and must reach the silhouette too",
        {"silhouette": width, "reference": reference, "clusters": k, "share": share},
    )


def _components(x: np.ndarray) -> np.ndarray:
    """Scores on the leading principal components of unit rows."""
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    x = x - x.mean(axis=0)
    left, values, _ = np.linalg.svd(x, full_matrices=False)
    scores: np.ndarray = (left * values)[:, :_DIMS]
    return scores


def _best_cut(x: np.ndarray) -> tuple[float, int, np.ndarray]:
    """Largest mean silhouette over the cuts of a Ward tree into 2 to 40 clusters, that number, and the tree."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist, squareform

    tree, square = linkage(x, "ward"), squareform(pdist(x))
    most = max(len(x) // 4, 2)
    widths = {k: silhouette(square, fcluster(tree, k, "maxclust")) for k in _CUTS if k <= most}
    best = max(widths, key=lambda k: widths[k])
    return widths[best], best, tree


def silhouette(distances: np.ndarray, cluster: np.ndarray) -> float:
    """Mean silhouette width of a clustering (n,) from distances (n, n); a cluster of one counts 0 (Rousseeuw 1987)."""
    _, code, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        return 0.0
    total = distances @ np.eye(len(sizes))[code]
    row = np.arange(len(code))
    inside = total[row, code] / np.maximum(sizes[code] - 1, 1)
    means = total / sizes
    means[row, code] = np.inf
    outside = means.min(axis=1)
    width = (outside - inside) / np.maximum(np.maximum(inside, outside), 1e-12)
    return float(np.where(sizes[code] > 1, width, 0.0).mean())

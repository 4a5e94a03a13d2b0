"""The same picture, category or kind of picture on both sides of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from align import retrieval
from align.data.splits import THUMBNAIL, TWIN_R
from recon.audit.verdict import Finding, not_checked, some

_BLOCK = 2048  # rows of a similarity matrix held at once
_SEVERAL = 0.01  # of the test pictures: fewer look-alikes can be two photographs of one empty scene
_SHARE = 0.1  # of the test stimuli: can move a score by a tenth at most, so below it a doubt, not a proof
_CLUSTERS, _WEAK_CLUSTERS = 0.5, 0.25  # "reasonable" and "weak" structure: Kaufman & Rousseeuw 1990, chapter 2
_REFERENCES = 5  # Gaussian and as many uniform samples, the two usual nulls (Tibshirani et al. 2001)
_MARGIN = 1.1  # above the largest reference: unclustered features of 1 to 64 dimensions reached 1.08 in 330 draws
_ROWS, _DIMS = 300, 20  # pictures and principal components looked at, for speed
_CUTS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 22, 25, 28, 32, 36, 40)
_MEMBERS = 2  # training pictures that make a cluster known: one stray picture does not


def exact_duplicates(train_hashes: Sequence[str], test_hashes: Sequence[str], test_ids: Sequence[str]) -> Finding:
    """Test pictures whose decoded pixels (SHA-256) are also a training picture."""
    known = set(train_hashes)
    shared = [name for name, digest in zip(test_ids, test_hashes, strict=True) if digest in known]
    found = f" ({some(shared)})" if shared else ""
    return Finding(
        "exact_duplicates",
        "leak" if shared else "clear",
        f"{len(shared)} of {len(test_hashes)} test pictures are pixel for pixel a training picture{found}",
        "one is enough; the SHA-256 of two different pictures is never equal, so there are no false alarms",
        {"shared": len(shared), "share": len(shared) / max(len(test_hashes), 1), "ids": shared},
    )


def near_duplicates(
    train_thumbs: np.ndarray, test_thumbs: np.ndarray, test_ids: Sequence[str], exact: np.ndarray
) -> Finding:
    """Test pictures that are nearly a training picture: blurred, re-encoded, partly covered or mirrored.

    Parameters
    ----------
    train_thumbs, test_thumbs
        (N, 768) and (n, 768) of `align.data.splits.thumbnails`.
    exact
        Bool (n,): test pictures already known to be exact duplicates, not counted again.
    """
    best = np.maximum(_nearest(test_thumbs, train_thumbs), _nearest(test_thumbs, _mirrored(train_thumbs)))
    near = (best > TWIN_R) & ~exact
    names = [name for name, found in zip(test_ids, near, strict=True) if found]
    share = float(near.mean())
    found = f" ({some(names)})" if names else ""
    largest = float(best[~exact].max()) if not exact.all() else 1.0
    return Finding(
        "near_duplicates",
        "leak" if names and share >= _SEVERAL else "suspect" if names else "clear",
        f"{len(names)} of {len(near)} test pictures look like a training picture{found}, exact copies aside: their "
        f"thumbnails correlate above {TWIN_R}; the nearest pair has r {largest:.3f}, the median {np.median(best):.3f}",
        f"r > {TWIN_R} of 16 x 16 thumbnails, the rule by which this project joins pictures of one scene; leak from "
        f"{_SEVERAL:.0%} of the test pictures; crops and changes of colour are not found",
        {"near": len(names), "share": share, "largest_r": largest, "ids": names},
    )


def repeated_stimuli(train_ids: Sequence[str], test_ids: Sequence[str]) -> Finding:
    """Stimulus ids whose repetitions lie on both sides of the split."""
    shared = sorted(set(train_ids) & set(test_ids))
    total = len(set(test_ids))
    found = f" ({some(shared)})" if shared else ""
    return Finding(
        "repeated_stimuli",
        "leak" if shared else "clear",
        f"{len(shared)} of {total} test stimuli also have training trials{found}",
        "one is enough; ids are compared as text, so both splits must name stimuli in one way",
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
    ceiling = naming_alone(labels)
    found = f" ({some(shared)}); a decoder that only names the category scores two-way {ceiling:.3f}" if shared else ""
    return Finding(
        "shared_categories",
        "leak" if share >= _SHARE else "suspect" if share > 0 else "clear",
        f"{share:.0%} of {len(labels)} test stimuli are of a category seen in training: {len(shared)} of "
        f"{len(set(labels))} categories{found}",
        f"leak from {_SHARE:.0%} of the test stimuli, suspect from one; where the design shares categories on "
        "purpose, say so and give scores within categories",
        {"share": share, "categories": shared, "two_way_of_category": ceiling},
    )


@dataclass(frozen=True)
class Clusters:
    """Clusters of the features of training and test pictures together.

    ``silhouette`` of the best cut, largest ``reference`` of unclustered features; ``train`` (N',) and ``test`` (n',)
    clusters of the pictures looked at, the latter at ``rows`` (n',) of the test pictures.
    """

    silhouette: float
    reference: float
    train: np.ndarray
    test: np.ndarray
    rows: np.ndarray

    @property
    def real(self) -> bool:
        """Whether the pictures fall into clusters at all."""
        return self.silhouette > _MARGIN * self.reference and self.silhouette >= _WEAK_CLUSTERS


def clusters(train: np.ndarray, test: np.ndarray, seed: int = 0) -> Clusters | None:
    """Ward clusters of features (N, F) and (n, F), at most 150 pictures each in 20 principal components; None below 4.

    Components are centred and scaled to unit rows, so that one outlier is no cluster. The cut is where the mean
    silhouette is largest; the same is done for Gaussian and uniform samples of the same covariance.
    """
    from scipy.cluster.hierarchy import fcluster

    rng = np.random.default_rng(seed)
    left, right = (np.sort(rng.permutation(len(x))[: _ROWS // 2]) for x in (train, test))
    if min(len(left), len(right)) < 4:
        return None
    x = _components(np.concatenate([train[left], test[right]]).astype(np.float64))
    width, k, tree = _best_cut(x)
    spread, reference = x.std(axis=0), 0.0
    for _ in range(_REFERENCES):
        for draw in (rng.normal(size=x.shape), rng.uniform(-1, 1, size=x.shape) * 3**0.5):
            reference = max(reference, _best_cut(draw * spread)[0])
    found = fcluster(tree, k, "maxclust")
    return Clusters(width, reference, found[: len(left)], found[len(left) :], right)


def feature_clusters(found: Clusters, apart: bool = False) -> Finding:
    """Are the clusters of the test pictures known from training? ``apart``: no named category is shared."""
    kinds = np.unique(found.test)
    known = [c for c in kinds if np.sum(found.train == c) >= _MEMBERS]
    share = float(np.isin(found.test, known).mean())
    ceiling = naming_alone(found.test.tolist())
    count = len(np.unique(np.concatenate([found.train, found.test])))
    text = f"features of the pictures form no clusters (silhouette {found.silhouette:.2f}, without clusters up to "
    text += f"{max(found.reference, _WEAK_CLUSTERS):.2f})"
    verdict = "clear"
    if found.real:
        text = (
            f"the pictures fall into {count} clusters (silhouette {found.silhouette:.2f}, without clusters up to "
            f"{found.reference:.2f}); {share:.0%} of the test pictures are in a cluster that training has too"
        )
    if found.real and share >= _SHARE:
        verdict = "leak" if found.silhouette >= _CLUSTERS and share >= 0.5 else "suspect"
        text += f". A decoder that only knows the cluster scores two-way {ceiling:.3f}: give scores within clusters"
        text += ". The named categories of the splits differ: only the broad kind is shared" if apart else ""
    return Finding(
        "feature_clusters",
        verdict,
        text,
        f"leak: silhouette {_CLUSTERS} and half of the test pictures in known clusters; suspect: {_WEAK_CLUSTERS} and "
        f"{_SHARE:.0%} of them (Kaufman & Rousseeuw 1990 call {_WEAK_CLUSTERS} weak, {_CLUSTERS} reasonable "
        "structure), and more than features of the same covariance without clusters",
        {
            "silhouette": found.silhouette,
            "reference": found.reference,
            "clusters": count,
            "share": share,
            "two_way_of_cluster": ceiling,
        },
    )


def naming_alone(labels: Sequence[str | int]) -> float:
    """Two-way score of a decoder that knows only the label: 1 - sum of squared shares / 2; 1 - 1/(2k) if equal."""
    return 1 - 0.5 * sum((count / len(labels)) ** 2 for count in Counter(labels).values())


def _components(x: np.ndarray) -> np.ndarray:
    """Scores on the leading principal components."""
    x = x - x.mean(axis=0)
    left, values, _ = np.linalg.svd(x, full_matrices=False)
    scores: np.ndarray = (left * values)[:, :_DIMS]
    return scores


def _best_cut(x: np.ndarray) -> tuple[float, int, np.ndarray]:
    """Largest mean silhouette of a Ward tree of unit rows cut into 2 to 40 clusters, that number, and the tree."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist, squareform

    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
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


def _nearest(queries: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Cosine (n,) of every row with its nearest row of ``pool``, in blocks."""
    return np.concatenate(
        [retrieval.scores(queries[i : i + _BLOCK], pool).max(axis=1) for i in range(0, len(queries), _BLOCK)]
    )


def _mirrored(thumbs: np.ndarray) -> np.ndarray:
    return thumbs.reshape(-1, THUMBNAIL, THUMBNAIL, 3)[:, :, ::-1].reshape(len(thumbs), -1)

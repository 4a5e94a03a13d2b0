"""Retrieval scores of anybody's embeddings or score matrix: `score` and `score_matrix` (`recon score`).

Definitions are those of `align.retrieval`: ``brain_to_image`` asks with a recording among pictures, ``image_to_brain``
with a picture among recordings; ties count as the mean over their orders; intervals resample stimuli; p permutes the
pairing. Scores that use the whole test set stand apart under ``transductive``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from align import retrieval
from align.data.reading.safe_load import require_finite
from align.errors import UserError
from align.fields.checks import require_draws
from align.files.labels import is_missing, tidy
from align.retrieval import transductive
from recon.metrics.stats import exact_interval
from recon.scoring.alike import score_alike
from recon.scoring.contest import DIRECTIONS, Contest, Embeddings, Matrix
from recon.scoring.embeddings import Pairing, as_numpy, average_rows, pair
from recon.scoring.row_notes import embedding_notes, matrix_notes
from recon.scoring.shuffles import shuffle_p, shuffle_within_p

MOST_CELLS = 2**23  # of the matrix that a transductive correction may hold; 64 MiB as float64
FEW_HITS = 10  # with 4 hits expected among 200 the resampled interval of top1 covers .91 instead of .95, with 2 .87


@dataclass
class ScoreConfig:
    """What `score` can be told besides the data."""

    pools: tuple[int, ...] = (50, 100, 200, 300)  # sizes of smaller candidate sets, scored by formula
    topk: tuple[int, ...] = (1, 5)  # 1 and 5 are always there
    transductive: bool = True  # False leaves the corrections out
    repeats: str = "average"  # several brain rows of one picture: "average" them or "refuse"
    n_boot: int = 2000
    n_perm: int = 2000
    seed: int = 0  # of resampling only
    alike_size: int = 10  # candidates in a pool of alike pictures, the right one among them


def score(
    E: Any,
    Z: Any,
    *,
    ids: Sequence[Any] | np.ndarray | None = None,
    image_ids: Sequence[Any] | np.ndarray | None = None,
    labels: Sequence[Any] | np.ndarray | None = None,
    alike: Mapping[str, Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Score brain embeddings ``E`` (n, E) against picture embeddings ``Z`` (K, E) by cosine.

    ``ids`` (n,) name the picture each brain row shows, ``image_ids`` (K,) the candidates; without ``image_ids`` both
    arrays are in one order. Several rows of one picture are averaged as stored, or refused (``repeats="refuse"``).
    ``labels`` (K,) sort the candidates (category, or cluster in some layer) for ``within_category`` and
    ``between_category``. ``alike``: name to features (K, D) of the candidates, such as of a low and a high layer; the
    recordings are then also scored among the pictures that are most alike by each (`recon.scoring.alike`).
    ``settings``: fields of `ScoreConfig`. Any E is taken as numpy or torch on the CPU; nothing
    of the size n x K is held, so a million candidates fit.

    Returns ``brain_to_image``, ``image_to_brain``, ``within_category``, ``between_category`` (None without labels),
    ``transductive``, ``alike`` (where given), ``per_stimulus``, ``n_stimuli`` and ``notes``, JSON-ready; shares are
    fractions.

    Raises
    ------
    UserError
        NaN, shapes or ids that do not fit, unknown settings.
    """
    options = _options(settings)
    brain, images = _table(E, "brain embeddings"), _table(Z, "picture embeddings")
    if brain.shape[1] != images.shape[1]:
        raise UserError(f"brain embeddings are {brain.shape[1]} wide, picture embeddings {images.shape[1]}; make equal")
    pairing = pair(len(brain), len(images), _names(ids), _names(image_ids))
    notes = embedding_notes(brain, images)
    rows = _averaged(brain, pairing, options, notes)
    return _score(Embeddings(rows, images, pairing.index), pairing, labels, alike, options, notes)


def score_matrix(
    S: Any,
    *,
    ids: Sequence[Any] | np.ndarray | None = None,
    image_ids: Sequence[Any] | np.ndarray | None = None,
    labels: Sequence[Any] | np.ndarray | None = None,
    alike: Mapping[str, Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """`score` for a matrix ``S`` (n, K) that is already there: rows are recordings, columns pictures, higher = alike.

    A matrix of distances must be negated first. Raises `UserError` as `score` does.
    """
    options = _options(settings)
    scores = _table(S, "score matrix")
    require_finite(scores, "score matrix")
    pairing = pair(len(scores), scores.shape[1], _names(ids), _names(image_ids))
    notes = matrix_notes(scores)
    rows = _averaged(scores, pairing, options, notes)
    return _score(Matrix(rows, pairing.index), pairing, labels, alike, options, notes)


def _score(
    contest: Contest,
    pairing: Pairing,
    labels: Sequence[Any] | np.ndarray | None,
    alike: Mapping[str, Any] | None,
    options: ScoreConfig,
    notes: list[str],
) -> dict[str, Any]:
    n, total = len(pairing.index), contest.candidates
    if total > n:
        notes.append(f"{total - n} candidate pictures have no recording; they play no part in image_to_brain and p")
    result: dict[str, Any] = {}
    counts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for direction in DIRECTIONS:
        size = total if direction == "brain_to_image" else n
        better, equal = counts[direction] = contest.standing(direction, np.arange(n), np.arange(size))
        part = _summary(better, equal, np.full(n, size), options)
        part |= shuffle_p(contest, direction, n_perm=options.n_perm, seed=options.seed)
        result[direction] = {**part, "pools": _pools(better, equal, size, options)}
    result |= _by_category(contest, labels, counts, options, notes)
    result["transductive"] = _transductive(contest, options, notes)
    if alike:
        features = {name: _features(name, part) for name, part in alike.items()}
        result["alike"] = score_alike(
            contest, features, options.alike_size, options.n_boot, options.n_perm, options.seed
        )
    result["n_stimuli"] = n
    result["per_stimulus"] = {"ids": pairing.ids, **{name: _each(*count) for name, count in counts.items()}}
    result["notes"] = notes + _result_notes(result)
    return result


def _features(name: str, features: Any) -> np.ndarray:
    found = _table(features, f"features {name!r}")
    require_finite(found, f"features {name!r}")
    return found


def _summary(better: np.ndarray, equal: np.ndarray, sizes: np.ndarray, options: ScoreConfig) -> dict[str, Any]:
    """Scores of n queries with ``sizes`` (n,) candidates each, their chance and their intervals over stimuli."""
    percentile = 1 - (better + equal / 2) / np.maximum(sizes - 1, 1)
    drawn: dict[str, Any] = {"seed": options.seed, "n_boot": options.n_boot}
    hits = {k: retrieval.expected_hits(better, equal, k) for k in options.topk}
    one_size = sizes.min() == sizes.max()
    return {
        **{f"top{k}": float(hit.mean()) for k, hit in hits.items()},
        "median_rank": float(np.median(1 + better + equal / 2)),
        "rank_percentile": float(percentile.mean()),
        "n": len(better),
        "candidates": int(sizes[0]) if one_size else float(sizes.mean()),
        **{f"chance_top{k}": float((np.minimum(k, sizes) / sizes).mean()) for k in options.topk},
        **{f"ci95_top{k}": retrieval.bootstrap_interval([hit], **drawn) for k, hit in hits.items()},
        "ci95_rank_percentile": retrieval.bootstrap_interval([percentile], **drawn),
    }


def _pools(better: np.ndarray, equal: np.ndarray, size: int, options: ScoreConfig) -> dict[str, dict[str, float]]:
    """Expected top-k in smaller candidate sets, over all sets that hold the right answer; no drawing."""
    found = {}
    for pool in options.pools:
        if pool <= size:
            part: dict[str, float] = {}
            for k in options.topk:
                hits = retrieval.expected_hits(better, equal, k, candidates=size, pool=pool)
                part |= {f"top{k}": float(hits.mean()), f"chance_top{k}": min(k, pool) / pool}
            found[str(pool)] = part
    return found


def _by_category(
    contest: Contest,
    labels: Sequence[Any] | np.ndarray | None,
    counts: dict[str, tuple[np.ndarray, np.ndarray]],
    options: ScoreConfig,
    notes: list[str],
) -> dict[str, Any]:
    """``within_category``: distractors of the own label only; ``between_category``: of other labels only."""
    parts: dict[str, Any] = {"within_category": None, "between_category": None}
    if labels is None:
        return parts
    if len(labels) != contest.candidates:
        raise UserError(f"{len(labels)} labels for {contest.candidates} candidate pictures; give one for each")
    every = np.unique(np.array([str(label) for label in labels]), return_inverse=True)[1]
    own = every[contest.index]
    if every.max() == 0:
        notes.append("all candidates carry one label, so there is nothing to tell apart between categories")
        return parts
    within, between = {}, {}
    shuffle = {"n_perm": options.n_perm, "seed": options.seed}
    for direction in DIRECTIONS:
        pool = every if direction == "brain_to_image" else own
        better, equal, sizes = _inside(contest, direction, own, pool)
        crowded = sizes > 1
        if crowded.any():
            part = _summary(better[crowded], equal[crowded], sizes[crowded], options)
            within[direction] = part | shuffle_within_p(contest, direction, own, **shuffle)
        rest = (counts[direction][0] - better, counts[direction][1] - equal, len(pool) + 1 - sizes)
        between[direction] = _summary(*rest, options) | shuffle_p(contest, direction, labels=own, **shuffle)
    if len(within) < len(DIRECTIONS):
        notes.append("no label holds two pictures with recordings, so nothing can be scored within a category")
    return {"within_category": within or None, "between_category": between}


def _inside(
    contest: Contest, direction: str, own: np.ndarray, pool: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) better, equal and number of candidates among those of each query's own label."""
    better, equal, sizes = (np.zeros(len(own), dtype=np.int64) for _ in range(3))
    for label in np.unique(own):
        queries, columns = np.flatnonzero(own == label), np.flatnonzero(pool == label)
        better[queries], equal[queries] = contest.standing(direction, queries, columns)
        sizes[queries] = len(columns)
    return better, equal, sizes


def _transductive(contest: Contest, options: ScoreConfig, notes: list[str]) -> dict[str, Any]:
    """CSLS and Sinkhorn with the keys of both directions, Hungarian with its share of right assignments."""
    n, total = len(contest.index), contest.candidates
    if not options.transductive:
        return {}
    if n * total > MOST_CELLS:
        notes.append(f"transductive scores left out: {n} x {total} scores do not fit in memory at once")
        return {}
    matrix, found = contest.matrix(), dict[str, Any]()
    drawn: dict[str, Any] = {"seed": options.seed, "n_boot": options.n_boot}
    settings = {**drawn, "n_perm": options.n_perm}
    for name, corrected in (("csls", transductive.csls(matrix)), ("sinkhorn", transductive.sinkhorn(matrix))):
        both = retrieval.both_directions(corrected, contest.index, **settings)
        found[name] = {**both["brain_to_image"], "image_to_brain": both["image_to_brain"]}
    found["sinkhorn"]["sharpness"] = transductive.sharpness_of(total)
    given = transductive.hungarian(matrix, seed=options.seed)[:, None] == contest.index[None]
    hits = np.diag(given).astype(np.float64)
    found["hungarian"] = {
        "top1": float(hits.mean()),
        "n": n,
        "candidates": total,
        "chance_top1": 1 / total,
        "ci95_top1": retrieval.bootstrap_interval([hits], **drawn),
        "p_permutation": retrieval.permutation_p([given], seed=options.seed, n_perm=options.n_perm),
    }
    return found


def _each(better: np.ndarray, equal: np.ndarray) -> dict[str, list[float]]:
    hits = {f"top{k}": retrieval.expected_hits(better, equal, k).tolist() for k in (1, 5)}
    return {**hits, "rank": (1 + better + equal / 2).tolist()}


def _result_notes(result: dict[str, Any]) -> list[str]:
    notes = []
    for direction in DIRECTIONS:
        part = result[direction]
        hits = part["top1"] * part["n"]
        if min(hits, part["n"] - hits) < FEW_HITS:
            low, high = exact_interval(hits, part["n"])
            notes.append(
                f"{direction}: {hits:.4g} hits in {part['n']} are too few or too many for the interval of top1 by "
                f"resampling; the exact one (Clopper & Pearson 1934) is {low:.3g} to {high:.3g}"
            )
        if part["rank_percentile"] < 0.4:
            notes.append(
                f"{direction}: right answers rank below the middle ({part['rank_percentile']:.2f}); are the scores "
                "distances (negate them), or the rows in another order?"
            )
    return notes


def _averaged(x: np.ndarray, pairing: Pairing, options: ScoreConfig, notes: list[str]) -> np.ndarray:
    if len(x) > len(pairing.ids):
        told = f"{len(x)} brain rows show {len(pairing.ids)} pictures"
        if options.repeats == "refuse":
            raise UserError(f"{told}; average the repetitions first, or allow it with repeats=average")
        notes.append(f"{told}: the rows of one picture were averaged as stored before scoring")
    return average_rows(x, pairing)


def _options(settings: dict[str, Any]) -> ScoreConfig:
    unknown = set(settings) - set(ScoreConfig.__dataclass_fields__)
    if unknown:
        known = ", ".join(ScoreConfig.__dataclass_fields__)
        raise UserError(f"score knows no setting {sorted(unknown)[0]!r}; known: {known}")
    options = ScoreConfig(**settings)
    if options.repeats not in ("average", "refuse"):
        raise UserError(f"repeats={options.repeats!r} must be average or refuse")
    options.topk = tuple(sorted({1, 5, *options.topk}))
    if min((*options.topk, *options.pools)) < 1 or min(options.n_boot, options.n_perm) < 0:
        raise UserError("topk and pools must be 1 or more, n_boot and n_perm 0 or more")
    require_draws(options.n_boot, options.n_perm, options.seed)
    return options


def _table(x: Any, what: str) -> np.ndarray:
    """numpy of an array or tensor, trailing axes flattened, without a copy where it can be avoided."""
    if np.ma.is_masked(x):
        raise UserError(f"{what} hold masked values; fill or remove these rows first")
    if hasattr(x, "toarray"):
        raise UserError(f"{what} are a sparse matrix; pass x.toarray()")
    try:
        array = as_numpy(x) if hasattr(x, "detach") else np.asarray(x)
    except UserError:
        raise
    except Exception as error:  # ragged lists, and containers that raise what they like
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{what} are no array of numbers ({line}); pass (n, width)") from error
    if array.ndim < 2 or array.size == 0 or array.dtype.kind not in "biuf":
        raise UserError(f"{what}: shape {array.shape} of {array.dtype}; numbers (n, width) are needed, n >= 1")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    flat: np.ndarray = array.reshape(len(array), -1)
    return flat


def _names(ids: Sequence[Any] | np.ndarray | None) -> list[str] | None:
    """Names of rows as text; raises `UserError` where one is missing (None, NaN, empty)."""
    if ids is None:
        return None
    names = [tidy(str(name)) for name in ids]
    missing = [row for row, name in enumerate(names) if is_missing(name)]
    if missing:
        raise UserError(f"the id of row {missing[0]} is {names[missing[0]]!r}, as of {len(missing)} rows; name each")
    return names

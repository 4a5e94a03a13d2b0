"""Who may stand on which side of a split: scene twins, groups, folds, refusal of overlap, the manifest of a run.

Two pictures show one scene when their decoded pixels are equal or when the Pearson correlation of their 16 x 16 RGB
thumbnails exceeds .97, which also finds blurred or partly covered versions that no hash sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from align.data.signals import Recording
from align.errors import UserError
from align.files import read_json
from align.seeding import derive

THUMBNAIL = 16  # px
TWIN_R = 0.97
_BLOCK = 2048  # rows of a similarity matrix held at once


def thumbnails(images: Iterable[np.ndarray]) -> np.ndarray:
    """Pictures uint8 (H, W, 3) as float32 (n, 768): 16 x 16 RGB by antialiased bilinear scaling, mean removed."""
    rows = [
        np.asarray(Image.fromarray(image).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR), dtype=np.float64)
        for image in images
    ]
    flat = np.array(rows).reshape(len(rows), THUMBNAIL * THUMBNAIL * 3)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat.astype(np.float32)


def scene_twins(
    train_thumbs: np.ndarray,
    test_thumbs: np.ndarray,
    train_hashes: Sequence[str],
    test_hashes: Sequence[str],
    r: float = TWIN_R,
) -> np.ndarray:
    """Bool (n_train,): which training pictures show the scene of a test picture (see the module's definition).

    Empty hashes leave the comparison to the thumbnails.
    """
    twins = np.zeros(len(train_thumbs), dtype=bool)
    if len(train_hashes) > 0:
        twins |= np.isin(np.asarray(train_hashes), np.asarray(test_hashes))
    if len(test_thumbs) == 0 or len(train_thumbs) == 0:
        return twins
    train, test = _unit(train_thumbs), _unit(test_thumbs)
    for start in range(0, len(train), _BLOCK):
        block = slice(start, start + _BLOCK)
        twins[block] |= (train[block] @ test.T > r).any(axis=1)
    return twins


def scene_groups(thumbs: np.ndarray, hashes: Sequence[str], r: float = TWIN_R) -> np.ndarray:
    """Int64 (n,) group of every picture: connected components of "shows one scene", numbered by first appearance."""
    units = _unit(thumbs)
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(units), _BLOCK):
        near = np.argwhere(units[start : start + _BLOCK] @ units.T > r)
        near[:, 0] += start
        pairs.append(near[near[:, 0] < near[:, 1]])
    return _components(len(units), np.concatenate(pairs), [np.asarray(hashes)])


def merge_groups(groups: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Int64 (n,): ``groups`` joined wherever two pictures share a label; an empty label joins nothing."""
    names = np.array([label or f"\0{i}" for i, label in enumerate(labels)])
    return _components(len(groups), np.empty((0, 2), dtype=np.int64), [np.asarray(groups), names])


def grouped_folds(groups: np.ndarray, n_folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """``n_folds`` pairs (fit rows, validation rows), sorted int64, no group on both sides, sizes balanced.

    Groups are shuffled by ``seed``, then dealt from the largest to the smallest, each to the smallest fold so far.
    Raises `UserError` when there are fewer groups than folds or fewer than two folds.
    """
    names, inverse, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if n_folds < 2 or len(names) < n_folds:
        raise UserError(f"{n_folds} folds from {len(names)} groups of pictures; take 2 to {len(names)} folds")
    order = np.random.default_rng(derive(seed, "folds", n_folds)).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of_group, filled = np.empty(len(names), dtype=np.int64), np.zeros(n_folds, dtype=np.int64)
    for group in order:
        fold_of_group[group] = filled.argmin()
        filled[fold_of_group[group]] += sizes[group]
    fold = fold_of_group[inverse]
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(n_folds)]


def refuse_overlap(
    recording: Recording, concept_disjoint: bool = False, trained_on: Sequence[Recording] | None = None
) -> None:
    """Raise `UserError` naming the ids when training and test share a picture (or, where asked, a concept).

    The test rows are those of ``recording``, the training rows those of ``trained_on``, itself if None.
    """
    stimuli, tested = recording.stimuli, np.unique(recording.test.stimulus)
    for other in [recording] if trained_on is None else trained_on:
        who = _of(recording) if other is recording else f"{_of(other)} and the test of {recording.subject}"
        shown = np.unique(other.train.stimulus)
        in_train = {other.stimuli.hashes[i] for i in shown}
        shared = [stimuli.ids[i] for i in tested if stimuli.hashes[i] in in_train]
        if shared:
            raise UserError(f"{who}: training and test share {_some(shared, 'picture')}; mend the split")
        if concept_disjoint:
            known = {other.stimuli.concepts[i] for i in shown} - {""}
            concepts = sorted({stimuli.concepts[i] for i in tested} & known)
            if concepts:
                raise UserError(f"{who}: training and test share {_some(concepts, 'concept')}; mend the split")


_SIDE = {"n_trials?": int, "ids": [str], "hashes": [str], "concepts": [str], "groups?": [int]}
_SPLIT = {
    "study?": str,
    "subject?": str,
    "subjects?": [str],
    "trained_on?": [str],
    "log?": [str],
    "train": _SIDE,
    "test": _SIDE,
    "test_of?": {str: _SIDE},
    "signals?": {str: str},  # by subject `align.data.mark.signals_mark` of training; not in older files
}


def read_split(path: str | Path) -> dict[str, Any]:
    """The manifest in a ``split.json``; raises `UserError` naming the file and the first field that is wrong."""
    split: dict[str, Any] = read_json(path, _SPLIT)
    for name, side in (("train", split["train"]), ("test", split["test"]), *split.get("test_of", {}).items()):
        lengths = {key: len(side[key]) for key in ("ids", "hashes", "concepts")}
        if len(set(lengths.values())) != 1:
            raise UserError(f"{str(path)!r}: {name} has lists of different lengths {lengths}; train the run again")
    return split


def manifest(recording: Recording) -> dict[str, Any]:
    """What ``split.json`` keeps: ids, pixel hashes, concepts and groups of the pictures of each split, and the log."""
    stimuli = recording.stimuli
    splits = {}
    for name, trials in (("train", recording.train), ("test", recording.test)):
        rows = [int(i) for i in np.unique(trials.stimulus)]
        splits[name] = {
            "n_trials": len(trials),
            "ids": [stimuli.ids[i] for i in rows],
            "hashes": [stimuli.hashes[i] for i in rows],
            "concepts": [stimuli.concepts[i] for i in rows],
            "groups": [int(stimuli.groups[i]) for i in rows],
        }
    return {"study": recording.study, "subject": recording.subject, "log": list(recording.log), **splits}


def joint_manifest(trained: Sequence[Recording], tested: Sequence[Recording]) -> dict[str, Any]:
    """`manifest` of an encoder for several subjects, or for one that it was not trained on.

    ``train`` and ``test`` join the pictures of all subjects, each once; ``test_of`` keeps the test of every subject.
    """
    if [part.subject for part in trained] == [part.subject for part in tested] and len(tested) == 1:
        return manifest(tested[0])
    sides = {part.subject: manifest(part) for part in (*trained, *tested)}
    test_of = {part.subject: sides[part.subject]["test"] for part in tested}
    return {
        "study": tested[0].study,
        "subject": tested[0].subject if len(tested) == 1 else "several",
        "subjects": list(test_of),
        "trained_on": [part.subject for part in trained],
        "log": [f"{subject}: {line}" for subject, side in sides.items() for line in side["log"]],
        "train": _joined([sides[part.subject]["train"] for part in trained]),
        "test": _joined(list(test_of.values())),
        "test_of": test_of,
    }


def _joined(sides: list[dict[str, Any]]) -> dict[str, Any]:
    """One side of several manifests: pictures of equal pixels once. Groups are those of each subject's own list."""
    lists = ("ids", "hashes", "concepts", "groups")
    once: dict[str, tuple[Any, ...]] = {}
    for side in sides:
        for row in zip(*(side[name] for name in lists), strict=True):
            once.setdefault(row[1], row)
    columns = zip(*once.values(), strict=True)
    return {"n_trials": sum(side["n_trials"] for side in sides), **dict(zip(lists, map(list, columns), strict=True))}


def _unit(thumbs: np.ndarray) -> np.ndarray:
    """Rows of length one; a flat picture has no correlation and stays zero."""
    norm = np.linalg.norm(thumbs, axis=1, keepdims=True)
    return thumbs / np.where(norm > 0, norm, 1.0)


def _components(n: int, pairs: np.ndarray, labelings: list[np.ndarray]) -> np.ndarray:
    """Connected components of n nodes under pairs (m, 2) and equal labels, numbered by first appearance."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = [pairs]
    for labels in labelings:
        _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
        edges.append(np.stack([first[inverse], np.arange(n)], axis=1))
    rows, columns = np.concatenate(edges).T
    graph = coo_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(n, n))
    found = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _of(recording: Recording) -> str:
    return f"{recording.study} subject {recording.subject}"


def _some(names: list[str], noun: str, limit: int = 5) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{len(names)} {noun}{'s' if len(names) > 1 else ''}: {', '.join(names[:limit])}{rest}"

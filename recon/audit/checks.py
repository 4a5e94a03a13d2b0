"""What an audit looks at (`Material`) and every check in order; a check without its input is listed as not checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from align import retrieval
from recon.audit import copies, inside, outputs, selection, signals, splits
from recon.audit.copies import Likeness
from recon.audit.selection import Choice
from recon.audit.verdict import Finding, not_checked


@dataclass(frozen=True)
class Pictures:
    """Pictures of one split: ids (n,), SHA-256 of their pixels (n,), thumbnails (n, 768) where they were readable."""

    ids: tuple[str, ...]
    hashes: tuple[str, ...]
    thumbs: np.ndarray | None


@dataclass(frozen=True)
class Samples:
    """k samples of n stimuli: similarity to target and, where known, to the prediction, (n, k); which was published."""

    to_target: np.ndarray
    published: np.ndarray
    to_prediction: np.ndarray | None = None


@dataclass(frozen=True)
class Order:
    """Trials in time: label (n,), time (n,) in any unit, whether a test trial (n,) where the split is known."""

    labels: tuple[str, ...]
    time: np.ndarray
    is_test: np.ndarray | None = None


@dataclass
class Material:
    """Everything an audit can use; what is None is not checked. Rows of ``brain`` and ``images`` belong together.

    ``train_ids`` and ``test_ids``: stimuli of the trials of each split. ``labels`` (n,): categories of the rows of
    ``brain``. ``shown``: thumbnails (n, 768) of reconstructions and of their targets. ``missing``: why something that
    was asked for could not be read, by the name of the input. ``copied``: reconstructions beside the seen pictures.
    ``places``: what `recon.audit.inside.places` says of a run.
    """

    train_pictures: Pictures | None = None
    test_pictures: Pictures | None = None
    train_ids: Sequence[str] | None = None
    test_ids: Sequence[str] | None = None
    train_labels: Sequence[str] | None = None
    test_labels: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    brain: np.ndarray | None = None
    images: np.ndarray | None = None
    train_embeds: np.ndarray | None = None
    brain_ids: Sequence[str] | None = None
    image_ids: Sequence[str] | None = None
    train_signals: np.ndarray | None = None
    test_signals: np.ndarray | None = None
    sessions: tuple[np.ndarray, np.ndarray] | None = None
    shown: tuple[np.ndarray, np.ndarray] | None = None
    copied: Likeness | None = None
    places: tuple[list[str], list[str]] | None = None
    samples: Samples | None = None
    order: Order | None = None
    choices: list[Choice] = field(default_factory=list)
    seeds: np.ndarray | None = None
    reported: float | None = None
    declared: dict[str, str] | None = None
    missing: dict[str, str] = field(default_factory=dict)


def audit(material: Material) -> list[Finding]:
    """Every check, in the order of the pipeline: splits, recordings, embeds, pictures, choices."""
    kinds = None
    if material.train_embeds is not None and material.images is not None:
        kinds = splits.clusters(material.train_embeds, material.images)
    return [
        *_split_checks(material, kinds),
        *_signal_checks(material),
        *_embedding_checks(material, kinds),
        *_picture_checks(material),
        *_choice_checks(material),
    ]


def _needs(material: Material, check: str, what: str, *inputs: str) -> Finding:
    """Not checked, with the reason why an input could not be read where there is one."""
    reasons = [material.missing[name] for name in inputs if name in material.missing]
    return not_checked(check, what + (f": {'; '.join(dict.fromkeys(reasons))}" if reasons else ""))


def _split_checks(m: Material, kinds: splits.Clusters | None) -> list[Finding]:
    train, test = m.train_pictures, m.test_pictures
    found = []
    both = "pictures of both splits (--train-images, --test-images, or a run)"
    if train is None or test is None:
        found += [_needs(m, name, both, "split", "pictures") for name in ("exact_duplicates", "near_duplicates")]
    else:
        found.append(splits.exact_duplicates(train.hashes, test.hashes, test.ids))
        if train.thumbs is None or test.thumbs is None:
            found.append(_needs(m, "near_duplicates", both, "pictures"))
        else:
            exact = np.isin(np.asarray(test.hashes), np.asarray(train.hashes))
            found.append(splits.near_duplicates(train.thumbs, test.thumbs, test.ids, exact))
    if m.train_ids is None or m.test_ids is None:
        needs = "stimulus ids of both splits (--order with stimulus_id and split)"
        found.append(_needs(m, "repeated_stimuli", needs, "split"))
    else:
        found.append(splits.repeated_stimuli(m.train_ids, m.test_ids))
    if m.train_labels is None or m.test_labels is None:
        named = _needs(m, "shared_categories", "a category of training and test stimuli (--labels)", "split")
    else:
        named = splits.shared_categories(m.train_labels, m.test_labels)
    found.append(named)
    if kinds is None:
        needs = "embeds of 4 or more training and test pictures (--train-embeds, --images)"
        found.append(_needs(m, "feature_clusters", needs, "embeds"))
    else:
        found.append(splits.feature_clusters(kinds, apart=named.verdict == "clear"))
    return found


def _signal_checks(m: Material) -> list[Finding]:
    found = []
    if m.test_signals is None:
        needs = "recordings of the test trials (--test-signals)"
        found.append(_needs(m, "test_standardised_signals", needs, "signals"))
    else:
        found.append(signals.test_standardised(m.test_signals, m.train_signals))
    if m.train_signals is None or m.test_signals is None:
        needs = "recordings of both splits (--train-signals, --test-signals)"
        found += [_needs(m, name, needs, "signals") for name in ("shared_recordings", "pooled_normalisation")]
    else:
        found.append(signals.shared_recordings(m.train_signals, m.test_signals))
        found.append(signals.pooled_normalisation(m.train_signals, m.test_signals, m.sessions))
    if m.order is None:
        found.append(_needs(m, "block_design", "labels of all trials in order of time (--order)", "order"))
    else:
        found.append(signals.block_design(m.order.labels, m.order.time, m.order.is_test))
    return found


def _embedding_checks(m: Material, kinds: splits.Clusters | None) -> list[Finding]:
    named = {"predictions": m.brain, "pictures": m.images, "training pictures": m.train_embeds}
    given = {name: x for name, x in named.items() if x is not None}
    if m.brain is None:
        found = [_needs(m, "test_standardised_predictions", "predicted embeds of the test rows (--brain)", "embeds")]
    else:
        found = [signals.test_standardised(m.brain, what="predictions", reference=m.train_embeds)]
    if given:
        found.append(outputs.anisotropy(given))
    else:
        found.append(_needs(m, "anisotropy", "embeds (--brain, --images, --train-embeds)", "embeds"))
    if m.brain is None or m.images is None:
        needs = "predicted embeds and those of their pictures (--brain, --images)"
        return found + [_needs(m, name, needs, "embeds") for name in ("collapse", "row_order", "category_only")]
    similarity = retrieval.scores(m.brain, m.images)
    found.append(outputs.collapse(m.brain, m.images))
    found.append(outputs.row_order(similarity, m.brain_ids, m.image_ids))
    if m.labels is not None and len(set(m.labels)) < len(m.labels):
        found.append(outputs.category_only(similarity, m.labels))
    elif kinds is not None and kinds.real:
        of_clusters = similarity[np.ix_(kinds.rows, kinds.rows)]
        found.append(outputs.category_only(of_clusters, kinds.test.tolist(), "cluster of features"))
    else:
        found.append(_needs(m, "category_only", "test stimuli that share a category (--labels)"))
    return found


def _picture_checks(m: Material) -> list[Finding]:
    thumbs = m.train_pictures.thumbs if m.train_pictures is not None else None
    if m.shown is not None and thumbs is not None:
        found = [outputs.memorisation(*m.shown, thumbs)]
    elif m.brain is not None and m.images is not None and m.train_embeds is not None:
        centre = m.train_embeds.mean(axis=0)
        brain, images, known = m.brain - centre, m.images - centre, m.train_embeds - centre
        copy_r = outputs.EMBED_COPY_R
        found = [outputs.memorisation(brain, images, known, copy_r=copy_r, what="predicted embeds")]
    else:
        needs = "reconstructions, targets and training pictures (or --brain, --images and --train-embeds)"
        found = [_needs(m, "memorisation", needs, "pictures", "reconstructions")]
    if m.copied is None:
        needs = "reconstructions and the pictures that were seen (--reconstructions, --targets, or a run)"
        found.append(_needs(m, "seen_pictures", needs, "reconstructions"))
    else:
        found.append(copies.seen_pictures(m.copied))
    if m.places is None:
        found.append(_needs(m, "outside_run", "a run folder"))
    else:
        found.append(inside.outside_run(*m.places))
    if m.samples is None:
        needs = "all samples of every stimulus and the published one (--samples or --sample-embeds, --chosen)"
        return [*found, _needs(m, "sample_selection", needs, "samples")]
    return [*found, selection.best_of_k(m.samples.to_target, m.samples.published, m.samples.to_prediction)]


def _choice_checks(m: Material) -> list[Finding]:
    found = [selection.chosen_on_test(m.choices)]
    if m.declared is None:
        found.append(_needs(m, "declared_choice", "a report that says where layer and epoch were chosen (a run)"))
    else:
        found.append(selection.declared_choice(m.declared))
    if m.seeds is None or m.reported is None:
        needs = "test scores of several seeds and the reported one (--scores with column seed, --reported)"
        return [*found, _needs(m, "seed_variance", needs)]
    return [*found, selection.seed_variance(m.seeds, m.reported)]

"""The field's table of picture metrics for anybody's pictures: `evaluate_images(reconstructions, targets)`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError
from align.fields.checks import require_draws
from align.files.labels import present, tidy
from align.files.table import text_rows
from align.tracking import Stopwatch

if TYPE_CHECKING:
    import pandas as pd

    from recon.scoring.own_metric import OwnMetric
    from recon.scoring.picture_sets import OpenedPictures
    from recon.scoring.set_scores import Scored, Task

logger = logging.getLogger(__name__)
N_WAY = (10, 50)  # printed beside the saturated two-way scores where there are pictures enough
COLUMNS = (
    "value", "ci95_low", "ci95_high", "n", "samples", "sample_sd", "better", "chance", "category_ceiling",
    "shuffled", "grey", "p_shuffled", "protocol", "weights",
)  # fmt: skip


def evaluate_images(
    reconstructions: Any,
    targets: Any,
    *,
    preset: str = "ours",
    metrics: Sequence[str | OwnMetric] | None = None,
    n_way: Sequence[int] | None = None,
    low_level: Any = None,
    labels: Any = None,
    weights_dir: str | Path | None = None,
    weights_files: Mapping[str, str | Path] | None = None,
    download: bool = False,
    controls: bool = True,
    n_boot: int = 2000,
    n_perm: int = 9999,
    seed: int = 0,
    progress: Callable[[str], None] = lambda stage: None,
) -> pd.DataFrame:
    """Score reconstructions against targets, one row per metric.

    ``reconstructions``, ``targets``: whatever `picture_sets.open_pictures` takes (folder, ``.npy``, ``.pt``,
    ``.safetensors``, array, tensor), paired by id or row; reconstructions may have k samples per stimulus.
    ``preset``: a name of `presets.PRESETS`; ``metrics``: which (default: the preset's), names or own functions
    (`own_metric`). ``n_way``: numbers of candidates (default: 10 and 50 where there are pictures enough, and all
    pictures, which is top-1 among the test set). ``low_level``: a set that the preset blends in.
    ``labels``: category of each stimulus as CSV (id,label), mapping, or sequence in the order of the targets.
    ``weights_files``: network name to weights file.

    Columns: ``value`` = mean over stimuli and samples; ``ci95_low``, ``ci95_high`` = bootstrap over stimuli of the
    mean over samples; ``n`` stimuli; ``samples`` per stimulus; ``sample_sd`` = standard deviation over samples of the
    score of one whole set (NaN for one sample); ``better``; ``chance`` where there is one; ``category_ceiling`` = what
    knowing the category alone is worth in two-way; ``shuffled``, ``grey`` = controls; ``p_shuffled`` = one-sided
    paired sign-flip against shuffled; ``protocol``; ``weights``.

    ``.attrs``: ``skipped`` (metric to reason), ``preset``, ``source``, ``resizing``, ``blend`` (share of the
    reconstruction, None where nothing was blended), ``versions`` (here, and of the published numbers), ``category``
    (where labels were given), ``notes`` (sentences about pictures of one colour and copies), ``measured`` (seconds,
    memory, device), ``ids``,
    ``per_stimulus`` (row to the means over samples, in the order of ``ids``, NaN
    where undefined).

    Raises
    ------
    UserError
        Sets that cannot be read or paired, an unknown preset or metric, more candidates than pictures.
    """
    from recon.evaluation.provenance import versions
    from recon.metrics.feature_nets import AS_OPTIONS, FeatureNets
    from recon.scoring.opening import open_pair, open_pictures, paired
    from recon.scoring.own_metric import name_functions, own_row
    from recon.scoring.presets import PRESETS
    from recon.scoring.set_scores import build_task, require_known, score_sets, spelled
    from recon.scoring.views import require_fit

    if preset.lower() not in PRESETS:
        raise UserError(f"preset {preset!r} is not known; known: {', '.join(PRESETS)}")
    preset = preset.lower()
    chosen = PRESETS[preset]
    wanted = dict.fromkeys(metrics or chosen.metrics)
    names = tuple(dict.fromkeys(spelled([metric for metric in wanted if isinstance(metric, str)])))
    require_known(names)
    functions = name_functions([metric for metric in wanted if not isinstance(metric, str)], names)
    files = dict(weights_files or {})
    _require_networks(files)
    own, truth = open_pair(reconstructions, targets)
    require_fit(chosen, preset, truth, low_level)
    low = None
    if low_level is not None:
        low = paired(open_pictures(low_level, name="low level", known=truth.ids), truth)
        if low.samples not in (1, own.samples):
            raise UserError(f"{low.name!r} holds {low.samples} samples, {own.name!r} {own.samples}; give 1 or as many")
    watch = Stopwatch()
    nets = FeatureNets(weights_dir, files=files, download=download, ways=AS_OPTIONS)
    task = build_task(own, truth, chosen, nets, controls=controls, seed=seed, low_level=low)
    task.progress = progress
    task.n_way = _candidates(n_way, task.n)
    ids = (truth.ids or tuple(str(row) for row in range(truth.n)))[: task.n]
    task.labels = None if labels is None else _labels(labels, ids, truth)
    rows, skipped = score_sets(task, names)
    rows |= {name: own_row(task, name, function) for name, function in functions.items()}
    require_draws(n_boot, n_perm, seed)
    frame = _frame(rows, task.labels, n_boot=n_boot, n_perm=n_perm, seed=seed)
    frame.attrs |= {"skipped": skipped, "preset": preset, "source": chosen.source, "resizing": chosen.resizing}
    frame.attrs |= {"blend": None if low is None else chosen.blend, "ids": list(ids)}
    frame.attrs["versions"] = {"here": versions(), "published": chosen.versions}
    frame.attrs["notes"] = _notes(task, ids)
    for note in frame.attrs["notes"]:
        logger.warning("%s", note)
    frame.attrs["per_stimulus"] = {name: row.values.mean(axis=0).tolist() for name, row in rows.items()}
    if task.labels is not None:
        frame.attrs["category"] = _category(task.labels)
    frame.attrs["measured"] = watch.read()
    return frame


def _notes(task: Task, ids: Sequence[str]) -> list[str]:
    """Sentences about reconstructions and targets of one colour, and about copies; nothing is left out."""
    import torch

    from recon.metrics.copies import copies_note, fingerprints
    from recon.metrics.flat import flat_note, one_colour

    notes: list[str | None] = []
    for views, what in ((task.own, "reconstructions"), ([task.target], "targets")):
        found, prints = [], []
        for images in (view.pictures.batch(rows, view.sample) for view in views for rows in task.chunks()):
            found.append(one_colour(images))
            prints += fingerprints(images)
        names = [f"{name} (sample {view.sample})" if len(views) > 1 else name for view in views for name in ids]
        even, black = (torch.cat(part).tolist() for part in zip(*found, strict=True))
        notes += [flat_note(names, even, black, what), copies_note(names, prints, even, what)]
    return [note for note in notes if note]


def _require_networks(files: Mapping[str, str | Path]) -> None:
    from recon.metrics.networks import NETWORKS

    for name in files:
        if name not in (*NETWORKS, "clip"):
            raise UserError(f"network {name!r} is not known; known: {', '.join((*NETWORKS, 'clip'))}")


def _candidates(n_way: Sequence[int] | None, n: int) -> tuple[int, ...]:
    if n_way is None:
        return tuple(sorted({k for k in (*N_WAY, n) if 2 <= k <= n}))
    for k in n_way:
        if not 2 <= k <= n:
            raise UserError(f"{k}-way needs {k} pictures and at least 2 candidates, there are {n} pictures")
    return tuple(n_way)


def _labels(labels: Any, ids: Sequence[str], truth: OpenedPictures) -> np.ndarray:
    """Category of each stimulus, (n,) of text."""
    if isinstance(labels, str | Path):
        labels = _read_labels(Path(labels).expanduser())
    if not isinstance(labels, Mapping):
        if len(labels) != truth.n:
            raise UserError(f"{len(labels)} labels for {truth.n} targets; give one label per target")
        labels = dict(zip(ids, list(labels), strict=False))
    labels = {tidy(str(stimulus)): present(str(label)) for stimulus, label in labels.items()}
    missing = [stimulus for stimulus in ids if not labels.get(tidy(stimulus))]
    if missing:
        raise UserError(
            f"no label for {missing[0]!r} ({len(missing)} of {len(ids)} are missing); add the rows id,label"
        )
    return np.array([labels[tidy(stimulus)] for stimulus in ids])


def _read_labels(path: Path) -> dict[str, str]:
    rows, header = text_rows(path, "labels")
    if not rows or not {"id", "label"} <= set(header):
        raise UserError(f"labels {str(path)!r} lack the columns id,label; found {', '.join(header) or 'none'}")
    labels: dict[str, str] = {}
    for row in rows:
        if labels.setdefault(row["id"], row["label"]) != row["label"]:
            raise UserError(
                f"labels {str(path)!r} call {row['id']!r} {labels[row['id']]!r} and {row['label']!r}; keep one"
            )
    return labels


def _category(labels: np.ndarray) -> dict[str, Any]:
    from recon.metrics.identification import category_ceiling, category_knowledge

    k = len(np.unique(labels))
    return {"k": k, "ceiling_equal": category_ceiling(k), "ceiling": category_knowledge(labels)}


def _frame(rows: dict[str, Scored], labels: np.ndarray | None, *, n_boot: int, n_perm: int, seed: int) -> pd.DataFrame:
    import pandas as pd

    from recon.metrics.identification import category_knowledge

    ceiling = None if labels is None else category_knowledge(labels)
    table = {name: _entry(row, ceiling, n_boot, n_perm, seed) for name, row in rows.items()}
    frame = pd.DataFrame.from_dict(table, orient="index", columns=list(COLUMNS))
    frame.index.name = "metric"
    return frame


def _entry(row: Scored, ceiling: float | None, n_boot: int, n_perm: int, seed: int) -> list[Any]:
    from recon.metrics.stats import bootstrap_ci, sign_flip_p

    k, mean, low, high, spread, p = len(row.values), np.nan, np.nan, np.nan, np.nan, np.nan
    defined = np.isfinite(row.values.mean(axis=0))  # within category, a stimulus alone in its own has no distractor
    values = row.values.mean(axis=0)[defined]
    controls = {name: told[defined] for name, told in row.controls.items()} if len(values) else {}
    if len(values):
        (low, high), mean = bootstrap_ci(values, n_boot=n_boot, seed=seed), float(values.mean())
    if len(values) and k > 1:
        spread = float(row.values[:, defined].mean(axis=1).std(ddof=1))
    if "shuffled" in controls:
        sign = 1 if row.better == "higher" else -1
        p = sign_flip_p(sign * (values - controls["shuffled"]), n_perm=n_perm, seed=seed)
    means = {name: float(told.mean()) for name, told in controls.items()}
    saturated = ceiling if ceiling is not None and row.saturates else np.nan
    return [
        mean, low, high, len(values), k, spread, row.better, np.nan if row.chance is None else row.chance, saturated,
        means.get("shuffled", np.nan), means.get("grey", np.nan), p, row.protocol, row.weights or "",
    ]  # fmt: skip


def as_report(frame: pd.DataFrame) -> dict[str, Any]:
    """The table as plain JSON: entries as in report.json, without the fields that are undefined."""
    entries: dict[str, dict[str, Any]] = {}
    for name, row in frame.iterrows():
        cells = {key: _plain(row[key]) for key in COLUMNS if key not in ("ci95_low", "ci95_high")}
        entry = {key: value for key, value in cells.items() if value is not None and value != ""}
        if _plain(row["ci95_low"]) is not None:
            entry["ci95"] = [float(row["ci95_low"]), float(row["ci95_high"])]
        entries[str(name)] = entry
    facts = ("preset", "source", "resizing", "blend", "versions", "category", "skipped", "notes", "measured")
    kept = {key: frame.attrs[key] for key in facts if key in frame.attrs}
    return {"schema": 1, **kept, "n_stimuli": len(frame.attrs["ids"]), "metrics": entries}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    number = float(value)
    if not np.isfinite(number):
        return None
    return int(number) if isinstance(value, int | np.integer) else number

"""The row of Brain-Score for any network: predictivity of recorded units, over the reliability of these units.

As the V4 benchmark of Brain-Score is computed (Schrimpf et al. 2018; brain-score/vision, `neural_common.py` and
`internal_consistency`): partial least squares with 25 components, Pearson r of every unit on pictures left out, mean
over splits, median over units; the ceiling is the median over units of the split-half reliability after the formula of
Spearman and Brown; the score is (r / ceiling) squared, which takes the model to be as reliable as the recording.

What differs: 10 folds of whole scenes instead of 10 random splits of 90 to 10, features of every place of a layer and
not 1,000 components of ImageNet, and the layer, which Brain-Score fixes on public recordings: here it is the one that
predicts the other subjects best, so that no subject's own score chooses it. With one subject it has to be named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError
from align.files import write_atomic, write_sealed
from recon.comparison.files import csv_text
from recon.encoding.features import feature_sets
from recon.encoding.run import Settings, encoding_lock, run
from recon.metrics.stats import t_interval

if TYPE_CHECKING:
    from align.config import Config

FOLDS = 10  # as many splits as Brain-Score draws
OWN_CHOICE = "one subject cannot choose the layer of its own score; name one with --layers LAYER"
STEM = "brain-score_pictures-to-responses"


def brain_score(
    config: Config, backbones: Sequence[str], method: str, layers: Sequence[str], folder: Path, overwrite: bool = False
) -> list[dict[str, Any]]:
    """`recon.encoding.run.run` in ``folder`` and the rows of its scores beside it, which are returned.

    Raises `UserError` as that does; before anything is fitted where one subject would choose the layer of its score.
    """
    settings = Settings(methods=(method,), layers=tuple(layers), folds=FOLDS, n_perm=100)
    require_others(config, backbones, layers)
    with encoding_lock(folder):  # taken again inside: what lies beside an encoding is of this encoding
        result = run(config, backbones, settings, folder, overwrite)
        rows = brain_score_rows(result)
        write_brain_score(folder, result, rows)
    return rows


def require_others(config: Config, backbones: Sequence[str], layers: Sequence[str]) -> None:
    """Raise `UserError` where one subject and several layers leave the choice of the layer to the score itself."""
    from align.data.studies import open_study
    from recon.comparison.networks import load_networks

    if len(set(config.subjects or open_study(config).default_subjects)) > 1:
        return
    sets = feature_sets(load_networks(backbones, config), layers, None, together=False)
    if any([one.network for one in sets].count(network) > 1 for network in backbones):
        raise UserError(OWN_CHOICE)


def brain_score_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each network and method of a result of `recon.encoding.run.run`.

    ``score`` and ``ceiling`` are of subjects with repetitions, None where nobody has them; ``r`` of all. Raises
    `UserError` where one subject and several layers leave the choice of the layer to the score itself.
    """
    found = []
    for network in result["backbones"]:
        labels = [one["label"] for one in result["sets"] if one["network"] == network]
        for method in result["methods"]:
            table = {
                name: {s["set"]: s for s in entry["scores"] if s["set"] in labels and s["method"] == method}
                for name, entry in result["subjects"].items()
            }
            if len(table) == 1 and len(labels) > 1:
                raise UserError(OWN_CHOICE)
            found.append(_row(network, method, table, labels, result["subjects"]))
    return found


def _row(
    network: str, method: str, table: Mapping[str, Any], labels: Sequence[str], entries: Mapping[str, Any]
) -> dict[str, Any]:
    subjects = []
    for name in table:
        others = [table[other] for other in table if other != name]
        layer = labels[0] if len(labels) == 1 else _best(others, labels)
        score, ceiling = table[name][layer], entries[name]["ceiling"]
        r, reliability = score["r_median"], None if ceiling is None else ceiling["reliability_median"]
        normal = None if reliability is None or reliability <= 0 else (max(r, 0.0) / reliability) ** 2
        subjects.append({"subject": name, "layer": layer, "r": r, "ceiling": reliability, "score": normal})
    r = np.array([one["r"] for one in subjects])
    normal = [one["score"] for one in subjects if one["score"] is not None]
    ceilings = [one["ceiling"] for one in subjects if one["ceiling"] is not None]
    return {
        "network": network,
        "method": method,
        "r": float(r.mean()),
        "r_t95": t_interval(r) if len(r) > 1 else None,
        "ceiling": float(np.mean(ceilings)) if ceilings else None,
        "score": float(np.mean(normal)) if normal else None,
        "scored_subjects": len(normal),
        "subjects": subjects,
    }


def _best(others: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> str:
    return max(labels, key=lambda label: float(np.mean([scores[label]["r_median"] for scores in others])))


def write_brain_score(folder: Path, result: Mapping[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """The table of subjects and the rows as JSON, next to the files of `recon encode` that they come from."""
    keys = ("network", "method")
    flat = [{**{key: row[key] for key in keys}, **one} for row in rows for one in row["subjects"]]
    write_atomic(
        folder / f"{STEM}.csv", csv_text([{k: "" if v is None else v for k, v in one.items()} for one in flat])
    )
    facts = {key: result[key] for key in ("direction", "study", "split", "rule", "folds", "seed", "backbones")}
    write_sealed(folder / f"{STEM}.json", {"schema": 1, **facts, "rows": list(rows)})


def brain_score_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for each network."""
    lines = [f"  {'network':<36} {'method':<7} {'r, median over units':>26} {'ceiling':>8} {'(r / ceiling)^2':>16}"]
    for row in rows:
        ends = f" [{row['r_t95'][0]:.3f}, {row['r_t95'][1]:.3f}]" if row["r_t95"] else ""
        ceiling = "none" if row["ceiling"] is None else f"{row['ceiling']:.3f}"
        score = "none" if row["score"] is None else f"{row['score']:.3f}"
        r = f"{row['r']:.3f}{ends}"
        lines.append(f"  {row['network']:<36} {row['method']:<7} {r:>26} {ceiling:>8} {score:>16}")
    total, known = len(rows[0]["subjects"]), rows[0]["scored_subjects"]
    layers = {row["network"]: sorted({one["layer"] for one in row["subjects"]}) for row in rows}
    lines.append(f"r: {total} subject(s); ceiling and score: the {known} with repetitions")
    how = "chosen on the other subjects" if total > 1 else "as named"
    lines += [f"layers of {name}, {how}: {', '.join(own)}" for name, own in layers.items()]
    return "\n".join(lines)

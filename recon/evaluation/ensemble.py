"""``report_sub-XX.json`` of several runs as one decoder, in a folder of its own, with the members named in it.

A member's own scores stand as every other does: with n, candidates, chance and interval.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.names import labelled
from align.errors import UserError
from align.files import locked, write_sealed
from recon.evaluation.provenance import head
from recon.evaluation.recordings import RunData
from recon.evaluation.report import by_stimulus
from recon.evaluation.settings import EvaluateConfig

if TYPE_CHECKING:
    from align.checkpoint import Run

RULE = "similarities standardised per query over the candidates, then averaged"
_ALONE = ("top1", "n", "candidates", "chance_top1", "ci95_top1")  # of every member, by direction
_OWN = ("run", "seed", "backbone", "layer", "layer_chosen_on", "encoder", "selection")  # told of every member


def ensemble_retrieval(runs: Sequence[Run], folder: Path, settings: EvaluateConfig | None = None) -> dict[str, Any]:
    """Score the runs together among the test pictures, write report and stimuli into ``folder``, return the report.

    The report has the keys of a run's, and ``ensemble``: the rule, and the members, each with its own top-1, n,
    candidates, chance and interval by direction. The right pictures choose nothing: every member counts the same.

    Raises
    ------
    UserError
        Fewer than two runs, a run twice, runs of another subject, study or test pictures than the first, a folder that
        is a run itself.
    """
    from align import retrieval
    from align.checkpoint import MODEL
    from align.retrieval.ensemble import averaged, ensemble_report

    settings = settings or EvaluateConfig()
    if (folder / MODEL).is_file():
        raise UserError(f"{str(folder)!r} is the folder of a run, whose report would be lost; pass another --out")
    heads = [head(run) for run in runs]
    _refuse_strangers(runs, heads)
    run_data = [RunData(run) for run in runs]
    _refuse_other_pictures(run_data)
    ids = list(run_data[0].predictions.ids)
    similarities = [_similarity(one, ids) for one in run_data]
    part, each = ensemble_report(similarities, n_boot=settings.n_boot, n_perm=settings.n_perm, seed=settings.seed)
    alone = [
        retrieval.both_directions(one, n_boot=settings.n_boot, n_perm=0, seed=settings.seed) for one in similarities
    ]
    members = [_member(run, told, scores) for run, told, scores in zip(runs, heads, alone, strict=True)]
    report = {**_joint_head(heads), "n_stimuli": len(ids), "retrieval": part}
    report["notes"] = list(dict.fromkeys(note for one in run_data for note in one.notes))
    report["ensemble"] = {"rule": RULE, "members": members}
    stimuli = by_stimulus(ids, averaged(similarities), each)
    with locked(folder / ".report.lock", f"writing a report into {str(folder)!r}", wait=None, keep=False):
        write_sealed(labelled(folder, "report_sub-{}.json", runs[0].subject), report)
        write_sealed(labelled(folder, "stimuli_sub-{}.json", runs[0].subject), {"run": report["run"], **stimuli})
    return report


def _refuse_strangers(runs: Sequence[Run], heads: Sequence[dict[str, Any]]) -> None:
    if len(runs) < 2:
        raise UserError(f"an ensemble has two runs or more, got {len(runs)}")
    for run in runs:
        for what, own, first in (
            ("study", run.study, runs[0].study),
            ("subject", run.subject, runs[0].subject),
            ("simulated.code", run.config.simulated.code, runs[0].config.simulated.code),
        ):
            if own != first:
                raise UserError(
                    f"run {run.path} is of {what} {own!r}, {runs[0].path} of {first!r}; an ensemble reads one recording"
                )
    given = [told["run"] for told in heads]
    for place, name in enumerate(given):
        if name in given[:place]:
            twin = runs[given.index(name)].path
            raise UserError(f"runs {twin} and {runs[place].path} hold the same weights; give every run once")


def _refuse_other_pictures(run_data: Sequence[RunData]) -> None:
    """The test pictures of all members are those of the first: the same ids, the same pixels."""
    first, *others = [_test_pictures(one) for one in run_data]
    for one, pictures in zip(run_data[1:], others, strict=True):
        strange = sorted(name for name in first.keys() | pictures.keys() if first.get(name) != pictures.get(name))
        if strange:
            raise UserError(
                f"the test pictures of runs {run_data[0].run.path} and {one.run.path} differ in {len(strange)}, first "
                f"{strange[0]!r}; an ensemble is scored on one test set"
            )


def _test_pictures(run_data: RunData) -> dict[str, str]:
    """Pixel hash of every predicted test stimulus by its id."""
    stimuli = run_data.recording.stimuli
    return {name: stimuli.hashes[run_data.row[name]] for name in run_data.predictions.ids}


def _similarity(run_data: RunData, ids: Sequence[str]) -> np.ndarray:
    """(n, n): rows and columns in the order of ``ids``, whatever the order of the run's predictions."""
    from align import retrieval

    place = {name: i for i, name in enumerate(run_data.predictions.ids)}
    embeds = run_data.predictions.embeds[[place[name] for name in ids]]
    return retrieval.scores(embeds, run_data.picture_embeds([run_data.row[name] for name in ids]))


def _member(run: Run, told: dict[str, Any], scores: dict[str, Any]) -> dict[str, Any]:
    own = {key: {name: part[key] for name, part in scores.items()} for key in _ALONE}
    return {**{key: told[key] for key in _OWN}, "path": str(run.path), **own}


def _joint_head(heads: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The head of the first, with what all members are; ``seed`` is the lowest, `recon table` tells results by it."""
    first = heads[0]
    runs = sorted(told["run"] for told in heads)
    digest = hashlib.sha256("\n".join(runs).encode()).hexdigest()
    own = {key: _each_once(heads, key, ", ") for key in ("backbone", "layer")}
    return {
        **first,
        **own,
        "run": f"{first['study']}_sub-{first['subject']}@ensemble-{digest[:12]}",
        "layer_chosen_on": _each_once(heads, "layer_chosen_on", "; "),
        "encoder": f"ensemble of {len(heads)} ({_each_once(heads, 'encoder', ', ')})",
        "seed": min(told["seed"] for told in heads),
        "selection": {
            key: value if all(told["selection"][key] == value for told in heads) else "differs"
            for key, value in first["selection"].items()
        },
    }


def _each_once(heads: Sequence[dict[str, Any]], key: str, between: str) -> str:
    return between.join(dict.fromkeys(told[key] for told in heads))

"""From many results to the row of a paper: mean over seeds, then over subjects, with an interval that says over what.

A result is a ``report_sub-XX.json`` of a run or a file that ``recon score --out`` wrote. Results of one method form one
row. With 3 subjects or more the interval is over subjects (Student's t); with fewer, a bootstrap over stimuli, where
values per stimulus are stored (runs: ``stimuli_sub-XX.json``; score files hold their own).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from align.errors import UserError
from align.files import read_json
from align.files.json_text import require
from align.files.labels import present, refuse_alike
from align.retrieval import bootstrap_interval
from align.retrieval.people import MIN_SUBJECTS, t_interval
from recon.evaluation.judges import first_judge
from recon.evaluation.sources import require_sources
from recon.evaluation.stored import read_report, read_stimuli, require_agreement
from recon.scoring.contest import DIRECTIONS
from recon.scoring.drawn import drawn_of
from recon.scoring.methods import grouped, method_of, name_methods
from recon.scoring.ranges import inside
from recon.scoring.result import Result

_COUNTS = {"n_stimuli": int, "candidates": (float, None)}
AXES = ("subject", "seed")
CONTROLS = ("shuffled", "zero_brain")  # beside which a score of pictures without chance stands


def load_results(paths: Iterable[str | Path]) -> list[Result]:
    """The results in files, run folders, or folders of run folders.

    Raises
    ------
    UserError
        Nothing there, a JSON of another kind, subjects such as 01 and 1 that may be one, two
        results of one method with the same subject and seed.
    """
    results = [_read(path) for given in paths for path in _files(Path(given))]
    name_methods(results)
    seen: dict[tuple[str, ...], Result] = {}
    for number, result in enumerate(results):
        if not result.seed:
            result.seed = f"file {number + 1}"  # unlabelled files are repeats of one another
        key = (result.method, result.subject, result.seed)
        if key in seen:
            raise UserError(
                f"{str(result.path)!r} and {str(seen[key].path)!r} are both {result.method}, subject "
                f"{result.subject or '?'}, seed {result.seed}; {_how_to_label(result, seen[key])}"
            )
        seen[key] = result
    refuse_alike((result.subject for result in results if result.subject), "subjects", "the results")
    return results


def _how_to_label(*results: Result) -> str:
    """What keeps two results of one name apart."""
    if not any(result.path.name.startswith("report_sub-") for result in results):
        return "label them (recon score --name, --subject, --seed)"
    return (
        "each may stand once: give people different labels (column subject of stimuli.csv) and train them again, "
        "repeat a training with another seed (seed=1), or compare two runs with --paired"
    )


def rows(results: list[Result], by: Iterable[str] = (), *, seed: int = 0) -> list[dict[str, Any]]:
    """One row per method (see `name_methods`), and under it one for each value of ``by`` ("subject", "seed", or both).

    Where a method has one value only, its row bears it and stands alone.

    A row: ``method, subject, seed`` (None = averaged over), ``subjects, seeds, n, candidates, interval_over``,
    ``averaged`` (in words: which n and chances are means over different values) and ``metrics`` {name: value, ci95,
    better, n, subjects, chance}. Raises `UserError` on an unknown name in ``by``.
    """
    by = list(dict.fromkeys(by))
    wrong = [axis for axis in by if axis not in AXES]
    if wrong:
        raise UserError(f"--by knows {' and '.join(AXES)}, not {wrong[0]!r}")
    found = []
    for method, members in grouped(results, lambda result: result.method).items():
        found.append({"method": method, **dict.fromkeys(AXES), **summary(members, seed=seed)})
        parts = grouped(members, lambda result: tuple(getattr(result, axis) for axis in by))
        labels = {values: {**dict.fromkeys(AXES), **dict(zip(by, values, strict=True))} for values in parts}
        if len(parts) == 1:  # its mean is the one value again
            found[-1] |= next(iter(labels.values()))
            continue
        found += [{"method": method, **labels[values], **summary(part, seed=seed)} for values, part in parts.items()]
    return found


def summary(members: list[Result], *, seed: int = 0) -> dict[str, Any]:
    """Means and intervals of the results of one method."""
    subjects = grouped(members, lambda result: result.subject)
    over_subjects = len(subjects) >= MIN_SUBJECTS
    names = dict.fromkeys(name for result in members for name in result.metrics)
    metrics = {name: _score(name, [r for r in members if name in r.metrics], seed) for name in names}
    any_interval = any(entry["ci95"] for entry in metrics.values())
    pools = {result.candidates for result in members if result.candidates}
    return {
        "subjects": len(subjects),
        "seeds": len({result.seed for result in members}),
        "n": members[0].n if len({result.n for result in members}) == 1 else float(np.mean([r.n for r in members])),
        "candidates": pools.pop() if len(pools) == 1 else sorted(pools) or None,
        "interval_over": ("subjects" if over_subjects else "stimuli") if any_interval else "none",
        "averaged": _averaged(members, list(metrics)),
        "metrics": metrics,
    }


def _averaged(members: list[Result], names: list[str]) -> list[str]:
    """Which n and chances are means over different values, in words."""
    ns = sorted({result.n for result in members})
    found = [f"n is the mean over {_and(ns)}"] if len(ns) > 1 else []
    chances: dict[tuple[float, ...], list[str]] = {}
    for name in names:
        values = {result.metrics[name]["chance"] for result in members if "chance" in result.metrics.get(name, {})}
        if len(values) > 1:
            chances.setdefault(tuple(sorted(values)), []).append(name)
    return found + [f"chance of {', '.join(of)} is the mean over {_and(values)}" for values, of in chances.items()]


def _and(values: Iterable[float]) -> str:
    return " and ".join(f"{value:.3g}" if value < 1 else f"{value:g}" for value in values)


def _score(name: str, members: list[Result], seed: int) -> dict[str, Any]:
    """One score over the results that have it: its mean, interval, chance, and over how many subjects and stimuli.

    Of p values (``kind`` "p") the largest, without an interval.
    """
    kind = members[0].metrics[name].get("kind")
    subjects = grouped(members, lambda result: result.subject)
    means = np.array([np.mean([r.metrics[name]["value"] for r in part]) for part in subjects.values()])
    numbers = [result.metrics[name].get("n") or result.n for result in members]
    entry = {
        "value": max(result.metrics[name]["value"] for result in members) if kind == "p" else float(means.mean()),
        "ci95": None if kind == "p" else inside(name, _interval(name, members, means, seed)),
        "better": members[0].metrics[name]["better"],
        "n": numbers[0] if len(set(numbers)) == 1 else float(np.mean(numbers)),
        "subjects": len(subjects),
    }
    if all("chance" in result.metrics[name] for result in members):
        entry["chance"] = fmean(result.metrics[name]["chance"] for result in members)
    if kind is None and len(subjects) > 1:
        entry["people"] = [float(means.min()), float(means.max())]
    if kind is None:
        entry |= _control(name, members)
    return entry | {key: members[0].metrics[name][key] for key in ("of", "kind") if key in members[0].metrics[name]}


def _control(name: str, members: list[Result]) -> dict[str, Any]:
    """``control``: the first of `CONTROLS` that every result was scored beside, and its mean; taken as the score is."""
    for control in CONTROLS:
        values = dict[str, list[float]]()
        for result in members:
            found = result.metrics[name].get("controls", {}).get(control)
            if found is None:
                break
            values.setdefault(result.subject, []).append(found["value"])
        else:
            return {"control": [control, fmean(fmean(own) for own in values.values())]}
    return {}


def _interval(name: str, members: list[Result], means: np.ndarray, seed: int) -> list[float] | None:
    """Over subjects, over stimuli, or as a single result says it itself; None where none of it can be."""
    if len(means) >= MIN_SUBJECTS:
        return t_interval(means)
    own: list[float] | None = members[0].metrics[name].get("ci95") if len(members) == 1 else None
    return stimulus_interval(members, name, seed=seed) or own


def stimulus_interval(members: list[Result], name: str, *, seed: int = 0) -> list[float] | None:
    """95 % bootstrap interval over stimuli; None when a result has no values per stimulus.

    Seeds and subjects with the same pictures are averaged picture by picture first, so they do not pass for further
    pictures; sets of pictures that differ are independent groups. Every subject weighs the same.
    """
    if not all(name in result.stimuli for result in members):
        return None
    seeds = grouped(members, lambda result: result.subject)
    groups: dict[tuple[str, ...], list[tuple[np.ndarray, float]]] = {}
    for result in members:
        ids = tuple(sorted(result.stimuli[name]))
        values = np.array([result.stimuli[name][stimulus_id] for stimulus_id in ids])
        groups.setdefault(ids, []).append((values, 1 / len(seeds[result.subject])))
    means = [np.average([v for v, _ in part], axis=0, weights=[w for _, w in part]) for part in groups.values()]
    return bootstrap_interval(means, [sum(w for _, w in part) for part in groups.values()], seed=seed)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{str(path)!r} does not exist; pass run folders or files of recon score --out")
    found = sorted(path.glob("report_sub-*.json")) or sorted(path.glob("*/report_sub-*.json"))
    if not found:
        raise UserError(f"{str(path)!r} holds no report_sub-*.json; run recon retrieve or recon evaluate first")
    return found


def _read(path: Path) -> Result:
    content = read_json(path)
    try:
        if isinstance(content, dict) and isinstance(content.get("brain_to_image"), dict):
            return _score_file(path, content)
        if isinstance(content, dict) and {"retrieval", "reconstruction"} & set(content):
            return _report(path, read_report(path))
    except UserError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise UserError(f"{str(path)!r} is no whole result ({error!r}); score it again") from error
    raise UserError(f"{str(path)!r} is neither a report of a run nor a file of recon score --out")


def _score_file(path: Path, content: dict[str, Any]) -> Result:
    metrics, stimuli = _retrieval(content, content.get("per_stimulus", {}))
    return _result(path, content, content.get("name") or "scores", content, metrics, stimuli)


def _report(path: Path, content: dict[str, Any]) -> Result:
    stored = _beside(path, content)
    require_sources(path, content, stored)
    retrieval = content.get("retrieval", {})
    metrics, stimuli = _retrieval(retrieval, stored.get("per_stimulus", {}))
    ids, scores = stored.get("ids", []), stored.get("scores", {})
    for name, entry in content.get("reconstruction", {}).items():
        metrics[name] = {key: entry[key] for key in ("value", "better", "chance", "n") if key in entry}
        parts = {control: part[name] for control, part in content.get("controls", {}).items() if name in part}
        metrics[name]["controls"] = {
            control: {key: part[key] for key in ("value", "ci95") if part.get(key) is not None}
            for control, part in parts.items()
        }
        metrics[name]["p"] = dict(entry.get("p_vs_control", {}))
        if name in scores:
            stimuli[name] = dict(zip(ids, scores[name], strict=True))
    _add_attributes(content, stored, metrics, stimuli)
    result = _result(path, content, method_of(content), retrieval, metrics, stimuli)
    result.generator, result.recipe = str(content.get("generator") or ""), content.get("recipe")
    result.judge, result.drawn = first_judge(content), drawn_of(content)
    require(result.recipe, ({}, None), f"{str(path)!r}, its recipe")
    return result


def _add_attributes(
    content: dict[str, Any],
    stored: dict[str, Any],
    metrics: dict[str, dict[str, Any]],
    stimuli: dict[str, dict[str, float]],
) -> None:
    """``attribute.shape`` and the like: the share of pictures in which the reader finds what was shown."""
    for attribute, entry in content.get("attributes", {}).items():
        name = f"attribute.{attribute}"
        metrics[name] = {"value": entry["accuracy"], "better": "higher", "chance": entry["chance"]}
        metrics[name] |= {"n": entry.get("n"), "p": dict(entry.get("p_vs_control", {}))}
        metrics[name]["controls"] = {control: {"value": value} for control, value in entry["controls"].items()}
        if attribute in stored.get("attributes", {}):
            stimuli[name] = dict(zip(stored["ids"], stored["attributes"][attribute], strict=True))


def _result(
    path: Path,
    content: dict[str, Any],
    method: str,
    retrieval: dict[str, Any],
    metrics: dict[str, dict[str, Any]],
    stimuli: dict[str, dict[str, float]],
) -> Result:
    subject, seed = ("" if content.get(axis) is None else present(str(content[axis])) for axis in AXES)
    pool = retrieval.get("brain_to_image", {}).get("candidates")
    numbers = {"value": float, "better": str, "chance?": (float, None), "n?": (int, None), "p": {str: float}}
    numbers["controls"] = {str: {"value": float, "ci95?": [float]}}
    require(metrics, {str: numbers}, repr(str(path)))
    require({"n_stimuli": content["n_stimuli"], "candidates": pool}, _COUNTS, repr(str(path)))
    require(stimuli, {str: {str: float}}, f"{str(path)!r}, per_stimulus")
    return Result(path, method, subject, seed, metrics, stimuli, content["n_stimuli"], pool)


def _retrieval(
    retrieval: dict[str, Any], per_stimulus: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, float]]]:
    metrics: dict[str, dict[str, Any]] = {}
    stimuli = {}
    for direction in DIRECTIONS:
        part = retrieval.get(direction, {})
        for score in ("top1", "top5"):
            if score not in part:
                continue
            name = f"{direction}.{score}"
            metrics[name] = {"value": part[score], "better": "higher", "chance": part[f"chance_{score}"]}
            permuted = part.get("p_permutation") if score == "top1" else None
            metrics[name] |= {"n": part.get("n"), "controls": {}, "p": {} if permuted is None else {"": permuted}}
            values = per_stimulus.get(direction, {}).get(score)
            if values is not None:
                stimuli[name] = dict(zip(per_stimulus["ids"], values, strict=True))
        if "median_rank" in part:
            facts = {"value": part["median_rank"], "better": "lower", "n": part.get("n"), "controls": {}, "p": {}}
            metrics[f"{direction}.median_rank"] = facts
    return metrics, stimuli


def _beside(path: Path, report: dict[str, Any]) -> dict[str, Any]:
    """What ``stimuli_sub-XX.json`` of the same training holds; empty when there is none."""
    stimuli = path.with_name(path.name.replace("report_", "stimuli_", 1))
    if stimuli == path or not stimuli.is_file():
        return {}
    content = read_stimuli(stimuli)
    if content["run"] != report.get("run"):
        return {}
    require_agreement(report, content, path)
    return content

"""How accuracy grows with the number of test repetitions that are averaged, and where noise sets the limit.

The encoder of a run is applied to means over k = 1 ... K repetitions, chosen at random several times; candidates are
all test pictures throughout. Beside it, brain-to-brain: k repetitions of every picture find the same picture among the
means of k other repetitions, by the standardised signals themselves and by the encoder's embeds. That measures what the
recording repeats and is no upper bound: both sides are noisy, and a decoder weights channels by what they tell.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError
from align.files import locked, read_json, write_atomic, write_sealed
from align.files.table import harmless
from recon.analysis.noise_ceiling import Reliability

if TYPE_CHECKING:
    from align.checkpoint import Run
    from align.data.signals import Trials

MOST_POINTS = 12
DIRECTIONS = ("brain_to_image", "image_to_brain")
SIDES = ("signals", "embeds")


def repeat_curves(run: Run, out: str | Path, *, n_draws: int = 10, seed: int = 0) -> dict[str, Any]:
    """Write repeats_sub-XX.{json,csv,png} and reliability_sub-XX.csv to ``out``; returns the content of the JSON.

    Raises `UserError` when the test pictures have one row each, when the recording is not that of the run, and where
    ``out`` is not the run's folder and holds the curves of another run.
    """
    from recon.evaluation.recordings import RunData

    if n_draws < 1:
        raise UserError(f"--draws {n_draws} should be 1 or more")
    _refuse_other_run(Path(out), run)
    run_data = RunData(run)
    recording = run_data.recording
    test = recording.test
    stimulus, rows = rows_of(test)
    most = min(len(part) for part in rows)
    if most < 2:
        raise UserError(
            f"{recording.study} subject {recording.subject} holds one row for some test picture, as after averaging; "
            "recon repeats needs 2 repetitions or more of each"
        )
    candidates = run_data.picture_embeds(stimulus)
    exact = all(len(part) == most for part in rows)
    counts = _counts(most)
    curve = {k: _Mean() for k in counts}
    between = {(k, side): _Mean() for k in counts if 2 * k <= most for side in SIDES}
    reliability = Reliability(len(rows), test.x.shape[1:], seed)
    for draw in range(n_draws):
        rng = np.random.default_rng([seed, draw])
        first, second = averages(test, [rng.permutation(part)[:most] for part in rows], counts)
        for k in counts:
            if draw and exact and k == most:
                continue  # all repetitions: every draw is the same
            embeds = run.aligner.predict(first[k])["embeds"]
            curve[k].add(_similarity(embeds, candidates))
            if 2 * k <= most:
                between[k, "embeds"].add(_similarity(embeds, run.aligner.predict(second[k])["embeds"]))
                between[k, "signals"].add(_similarity(_flat(run, first[k]), _flat(run, second[k])))
        reliability.add(first[most // 2], second[most // 2])
    timed = recording.sfreq is not None and test.x.ndim == 3
    times = [recording.tmin + i / (recording.sfreq or 1.0) for i in range(test.x.shape[2])] if timed else []
    ceiling = {
        "reliability": reliability.report(most // 2, most, recording.ch_names, times),
        "brain_to_brain": [
            {"repetitions": k, **{side: between[k, side].score(seed)["brain_to_image"] for side in SIDES}}
            for k in counts
            if 2 * k <= most
        ],
    }
    points = [{"repetitions": k, **curve[k].score(seed)} for k in counts]
    result = {**_facts(run, rows, n_draws, seed), "repeats": points, "noise_ceiling": ceiling}
    _write(Path(out), run.subject, result)
    return result


class _Mean:
    """Top-1 outcomes of several draws over the same pictures, averaged picture by picture."""

    def __init__(self) -> None:
        self.similarities: list[np.ndarray] = []

    def add(self, similarity: np.ndarray) -> None:
        """(n, n), right on the diagonal."""
        self.similarities.append(similarity.astype(np.float32))

    def score(self, seed: int) -> dict[str, Any]:
        """Both directions: mean over draws, interval and p over pictures, and the deviation between draws."""
        from align import retrieval

        found = {}
        for direction in DIRECTIONS:
            turned = [s if direction == "brain_to_image" else s.T for s in self.similarities]
            n = len(turned[0])
            matrices = [retrieval.top1_matrix(s, np.arange(n)) for s in turned]
            mean = np.mean(matrices, axis=0)
            per_draw = [float(np.diag(matrix).mean()) for matrix in matrices]
            found[direction] = {
                "top1": float(np.diag(mean).mean()),
                "top5": float(np.mean([retrieval.per_stimulus(s)["brain_to_image"]["top5"] for s in turned])),
                "n": n,
                "candidates": n,
                "chance_top1": 1 / n,
                "chance_top5": min(5, n) / n,
                "ci95_top1": retrieval.bootstrap_interval([np.diag(mean)], seed=seed),
                "p_permutation": retrieval.permutation_p([mean], seed=seed),
                "draws": len(per_draw),
                "sd_between_draws": float(np.std(per_draw)),
            }
        return found


def rows_of(trials: Trials) -> tuple[np.ndarray, list[np.ndarray]]:
    """Pictures in rising order of their index, and the rows of each."""
    stimulus, counts = np.unique(trials.stimulus, return_counts=True)
    return stimulus, np.split(np.argsort(trials.stimulus, kind="stable"), np.cumsum(counts)[:-1])


def _counts(most: int) -> list[int]:
    """Numbers of repetitions to average: all up to `MOST_POINTS`, else evenly spread on a log scale; half included."""
    spread = np.arange(1, most + 1) if most <= MOST_POINTS else np.geomspace(1, most, MOST_POINTS).round()
    return sorted({1, most // 2, most} | {int(k) for k in spread})


def averages(
    trials: Trials, orders: Sequence[np.ndarray], counts: Sequence[int]
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """For every k the means (n, ...) float32 over the first k, and over the last k, rows of every picture's order."""
    from align.data.signals import release

    shape = (len(orders), *trials.x.shape[1:])
    most = len(orders[0])
    first = {k: np.empty(shape, dtype=np.float32) for k in counts}
    second = {k: np.empty(shape, dtype=np.float32) for k in counts if 2 * k <= most}
    for i, rows in enumerate(orders):
        x = np.asarray(trials.x[rows], dtype=np.float64)
        for store, sums in ((first, x.cumsum(axis=0)), (second, x[::-1].cumsum(axis=0))):
            for k, means in store.items():
                means[i] = sums[k - 1] / k
        release(trials.x)
    return first, second


def _similarity(embeds: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    from align.retrieval import scores

    return scores(embeds, candidates)


def _flat(run: Run, x: np.ndarray) -> np.ndarray:
    """Signals (n, P), every entry with the mean 0 and deviation 1 of the run's training rows."""
    import torch

    space = run.aligner.signals
    flat: np.ndarray = space.standardised(torch.from_numpy(x).to(space.mean.device)).cpu().numpy()
    return flat


def _facts(run: Run, rows: Sequence[np.ndarray], n_draws: int, seed: int) -> dict[str, Any]:
    from align.data.preparing.selection import described
    from recon.decoding.predict import run_id

    counts = [len(part) for part in rows]
    return {
        "schema": 1,
        "study": run.study,
        "subject": run.subject,
        "split": "test",
        "run": run_id(run),
        "backbone": run.config.backbone.name,
        "layer": run.config.target.layer,
        "layer_chosen_on": run.meta.get("chosen_on", "not stated"),
        "encoder": run.config.encoder.name,
        "selection": described(run.config, run.aligner.in_shape),
        "n_stimuli": len(rows),
        "repetitions": {"least": min(counts), "most": max(counts)},
        "rule": f"{n_draws} random choices of repetitions per picture, seed {seed}; all test pictures are candidates",
        "statistics": "ci95 and p over pictures, draws averaged picture by picture; brain_to_brain is no upper bound",
    }


def _refuse_other_run(folder: Path, run: Run) -> None:
    from align.data.names import file_name
    from recon.decoding.predict import run_id

    path = folder / f"repeats_sub-{file_name(run.subject)}.json"
    if folder.resolve() == run.path.resolve() or not path.exists():
        return
    if read_json(path, {"run": str}).get("run") != run_id(run):
        raise UserError(f"{str(path)!r} is of another run; nothing was changed: give another --out DIR, or delete it")


def _write(folder: Path, subject: str, result: dict[str, Any]) -> None:
    from align.data.names import file_name
    from recon.analysis.figures import plot_repeats

    channels = result["noise_ceiling"]["reliability"]["by_channel"]
    lines = [{**_without(row, "ci95_full"), **_ends(row["ci95_full"], "full")} for row in channels]
    doing, name = f"writing curves of repetitions into {str(folder)!r}", file_name(subject)
    with locked(folder / f".repeats_sub-{name}.lock", doing, wait=None, keep=False):
        (folder / f"repeats_sub-{name}.json").unlink(missing_ok=True)  # while it is there, all is of one call
        write_atomic(folder / f"repeats_sub-{name}.csv", _csv(result))
        write_atomic(folder / f"reliability_sub-{name}.csv", csv_table(lines))
        plot_repeats(result, folder / f"repeats_sub-{name}.png")
        write_sealed(folder / f"repeats_sub-{name}.json", result)


def _csv(result: dict[str, Any]) -> str:
    """Tidy table: what was scored, with how many repetitions (on each side), and the score."""
    rows = []
    for point in result["repeats"]:
        rows += [("run", direction, point["repetitions"], point[direction]) for direction in DIRECTIONS]
    for point in result["noise_ceiling"]["brain_to_brain"]:
        rows += [("noise_ceiling", f"brain_to_brain {side}", point["repetitions"], point[side]) for side in SIDES]
    lines = []
    for what, name, k, score in rows:
        values = {**_without(score, "ci95_top1"), **_ends(score["ci95_top1"], "top1")}
        lines.append({"what": what, "direction": name, "repetitions": k, **values})
    return csv_table(lines)


def _ends(interval: Sequence[float], name: str) -> dict[str, float]:
    return {f"ci95_{name}_low": interval[0], f"ci95_{name}_high": interval[1]}


def _without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


def csv_table(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(harmless, rows))
    return text.getvalue()


def format_repeats(result: dict[str, Any]) -> str:
    """A few lines for the terminal."""
    reliability = result["noise_ceiling"]["reliability"]
    lines = [
        f"{result['study']} subject {result['subject']}, {result['n_stimuli']} test pictures, {result['rule']}",
        f"  {'repetitions':>11} {'brain_to_image top-1 %':>26} {'p':>8} {'brain_to_brain: signals':>24} {'embeds':>8}",
    ]
    between = {point["repetitions"]: point for point in result["noise_ceiling"]["brain_to_brain"]}
    for point in result["repeats"]:
        score, k = point["brain_to_image"], point["repetitions"]
        low, high = (100 * end for end in score["ci95_top1"])
        told = f"{100 * score['top1']:.1f} [{low:.1f}, {high:.1f}]"
        beside = [f"{100 * between[k][side]['top1']:.1f}" if k in between else "" for side in SIDES]
        lines.append(f"  {k:>11} {told:>26} {score['p_permutation']:>8.2g} {beside[0]:>24} {beside[1]:>8}")
    overall = reliability["overall"]
    low, high = overall["ci95_full"]
    lines.append(
        f"chance {100 / result['n_stimuli']:.2f} %; split-half reliability of {reliability['repetitions']} repetitions "
        f"{overall['full']:.3f} [{low:.3f}, {high:.3f}] (mean over channels and samples, Spearman-Brown), of one "
        f"{overall['single']:.3f}"
    )
    return "\n".join(lines)

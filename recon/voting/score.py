"""What votes say: accuracy beside chance and controls, agreement of voters, agreement with the picture metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recon.evaluation.settings import EvaluateConfig
from recon.voting.ballots import Vote
from recon.voting.crossed import Crossed, ends, fleiss, p_above
from recon.voting.trials import OWN

Asked = dict[tuple[str, int], float]  # (hash of the table, number of the trial) to a metric's choice


def score_votes(votes: Sequence[Vote], settings: EvaluateConfig) -> dict[str, Any]:
    """``conditions``, ``differences`` from the reconstructions to each control, and ``voter_agreement``.

    Accuracy is two-way with chance .5. Its p is one-sided over stimuli, each with the mean of its votes.
    """
    crossed = crossed_of(votes, settings)
    correct = np.array([vote.correct for vote in votes], dtype=np.float64)
    parts = parts_of(votes)
    conditions = {}
    for name, part in parts.items():
        ci95, kind = crossed.interval(correct, part)
        each = list(crossed.by_stimulus(correct, part).values())
        conditions[name] = {
            "accuracy": float(correct[part].mean()),
            "ci95": ci95,
            "interval": kind,
            "chance": 0.5,
            "p": p_above(each, n_perm=settings.n_perm, seed=settings.seed),
            "n": int(part.sum()),
            "voters": len(np.unique(crossed.voters[part])),
            "stimuli": len(each),
            "median_seconds": float(np.median([vote.seconds for vote, own in zip(votes, part, strict=True) if own])),
        }
    differences = {
        name: found
        for name, part in parts.items()
        if name != OWN and OWN in parts and (found := _difference(crossed, correct, parts[OWN], part, settings))
    }
    agreement = {"all": np.ones(len(votes), dtype=bool), **parts}
    told = {name: _voters_agree(votes, part) for name, part in agreement.items()}
    return {"conditions": conditions, "differences": differences, "voter_agreement": told}


def metric_agreement(
    votes: Sequence[Vote], choices: dict[str, Asked], settings: EvaluateConfig
) -> dict[str, dict[str, dict[str, Any]]]:
    """Metric to condition to the share of votes in which the metric's own choice is the voter's; a tie is half.

    ``choices``: 1 = left, 0 = right, .5 = a tie. ``expected`` is the agreement of two judges who are right as often
    but err independently; ``metric_accuracy`` is over the same votes.
    """
    crossed, parts = crossed_of(votes, settings), parts_of(votes)
    left = np.array([vote.choice == "left" for vote in votes], dtype=np.float64)
    correct = np.array([vote.correct for vote in votes], dtype=np.float64)
    answer = np.array([vote.trial.true_side == "left" for vote in votes], dtype=np.float64)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for metric, asked in choices.items():
        own = np.array([asked[vote.question] for vote in votes])
        same, hit = 1 - np.abs(own - left), 1 - np.abs(own - answer)
        found[metric] = {}
        for name, part in parts.items():
            ci95, kind = crossed.interval(same, part)
            h, m = float(correct[part].mean()), float(hit[part].mean())
            found[metric][name] = {
                "agreement": float(same[part].mean()),
                "ci95": ci95,
                "interval": kind,
                "expected": h * m + (1 - h) * (1 - m),
                "metric_accuracy": m,
                "n": int(part.sum()),
            }
    return found


def crossed_of(votes: Sequence[Vote], settings: EvaluateConfig) -> Crossed:
    """Resamples of the votes; the stimulus of a vote is the one whose reconstruction or control was shown."""
    stimuli = [vote.trial.stimulus_id for vote in votes]
    return Crossed.of([vote.voter for vote in votes], stimuli, settings.n_boot, settings.seed)


def parts_of(votes: Sequence[Vote]) -> dict[str, np.ndarray]:
    """Condition to which votes (n,) are of it, the reconstructions first."""
    names = sorted({vote.trial.condition for vote in votes}, key=lambda name: (name != OWN, name))
    return {name: np.array([vote.trial.condition == name for vote in votes]) for name in names}


def _difference(
    crossed: Crossed, correct: np.ndarray, own: np.ndarray, other: np.ndarray, settings: EvaluateConfig
) -> dict[str, Any] | None:
    """Accuracy of reconstructions minus that of a control, paired by stimulus; None without a stimulus in both."""
    first, second = crossed.by_stimulus(correct, own), crossed.by_stimulus(correct, other)
    both = [name for name in first if name in second]
    if not both:
        return None
    shared = np.isin(crossed.stimuli, both)
    own, other = own & shared, other & shared
    each = [first[name] - second[name] for name in both]
    draws = crossed.means(correct, own) - crossed.means(correct, other)
    return {
        "difference": float(correct[own].mean() - correct[other].mean()),
        "ci95": ends(draws),
        "p": p_above(each, 0.0, n_perm=settings.n_perm, seed=settings.seed),
        "stimuli": len(both),
    }


def _voters_agree(votes: Sequence[Vote], part: np.ndarray) -> dict[str, Any] | None:
    """See `fleiss`; the categories are left and right, over the trials that two or more voters answered."""
    counts: dict[tuple[str, int], list[int]] = {}
    for vote, own in zip(votes, part, strict=True):
        if own:
            counts.setdefault(vote.question, [0, 0])[vote.choice == "right"] += 1
    return fleiss(np.array(list(counts.values())))

"""Scores picked by looking at the answers: samples, epochs and layers, seeds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recon.audit.verdict import LEAK_P, SUSPECT_P, Finding, graded, not_checked, some

_HALFWAY = 0.5  # of the way from 1/k to always: between the best of k by the target and one by anything weaker
_EXPLAINED = 0.95  # of the choices: a rule that follows the prediction explains all of them, up to rounding
_ACCIDENT = 0.05  # largest chance of being best on test by accident that still counts as proof
_FEWEST_SEEDS = 5  # with fewer a fixed seed is the best one too often to say anything
_QUOTED = re.compile(r"(?<!\w)'[^']*'(?!\w)")
_TEST = re.compile(r"(?<![a-z])test(?![a-z])", re.IGNORECASE)
_NEGATED = re.compile(r"\b(?:no|not|never|without|before)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """One choice among m alternatives (epochs, layers, ...): their ``test`` and ``validation`` scores (m,), NaN where
    unknown, ``validation`` None where there is none; ``chosen`` = the index that was reported."""

    name: str
    test: np.ndarray
    validation: np.ndarray | None
    chosen: int


def best_of_k(to_target: np.ndarray, published: np.ndarray, to_prediction: np.ndarray | None = None) -> Finding:
    """Is the published sample the one nearest to the target far more often than 1/k?

    Parameters
    ----------
    to_target
        (n, k) similarity of every sample to the picture that was seen.
    published
        (n,) index of the sample that was published.
    to_prediction
        (n, k) similarity to what the brain predicted: choosing by it is legitimate when stated (MindEye1).
    """
    from scipy.special import bdtrc

    n, k = to_target.shape
    if k < 2:
        return not_checked("sample_selection", "two or more samples of every stimulus (--samples, --chosen)")
    hits = _is_best(to_target, published)
    rate, p = float(hits.mean()), float(bdtrc(int(hits.sum()) - 1, n, 1 / k)) if hits.any() else 1.0
    strong = rate >= 1 / k + _HALFWAY * (1 - 1 / k)
    verdict, beside = graded(p, strong), ""
    if to_prediction is not None:
        explained = float(_is_best(to_prediction, published).mean())
        beside = f"; it is nearest to the prediction in {explained:.0%}"
        if verdict != "clear" and explained >= _EXPLAINED:
            verdict, beside = "clear", f"{beside}, which explains it"
    return Finding(
        "sample_selection",
        verdict,
        f"the published sample is, of {k}, the nearest to the picture that was seen in {rate:.0%} of {n} stimuli "
        f"(chance {1 / k:.0%}, p {p:.2g}){beside}",
        f"leak: binomial p < {LEAK_P} and half of the way from 1/k to always; suspect: p < {SUSPECT_P}; choosing by "
        f"the predicted embedding also raises the rate and is cleared when it explains {_EXPLAINED:.0%} of the choices",
        {"rate": rate, "chance": 1 / k, "p": p},
    )


def chosen_on_test(choices: Sequence[Choice]) -> Finding:
    """Is the reported epoch or layer the best on test, but not on validation?"""
    check = "choice_on_test"
    same = [c for c in choices if c.validation is not None and _same_scores(c.validation, c.test)]
    if same:
        evidence = (
            f"the {len(same[0].test)} validation scores of {some([c.name for c in same])} equal the test scores: both "
            "were measured on one set"
        )
        return Finding(check, "leak", evidence, "three or more different scores, all equal; never by accident")
    usable = [c for c in choices if np.isfinite(c.test).sum() > 1 or c.validation is not None]
    if not usable:
        return not_checked(
            check, "validation and test score of every epoch or layer (--scores, --reported, or a sweep folder)"
        )
    honest = [c for c in usable if c.validation is not None and c.chosen == int(np.nanargmax(c.validation))]
    rest = [c for c in usable if c not in honest and np.isfinite(c.test).sum() > 1]
    best = [c for c in rest if np.isfinite(c.test[c.chosen]) and c.test[c.chosen] >= np.nanmax(c.test)]
    p = _at_least(len(best), [1 / np.isfinite(c.test).sum() for c in rest])
    against = any(c.validation is not None and c.chosen != len(c.test) - 1 for c in best)
    verdict, found = "clear", "none is best on test only"
    if best:
        verdict = "leak" if p < LEAK_P or (against and p <= _ACCIDENT) else "suspect"
        found = f"{len(best)} ({some([c.name for c in best])}) best on test only, by accident p {p:.2g}"
    gains = [
        float(c.test[c.chosen] - c.test[int(np.nanargmax(c.validation))]) for c in best if c.validation is not None
    ]
    gain = f"; test is {np.nanmean(gains):.3g} higher there than where validation is best" if gains else ""
    return Finding(
        check,
        verdict,
        f"of {len(usable)} choices, {len(honest)} report what is best on validation; {found}{gain}",
        f"leak: p < {LEAK_P}, or p <= {_ACCIDENT} where validation prefers another and the last is not reported; "
        "otherwise suspect; p is the chance that the reported ones are best on test, 1/m for m alternatives",
        {"best_on_test": len(best), "choices": len(usable), "p": p},
    )


def declared_choice(texts: dict[str, str]) -> Finding:
    """What a report says about where layer or epoch were chosen, {"layer": "...", ...}; "" = it does not say."""
    known = {name: text for name, text in texts.items() if text}
    if not known:
        return not_checked("declared_choice", "a report that says where layer and epoch were chosen")
    bad = [name for name, text in known.items() if _names_test(text)]
    silent = sorted(set(texts) - set(known))
    listed = "; ".join(f"{name}: {text}" for name, text in known.items())
    return Finding(
        "declared_choice",
        "leak" if bad else "clear",
        f"what the run says of its choices: {listed}" + (f"; not said: {', '.join(silent)}" if silent else ""),
        "a leak where it names the test set itself; believed as written otherwise",
    )


def seed_variance(scores: np.ndarray, reported: float, tolerance: float = 5e-4) -> Finding:
    """Is the reported number the best of many seeds rather than their mean? ``scores`` (S,), one per seed.

    ``tolerance``: rounding of the reported number.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if len(scores) < _FEWEST_SEEDS:
        return not_checked("seed_variance", f"test scores of {_FEWEST_SEEDS} or more seeds (--scores, --reported)")
    mean, spread = float(scores.mean()), float(scores.std(ddof=1))
    above = int(np.sum(scores >= reported - tolerance))
    verdict = "clear"
    if spread > 0 and reported > scores.max() + tolerance:
        verdict = "leak"
    elif spread > 0 and reported >= scores.max() - tolerance:
        verdict = "suspect"
    return Finding(
        "seed_variance",
        verdict,
        f"reported {reported:.4g}; {len(scores)} seeds have mean {mean:.4g}, deviation {spread:.2g}, range "
        f"{scores.min():.4g} to {scores.max():.4g}; {above} of them reach the reported score "
        f"({(reported - mean) / spread if spread else 0:+.1f} deviations from the mean)",
        f"leak: no seed reaches it; suspect: it is the best seed, which a seed fixed beforehand is in 1 of "
        f"{len(scores)} cases; report mean and deviation",
        {"mean": mean, "deviation": spread, "largest": float(scores.max()), "reported": reported},
    )


def _names_test(text: str) -> bool:
    """Whether a sentence says that the test set was used: "no test row", "never on test" and names in quotes do not."""
    text = _QUOTED.sub("", text)
    before = [re.split(r"[,;.:]", text[: match.start()])[-1] for match in _TEST.finditer(text)]
    return any(not _NEGATED.search(clause) for clause in before)


def _is_best(similarity: np.ndarray, published: np.ndarray) -> np.ndarray:
    """Bool (n,): the published sample is the single best one; equal ones do not count."""
    rows = np.arange(len(similarity))
    own = similarity[rows, published]
    others = np.where(np.arange(similarity.shape[1])[None] == published[:, None], -np.inf, similarity)
    best: np.ndarray = own > others.max(axis=1)
    return best


def _same_scores(validation: np.ndarray, test: np.ndarray) -> bool:
    known = np.isfinite(test)
    return len(np.unique(test[known])) >= 3 and bool(np.array_equal(validation[known], test[known]))


def _at_least(hits: int, chances: list[float]) -> float:
    """P(at least ``hits`` successes) of independent trials with the given chances, exact."""
    weights = np.ones(1)
    for chance in chances:
        weights = np.convolve(weights, [1 - chance, chance])
    return float(min(weights[hits:].sum(), 1.0))

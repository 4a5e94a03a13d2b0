"""Is one method better than another on the same stimuli? Paired bootstrap and paired sign-flip p."""

from __future__ import annotations

from typing import Any

import numpy as np

from align.errors import UserError
from align.retrieval import bootstrap_interval
from recon.metrics.stats import sign_flip_p
from recon.scoring.methods import grouped
from recon.scoring.result import Result


def compare(members: list[Result], base: list[Result], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Difference of each score from the base: {name: difference, ci95, p, n}, over the stimuli both have.

    Per subject, the mean over seeds of each stimulus on both sides, then their difference. Subjects who saw the same
    pictures are averaged picture by picture, others are independent groups. ``ci95``: bootstrap over stimuli of the
    difference. ``p``: two-sided sign flip over stimuli, twice the smaller one-sided p.

    Raises
    ------
    UserError
        Other subjects than the base, no values per stimulus, other stimuli.
    """
    ours, theirs = (grouped(part, lambda result: result.subject) for part in (members, base))
    if set(ours) != set(theirs):
        raise UserError(
            f"the base has subjects {', '.join(sorted(theirs))}, {members[0].method} has {', '.join(sorted(ours))}; "
            "a paired comparison needs the same"
        )
    shared = [name for name in members[0].stimuli if all(name in result.stimuli for result in (*members, *base))]
    if not shared:
        lacking = next((r for r in (*members, *base) if not r.stimuli), members[0])
        raise UserError(
            f"{str(lacking.path)!r} has no values per stimulus in common with the base; score it again "
            "(recon retrieve, or recon score --out)"
        )
    return {name: _difference(name, ours, theirs, seed) for name in shared}


def _difference(name: str, ours: dict[str, list[Result]], theirs: dict[str, list[Result]], seed: int) -> dict[str, Any]:
    groups: dict[tuple[str, ...], list[np.ndarray]] = {}
    for subject, members in ours.items():
        ids, mine = _per_stimulus(name, members)
        base_ids, other = _per_stimulus(name, theirs[subject])
        if ids != base_ids:
            raise UserError(
                f"{name}: {members[0].method} and the base were scored on other stimuli (subject {subject or '?'}: "
                f"{len(ids)} and {len(base_ids)}, {len(set(ids) & set(base_ids))} in common); score both on the same"
            )
        groups.setdefault(ids, []).append(mine - other)
    means = [np.mean(group, axis=0) for group in groups.values()]
    weights = [float(len(group)) for group in groups.values()]
    shares = [weight / sum(weights) for weight in weights]
    pulls = np.concatenate([share * mean / len(mean) for share, mean in zip(shares, means, strict=True)])
    one_sided = min(sign_flip_p(pulls, seed=seed), sign_flip_p(-pulls, seed=seed))
    return {
        "difference": float(pulls.sum()),
        "ci95": bootstrap_interval(means, weights, seed=seed),
        "p": min(1.0, 2 * one_sided),
        "n": len(pulls),
    }


def _per_stimulus(name: str, members: list[Result]) -> tuple[tuple[str, ...], np.ndarray]:
    """Sorted ids and the mean over seeds of each; all seeds of a subject must have the same stimuli."""
    ids = tuple(sorted(members[0].stimuli[name]))
    for result in members:
        if tuple(sorted(result.stimuli[name])) != ids:
            raise UserError(f"{str(result.path)!r} and {str(members[0].path)!r} were scored on other stimuli")
    return ids, np.mean([[result.stimuli[name][stimulus_id] for stimulus_id in ids] for result in members], axis=0)

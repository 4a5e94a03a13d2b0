"""A metric of the user's own: a function ``(reconstructions, targets) -> (n,)`` beside the named ones.

Both are float32 arrays (n, 3, S, S) in [0, 1] at the size the preset compares at. Controls are scored by the same
function. An attribute ``better = "lower"`` of the function says that small is good, ``chance`` a number what guessing
gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from align.errors import UserError
from recon.scoring.set_scores import KNOWN, Scored, Task
from recon.scoring.views import View

OwnMetric = Callable[[np.ndarray, np.ndarray], Any]


def name_functions(functions: Sequence[Any], taken: Sequence[str]) -> dict[str, OwnMetric]:
    """The functions by what their rows are called: ``__name__``, or the name of their class.

    Raises `UserError` for what cannot be called, and for a name that stands twice or belongs to a known metric.
    """
    named: dict[str, OwnMetric] = {}
    for function in functions:
        if not callable(function):
            raise UserError(f"metric {function!r} is neither a name nor a function (reconstructions, targets) -> (n,)")
        name = str(getattr(function, "__name__", type(function).__name__))
        if name in named or name in taken or name in KNOWN:
            raise UserError(f"two metrics are called {name!r}; give your function another name")
        named[name] = function
    return named


def own_row(task: Task, name: str, function: OwnMetric) -> Scored:
    """Values of every sample and control. Raises `UserError` where the function fails or gives other than (n,)."""
    better = str(getattr(function, "better", "higher"))
    if better not in ("higher", "lower"):
        raise UserError(f"metric {name}: better={better!r} should be higher or lower")
    rows = list(range(task.n))
    truth = task.target.entered(rows).numpy()

    def values(view: View) -> np.ndarray:
        return _call(function, name, view.entered(rows).numpy(), truth)

    size = truth.shape[-1]
    return Scored(
        np.stack([values(view) for view in task.own]),
        better,
        f"own function {name}, {size} px",
        chance=getattr(function, "chance", None),
        controls={control: values(view) for control, view in task.controls.items()},
    )


def _call(function: OwnMetric, name: str, own: np.ndarray, truth: np.ndarray) -> np.ndarray:
    try:
        told = function(own, truth)
        if hasattr(told, "detach"):
            told = told.detach().cpu().numpy()
        values = np.asarray(told, dtype=np.float64)
    except Exception as error:  # code of the user's own
        line = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"metric {name} failed: {line}") from error
    if values.shape != (len(truth),):
        raise UserError(f"metric {name} gives {values.shape} for {len(truth)} pictures; it should give ({len(truth)},)")
    if not np.isfinite(values).all():
        raise UserError(f"metric {name} gives {int((~np.isfinite(values)).sum())} values that are not finite")
    return values

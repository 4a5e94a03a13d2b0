"""Two curves of a run's pictures: against the rank of the predicted tokens, and against the repetitions averaged.

Bottleneck: the generator is given only the leading components of the run's target space (rank 0: the mean token of
training pictures for everybody; all of them: the tokens as predicted), beside the same for true tokens. What a true
token has outside the target space is missing from that second curve and present in the ceiling, ``oracle``. What starts
the diffusion, where something does, is told from the same reduced tokens.

Repetitions: pictures made from 1, 2, 5, ... presentations of the test picture, chosen at random once and averaged.

Every picture has the noise and the strength that `recon generate` gives it: with all components the prediction is the
reconstruction itself, and curves differ by what the brain says alone. The curves describe TEST rows. Nothing may be
chosen from them: a rank, a layer or a threshold is chosen on training rows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError
from align.files import locked, write_atomic, write_sealed
from align.seeding import derive
from recon.analysis.curve_text import curve_table
from recon.analysis.repeats import averages, rows_of
from recon.decoding.plan import Plan, Sampling
from recon.drawing.sets import sample
from recon.evaluation.provenance import curves_folder

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run
    from align.model.spaces import TargetSpace
    from recon.decoding.conditions import Condition
    from recon.decoding.decoder import RunDecoder
    from recon.evaluation.judges import Judges
    from recon.evaluation.recordings import RunData
    from recon.evaluation.settings import EvaluateConfig

RULE = (
    "first pictures of the test split, same noise at every point, interval over pictures; described on TEST rows, "
    "nothing is chosen from these curves"
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """``limit``: pictures scored, the first of the split. ``seed``: of noise, choice of repetitions and bootstrap.

    ``steps``: None = what the generator is meant for. ``ranks``: None = 0, 1, 2, 5, 10, ... and all. ``strength``: how
    far the generator may leave a coarse picture, 0 = not at all; None as for steps. ``library``: further pictures, as
    for `recon generate`.
    """

    limit: int = 60
    seed: int = 0
    steps: int | None = None
    ranks: tuple[int, ...] | None = None
    strength: float | None = None
    library: Path | None = None

    @property
    def sampling(self) -> Sampling:
        """What `recon generate` is told for the same pictures."""
        return Sampling(seeds=(self.seed,), steps=self.steps, strength=self.strength)


def picture_curves(
    run: Run, generator: str = "mini", options: Options | None = None, settings: EvaluateConfig | None = None
) -> dict[str, Any]:
    """Sample, score, write ``curves.{json,csv,png}`` to `curves_folder` and return the content of the JSON.

    ``settings``: judges and where their weights are. A curve that cannot be had stands in ``absent`` with the reason.
    Raises `UserError` for bad options, a run that no conditioner fits, and a judge that took part in the run.
    """
    from recon.decoding.bridges.choose import Conditioning
    from recon.drawing.folders import generator_label
    from recon.evaluation.judge import made_of
    from recon.evaluation.judges import open_judges
    from recon.evaluation.recordings import RunData
    from recon.evaluation.settings import EvaluateConfig

    options, settings = options or Options(), settings or EvaluateConfig()
    _check(options, run)
    conditioning = Conditioning(library=options.library)
    label = generator_label(generator, conditioning)
    judges = open_judges(settings, run.study, made_of(run.config.backbone.name, generator_label(generator)))
    plan = Plan.of(run, generator, conditioning, options.sampling, None, options.limit)
    _ = plan.generator  # one that does not fit is said before pictures are read
    run_data = RunData(run)
    study = _Study(plan, options, run_data.targets(plan.decoder.ids), judges, settings.n_boot)
    named = {"judge": judges.names[0], "judges": judges.facts(), "skipped": judges.skipped}
    result = {**_facts(run, study, label), **named, **_curves(study, run_data)}
    _write(curves_folder(run, label), result)
    return result


def leading(space: TargetSpace, tokens: np.ndarray, rank: int) -> np.ndarray:
    """Tokens (n, N, D) of which only the leading ``rank`` components are left; rank 0: the mean token for every row.

    ``space``: with the spread that the tokens were decoded with, so that all components give predicted tokens back.
    """
    import torch

    with torch.no_grad():
        standardised = space.standardised(torch.from_numpy(np.array(tokens, dtype=np.float32)))
        components = (standardised / space.spread) @ space.basis.T / space.unit
        components[:, rank:] = 0
        reduced: np.ndarray = space.decode(components).numpy()
    return reduced


def steps_up_to(most: int, least: int = 1) -> list[int]:
    """``least``, then 1, 2, 5, 10, 20, 50, ... below ``most``, and ``most``."""
    series = [k * 10**power for power in range(len(str(most))) for k in (1, 2, 5)]
    return sorted({least, most} | {k for k in series if k < most})


@dataclass(frozen=True)
class _Study:
    """Makes and scores pictures: the same test pictures, targets (n, 3, H, W) and noise throughout."""

    plan: Plan
    options: Options
    targets: torch.Tensor
    judges: Judges
    n_boot: int

    @property
    def decoder(self) -> RunDecoder:
        """What the run says about its test pictures."""
        return self.plan.decoder

    def score(self, condition: Condition) -> dict[str, Any]:
        """By metric the mean over pictures, its interval and n. Pictures are scored as a PNG would keep them."""
        from recon.metrics.identification import two_way
        from recon.metrics.metrics import METRICS

        pictures = (self._pictures(condition) * 255).round() / 255
        values = {"PixCorr": METRICS["PixCorr"](pictures, self.targets)}
        for ending, judge in self.judges.loaded.items():
            values[f"two_way{ending}"] = two_way(judge.features(pictures), judge.features(self.targets))
        return {name: self._summary(value) for name, value in values.items()}

    def _pictures(self, condition: Condition) -> torch.Tensor:
        return sample(self.plan.generator, self.decoder, condition, self.decoder.ids, self.plan.sampling)

    def _summary(self, values: np.ndarray) -> dict[str, Any]:
        from recon.metrics.stats import bootstrap_ci

        interval = bootstrap_ci(values, n_boot=self.n_boot, seed=self.options.seed)
        return {"value": float(values.mean()), "ci95": interval, "n": len(values)}


def _curves(study: _Study, run_data: RunData) -> dict[str, Any]:
    """Floor, ceiling and both curves; a curve that cannot be had is None and its reason stands under ``absent``."""
    seed, found = study.options.seed, dict[str, Any]()
    for name in ("shuffled", "oracle"):
        log.info("curves: %s", name)
        found[name] = study.score(study.decoder.condition(name, seed))
    absent: dict[str, str] = {}
    found["bottleneck"] = found["repetitions"] = None
    if study.decoder.tokens == "predicted":
        found["bottleneck"] = _bottleneck(study)
    else:
        absent["bottleneck"] = "the tokens come from library pictures: no components to leave out"
    test = run_data.recording.test
    rows = {run_data.recording.stimuli.ids[i]: part for i, part in zip(*rows_of(test), strict=True)}
    orders = [rows[name] for name in study.decoder.ids]
    if min(len(part) for part in orders) < 2:
        absent["repetitions"] = "the study holds one row for some test picture, as after averaging: no single trials"
    else:
        found["repetitions"] = _repetitions(study, run_data, orders)
    return {**found, "absent": absent}


def _bottleneck(study: _Study) -> dict[str, Any]:
    """Points by rank for predicted tokens and for true ones."""
    from recon.decoding.bridges.matching import without_spread

    aligner, seed = study.plan.run.aligner, study.options.seed
    components = aligner.targets.components
    ranks = study.options.ranks or steps_up_to(components, 0)
    sides: dict[str, list[dict[str, Any]]] = {"predicted": [], "oracle": []}
    spaces = {"predicted": aligner.targets, "oracle": without_spread(aligner).targets}
    wholes = {"predicted": study.decoder.condition("reconstructions", seed)}
    wholes["oracle"] = study.decoder.condition("oracle", seed)
    for rank in sorted(ranks):
        log.info("curves: rank %d of %d", rank, components)
        for side, whole in wholes.items():
            whole_prediction = side == "predicted" and rank == components
            tokens = whole.tokens if whole_prediction else leading(spaces[side], whole.tokens, rank)
            condition = replace(whole, tokens=tokens)
            sides[side].append({"rank": rank, **study.score(condition)})
    return {"components": components, **sides}


def _repetitions(study: _Study, run_data: RunData, rows: Sequence[np.ndarray]) -> dict[str, Any]:
    """Points by number of repetitions; ``rows``: those of every picture, in the order of the pictures."""
    numbers = [len(part) for part in rows]
    rng = np.random.default_rng(derive(study.options.seed, "repetitions"))
    orders = [rng.permutation(part)[: min(numbers)] for part in rows]
    counts = steps_up_to(min(numbers))
    means = averages(run_data.recording.test, orders, counts)[0]
    points = []
    for count in counts:
        log.info("curves: %d of %d repetitions", count, min(numbers))
        points.append({"repetitions": count, **study.score(study.decoder.of_signals(means[count], study.options.seed))})
    return {"least": min(numbers), "most": max(numbers), "points": points}


def _check(options: Options, run: Run) -> None:
    if options.limit < 2:
        raise UserError(f"--limit {options.limit} should be 2 or more: two_way compares with other pictures")
    if options.seed < 0:
        raise UserError(f"--seed {options.seed} should be 0 or more")
    options.sampling.check()
    if options.ranks is not None:
        most = run.aligner.targets.components
        wrong = [rank for rank in options.ranks if not 0 <= rank <= most]
        if wrong or len(set(options.ranks)) < len(options.ranks):
            told = " ".join(map(str, options.ranks))
            raise UserError(f"--ranks {told}: give different numbers from 0 to {most}, the components of this run")


def _facts(run: Run, study: _Study, label: str) -> dict[str, Any]:
    from recon.evaluation.provenance import head

    plan = study.plan
    added = None if study.options.library is None else plan.decoder.library.added
    return head(run) | {
        "layer": plan.decoder.layer,
        "generator": label,
        "low_level": plan.decoder.low_level,
        "steps": plan.used.steps,
        "strength": plan.used.strength,
        "seed": study.options.seed,
        "n_stimuli": len(plan.decoder.ids),
        "chance": {f"two_way{ending}": 0.5 for ending in study.judges.loaded},
        "rule": RULE,
        **({} if added is None else {"library": asdict(added)}),
    }


def _write(folder: Path, result: dict[str, Any]) -> None:
    """The JSON is the last to be written: while it is there, the figure and the table beside it are of the same run."""
    from recon.analysis.curve_figure import plot_curves

    with locked(folder / ".lock", f"writing curves into {str(folder)!r}", wait=None, keep=False):
        (folder / "curves.json").unlink(missing_ok=True)
        write_atomic(folder / "curves.csv", curve_table(result))
        plot_curves(result, folder / "curves.png")
        write_sealed(folder / "curves.json", result)

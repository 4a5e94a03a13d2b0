"""Predicted tokens to picture files, with the controls that need the generator; resumable picture by picture.

    <run>/reconstructions/<generator>/sub-01/<safe id>_seed-0.png    from the predicted tokens
    <run>/controls/shuffled/<generator>/sub-01/...                   from another stimulus's predicted tokens
    <run>/controls/zero_brain/<generator>/sub-01/...                 from the tokens of all-zero signals
    <run>/controls/oracle/<generator>/sub-01/...                     from the true tokens of the picture that was seen
    <run>/controls/likeliest_library_image/<generator>/sub-01/...    not drawn: the library picture that fits best
    <run>/low_level/<generator>/sub-01/...                           the coarse pictures that reconstructions start from

Every folder has an index.csv. The starting noise of a stimulus is the same in all of them, and what stands beside the
tokens (start picture, words, the response that guides, the choice among samples) is each control's own. Pictures made
in another than the usual way lie under a longer name, such as <generator>_<adapter>_<bridge> or
<generator>_words-retrieved.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from align.files import launched, locked
from align.tracking import Stopwatch
from recon.decoding.conditions import CONTROLS, LIKELIEST
from recon.decoding.decoder import predicts_responses
from recon.decoding.plan import Plan, Sampling
from recon.drawing.folders import DRAWING, PictureFolders, read_index, write_pictures
from recon.drawing.sets import FolderPlan, control_for, draw, guide_for

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.decoding.bridges.choose import Conditioning
    from recon.generation.runtime import Runtime

OWN = "reconstructions"
log = logging.getLogger(__name__)


def generate(
    run: Run,
    generator: str = "mini",
    out: Path | None = None,
    sampling: Sampling | None = None,
    controls: Sequence[str] | None = None,
    limit: int | None = None,
    conditioning: Conditioning | None = None,
    runtime: Runtime | None = None,
    chosen_on: str | None = None,
) -> dict[str, Any]:
    """Sample pictures of every test stimulus, one per seed, and per control, into ``out`` (default: the run folder).

    ``generator``: "mini", a folder or a hub id. ``conditioning``: adapter, bridge and what stands beside the tokens
    (default: the own conditioner that fits the run's backbone, layer and pooling, else `UserError` names the command
    that trains one). ``runtime``: number format, device and the like. ``limit``: only the first stimuli, in the order
    of the split; a seed that holds more, drawn alike, is left as it is. ``controls``: default all, the likeliest
    library picture of runs that predict responses included.
    ``chosen_on``: what settings were chosen on, for the record (`recon.drawing.record`).
    Returns folders, number of pictures and settings.
    """
    from recon.drawing.likeliest import show_likeliest
    from recon.drawing.record import write_asked, write_record

    sampling, controls = sampling or Sampling(), _controls(run, controls)
    check_sampling(sampling, limit)
    watch = Stopwatch()
    plan = Plan.of(run, generator, conditioning, sampling, runtime, limit)
    decoder, conditioning = plan.decoder, plan.conditioning
    with launched.first_then_others():
        _ = decoder.ids  # a recording that cannot be read is said before the generator is loaded
    _ = plan.generator  # one that cannot be loaded leaves no folder behind
    maker = _Maker(plan, PictureFolders.of(plan, out), sampling.seeds)
    names = [OWN, *(name for name in controls if name != LIKELIEST)]
    first, folder = launched.is_first(), maker.folders.reconstructions
    with _alone_with(sampling.seeds, folder) if first else nullcontext():
        seeds = tuple(seed for seed in sampling.seeds if not _holds_more(plan, folder, seed))
        maker = replace(maker, seeds=seeds)
        if first and seeds:
            write_asked(plan, folder, seeds)
        sampled = launched.total(_draw_own_share(maker, names))
        if first and seeds:  # what the others have drawn is found there
            sampled += maker.fill_all(names)
            if LIKELIEST in controls:
                show_likeliest(plan, maker.folders.control(LIKELIEST), seeds)
            write_record(plan, folder, chosen_on, watch.read() if sampled else None)
    added = None if conditioning.library is None else decoder.library.added
    return {
        "study": run.study,
        "subject": run.subject,
        "run": str(run.path),
        "layer": decoder.layer,
        "generator": maker.folders.generator,
        "bridge": plan.bridge.name,
        "match": conditioning.match,
        "tokens": decoder.tokens,
        "low_level": decoder.low_level,
        "words": conditioning.words,
        "best_of": conditioning.best_of,
        **({} if conditioning.control_of is None else {"controlnet": asdict(conditioning.control_of)}),
        **({} if conditioning.guide is None else {"guide": asdict(conditioning.guide)}),
        **({} if chosen_on is None else {"chosen_on": chosen_on}),
        "n_stimuli": len(decoder.ids),
        "seeds": list(sampling.seeds),
        "sampled": sampled,
        "measured": watch.read(),
        "folders": {name: str(_folder(maker.folders, name)) for name in (OWN, *controls)},
        **({} if added is None else {"library": asdict(added)}),
    }


def _holds_more(plan: Plan, folder: Path, seed: int) -> bool:
    """Whether ``folder`` holds reconstructions of these stimuli and of more, drawn alike: with fewer, which ``--limit``
    asks for, the shuffled controls would be others. Said in the log; a launch does what its first process says."""
    from recon.decoding.predict import run_id

    held = 0
    if launched.is_first():
        own, ids = (run_id(plan.run), plan.drawing), set(plan.decoder.ids)
        alike = {row["stimulus_id"] for row in read_index(folder) if _is_of(row, seed, own)}
        held = len(alike) if alike > ids else 0
        if held:
            log.warning(
                "generate: %d pictures of seed %d are there, drawn with these settings, and --limit asks for %d; "
                "nothing is drawn for it",
                held,
                seed,
                len(ids),
            )
    return launched.total(held) > 0


def _is_of(row: dict[str, str], seed: int, own: tuple[str, str]) -> bool:
    """Whether a row of an index is of a seed, a training of the run and a `Plan.drawing`."""
    return row["seed"] == str(seed) and (row["run"], row.get(DRAWING)) == own


def _draw_own_share(maker: _Maker, names: Sequence[str]) -> int:
    """Of several processes that were launched together, each draws a part of all pictures; how many it sampled."""
    if launched.place()[1] == 1:
        return 0
    launched.wait()  # the first one keeps others out for all
    return replace(maker, shared=True).fill_all(names)


@contextmanager
def _alone_with(seeds: Sequence[int], folder: Path) -> Iterator[None]:
    """Other processes may draw other seeds into ``folder`` and its controls at the same time; of the same they wait."""
    with ExitStack() as stack:
        for seed in sorted(seeds):
            doing = f"drawing the pictures of seed {seed} into {str(folder)!r}"
            stack.enter_context(locked(folder / f".seed-{seed}.lock", doing, wait=None, keep=False))
        yield


def _controls(run: Run, wanted: Sequence[str] | None) -> Sequence[str]:
    if wanted is None:
        return (*CONTROLS, LIKELIEST) if predicts_responses(run) else CONTROLS
    if LIKELIEST in wanted and not predicts_responses(run):
        raise UserError(f"{LIKELIEST} needs a run that predicts responses to pictures: encoder.name=encoding")
    return wanted


@dataclass(frozen=True)
class _Maker:
    """Fills one folder after the other; where they are ``shared``, with this process's part of the pictures."""

    plan: Plan
    folders: PictureFolders
    seeds: tuple[int, ...]
    shared: bool = False

    def fill_all(self, names: Sequence[str]) -> int:
        """The folders of ``names``, all ``seeds``; returns how many pictures were sampled."""
        every, varies = self.seeds, self.plan.decoder.varies
        if not every:
            return 0
        turns = [(seed,) for seed in every] if varies else [every]
        return sum(self.fill(name, seeds, seeds[0] == every[0]) for seeds in turns for name in names)

    def fill(self, name: str, seeds: tuple[int, ...], first: bool) -> int:
        """The folder of the reconstructions or of a control; returns how many pictures were sampled.

        ``first``: the seeds that the low-level pictures are stored for.
        """
        from recon.decoding.predict import run_id
        from recon.drawing.best_of import draw_best

        plan, decoder = self.plan, self.plan.decoder
        condition = decoder.condition(name, seeds[0])
        start, own = decoder.start(plan.generator, condition), run_id(plan.run)
        if name == OWN and first and start is not None and not self.shared:
            low = self.folders.low_level
            write_pictures(low, decoder.ids, start, seed=seeds[0], run_id=own, drawing=plan.drawing)
        held = control_for(plan.generator, start)
        pictures = FolderPlan(
            name,
            _folder(self.folders, name),
            decoder.ids,
            condition.tokens,
            condition.owners,
            own,
            None if start is None else start.numpy(),
            condition.prompts,
            None if held is None else held.numpy(),
            None if decoder.guidance is None else decoder.responses(condition),
            self.shared,
            plan.drawing,
            decoder.signals,
        )
        if decoder.best_of > 1 and condition.embeds is not None:
            return draw_best(plan, pictures, self.folders.candidates(name), condition, seeds)
        guide = guide_for(plan.generator, decoder, condition, plan.sampling, start is not None)
        return draw(plan.generator, pictures, replace(plan.sampling, seeds=seeds), plan.weights, guide)


def _folder(folders: PictureFolders, name: str) -> Path:
    return folders.reconstructions if name == OWN else folders.control(name)


def check_sampling(sampling: Sampling, limit: int | None) -> None:
    """Raise `UserError` for numbers that cannot be, before anything is read."""
    if limit is not None and limit < 2:
        raise UserError(f"--limit {limit} should be 2 or more: the shuffled control needs another stimulus")
    sampling.check()
    if not sampling.seeds or len(set(sampling.seeds)) < len(sampling.seeds) or min(sampling.seeds) < 0:
        raise UserError(f"--seeds {' '.join(map(str, sampling.seeds))}: give different whole numbers, 0 or more")

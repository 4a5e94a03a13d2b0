"""Trains brain encoders: one for every subject of a study, one for all, or one for each subject left out.

    accelerate launch align/train.py 'subjects=[01]' train.epochs=5                         # small: simulation, CPU
    accelerate launch align/train.py --config configs/align/cowley2023_v4.yaml study.root=PATH     # real recordings
    python -m align.train ...                                                               # the same, exit code 2 kept
    python -m align.train protocol=pooled 'subjects=[01,02]'                                # one encoder for both

A killed run continues from its last checkpoint when called again with the same configuration. Several processes share
every batch (`ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 align/train.py`), or with train.share=encoders the
encoders.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    from align.config import Config, add_config_option, dump_yaml, load_config
    from align.errors import UserError, run_command
except ModuleNotFoundError as error:  # a script's own folder is on the path, not the project's
    sys.exit(f"error: the project is not installed ({error}); run `pip install -e .` in its folder first")

if TYPE_CHECKING:
    from accelerate import PartialState

    from align.data.signals import Recording
    from align.data.studies.base import Study
    from align.tracking import JsonLines
    from align.training.protocols import Job
    from align.vision.backbones import Backbone

MEASURED = "measured.json"  # seconds, device and memory of the call that finished a run


@dataclass(frozen=True)
class Trained:
    """One finished run: where it is, what it was trained on, whom it is for, how long this call took."""

    path: Path
    study: str
    label: str
    subjects: tuple[str, ...]
    weights_hash: str
    n_trials: int
    seconds: float
    input: str = ""  # size of a trial and its regions, in words

    def __str__(self) -> str:
        of = f" of {self.input}" if self.input else ""
        return (
            f"{self.study} {self.label}: {self.n_trials} training rows{of}, {self.seconds:.1f} s, "
            f"weights {self.weights_hash[:12]}, run {self.path}"
        )


def train(config: Config, progress: bool = True, overwrite: bool = False) -> list[Trained]:
    """Train the encoders that ``protocol`` asks for (``subjects``, empty = all) and write one run folder each.

    A folder with weights of another configuration or of other signals is refused, unless ``overwrite``; so are weights
    next to runs of several people, and these below weights, always. Several processes of `accelerate launch` compute
    every batch together, or with ``train.share=encoders`` train their share of the encoders each and return those.

    Raises
    ------
    UserError
        Bad configuration or files, a test picture among the training ones, a folder of another training, another
        process that trains into it.
    """
    from accelerate import PartialState

    from align.checkpoint import MODEL
    from align.data.studies import open_study
    from align.model.router import check_router
    from align.tracking import require_tracker
    from align.training.precision import check_precision
    from align.training.protocols import plan_jobs
    from align.training.run_folder import refuse_mixed, refuse_other_signals
    from align.vision.backbones import load_backbone
    from align.vision.fused import require_pooling, resolve_layers

    config.check()
    study = open_study(config)
    subjects = list(config.subjects or study.default_subjects)
    for subject in subjects:
        study.require_subject(subject)
    jobs = plan_jobs(config.protocol, subjects)
    if config.run_dir is not None:
        refuse_mixed(Path(config.run_dir).expanduser(), several=len(jobs) > 1)
    check_router(config)
    require_tracker(config.tracker)
    process = PartialState()
    check_precision(config, process.device)
    backbone = load_backbone(config.backbone).to(process.device)
    config = replace(config, target=replace(config.target, layer=resolve_layers(backbone, config.target.layer)))
    require_pooling(backbone, [config.target.layer], config.target.pooling)
    own = [(job, run_folder(config, job, alone=len(jobs) == 1)) for job in _own_jobs(config, jobs, process)]
    for job, folder in own:
        require_own(folder, config, job, overwrite)
        people = dict.fromkeys((*job.trained_on, *job.tested_on))
        if not overwrite and (folder / MODEL).is_file():  # before any of the jobs begins
            refuse_other_signals(folder, [study.recording(subject) for subject in people])
    finished = []
    for job, folder in own:
        with alone_in(folder):
            finished.append(_train_job(config, job, study, backbone, folder, process.device, progress))
    process.wait_for_everyone()
    return finished


def require_own(folder: Path, config: Config, job: Job, overwrite: bool = False) -> None:
    """Raise `UserError` where ``folder`` holds weights of another configuration, unless they may be replaced."""
    from align.checkpoint import stored_facts
    from align.config import to_dict
    from align.data.places import refuse_others

    stored = None if overwrite else stored_facts(folder)
    if stored is None:
        return
    before_config, meta = stored
    people = {"subjects": list(job.tested_on), "trained_on": list(job.trained_on)}
    before = {**to_dict(before_config), "people": {name: meta.get(name, [meta["subject"]]) for name in people}}
    now = {**to_dict(config), "people": people}
    refuse_others(folder, "weights", before, now, "Choose another run_dir=FOLDER")


def alone_in(folder: Path) -> AbstractContextManager[None]:
    """Keep every other training out of a run folder; of the processes of one training, the first does so."""
    from align.files import locked
    from align.training.distributed import world

    if world()[0] != 0:
        return nullcontext()
    return locked(folder / ".train.lock", f"training into {str(folder)!r}", keep=False)


def _metrics(config: Config, path: Path) -> JsonLines:
    """Where the records of the epochs go; a tracker is told by the main process alone."""
    from align.config import keys
    from align.tracking import JsonLines, Tracked
    from align.training.distributed import world

    if config.tracker == "none" or world()[0] != 0:
        return JsonLines(path)
    values = {key: str(functools.reduce(getattr, key.split("."), config)) for key in keys(config)}
    return Tracked(path, config.tracker, values)


def _own_jobs(config: Config, jobs: list[Job], process: PartialState) -> list[Job]:
    """Every process takes part in every encoder, or each has encoders of its own (``train.share``)."""
    from align.training.distributed import alone

    if config.train.share == "batches":
        return jobs
    alone()
    with process.split_between_processes(jobs) as share:
        return list(share)


def _train_job(
    config: Config, job: Job, study: Study, backbone: Backbone, folder: Path, device: Any, progress: bool
) -> Trained:
    from align.checkpoint import METRICS, save_run, tensors_hash
    from align.data.preparing.raw import median_size
    from align.data.preparing.selection import described, in_words
    from align.data.sound import kept_remarks, people_remarks
    from align.data.splits import joint_manifest, refuse_overlap
    from align.encoders.shapes import SignalFacts
    from align.files import write_sealed
    from align.tracking import Stopwatch
    from align.training.distributed import world
    from align.training.fit import check_trials, fit
    from align.training.run_folder import signals_marks
    from align.training.training_set import join, training_rows
    from align.vision.fused import training_targets

    watch, layer = Stopwatch(), config.target.layer
    recordings = {subject: study.recording(subject) for subject in dict.fromkeys((*job.trained_on, *job.tested_on))}
    trained, tested = ([recordings[subject] for subject in part] for part in (job.trained_on, job.tested_on))
    _require_alike(config, list(recordings.values()))
    for recording in tested:
        refuse_overlap(recording, trained_on=trained)
    trials = [training_rows(recording, config.train.average_repetitions, config.cache_dir) for recording in trained]
    facts = SignalFacts.of(trained[0])
    check_trials(config, trials[0].x.shape[1:], facts, device)
    targets = {
        one.subject: training_targets(backbone, one.stimuli, [layer], config.target, config.cache_dir, progress)[layer]
        for one in recordings.values()
    }
    apart = people_remarks({one.subject: median_size(one.train.x) for one in recordings.values()}, config.preprocess)
    remarks = list(apart)
    for text in remarks if world()[0] == 0 else ():
        logging.getLogger("align").warning("protocol=%s: %s", config.protocol, text)
    data = join(trained, trials, [targets[one.subject].tokens for one in trained])
    sides = zip(*(targets[one.subject].view_tokens for one in trained), strict=True)
    aligner = fit(
        config,
        data.signals,
        data.tokens,
        data.stimulus,
        groups=data.groups,
        widths=targets[job.tested_on[0]].widths,
        view_tokens=[data.of_pictures(side) for side in sides],
        facts=facts,
        state_dir=folder / "state",
        progress=progress,
        metrics=_metrics(config, folder / METRICS),
        device=device,
    )
    digest = tensors_hash(aligner.state())
    told = {
        "targets": {subject: targets[subject].key for subject in job.tested_on},
        "n_training_rows": len(data.stimulus),
        "weights_hash": digest,
        "resizing": backbone.resizing,
    }
    if world()[0] == 0:
        # Beside the weights, which are the same however long it took, and before them: they say that a run is whole.
        write_sealed(folder / MEASURED, {**watch.read(), "weights": digest})
        split = joint_manifest(trained, tested)
        split["log"] += kept_remarks(remarks)
        split["signals"] = signals_marks(recordings.values())
        save_run(folder, aligner, config, split, told, tested)
    seconds = watch.read()["seconds"]
    told_input = in_words(described(config, aligner.in_shape))
    return Trained(folder, study.info.name, job.label, job.tested_on, digest, len(data.stimulus), seconds, told_input)


def _require_alike(config: Config, recordings: list[Recording]) -> None:
    """Raise `UserError` where one encoder is for several people whose trials have different shapes."""
    first = recordings[0]
    for other in recordings[1:]:
        one, two = (recording.train.x.shape[1:] for recording in (first, other))
        if one != two:
            what = "voxels" if len(one) == 1 else "channels x samples"
            raise UserError(
                f"protocol={config.protocol} needs equal trials: subject {first.subject} has "
                f"{' x '.join(map(str, one))} {what}, subject {other.subject} {' x '.join(map(str, two))}; train each "
                "by itself (protocol=intra) and join the reports with recon table"
            )
    if len(recordings) > 1 and first.train.x.ndim == 2:
        logging.getLogger("align").warning(
            "protocol=%s: voxel i of one person is taken for voxel i of another, which holds in a common space only; "
            "else train each by itself (protocol=intra) and join the reports with recon table",
            config.protocol,
        )


def run_folder(config: Config, job: Job, alone: bool) -> Path:
    """``run_dir`` (unless ``alone``, a folder in it for each encoder), else a telling name under ``runs/align``."""
    from align.checkpoint import home
    from align.data.names import file_name, joined_name, labelled
    from align.data.places import part_labels, study_labels

    if config.run_dir is not None:
        base = Path(config.run_dir).expanduser()
        return base if alone else labelled(base, "sub-{}", job.tested_on[0])
    part, told = part_labels(config)
    labels = [file_name(label) for label in (config.encoder.name, config.target.layer)]
    names = [*study_labels(config), job.name, *part, *labels, f"seed-{config.seed}"]
    return home() / "runs" / "align" / joined_name(names, told)


def use_all_cores() -> None:
    """Give torch every core that this process may use; the launcher sets one. Not with several processes or a GPU."""
    import torch

    if int(os.environ.get("WORLD_SIZE", "1")) == 1 and not torch.cuda.is_available():
        allowed = getattr(os, "sched_getaffinity", None)  # Linux alone tells
        torch.set_num_threads(len(allowed(0)) if allowed else os.cpu_count() or 1)


def main(arguments: list[str] | None = None) -> int:
    """Command line: one line per subject; 0 on success, 2 with one line on stderr for a mistake of the user."""
    parser = argparse.ArgumentParser(
        prog="align/train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_option(parser)
    parser.add_argument("--print-config", action="store_true", help="print the merged configuration and stop")
    parser.add_argument("--overwrite", action="store_true", help="replace weights of another training")
    parser.add_argument("--debug", action="store_true", help="show the trace of an error")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example train.epochs=5 'subjects=[01]'")
    options = parser.parse_intermixed_args(arguments)

    def work() -> int:
        config = load_config(Config, options.config, options.overrides)
        if options.print_config:
            print(dump_yaml(config), end="")
            return 0
        return _run(config, options.overwrite)

    return run_command("error", work, options.debug, "the same command continues from here")


def _run(config: Config, overwrite: bool) -> int:
    from align.training.launcher import refuse_options

    refuse_options(config.train.precision)
    from accelerate import PartialState

    from align.tracking import setup_logging

    process = PartialState()
    setup_logging(process.is_main_process)
    use_all_cores()
    for finished in train(config, progress=process.is_main_process, overwrite=overwrite):
        if process.is_main_process or config.train.share == "encoders":
            print(finished, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a card may say: read from the files of a run or conditioner, checked against its weights, never typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.names import labelled
from align.data.splits import read_split
from align.errors import UserError
from align.files import read_tensors
from recon.evaluation.sources import require_sources
from recon.evaluation.stored import read_report, read_stimuli
from recon.publishing.places import without_paths

if TYPE_CHECKING:
    from align.checkpoint import Run

ADAPTER = "ip_adapter.safetensors"


@dataclass(frozen=True)
class RunFacts:
    """A run, the SHA-256 of its weights, its ``split.json``, and the report of every subject that was evaluated.

    Texts of the reports name no path of this machine.
    ``image_seeds``: which sample of each stimulus was scored, by subject, where pictures were.
    """

    run: Run
    digest: str
    split: dict[str, Any]
    reports: dict[str, dict[str, Any]]
    image_seeds: dict[str, int] = field(default_factory=dict)

    @property
    def subjects(self) -> list[str]:
        """Whom the encoder is for."""
        return list(self.run.meta.get("subjects", [self.run.subject]))


@dataclass(frozen=True)
class ConditionerFacts:
    """A conditioner's folder, the SHA-256 of its weights, and the facts its file carries beside them."""

    folder: Path
    digest: str
    facts: dict[str, str]


def read_facts(folder: str | Path) -> RunFacts | ConditionerFacts:
    """Facts of the run or conditioner in ``folder``; raises `UserError` where there is neither, or files disagree."""
    from align.checkpoint import MODEL

    folder = Path(folder).expanduser()
    if (folder / MODEL).is_file():
        return _run_facts(folder)
    if (folder / ADAPTER).is_file():
        return _conditioner_facts(folder)
    inside = ", ".join(str(path) for path in runs_in(folder))
    wanted = f"one of its runs: {inside}" if inside else "the folder of one run or conditioner"
    raise UserError(f"{str(folder)!r} holds neither {MODEL} nor {ADAPTER}; pass {wanted}")


def runs_in(folder: str | Path) -> list[Path]:
    """The folders of runs directly inside ``folder``, in the order of their names."""
    from align.checkpoint import MODEL

    return sorted(path.parent for path in Path(folder).expanduser().glob(f"*/{MODEL}"))


def _run_facts(folder: Path) -> RunFacts:
    from align.checkpoint import CONFIG, MODEL, SPLIT, load_run, require_named, stored_meta, tensors_hash
    from align.config import Config, load_config, to_dict

    tensors, metadata = read_tensors(folder / MODEL)
    meta = stored_meta(metadata, folder / MODEL)
    run = load_run(folder, next(iter(meta.get("subjects", [])), None))
    digest = tensors_hash(tensors)
    require_named(digest, run.meta, folder / MODEL)
    if to_dict(load_config(Config, folder / CONFIG, check=False)) != to_dict(run.config):
        raise UserError(f"{str(folder / CONFIG)!r} is not the configuration of the weights beside it; put the old back")
    facts = RunFacts(run, digest, read_split(folder / SPLIT), {})
    for subject in facts.subjects:
        path, own = labelled(folder, "report_sub-{}.json", subject), f"{run.study}_sub-{subject}@{digest[:12]}"
        if not path.is_file():
            continue
        report = read_report(path)
        _require_report(report, own, path)
        facts.reports[subject] = without_paths(report)
        stimuli = labelled(folder, "stimuli_sub-{}.json", subject)
        told = read_stimuli(stimuli) if "reconstruction" in report and stimuli.is_file() else {}
        if told.get("run") != own:
            continue
        require_sources(path, report, told)
        if "image_seed" in told:
            facts.image_seeds[subject] = told["image_seed"]
    return facts


def _require_report(report: Any, own: str, path: Path) -> None:
    """Refuse a report of other weights, or one that is not of the schema: its numbers are not this run's."""
    from recon.evaluation.schema import faults

    if not isinstance(report, dict) or faults(report):
        raise UserError(f"{str(path)!r} is no report of recon evaluate; run recon evaluate again or remove it")
    if report["run"] != own:
        raise UserError(f"{str(path)!r} is of {report['run']}, these weights are {own}; run recon evaluate again")


def _conditioner_facts(folder: Path) -> ConditionerFacts:
    from align.checkpoint import tensors_hash
    from recon.generation.conditioner import read_info

    tensors, metadata = read_tensors(folder / ADAPTER)
    read_info(folder / ADAPTER)  # refuses files of other makers
    return ConditionerFacts(folder, tensors_hash(tensors), metadata)

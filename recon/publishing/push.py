"""A run or conditioner to the Hugging Face hub: the few files that are needed, copied to a folder of their own first.

What goes: weights, configuration, split, preparation of signals, reports, card. What never goes: recordings, states of
training, predictions, pictures, and the paths of this machine.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from align.data.names import file_name
from align.errors import UserError
from align.files import read_tensors, save_tensors, write_atomic, write_sealed
from recon.publishing.card import card
from recon.publishing.facts import ADAPTER, ConditionerFacts, RunFacts, read_facts
from recon.publishing.hub import HUB_ID, REPORTS
from recon.publishing.places import is_local, without_paths, without_places


def push(
    folder: str | Path, to: str, *, private: bool = False, dry_run: bool = False, license_id: str | None = None
) -> dict[str, Any]:
    """Upload the run or conditioner in ``folder`` to the repository ``to`` (OWNER/NAME), made where it is not there.

    The card is written anew, so that its numbers are those of the reports beside it; reports of an earlier training go
    from the repository. ``dry_run``: only say what would be uploaded; needs neither token nor network.

    Raises
    ------
    UserError
        A bad name, no token, ``private`` asked for a repository that is public, files that do not fit together,
        whatever the hub refuses.
    """
    if not HUB_ID.fullmatch(to):
        raise UserError(f"--to {to!r} is no name of a repository; write OWNER/NAME")
    token = None if dry_run else _token()
    with staged(folder, to, license_id) as (stage, files):
        sizes = [(stage / name).stat().st_size for name in files]
        listed = [{"file": name, "bytes": size} for name, size in zip(files, sizes, strict=True)]
        result = {"repository": to, "files": listed, "bytes": sum(sizes)}
        if dry_run:
            return {**result, "uploaded": False}
        return {**result, "uploaded": True, "commit": _upload(stage, files, to, private, token)}


@contextmanager
def staged(folder: str | Path, to: str, license_id: str | None = None) -> Iterator[tuple[Path, list[str]]]:
    """A temporary folder with exactly the files to upload, and their names."""
    from align.checkpoint import CARD

    facts = read_facts(folder)
    with tempfile.TemporaryDirectory(prefix="recon-push-") as temporary:
        stage = Path(temporary)
        if isinstance(facts, RunFacts):
            _stage_run(facts, stage)
        else:
            _stage_conditioner(facts, stage)
        write_atomic(stage / CARD, card(facts, to, license_id))
        yield stage, sorted(path.name for path in stage.iterdir())


def _stage_run(facts: RunFacts, stage: Path) -> None:
    from align.checkpoint import CONFIG, MODEL, SPLIT, preparation_path
    from align.config import dump_yaml, to_dict
    from align.data.preparing.raw import Preparation

    tensors, metadata = read_tensors(facts.run.path / MODEL)
    config = without_places(facts.run.config)
    save_tensors(stage / MODEL, tensors, {**metadata, "config": json.dumps(to_dict(config))})
    write_atomic(stage / CONFIG, dump_yaml(config))
    write_sealed(stage / SPLIT, {**facts.split, "log": without_paths(facts.split.get("log", []))})
    for subject in facts.subjects:
        stored = preparation_path(facts.run.path, subject)
        if stored.is_file():
            Preparation.load(stored).save(stage / stored.name, weights=facts.digest)
    for subject, report in facts.reports.items():
        write_sealed(stage / f"report_sub-{file_name(subject)}.json", report)


def _stage_conditioner(facts: ConditionerFacts, stage: Path) -> None:
    generator = facts.facts["generator"]
    name = Path(generator).name if is_local(generator) else generator
    save_tensors(stage / ADAPTER, read_tensors(facts.folder / ADAPTER)[0], {**facts.facts, "generator": name})


def _token() -> str:
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise UserError("no token of the Hugging Face hub: run `hf auth login` or set HF_TOKEN; --dry-run needs none")
    return token


def _upload(stage: Path, files: list[str], to: str, private: bool, token: str | None) -> str:
    """Make the repository where needed and upload; returns the address of the commit."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        api.create_repo(to, private=private, repo_type="model", exist_ok=True)
        if private and not api.model_info(to).private:
            raise UserError(f"{to} exists and is public; make it private on the hub, or push without --private")
        done = api.upload_folder(
            repo_id=to,
            folder_path=stage,
            repo_type="model",
            commit_message="Upload by recon push",
            allow_patterns=files,
            delete_patterns=[REPORTS],
        )
    except UserError:
        raise
    except Exception as error:  # the hub's client has its own exceptions, and so has each network
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"{to} could not be uploaded ({reason})") from error
    return str(getattr(done, "commit_url", done))

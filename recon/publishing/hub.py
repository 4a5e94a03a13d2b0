"""Runs by name: a local folder, or a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError

if TYPE_CHECKING:
    from align.checkpoint import Run

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
REPORTS = "report_sub-*.json"


def load_run(source: str | Path, subject: str | None = None) -> Run:
    """The run in a local folder, or in the hub's repository OWNER/NAME or OWNER/NAME@REVISION (branch, tag, commit).

    Of a repository only weights (safetensors), configuration, split, reports and card are fetched; without the network
    the hub's local cache serves. ``subject``: whose recording is meant, where the encoder is for several. A run of the
    hub knows no folders: set ``run.config.study.root`` before asking for its recordings.

    Raises
    ------
    UserError
        No run there, or not reachable; files that are truncated or do not fit, another subject's run.
    """
    from align.checkpoint import load_run as load_folder

    name, _, revision = str(source).partition("@")
    local = isinstance(source, Path) or Path(source).expanduser().exists() or not HUB_ID.fullmatch(name)
    return load_folder(source if local else fetch_run(name, revision or None), subject)


def fetch_run(repository: str, revision: str | None = None) -> Path:
    """The local snapshot of a run's repository, the newest where the network can tell.

    Raises `UserError` where neither network nor cache has it, or where it holds no run.
    """
    from huggingface_hub import snapshot_download

    from align.checkpoint import CARD, CONFIG, MODEL, PREPARATION, SPLIT

    name = f"{repository}@{revision}" if revision else repository
    patterns = [MODEL, CONFIG, SPLIT, REPORTS, CARD, PREPARATION.format("*")]
    asked = {"revision": revision, "allow_patterns": patterns}
    try:
        folder = _fetched_or_cached(snapshot_download, repository, asked)
    except Exception as error:  # the hub's client has its own exceptions, and so has each network
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"run {name!r} is no local folder, is not in the local cache of the hub and cannot be fetched ({reason}); "
            "check the name, or pass a local folder"
        ) from error
    if not (folder / MODEL).is_file():  # offline, the client hands over what it has without an error
        raise UserError(
            f"run {name!r} has no {MODEL}: its repository holds no run of recon push, or only a part of it was fetched "
            "before the network went; pass a local folder"
        )
    return folder


def _fetched_or_cached(download: Callable[..., str], repository: str, asked: dict[str, Any]) -> Path:
    """What the network gives, else the cache: not every version of the client looks there for a commit by itself."""
    try:
        return Path(download(repository, **asked))
    except Exception:
        try:
            return Path(download(repository, local_files_only=True, **asked))
        except (LookupError, OSError, ValueError):  # not in the cache: what the network said matters
            pass
        raise

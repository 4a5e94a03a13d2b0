"""Repositories of the Hugging Face hub: what they hold, what of it is cached, and fetching exactly the files named.

A repository is listed by the hub's own answer (name and size of every file); without the network by what the local
cache has of it. What a download fetches and what ``recon generate --dry-run`` prints are chosen from the same list.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from pathlib import Path

from align.errors import UserError

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
Listing = dict[str, int | None]  # path in the repository: bytes, None = not told


def listed(repository: str, what: str, option: str, cached: bool = True) -> Listing:
    """Every file of a repository; ``cached``: of the local cache alone where the hub cannot be asked.

    Raises `UserError` where nobody knows the repository.
    """
    try:
        return dict(_asked(repository))
    except Exception as error:  # the hub's client has its own exceptions, and so has each network
        folder = snapshot(repository) if cached else None
        if folder is not None:
            return {name: (folder / name).stat().st_size for name in _below(folder)}
        raise unreachable(what, option, repository, f"{type(error).__name__}: {error}") from error


@cache
def _asked(repository: str) -> tuple[tuple[str, int | None], ...]:
    """The hub's answer, once per process."""
    from huggingface_hub import HfApi

    answer = HfApi().model_info(repository, files_metadata=True)
    return tuple((file.rfilename, file.size) for file in answer.siblings or ())


def snapshot(repository: str) -> Path | None:
    """The folder of what is cached of a repository, None where nothing is."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except Exception:  # not cached; what is wrong with the name, the network will say
        return None


def is_cached(repository: str, path: str) -> bool:
    """Whether a file of a repository is in the local cache."""
    folder = snapshot(repository)
    return folder is not None and (folder / path).is_file()


def fetch(repository: str, files: Collection[str], what: str, option: str) -> Path:
    """The local snapshot of a repository that holds ``files`` (paths in it), fetched where they are not cached."""
    from huggingface_hub import snapshot_download

    folder = snapshot(repository)
    if folder is not None and all((folder / name).is_file() for name in files):
        return folder
    try:
        folder = Path(snapshot_download(repository, allow_patterns=sorted(files)))
    except Exception as error:  # the hub's client has its own exceptions, and so has each network
        raise unreachable(what, option, repository, f"{type(error).__name__}: {error}") from error
    lacking = [name for name in files if not (folder / name).is_file()]
    if lacking:  # offline, the client hands over what it has without an error
        raise unreachable(what, option, repository, f"no {lacking[0]}, offline or not in that repository")
    return folder


def unreachable(what: str, option: str, repository: str, reason: str) -> UserError:
    """The error of something that neither the cache nor the hub has."""
    reason = (reason.strip().splitlines() or [""])[0][:200]
    gated = " (accept its terms on its page, then run: hf auth login)" if "Gated" in reason or "401" in reason else ""
    return UserError(
        f"{what} is not in the local cache and {repository} cannot be fetched from the hub ({reason}){gated}; offline, "
        f"give a local copy: {option}"
    )


def _below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

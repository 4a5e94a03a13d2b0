"""What the readers of epochs and of continuous recordings share: MNE's errors in one line, channels of signals."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from align.errors import UserError

SIGNALS = ("eeg", "mag", "grad", "seeg", "ecog", "dbs", "csd", "hbo", "hbr")


def signal_channels(recording: Any, path: Path) -> list[str]:
    """Names of the channels of an MNE object that are signals and not marked bad; raises `UserError` for none."""
    try:
        types = recording.get_channel_types()
    except Exception as error:
        raise unreadable(path, error, "recording") from error
    names = [
        name
        for name, kind in zip(recording.ch_names, types, strict=True)
        if kind in SIGNALS and name not in recording.info["bads"]
    ]
    if not names:
        raise UserError(f"{str(path)!r} has no good EEG, MEG or intracranial channel")
    return names


def require_tags(paths: Iterable[Path]) -> None:
    """Raise `UserError` where the tags of a FIFF file do not follow each other; MNE would walk in circles for ever.

    A tag is kind, type, size, next (int32, big-endian) and ``size`` bytes; ``next`` is 0 for the place right behind,
    -1 for the end, else a place in the file.
    """
    for path in paths:
        at, size = 0, path.stat().st_size
        with path.open("rb") as file:
            while at < size:
                file.seek(at)
                head = file.read(16)
                _, _, length, following = struct.unpack(">4i", head) if len(head) == 16 else (0, 0, -1, 0)
                behind = at + 16 + length
                if length < 0 or behind > size or not (following in (0, -1) or at < following <= size):
                    raise unreadable(path, ValueError(f"no tag at byte {at}"), "FIFF file")
                at = size if following == -1 else following or behind


def unreadable(path: Path, error: Exception, what: str) -> UserError:
    """MNE raises whatever it likes on broken files; this says so in one line."""
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(f"{str(path)!r} is truncated or no {what} ({text}); write or fetch it again")

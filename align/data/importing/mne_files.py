"""What the readers of epochs and of continuous recordings share: MNE's errors in one line, channels of signals."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from align.errors import UserError, counted

logger = logging.getLogger(__name__)
SIGNALS = ("eeg", "mag", "grad", "seeg", "ecog", "dbs", "csd", "hbo", "hbr")


def signal_channels(recording: Any, path: Path) -> tuple[list[str], list[str]]:
    """Channels of an MNE object that are signals and not marked bad, and the others, each with the reason.

    Raises `UserError` where there are no signals.
    """
    try:
        types = recording.get_channel_types()
    except Exception as error:
        raise unreadable(path, error, "recording") from error
    reasons = {
        name: kind if kind not in SIGNALS else "bad" if name in recording.info["bads"] else ""
        for name, kind in zip(recording.ch_names, types, strict=True)
    }
    names = [name for name, reason in reasons.items() if not reason]
    if not names:
        raise UserError(f"{str(path)!r} has no good EEG, MEG or intracranial channel")
    return names, [f"{name} ({reason})" for name, reason in reasons.items() if reason]


def say_left_out(channels: Sequence[str], source: object) -> None:
    """One line in the log that names the channels of a recording that are not read; nothing where there are none."""
    if channels:
        count = counted(len(channels), "channel")
        logger.info("%s: left out %s: %s", source, count, ", ".join(channels))


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

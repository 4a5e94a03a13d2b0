"""What the readers of epochs and of continuous recordings share: MNE's errors in one line, channels of signals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.errors import UserError

SIGNALS = ("eeg", "mag", "grad", "seeg", "ecog", "dbs", "csd", "hbo", "hbr")


def signal_channels(recording: Any, source: str) -> list[str]:
    """Names of the channels of an MNE object that are signals and not marked bad; raises `UserError` for none."""
    types = zip(recording.ch_names, recording.get_channel_types(), strict=True)
    names = [name for name, kind in types if kind in SIGNALS and name not in recording.info["bads"]]
    if not names:
        raise UserError(f"{source} has no good EEG, MEG or intracranial channel")
    return names


def unreadable(path: Path, error: Exception, what: str) -> UserError:
    """MNE raises whatever it likes on broken files; this says so in one line."""
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(f"{str(path)!r} is truncated or no {what} ({text}); write or fetch it again")

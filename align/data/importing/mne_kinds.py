"""What a file of MNE is, where another kind was wanted: a continuous recording, epochs, or averages of epochs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from align.errors import UserError

RAW, EPOCHS, AVERAGES = "a raw recording", "epochs", "averages of epochs (evoked)"
_CUT = (
    "cut it with mne.Epochs, one epoch for each picture, and set epochs.metadata with a column image (the file of the "
    "picture) and a column split (train or test), or give a BIDS folder to --bids"
)
_INSTEAD = {  # by what is wanted and what is there
    (EPOCHS, RAW): _CUT,
    (EPOCHS, AVERAGES): "single trials are needed: save the epochs that it was averaged of",
    (RAW, EPOCHS): "give it to --epochs",
    (RAW, AVERAGES): "put the raw recording there that it was averaged of",
}


def refuse_kind(path: Path, wanted: str) -> None:
    """Raise `UserError` where MNE reads ``path`` as another kind than ``wanted`` (`RAW` or `EPOCHS`)."""
    for kind, read in _readers(path).items():
        if kind != wanted and _reads(read):
            needed = "epochs are" if wanted == EPOCHS else "a raw recording is"
            raise UserError(f"{str(path)!r} is {kind}, but {needed} wanted here; {_INSTEAD[wanted, kind]}")


def _readers(path: Path) -> dict[str, Callable[[], Any]]:
    import mne

    quiet: dict[str, Any] = {"verbose": "error"}
    raw = {RAW: lambda: mne.io.read_raw(path, preload=False, **quiet)}
    if path.suffix == ".set":
        return {**raw, EPOCHS: lambda: mne.io.read_epochs_eeglab(path, **quiet)}
    if path.suffix not in (".fif", ".gz"):
        return raw
    return {
        EPOCHS: lambda: mne.read_epochs(path, preload=False, **quiet),
        RAW: lambda: mne.io.read_raw_fif(path, preload=False, allow_maxshield="yes", **quiet),
        AVERAGES: lambda: mne.read_evokeds(path, **quiet),
    }


def _reads(read: Callable[[], Any]) -> bool:
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read()
    except Exception:  # MNE raises whatever it likes
        return False
    if hasattr(found, "close"):
        found.close()
    for part in getattr(found, "_raw", None) or ():  # of epochs MNE leaves the files open
        part.fid.close()
    return found != []  # no average in it

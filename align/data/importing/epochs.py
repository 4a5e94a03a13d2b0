"""MNE epochs whose metadata name the pictures, to the `folder` layout. Read in pieces; nothing is resampled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from align.data.importing.layout import Pieces, rows_at_once
from align.data.importing.mne_files import require_tags, say_left_out, signal_channels, unreadable
from align.data.importing.mne_kinds import EPOCHS, refuse_kind
from align.data.importing.parts import Part
from align.data.importing.trials import TrialChoice, choose, from_frame, person_of
from align.errors import UserError
from align.files import no_file


def read_epochs(path: str | Path, images: str | Path, choice: TrialChoice) -> Part:
    """The trials of a ``-epo.fif``: x (n, C, T) in the file's units, V or T.

    ``choice`` names columns of ``epochs.metadata``. Channels that are no signals or marked bad are left out;
    projectors are applied as `mne.read_epochs` does. Raises `UserError` as `choose` does, and for a file without
    metadata.
    """
    path = Path(path)
    epochs = _open(path)

    def close() -> None:
        for part in getattr(epochs, "_raw", None) or ():  # MNE leaves the files open as long as the object lives
            part.fid.close()

    try:
        if epochs.metadata is None:
            raise UserError(f"{str(path)!r} holds no metadata; set epochs.metadata with a column naming the pictures")
        table = from_frame(epochs.metadata, f"the metadata of {str(path)!r}")
        rows, trials, files = choose(table, choice, Path(images))
        channels, left_out = signal_channels(epochs, path)
        say_left_out(left_out, path)
        shape = (len(rows), len(channels), len(epochs.times))
        info = {"sfreq": float(epochs.info["sfreq"]), "ch_names": channels, "tmin": float(epochs.times[0])}
        picks = [epochs.ch_names.index(name) for name in channels]
        blocks = _read(path, epochs, np.array(rows), picks, rows_at_once(shape))
        person = person_of(table, choice, rows)
        return Part(repr(str(path)), Pieces(shape, blocks), trials, files, info, close, person, path)
    except BaseException:
        close()
        raise


def _open(path: Path) -> Any:
    import mne

    if not path.is_file():
        raise UserError(f"{str(path)!r} {no_file(path)}")
    if path.suffix == ".fif":  # .fif.gz has a checksum of its own
        require_tags([path, *path.parent.glob(f"{path.stem}-[0-9]*.fif")])
    try:
        return mne.read_epochs(path, preload=False, verbose="error")
    except Exception as error:
        refuse_kind(path, EPOCHS)
        raise unreadable(path, error, "file of MNE epochs") from error


def _read(path: Path, epochs: Any, rows: np.ndarray, picks: list[int], step: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), step):
        try:
            yield epochs.get_data(picks=picks, item=rows[start : start + step], verbose="error")
        except Exception as error:
            raise unreadable(path, error, "file of MNE epochs") from error

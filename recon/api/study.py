"""`Study`: recordings and the pictures that were seen, from published files, arrays or `mne.Epochs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError
from align.notebook import facts_table
from recon.api.folders import KeptFolder
from recon.api.report import StudyReport
from recon.api.settings import as_config, as_pairs

if TYPE_CHECKING:
    from align.config import Config
    from align.data.signals import Recording
    from align.data.studies.base import Study as StudyFiles

SECTIONS = ("study.", "simulated.", "preprocess.")
OF_THE_DECODER = ("preprocess.scale", "study.name")


class Study:
    """Recordings and the pictures that were seen. Made by `open`, `from_arrays` or `from_epochs`.

    Signals and pictures are read when they are first needed.

    Attributes
    ----------
    name : str
        Name of the study: things_eeg2, folder, simulated, ...
    subjects : tuple of str
        Labels of the people, in order.
    root : pathlib.Path or None
        Folder of the files; every command takes it as ``study.root``.
    """

    def __init__(self, pairs: Mapping[str, Any], kept: KeptFolder | None = None) -> None:
        self.pairs = dict(pairs)
        self.config: Config = as_config(self.pairs)
        self._kept = kept
        _ = self._files  # raises now where the folder is missing

    @classmethod
    def open(
        cls, name: str, root: str | Path | None = None, settings: Mapping[str, Any] | None = None, **more: Any
    ) -> Study:
        """Open a published study, a folder of your own, or the simulation.

        Parameters
        ----------
        name : str
            simulated, cowley2023_v4, things_eeg2, things_meg, nsd or folder.
        root : str or path, optional
            Folder of the files; the simulation makes its own.
        settings, **more
            Keys ``study.*``, ``simulated.*``, ``preprocess.*`` and ``cache_dir`` of a configuration, as
            ``{"study.window": "0:0.5"}`` or ``study__window="0:0.5"``. Scaling is set in the `Decoder`.

        Returns
        -------
        Study

        Raises
        ------
        UserError
            Unknown study, key or value; a folder that is not there.
        """
        pairs = as_pairs(settings, more)
        for key in pairs:
            if key in OF_THE_DECODER or not (key.startswith(SECTIONS) or key == "cache_dir"):
                raise UserError(
                    f"{key!r} is none of {', '.join(f'{s}*' for s in SECTIONS)}, cache_dir; set it in the Decoder"
                )
        if root is not None:
            if "study.root" in pairs:
                raise UserError("the folder is given twice, as root and study.root; give it once")
            pairs["study.root"] = str(root)
        return cls({"study.name": name, **pairs})

    @classmethod
    def from_arrays(
        cls,
        signals: Any,
        images: Any,
        stimulus: Any = None,
        subject: str = "01",
        test: Any = None,
        *,
        sfreq: float | None = None,
        ch_names: Sequence[str] | None = None,
        tmin: float = 0.0,
        groups: Any = None,
        session: Any = None,
        repetition: Any = None,
        folder: str | Path | None = None,
        **settings: Any,
    ) -> Study:
        """A study of arrays that are in memory.

        Parameters
        ----------
        signals : array of shape (n, channels, samples) or (n, voxels)
            Trials in one unit, not standardised: numpy, torch or lists, any float or whole type. Stored as float32.
        images : array (k, H, W, 3) uint8, list of arrays or files, mapping name -> picture, or folder
            The pictures that were seen, 0 to 255; arrays that hold no value but 0 and 1 are refused.
        stimulus : sequence of n, optional
            Which picture each trial shows: its place in ``images`` (from 0) or its name. Left out, there is one picture
            per trial, in order; equal ones count as one.
        subject : str
            Label of the person.
        test : sequence of n, or of pictures, optional
            True for test trials; or train, test, unused for each trial; or the test pictures by place or name. Left
            out, a fifth of the pictures is drawn (always the same), look-alikes and ``groups`` kept together.
        sfreq : float, optional
            Rate in Hz. ``tmin``: time of the first sample in s. ``ch_names``: one per channel.
        groups : sequence, optional
            Per trial or per picture: pictures of one group (concept, scene) never stand on two sides of a validation.
        session, repetition : sequence of n, optional
            Recording session, and the whole number of the repetition.
        folder : str or path, optional
            Where the study is written, in the layout that every command reads (``study.root``). Left out, it is a
            temporary folder that goes with the object.
        **settings
            As in `open`.

        Returns
        -------
        Study

        Raises
        ------
        UserError
            Shapes, pictures or labels that do not fit, NaN, training and test that share a picture.
        """
        from recon.api.arrays import part_of_arrays, require_info

        x = as_one(signals)
        info = {"sfreq": sfreq, "ch_names": None if ch_names is None else list(ch_names), "tmin": tmin or None}
        require_info(info, x)
        part = part_of_arrays(subject, x, stimulus, test, groups, session, repetition)
        return cls._written([part], images, info, folder, settings)

    @classmethod
    def from_epochs(
        cls,
        epochs: Any,
        images: Any,
        stimulus: Any = None,
        subject: str = "01",
        test: Any = None,
        *,
        groups: Any = None,
        session: Any = None,
        folder: str | Path | None = None,
        **settings: Any,
    ) -> Study:
        """A study of `mne.Epochs` and the pictures that were seen.

        Parameters
        ----------
        epochs : mne.Epochs, or mapping subject -> mne.Epochs
            Good signal channels are taken, in MNE's units (V, T).
        images
            As in `from_arrays`.
        stimulus : str or sequence of n, optional
            A column of ``epochs.metadata``, or one entry per epoch. Left out: the column image or stimulus, else the
            names of the events, else one picture per epoch.
        subject : str
            Label of the person, where ``epochs`` is no mapping.
        test, groups, session : str or sequence, optional
            A column of ``epochs.metadata``, or as in `from_arrays`. With several people each may be a mapping
            subject -> value. Left out: the columns split (train, test, unused), concept and session, where the
            metadata has them, as `recon data import` takes them.
        folder, **settings
            As in `from_arrays`.

        Returns
        -------
        Study

        Raises
        ------
        UserError
            No epochs, unknown columns, people with different channels, and as in `from_arrays`.
        """
        from align.data.channel_order import channels_apart
        from recon.api.arrays import of_person, part_of_epochs

        people = dict(epochs) if isinstance(epochs, Mapping) else {subject: epochs}
        if not people:
            raise UserError("epochs is an empty mapping; pass subject -> mne.Epochs")
        columns = {"stimulus": stimulus, "test": test, "groups": groups, "session": session}
        found = [
            part_of_epochs(one, str(label), {name: of_person(value, label, people) for name, value in columns.items()})
            for label, one in people.items()
        ]
        info = found[0][1]
        for part, other in found:
            if other != info:
                names = channels_apart(info["ch_names"], other["ch_names"])
                told = f"channels: {names}" if names else "rate or first sample; make them equal (resample, crop)"
                raise UserError(f"subjects {found[0][0].subject} and {part.subject} differ in {told}")
        return cls._written([part for part, _ in found], images, info, folder, settings)

    @classmethod
    def _written(
        cls,
        parts: Sequence[Any],
        images: Any,
        info: Mapping[str, Any],
        folder: str | Path | None,
        more: Mapping[str, Any],
    ) -> Study:
        from recon.api.arrays import Album, write_study

        kept = KeptFolder() if folder is None else None
        out = kept.path / "study" if kept else Path(folder or "").expanduser()
        write_study(parts, Album.of(images), info, out, link=kept is not None)
        study = cls.open("folder", out, **more)
        study._kept = kept
        return study

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.config.study.name

    @property
    def root(self) -> Path | None:
        """Folder of the files; None for the simulation, which makes its own."""
        return None if self.config.study.root is None else Path(self.config.study.root)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Labels of the people, in order."""
        return tuple(self._files.subjects)

    def recording(self, subject: str | None = None) -> Recording:
        """Training and test trials of one person with the pictures they show, after the study's ``preprocess`` steps.

        ``subject`` may be left out where there is one. Raises `UserError` for an unknown person and broken files.
        """
        return self._files.recording(self.require_subject(subject))

    def check(self) -> StudyReport:
        """Look at the files and compare them with what is declared: the report of ``recon data check``.

        Returns
        -------
        StudyReport
            A mapping with ``usable``, ``verdict``, ``facts``, ``subjects``, ``faults`` and ``remarks``.
        """
        from align.data.check import check_study

        return StudyReport(check_study(self._files))

    def require_subject(self, subject: str | None) -> str:
        """The label itself, or the only one there is.

        Raises `UserError` for an unknown one, and where several are there and none is named.
        """
        if subject is None:
            if len(self.subjects) != 1:
                raise UserError(
                    f"study {self.name} has several subjects; pass subject= one of {', '.join(self.subjects)}"
                )
            return self.subjects[0]
        self._files.require_subject(str(subject))
        return str(subject)

    @cached_property
    def _files(self) -> StudyFiles:
        from align.data.studies import open_study

        return open_study(self.config)

    def __repr__(self) -> str:
        where = "" if self.root is None else f", root={str(self.root)!r}"
        return f"<Study {self.name}: {len(self.subjects)} subject{'s' * (len(self.subjects) != 1)}{where}>"

    def _repr_html_(self) -> str:
        info = self._files.info
        facts = {
            "subjects": ", ".join(self.subjects),
            "folder": self.root,
            "signals": info.signal,
            "source": info.source,
        }
        return facts_table(f"{info.title} ({self.name})", {**facts, "licence": info.licence})


def as_one(signals: Any) -> np.ndarray:
    """Signals of the user as an array; see `align.data.importing.arrays.as_signals`."""
    from align.data.importing.arrays import as_signals

    return as_signals(signals)

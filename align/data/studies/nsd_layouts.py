"""The layouts of NSD that are read in files of their own, by `study.variant`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from align.data.signals import Recording
from align.data.studies.nsd_algonauts import find_algonauts, read_algonauts, rois_algonauts
from align.data.studies.nsd_algonauts import subjects_in as algonauts_subjects
from align.data.studies.nsd_averaged import find_averaged, read_averaged, subjects_in


@dataclass(frozen=True)
class Layout:
    """A layout with files of its own: its folder at or below root, the subjects in it, one of them, regions."""

    holds: str  # for the message where it is not there
    find: Callable[[Path], Path | None]
    subjects: Callable[[Path], tuple[str, ...]]
    read: Callable[[Path, str, Path, str], Recording]
    rois: Callable[[Path, str], dict[str, tuple[int | str, ...]]] = lambda folder, subject: {}
    voxels_declared: bool = True  # those of nsdgeneral


LAYOUTS = {  # by `study.variant`
    "averaged": Layout("webdataset_avg_split/ with train/ and test/", find_averaged, subjects_in, read_averaged),
    "algonauts": Layout(
        "subj01/training_split/training_fmri/",
        *(find_algonauts, algonauts_subjects, read_algonauts, rois_algonauts),
        voxels_declared=False,
    ),
}

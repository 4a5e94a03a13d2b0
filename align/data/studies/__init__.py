"""Every study by name.

Adding one: a file here, a line in `_MODULES`, its name in `align.known_names.STUDIES`, a case in the tests' walk.
"""

from __future__ import annotations

import difflib
from importlib import import_module

from align.config import Config
from align.data.studies.base import Study
from align.errors import UserError

_MODULES = {
    "simulated": "align.data.studies.simulated.study:Simulated",
    "cowley2023_v4": "align.data.studies.cowley2023:Cowley2023V4",
    "things_eeg2": "align.data.studies.things.eeg2:ThingsEEG2",
    "things_meg": "align.data.studies.things.meg:ThingsMEG",
    "folder": "align.data.studies.folder.study:Folder",
    "nsd": "align.data.studies.nsd:Nsd",
}
STUDIES = tuple(_MODULES)


def study_class(name: str) -> type[Study]:
    """The class of a study; its ``info`` needs no files. Raises `UserError` with the nearest name otherwise."""
    if name not in _MODULES:
        near = difflib.get_close_matches(name, _MODULES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"study {name!r} is not known; {hint}Known: {', '.join(_MODULES)}")
    module, _, attribute = _MODULES[name].partition(":")
    found: type[Study] = getattr(import_module(module), attribute)
    return found


def open_study(config: Config) -> Study:
    """The study ``config.study.name``; raises `UserError` where study, simulation and steps cannot be as they are said.

    The rest of the configuration is not looked at: it may be that of a run trained long ago.
    """
    config.study.check("study.")
    config.simulated.check("simulated.")
    for fault in config.selection_faults():
        raise UserError(fault)
    return study_class(config.study.name)(config)

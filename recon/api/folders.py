"""Folders that live as long as the object that needs them."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any


class KeptFolder:
    """A temporary folder, removed with the last object that holds this one; copies share it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="shallow-recon-"))
        weakref.finalize(self, shutil.rmtree, str(self.path), ignore_errors=True)

    def __copy__(self) -> KeptFolder:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> KeptFolder:
        return self

"""Everything is declared in pyproject.toml; this puts the folder configs/ into the wheel, as align/configs."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConfigs(build_py):
    """The usual step, and then the configurations; an editable installation reads those of the clone."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for path in sorted(Path("configs").rglob("*.yaml")):
            target = Path(self.build_lib) / "align" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


setup(cmdclass={"build_py": WithConfigs})

"""``tuning_sub-XX.json`` of a run: which settings were chosen for it, and laying them under those of a command."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.names import labelled
from align.errors import UserError
from align.files import read_json
from align.files.json_text import require
from recon.tuning.candidates import TUNED, Settings, laid_over

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.decoding.bridges.choose import Conditioning
    from recon.decoding.plan import Sampling

log = logging.getLogger(__name__)
_IN_PLACE_OF = {"tokens": "library", "library": "tokens"}  # one of them given: the other is not taken either
_CHOICE = {"run": str, "drawn_by": dict, "choice": str, "settings": {str: str}, "chosen_on": str}
_COARSE_ITSELF = "0"  # strength


@dataclass(frozen=True)
class Choice:
    """``settings`` of the candidate ``name``; ``said``: what it was chosen on, a sentence for reports."""

    name: str
    settings: Settings
    said: str

    def under(
        self, given: Collection[str], conditioning: Conditioning, sampling: Sampling
    ) -> tuple[Conditioning, Sampling]:
        """Both with the chosen settings, but for those ``given`` on the command line; one line of log says which.

        Left out, too, is what a given setting leaves no room for: tokens beside a library, a guide where nothing is
        drawn (strength 0), and strength 0 beside a guide or without a coarse picture.
        """
        beside = {_IN_PLACE_OF[name] for name in given if name in _IN_PLACE_OF}
        taken = {name: value for name, value in self.settings.items() if name not in {*given, *beside}}
        if "strength" in given and sampling.strength == 0:
            taken.pop("guide", None)
        guided = "guide" in given and conditioning.guide is not None
        coarse = not ("low_level" in given and conditioning.low_level == "none")
        if taken.get("strength") == _COARSE_ITSELF and (guided or not coarse):
            del taken["strength"]
        listed = " ".join(f"{name}={value}" for name, value in taken.items()) or "nothing but the usual"
        log.info("tuning: defaults of candidate %r: %s (--no-tuning leaves them out)", self.name, listed)
        return laid_over(taken, conditioning, sampling)


def choice_path(run: Run) -> Path:
    """``<run>/tuning_sub-<subject>.json``."""
    return labelled(run.path, "tuning_sub-{}.json", run.subject)


def read_choice(
    run: Run, generator: str, conditioning: Conditioning, sampling: Sampling, half: bool = False
) -> Choice | None:
    """The choice for this training of the run and these means of drawing; None where there is none.

    A choice that was made for another training or other means is not taken, and one line of log says so. Raises
    `UserError` for a file that is no choice.
    """
    from recon.decoding.predict import run_id

    path = choice_path(run)
    if not path.is_file():
        return None
    stored = read_json(path)
    try:
        require(stored, _CHOICE, repr(str(path)))
    except UserError as error:
        raise UserError(
            f"{error}: it holds no choice of recon tune-pictures; make it again or use --no-tuning"
        ) from error
    strange = set(stored["settings"]) - set(TUNED)
    if strange:
        raise UserError(f"{str(path)!r} names the unknown setting {sorted(strange)[0]!r}; make it again")
    if stored["run"] != run_id(run):
        log.info("tuning: %s is of another training of this run and not used; run recon tune-pictures again", path)
        return None
    asked = drawn_by(generator, conditioning, sampling, half)
    other = [name for name, value in asked.items() if stored["drawn_by"].get(name) != value]
    if other:
        log.info("tuning: %s was made with another %s and is not used", path, ", ".join(other))
        return None
    return Choice(stored["choice"], stored["settings"], stored["chosen_on"])


def drawn_by(generator: str, conditioning: Conditioning, sampling: Sampling, half: bool = False) -> dict[str, Any]:
    """What a choice holds for: generator with its files' hash, adapter, bridge and whatever else is not chosen.

    ``half``: it runs in 16 bit (`recon.generation.places.generator_folder`).
    """
    from recon.decoding.plan import fingerprint
    from recon.generation.places import generator_folder

    folder = generator_folder(generator, half)
    return {
        "generator": fingerprint(folder, folder / "model_index.json"),
        "adapter": conditioning.adapter,
        "bridge": conditioning.bridge,
        "image_encoder": conditioning.image_encoder,
        "match": conditioning.match,
        "words": conditioning.words,
        "text_tower": conditioning.text_tower,
        "controlnet": None if conditioning.control_of is None else conditioning.control_of.key,
        "scale": sampling.scale,
    }

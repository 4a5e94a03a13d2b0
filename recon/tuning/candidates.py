"""What may be chosen, the candidates that are tried, and how their settings are laid over those of a command.

A candidate is a dictionary of settings, each written as on the command line of `recon generate`, without the dashes and
with ``_`` in place of ``-``: {"strength": "1", "guide": "encoding:0.05"}. What it does not name stays as it is.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from recon.decoding.guidance import Guidance, require_steps

if TYPE_CHECKING:
    from recon.decoding.bridges.choose import Conditioning
    from recon.decoding.plan import Sampling

Settings = Mapping[str, str]

NO_LIBRARY = "none"
_SAMPLING: dict[str, Callable[[str], Any]] = {"strength": float, "guidance_scale": float, "steps": int}
_CONDITIONING: dict[str, Callable[[str], Any]] = {
    "tokens": str,
    "low_level": str,
    "best_of": int,
    "library": lambda text: None if text == NO_LIBRARY else text,
    "guide": Guidance.parse,
}
TUNED = (*_SAMPLING, *_CONDITIONING)  # names of settings that may be chosen

# Few, and each for a reason: the coarse picture as it is or left, how strictly the tokens are obeyed, the response
# pulling, the brain choosing among samples. A run or a generator that cannot do one passes it, with the reason.
CANDIDATES: dict[str, Settings] = {
    "usual": {},
    "sketch": {"strength": "0"},
    "from_noise": {"strength": "1"},
    "from_noise_guidance_1": {"strength": "1", "guidance_scale": "1"},
    "from_noise_guidance_4": {"strength": "1", "guidance_scale": "4"},
    "no_coarse": {"low_level": "none"},
    "guided": {"guide": "encoding"},
    "guided_from_noise": {"strength": "1", "guide": "encoding"},
    "library_tokens": {"tokens": "library"},
    "library_tokens_best_of_6": {"tokens": "library", "best_of": "6"},
    "posterior_tokens": {"tokens": "posterior"},
    "posterior_tokens_guided": {"tokens": "posterior", "guide": "encoding"},
    "posterior_tokens_best_of_6": {"tokens": "posterior", "best_of": "6"},
    "sketch_best_of_6": {"strength": "0", "best_of": "6"},
}
# Beside them where `--library` is given: the same without these further pictures.
WITHOUT_LIBRARY: dict[str, Settings] = {
    "own_library": {"library": NO_LIBRARY},
    "own_library_from_noise": {"library": NO_LIBRARY, "strength": "1"},
}


def candidates(tried: Sequence[str], library: bool) -> dict[str, Settings]:
    """Settings by name: those of ``tried``, each a text ``name=value name=value``, else the table.

    ``library``: whether further pictures are given. Raises `UserError` for a text that is no settings.
    """
    if tried:
        return {" ".join(f"{k}={v}" for k, v in one.items()) or "usual": one for one in map(parse, tried)}
    return {**CANDIDATES, **WITHOUT_LIBRARY} if library else dict(CANDIDATES)


def parse(text: str) -> Settings:
    """Settings of one ``--try``; raises `UserError` naming the text for an unknown name or a value that cannot be."""
    from recon.decoding.bridges.choose import Conditioning
    from recon.decoding.plan import Sampling

    found: dict[str, str] = {}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--try {text!r}: {error}") from error
    for word in words:
        name, equals, value = word.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if not equals or not value or name not in TUNED:
            raise UserError(f"--try {text!r}: {word!r} is not name=value of {', '.join(TUNED)}")
        found[name] = value
    try:
        conditioning, sampling = laid_over(found, Conditioning(), Sampling())
        sampling.check()
        require_steps(conditioning.guide, sampling.strength)
    except UserError as error:
        raise UserError(f"--try {text!r}: {error}") from error
    return found


def laid_over(settings: Settings, conditioning: Conditioning, sampling: Sampling) -> tuple[Conditioning, Sampling]:
    """Both with ``settings`` in place of their own; raises `UserError` for a value that cannot be."""
    values = {name: _read(name, text) for name, text in settings.items()}
    sampled = {name: value for name, value in values.items() if name in _SAMPLING}
    conditioned = {name: value for name, value in values.items() if name in _CONDITIONING}
    return replace(conditioning, **conditioned), replace(sampling, **sampled)


def _read(name: str, text: str) -> Any:
    read = _SAMPLING.get(name) or _CONDITIONING[name]
    try:
        return read(text)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{name}={text!r} is no {'whole ' if read is int else ''}number") from error

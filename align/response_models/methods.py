"""The response models by name."""

from __future__ import annotations

import difflib

from align.errors import UserError
from align.response_models.attention import AttentionRouted
from align.response_models.banded import Banded
from align.response_models.contract import Method
from align.response_models.in_context import InContext
from align.response_models.joint import Joint
from align.response_models.pls import PartialLeastSquares
from align.response_models.ridge import Ridge
from align.response_models.spatial import SpatialFeature

METHODS: dict[str, type[Method]] = {
    kind.name: kind for kind in (Ridge, Banded, PartialLeastSquares, SpatialFeature, AttentionRouted, Joint, InContext)
}


def methods_of(names: list[str]) -> list[Method]:
    """A model for each name, each once. Raises `UserError` for an unknown one, with the nearest."""
    found = []
    for name in dict.fromkeys(names):
        if name not in METHODS:
            near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"method {name!r} is not known{hint} Known: {', '.join(METHODS)}")
        found.append(METHODS[name]())
    return found

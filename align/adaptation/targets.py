"""The target space of several people: fitted once for shared parts that are made one after the other."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from align.adaptation.people import Person
from align.config import Config, TargetConfig
from align.data.rows import Rows
from align.model.router import fit_targets
from align.model.spaces import TargetSpace

AXES_PICTURES = 2000  # that the target space of all people is fitted to


@dataclass(frozen=True)
class _Fitted:
    """A target space, the components (K, k) of all pictures, and what both were made of."""

    target: TargetConfig
    people: list[weakref.ref[Person]]
    widths: tuple[int, ...]
    where: str
    space: TargetSpace
    components: torch.Tensor

    def of(self, config: Config, people: Sequence[Person], widths: Sequence[int], where: str) -> bool:
        made_of = (self.target, self.widths, self.where) == (config.target, tuple(widths), where)
        return made_of and len(self.people) == len(people) and all(map(_is, self.people, people))


def _is(ref: weakref.ref[Person], person: Person) -> bool:
    return ref() is person


_latest: list[_Fitted] = []  # one at most


def shared_targets(
    config: Config, people: Sequence[Person], pictures: Rows, widths: Sequence[int], where: str
) -> tuple[TargetSpace, torch.Tensor]:
    """The space of the people's pictures (K, N, D), to be changed at will, and the components (K, k) of all of them.

    Kept for the next call with the very same people: trunks of several kinds share it, and it takes as long to fit as
    a trunk takes to train for some epochs.
    """
    if not (_latest and _latest[0].of(config, people, widths, where)):
        _latest.clear()
        space = fit_targets(config, _spread(pictures), widths, where)
        refs = [weakref.ref(person) for person in people]
        _latest.append(_Fitted(config.target, refs, tuple(widths), where, space, space.encode_all(pictures)))
    space = _latest[0].space
    return copy.deepcopy(space, {id(space.basis): space.basis}), _latest[0].components  # axes are large, and stay


def _spread(pictures: Rows) -> Rows:
    """At most `AXES_PICTURES` of them, evenly spread: exact axes of more take minutes, and differ little."""
    if len(pictures) <= AXES_PICTURES:
        return pictures
    return pictures.subset(np.linspace(0, len(pictures) - 1, AXES_PICTURES).round().astype(np.int64))

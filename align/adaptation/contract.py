"""What a method of adaptation is: a shared part fitted to known people, and a personal part for a new one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from align.adaptation.people import Person
from align.config import Config
from align.model.aligner import Aligner


@dataclass(frozen=True)
class Shared:
    """What known people share. ``people``: their names; ``tensors``: all that is stored; ``facts``: ready for JSON."""

    config: Config
    people: tuple[str, ...]
    widths: tuple[int, ...]  # the parts of the token width D that come from one layer each
    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Adapted:
    """A decoder for one person.

    ``aligner`` is complete: an ordinary run can be written from it. ``personal``: the tensors that are the person's
    own, small; with the shared part they give the same aligner again (`Method.rebuild`). ``trainable``: numbers that
    were fitted to the person; ``total``: numbers of the whole decoder.
    """

    aligner: Aligner
    personal: dict[str, torch.Tensor]
    trainable: int
    total: int


def aligned(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies that lie in memory as torch lays it out.

    The last bit of a matrix product can depend on order and alignment, and a decoder that is rebuilt from files must
    agree to the last bit with the one that was stored.
    """
    return {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}


class Method(ABC):
    """One way to adapt. ``name`` as given to ``--method``; ``source``: the paper, and what differs from it."""

    name: str
    source: str
    base: str  # methods with one ``base`` take one and the same shared part

    @property
    def alone(self) -> str:
        """Methods with one ``alone`` have one and the same decoder from scratch, which is fitted once for all."""
        return self.name

    @abstractmethod
    def share(self, config: Config, people: Sequence[Person], widths: Sequence[int]) -> Shared:
        """Fit what is shared to the training rows of known people. Deterministic given ``config.seed``."""

    @abstractmethod
    def adapt(self, config: Config, shared: Shared, person: Person) -> Adapted | None:
        """A decoder for a new person from the rows given; the shared tensors stay as they are, bit for bit.

        None where the method takes nothing from known people.
        """

    @abstractmethod
    def scratch(self, config: Config, person: Person, widths: Sequence[int]) -> Adapted | None:
        """The same kind of decoder fitted to the person alone: the line that adaptation is compared with.

        None where the method says nothing without known people.
        """

    @abstractmethod
    def rebuild(self, config: Config, shared: Shared, personal: dict[str, torch.Tensor]) -> Aligner:
        """The aligner of `Adapted`, from its personal tensors and the shared part; without the person's ``facts``."""

"""Pretraining on several people: a linear front of each one's own, one trunk, one pair of heads for all.

After the multi-subject pretraining of MindEye2 (Scotti et al. 2024, arXiv 2403.11207): every batch holds equally many
rows of each person, and signals are mixed (``train.mixco``) within one person only. The trunk is what follows the first
layer of the encoder; its heads and temperature are those of an ordinary run (`align.model.aligner.Network`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from align.adaptation.bridge import Bridge
from align.adaptation.contract import Shared
from align.adaptation.people import Person
from align.adaptation.targets import shared_targets
from align.config import Config
from align.data.rows import Rows
from align.data.splits import grouped_folds, merge_groups
from align.encoders import LINEAR_FIRST, build_encoder
from align.encoders.ridge import reciprocal_ranks
from align.errors import UserError
from align.model.aligner import Network
from align.model.spaces import SignalSpace, TargetSpace
from align.seeding import derive
from align.training.batches import Pairs
from align.training.distributed import world
from align.training.fit import SPREAD_FOLDS
from align.training.optimise import StateFolder, optimise
from align.training.training_set import device


class PeopleEncoder(nn.Module):
    """Rows of several people, equally many of each, one person after the other: (B, P) -> (B, E).

    ``fronts[i]`` reads the first ``sizes[i]`` of the P values of person i; the rest is filling. ``trunk`` follows.
    """

    def __init__(self, fronts: Sequence[nn.Module], sizes: Sequence[int], trunk: nn.Module) -> None:
        super().__init__()
        self.fronts, self.sizes, self.trunk = nn.ModuleList(fronts), tuple(sizes), trunk

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = enumerate(x.chunk(len(self.fronts)))
        return self.trunk(torch.cat([self.fronts[i](part[:, : self.sizes[i]]) for i, part in parts]))

    def of(self, person: int, x: torch.Tensor) -> torch.Tensor:
        """Rows x (n, P) of one person alone, (n, E)."""
        hidden: torch.Tensor = self.trunk(self.fronts[person](x[:, : self.sizes[person]]))
        return hidden


@dataclass(frozen=True)
class BalancedPairs(Pairs):
    """Rows of several people (``subject``), of whom every batch holds equally many, one person after the other.

    An epoch is over when each row of the person with the most rows was drawn once; the rows of others come again.
    """

    def __len__(self) -> int:
        return max(len(rows) for rows in self._own) * len(self._own)

    @cached_property
    def _own(self) -> list[np.ndarray]:
        """The rows of every person."""
        assert self.subject is not None
        subject = self.subject.cpu().numpy()
        return [np.flatnonzero(subject == person) for person in range(subject.max() + 1)]

    def draw(self, batch_size: int, seed: int, step: int) -> np.ndarray:
        """``batch_size`` / people rows of each person; a person's rows come in rounds, each row once a round."""
        size = max(1, batch_size // len(self._own))
        drawn = [
            own[_in_rounds(len(own), step * size, size, derive(seed, "person", i))] for i, own in enumerate(self._own)
        ]
        return np.concatenate(drawn)


def _in_rounds(count: int, start: int, size: int, seed: int) -> np.ndarray:
    """Places ``start``..``start + size`` of the endless list of permutations of 0..count - 1."""
    rounds = range(start // count, (start + size - 1) // count + 1)
    orders = [np.random.default_rng(derive(seed, "round", number)).permutation(count) for number in rounds]
    first = start - rounds[0] * count
    return np.concatenate(orders)[first : first + size]


def share(config: Config, people: Sequence[Person], widths: Sequence[int], bridge: bool = False) -> Shared:
    """Train fronts, trunk and heads on the rows of ``people``; ``config.encoder.name`` says which.

    ``bridge``: with the ways back and the cyclic loss of MindBridge. ``facts``: ``held_out`` has for every person the
    mean reciprocal rank of held-out pictures in a first training on four fifths of them, as far as there was one.

    Raises
    ------
    UserError
        No people, other tokens than those of the first, or settings that rows of several people do not go with.
    """
    check_people(config, people)
    if config.train.mixup > 0:
        raise UserError("train.mixup mixes rows of different people; set it to 0, or take train.mixco")
    where = device()
    pictures, stimulus = distinct(people)
    targets, components = shared_targets(config, people, pictures, widths, where)
    spaces = [signal_space(config, person, where) for person in people]
    pairs = _paired(people, spaces, components, stimulus)
    sizes = [math.prod(space.out_shape) for space in spaces]
    scores: dict[int, float] = {}
    if has_scout(config):
        fitted, held_out = _one_fold(people, stimulus, config.seed)
        scout = _trained(config, sizes, pairs.subset(fitted), targets.gain, "shared/spread", bridge)
        scores, predicted = _held_out(scout, config, pairs, held_out, targets.gain)
        targets.restore_spread(predicted, config.target.spread)
    network = _trained(config, sizes, pairs, targets.gain, "shared", bridge)
    tensors = joined({"network": network.state_dict(), "targets": targets.state_dict()})
    names = tuple(person.name for person in people)
    facts = {
        "token_shape": list(targets.token_shape),
        "sizes": sizes,
        "rows": [len(person) for person in people],
        "held_out": {names[person]: score for person, score in scores.items()},
    }
    return Shared(config, names, tuple(widths), tensors, facts)


def check_people(config: Config, people: Sequence[Person]) -> None:
    """Raise `UserError` for data or settings that networks adapted to people do not go with."""
    config.check()
    if not people:
        raise UserError("no people to learn from; name one or more")
    if config.train.reads_channels:
        raise UserError(
            "train.smooth and train.channel_dropout need channels, which people do not share; set them to 0"
        )
    if config.target.uncertain_views:
        raise UserError(
            "target.uncertain_views needs other views of every picture, which are not at hand here; drop it"
        )
    if world()[1] > 1:
        raise UserError("adaptation trains in one process; start it without torchrun or accelerate launch")
    first = people[0].tokens.shape[1:]
    for person in people:
        if len(person) == 0:
            raise UserError(f"{person.name} has no rows; take more pictures")
        if person.tokens.shape[1:] != first:
            raise UserError(f"the tokens of {person.name} have shape {person.tokens.shape[1:]}, of others {first}")


def signal_space(config: Config, person: Person, where: str) -> SignalSpace:
    """The statistics of a person's own signals, with principal axes where the encoder begins with linear maps."""
    project = config.encoder.name in LINEAR_FIRST
    return SignalSpace.fit(Rows.of(person.x), config.encoder.components if project else None, project, where)


def has_scout(config: Config) -> bool:
    """Whether a first training on four fifths of the rows measures the spread of predictions."""
    return config.loss.regression > 0 and config.target.spread > 0


@torch.no_grad()
def held_out_score(
    network: Network, config: Config, hidden: torch.Tensor, components: torch.Tensor, gain: torch.Tensor
) -> float:
    """Mean reciprocal rank of the own picture among all, by embeds, or by components without a contrastive part."""
    if config.loss.contrastive == 0:
        return float(reciprocal_ranks(network.token_head(hidden), components).mean())
    return float(reciprocal_ranks(hidden, network.image_head(components * gain)).mean())


def distinct(people: Sequence[Person]) -> tuple[Rows, np.ndarray]:
    """Tokens (K, N, D) of the distinct pictures of all people, and the picture of every row, people in order."""
    number: dict[str, int] = {}
    parts, stimulus = [], []
    for person in people:
        new = []
        for row, name in enumerate(person.pictures.hashes):
            if name not in number:
                number[name] = len(number)
                new.append(row)
            stimulus.append(number[name])
        parts.append((person.tokens, np.array(new, dtype=np.int64)))
    return Rows(parts), np.array(stimulus)


def _paired(
    people: Sequence[Person], spaces: Sequence[SignalSpace], components: torch.Tensor, stimulus: np.ndarray
) -> BalancedPairs:
    """All rows as one table, each person's filled with zeros up to the longest."""
    counts, where = [len(person) for person in people], components.device
    signals = torch.zeros(sum(counts), max(math.prod(space.out_shape) for space in spaces), device=where)
    start = 0
    for person, space in zip(people, spaces, strict=True):
        for piece in Rows.of(person.x).pieces():
            read = space(piece.to(where)).flatten(1)
            signals[start : start + len(read), : read.shape[1]] = read
            start += len(read)
    subject = torch.repeat_interleave(torch.arange(len(people)), torch.tensor(counts)).to(where)
    return BalancedPairs(signals, components, torch.as_tensor(stimulus, device=where), subject=subject)


def groups_of(people: Sequence[Person], stimulus: np.ndarray) -> np.ndarray:
    """(n,) of all rows: one number for rows that share a picture, or a group of one person."""
    groups = np.concatenate([(i << 32) + person.groups.astype(np.int64) for i, person in enumerate(people)])
    return merge_groups(groups, [str(picture) for picture in stimulus])


def _one_fold(people: Sequence[Person], stimulus: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows held out; no picture or group of anybody's is on both sides, everybody is on each."""
    fitted, held_out = grouped_folds(groups_of(people, stimulus), SPREAD_FOLDS, seed)[0]
    whose = np.repeat(np.arange(len(people)), [len(person) for person in people])
    for i, person in enumerate(people):
        if not (whose[fitted] == i).any() or not (whose[held_out] == i).any():
            raise UserError(f"{person.name} has {len(person)} rows, too few different pictures to hold some out")
    return fitted, held_out


def _trained(
    config: Config, sizes: Sequence[int], pairs: Pairs, gain: torch.Tensor, stage: str, bridge: bool
) -> Network:
    torch.manual_seed(derive(config.seed, "init"))
    network = Network(config, (sizes[0],), pairs.components.shape[1])
    others = [_layers(build_encoder((size,), config.encoder)) for size in sizes[1:]]
    layers = _layers(network.encoder)
    network.encoder = PeopleEncoder([one[1] for one in (layers, *others)], sizes, layers[2:])
    penalty = None
    if bridge:
        network.bridge = Bridge(config, list(network.encoder.fronts))
        penalty = network.bridge.penalty
    network.to(pairs.components.device)
    optimise(network, config, pairs, gain, stage, StateFolder(config, pairs), False, penalty=penalty)
    return network


def _layers(encoder: nn.Module) -> nn.Sequential:
    """Flatten, front, layers of the trunk."""
    assert isinstance(encoder, nn.Sequential)
    return encoder


@torch.no_grad()
def _held_out(
    scout: Network, config: Config, pairs: BalancedPairs, rows: np.ndarray, gain: torch.Tensor
) -> tuple[dict[int, float], torch.Tensor]:
    """The score of every person, and the components predicted for all rows."""
    assert isinstance(scout.encoder, PeopleEncoder) and pairs.subject is not None
    whose = pairs.subject.cpu().numpy()[rows]
    scores, components = {}, []
    for person in range(len(scout.encoder.fronts)):
        batch = pairs.batch(rows[whose == person])
        hidden = scout.encoder.of(person, batch.signals)
        scores[person] = held_out_score(scout, config, hidden, batch.components, gain)
        components.append(scout.token_head(hidden))
    return scores, torch.cat(components)


def stored_targets(shared: Shared) -> TargetSpace:
    """The target space that all people share."""
    held = part(shared.tensors, "targets")
    first, second = shared.facts["token_shape"]
    space = TargetSpace((first, second), len(held["basis"]), shared.config.target.root)
    space.load_state_dict(held)
    return space


def joined(parts: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Copies of the tensors of several parts, as ``<part>.<name>``, on the CPU."""
    return {f"{name}.{key}": value.detach().cpu().clone() for name, of in parts.items() for key, value in of.items()}


def part(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The tensors of one part by their names inside it; the reverse of `joined`."""
    return {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}.")}


def with_encoder(config: Config, name: str) -> Config:
    """The same configuration for another encoder."""
    return replace(config, encoder=replace(config.encoder, name=name))

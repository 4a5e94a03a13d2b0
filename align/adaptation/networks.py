"""What the network methods have in common: a personal front before shared layers, trained on a new person's rows.

Shared and frozen unless a method says otherwise: the layers after the front, the heads and the temperature. Learning
rate, schedule and number of epochs are those of ``train``. With ``stop`` the number of epochs is chosen on held-out
training pictures of the new person (whole groups); test rows never come here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from align.adaptation.contract import Adapted, Method, Shared
from align.adaptation.people import Person
from align.adaptation.trunk import (
    check_people,
    has_scout,
    held_out_score,
    joined,
    part,
    share,
    signal_space,
    stored_targets,
    with_encoder,
)
from align.config import Config
from align.data.rows import Rows
from align.data.splits import grouped_folds
from align.encoders.skip_mlp import SkipMlp
from align.errors import UserError
from align.model.aligner import Aligner, Network
from align.model.spaces import SignalSpace, TargetSpace
from align.seeding import derive
from align.training.batches import Pairs
from align.training.fit import SPREAD_FOLDS, fit
from align.training.optimise import StateFolder, optimise
from align.training.training_set import device

Penalty = Callable[[], torch.Tensor] | None


class NetworkMethod(Method):
    """A method whose decoder is a network. ``shared_encoder``: as it is pretrained; ``encoder``: as it is stored.

    ``stop``: choose the number of epochs on held-out training pictures, up to ``train.epochs``.
    """

    base = "trunk"
    shared_encoder = "mlp"
    encoder = "mlp"

    def __init__(self, stop: bool = False) -> None:
        self.stop = stop

    @property
    def alone(self) -> str:
        """From scratch, the stored encoder alone decides."""
        return f"network {self.encoder}"

    def share(self, config: Config, people: Sequence[Person], widths: Sequence[int]) -> Shared:
        """`align.adaptation.trunk.share` with this method's encoder; see there for what is refused."""
        return share(with_encoder(config, self.shared_encoder), people, widths)

    def adapt(self, config: Config, shared: Shared, person: Person) -> Adapted:
        """Train the personal part. Of ``config`` the sections train and seed count; the rest is that of ``shared``.

        Spread of predictions: measured on a fifth of the rows, after a first training on the others; with fewer than
        five groups of pictures that of the shared part. Raises `UserError` as `share` does.
        """
        config = self.settings(config, shared)
        check_people(config, [person])
        if self.stop and config.train.ema > 0:
            raise UserError("stopping takes the weights of one epoch and train.ema those of many; set train.ema=0")
        where = device()
        targets, signals = stored_targets(shared).to(where), signal_space(config, person, where)
        if person.tokens.shape[1:] != targets.token_shape:
            raise UserError(
                f"the tokens of {person.name} have shape {person.tokens.shape[1:]}, of the known people"
                f" {targets.token_shape}"
            )
        pairs = _pairs(person, signals, targets)
        epochs = None
        if (self.stop or has_scout(config)) and len(np.unique(person.groups)) >= SPREAD_FOLDS:
            epochs = self._scout(config, shared, pairs, targets, person.groups)
        network, trainable = self._trained(config, shared, pairs, targets, "person", epochs)
        spread = {"spread": targets.spread}
        personal = joined({"signals": signals.state_dict(), "targets": spread, "own": self.personal(network)})
        aligner = self.rebuild(config, shared, personal)
        aligner.facts = person.facts
        return Adapted(aligner, personal, trainable, _count(aligner.network))

    def scratch(self, config: Config, person: Person, widths: Sequence[int]) -> Adapted:
        """An ordinary training (`align.training.fit.fit`) of the stored encoder on the person's rows alone."""
        config = with_encoder(config, self.encoder)
        check_people(config, [person])
        rows = np.arange(len(person))
        same: dict[str, Any] = {"groups": person.groups, "widths": widths, "facts": person.facts, "device": device()}
        aligner = fit(config, person.x, person.tokens, rows, **same)
        count = _count(aligner.network)
        return Adapted(aligner, {name: value.cpu() for name, value in aligner.state().items()}, count, count)

    def rebuild(self, config: Config, shared: Shared, personal: dict[str, torch.Tensor]) -> Aligner:
        """The aligner of `adapt`, with the same bits, on the CPU; without the person's ``facts``."""
        config = self.settings(config, shared)
        held = part(personal, "signals")
        signals = SignalSpace(tuple(held["mean"].shape), len(held["basis"]) if "basis" in held else None)
        signals.load_state_dict(held)
        targets = stored_targets(shared)
        targets.spread = personal["targets.spread"].clone()
        aligner = Aligner(config, signals, targets)
        load_shared(aligner.network, shared)
        with torch.no_grad():
            self.complete(aligner.network, part(personal, "own"))
        return aligner.eval()

    def settings(self, config: Config, shared: Shared) -> Config:
        """``config`` with the stored encoder of this method and all that the shared part has decided."""
        same = replace(config, encoder=shared.config.encoder, target=shared.config.target, loss=shared.config.loss)
        return with_encoder(same, self.encoder)

    def prepare(self, network: Network, shared: Shared, config: Config) -> Penalty:
        """Set what is trained of a network with a fresh front and the shared layers; what to add to the loss."""
        freeze(network)
        return None

    def personal(self, network: Network) -> dict[str, torch.Tensor]:
        """What a trained network has of the person's own, by name."""
        return {f"front.{name}": value for name, value in layers_of(network)[1].state_dict().items()}

    def complete(self, network: Network, own: dict[str, torch.Tensor]) -> None:
        """Fill the personal tensors into a network of the stored kind that has the shared ones."""
        layers_of(network)[1].load_state_dict(part(own, "front"))

    def start(
        self, config: Config, shared: Shared, in_shape: tuple[int, ...], where: str = "cpu"
    ) -> tuple[Network, Penalty]:
        """The network at step 0; the fresh front is the same for all methods of one base and one seed."""
        torch.manual_seed(derive(config.seed, "front"))
        network = Network(config, in_shape, len(shared.tensors["targets.basis"]))
        load_shared(network, shared)
        penalty = self.prepare(network, shared, config)
        return network.to(where), penalty

    def _trained(
        self,
        config: Config,
        shared: Shared,
        pairs: Pairs,
        targets: TargetSpace,
        stage: str,
        epochs: int | None = None,
        after_epoch: Callable[[Network], None] | None = None,
    ) -> tuple[Network, int]:
        """The network after ``epochs`` of the schedule (None = all), and how many numbers were trained."""
        network, penalty = self.start(config, shared, tuple(pairs.signals.shape[1:]), pairs.components.device.type)  # type: ignore[union-attr]
        trainable = _count(network, trained=True)
        kept: dict[str, torch.Tensor] = {}

        def note(epoch: int) -> None:
            if after_epoch is not None:
                after_epoch(network)
            if epoch == epochs:
                kept.update({name: value.clone() for name, value in network.state_dict().items()})

        optimise(network, config, pairs, targets.gain, stage, StateFolder(config, pairs), False, note, penalty)
        if kept:
            network.load_state_dict(kept)
        return network, trainable

    def _scout(
        self, config: Config, shared: Shared, pairs: Pairs, targets: TargetSpace, groups: np.ndarray
    ) -> int | None:
        """Set the spread of ``targets`` from held-out rows; the best number of epochs for them where that is asked."""
        fitted, rows = grouped_folds(groups, SPREAD_FOLDS, config.seed)[0]
        held_out = pairs.batch(rows)
        seen: list[tuple[float, torch.Tensor]] = []

        @torch.no_grad()
        def look(network: Network) -> None:
            hidden = network.encoder(held_out.signals)
            score = held_out_score(network, config, hidden, held_out.components, targets.gain)
            seen.append((score, network.token_head(hidden)))

        after = look if self.stop else None
        network, _ = self._trained(config, shared, pairs.subset(fitted), targets, "person/spread", after_epoch=after)
        if not self.stop:
            look(network)
        best = int(np.argmax([score for score, _ in seen]))
        if has_scout(config):
            targets.restore_spread(seen[best][1], config.target.spread)
        return best + 1 if self.stop else None


def layers_of(network: Network) -> nn.Sequential:
    """Flatten, personal front, shared layers of an encoder."""
    encoder = network.encoder
    layers = encoder.plain if isinstance(encoder, SkipMlp) else encoder
    assert isinstance(layers, nn.Sequential)
    return layers


def load_shared(network: Network, shared: Shared) -> None:
    """Copy the shared layers, heads and temperature into a network."""
    held = part(shared.tensors, "network")
    layers_of(network)[2:].load_state_dict(part(held, "encoder.trunk"))
    network.image_head.load_state_dict(part(held, "image_head"))
    network.token_head.load_state_dict(part(held, "token_head"))
    with torch.no_grad():
        for name, value in network.named_parameters(recurse=False):
            value.copy_(held[name])


def freeze(network: Network) -> None:
    """Train the personal front alone."""
    network.requires_grad_(False)
    layers_of(network)[1].requires_grad_(True)


def _pairs(person: Person, signals: SignalSpace, targets: TargetSpace) -> Pairs:
    where = targets.mean.device
    read = torch.cat([signals(piece.to(where)).flatten(1) for piece in Rows.of(person.x).pieces()])
    numbers = {name: i for i, name in enumerate(dict.fromkeys(person.pictures.hashes))}
    first = np.unique([numbers[name] for name in person.pictures.hashes], return_index=True)[1]
    components = targets.encode_all(Rows.of(person.tokens).subset(first))
    stimulus = torch.tensor([numbers[name] for name in person.pictures.hashes], device=where)
    return Pairs(read, components, stimulus, distinct=len(first) == len(person))


def _count(network: nn.Module, trained: bool = False) -> int:
    return sum(value.numel() for value in network.parameters() if value.requires_grad or not trained)

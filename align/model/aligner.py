"""The trained thing: signals in, embeds and tokens out. All statistics inside come from training rows."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import nn

from align.config import Config
from align.encoders import ANY_SHAPE, CLOSED_FORM, build_encoder
from align.encoders.shapes import SignalFacts
from align.errors import UserError
from align.model.router import Router, n_layers
from align.model.spaces import SignalSpace, TargetSpace


class Network(nn.Module):
    """The trained part: encoder, image-side projector, token head, learned temperature (and bias, for siglip).

    Encoders in closed form predict the components themselves: their heads are identities.
    """

    def __init__(
        self,
        config: Config,
        in_shape: tuple[int, ...],
        components: int,
        facts: SignalFacts | None = None,
        load: bool = True,
        subjects: int = 1,
    ) -> None:
        super().__init__()
        encoder = config.encoder
        if encoder.name in CLOSED_FORM:
            self.encoder = build_encoder(in_shape, dataclasses.replace(encoder, width=components))
            self.image_head: nn.Module = nn.Identity()
            self.token_head: nn.Module = nn.Identity()
        else:
            self.encoder = build_encoder(in_shape, encoder, facts, load)
            dropout = config.train.image_dropout
            self.image_head = (
                Router(n_layers(config), components, encoder.width, dropout, subjects)
                if config.target.router
                else nn.Sequential(nn.Dropout(dropout), nn.Linear(components, encoder.width))
            )
            self.token_head = nn.Linear(encoder.width, components)
        start = torch.tensor(-math.log(config.loss.temperature))
        self.logit_scale = nn.Parameter(start, requires_grad=config.loss.learn_temperature)
        if config.loss.kind == "siglip":
            self.logit_bias = nn.Parameter(torch.tensor(config.loss.siglip_bias))


class Aligner(nn.Module):
    """Signals (n, C, T) or (n, V) -> embeds (n, E) and tokens (n, N, D); pictures' tokens -> candidates (K, E)."""

    def __init__(
        self,
        config: Config,
        signals: SignalSpace,
        targets: TargetSpace,
        facts: SignalFacts | None = None,
        load: bool = True,
        subjects: int = 1,
    ) -> None:
        super().__init__()
        self.config = config
        self.facts = facts or SignalFacts()
        self.signals = signals
        self.targets = targets
        self.subjects = subjects
        self.network = Network(config, signals.out_shape, targets.components, self.facts, load, subjects)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one trial."""
        return tuple(self.signals.mean.shape)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.logit_scale.device

    @property
    def plain(self) -> bool:
        """True where embeds are the predicted components themselves, without a contrastive head."""
        return self.config.encoder.name in CLOSED_FORM or self.config.loss.contrastive == 0

    @property
    def width(self) -> int:
        """E, the width of embeds and candidates."""
        own = self.targets.components + (self.targets.constant is not None)
        return own if self.plain else self.config.encoder.width

    @torch.no_grad()
    def predict(self, x: np.ndarray, batch_size: int = 256) -> dict[str, np.ndarray]:
        """Embeds (n, E) and, unless ``loss.regression`` is 0, tokens (n, N, D) with the spread of training; float32.

        Raises `UserError` when the trials have another shape than the training ones.
        """
        if tuple(x.shape[1:]) != self.in_shape:
            raise UserError(f"the trials have shape {tuple(x.shape[1:])}, this run was trained on {self.in_shape}")
        self.eval()
        embeds, tokens = [np.zeros((0, self.width), np.float32)], [np.zeros((0, *self.targets.token_shape), np.float32)]
        for start in range(0, len(x), batch_size):
            batch = torch.tensor(x[start : start + batch_size], dtype=torch.float32, device=self.device)
            hidden = self.network.encoder(self.signals(batch))
            components = self.network.token_head(hidden)
            embeds.append((self.targets.compared(components) if self.plain else hidden).cpu().numpy())
            if self.has_tokens:
                tokens.append(self.targets.decode(components, bounded=True).cpu().numpy())
        out = {"embeds": np.concatenate(embeds)}
        return {**out, "tokens": np.concatenate(tokens)} if self.has_tokens else out

    @property
    def has_tokens(self) -> bool:
        """False where nothing predicts tokens (``loss.regression`` 0, or the encoding model)."""
        name = self.config.encoder.name
        return name != "encoding" and (name in CLOSED_FORM or self.config.loss.regression > 0)

    @torch.no_grad()
    def embed_images(self, tokens: np.ndarray, batch_size: int = 256, subject: int | None = None) -> np.ndarray:
        """Candidates (K, E) float32 for pictures given by their backbone tokens (K, N, D).

        ``subject``: the number of the training subject whose rows will be compared with them (`Run.number`), for a
        router with terms of subjects; None = one it was not trained on. Raises `UserError` when the tokens have another
        shape than the training ones.
        """
        if tuple(tokens.shape[1:]) != self.targets.token_shape:
            raise UserError(
                f"the tokens have shape {tuple(tokens.shape[1:])}, this run was trained on {self.targets.token_shape}"
            )
        self.eval()
        parts = [np.zeros((0, self.width), np.float32)]
        for start in range(0, len(tokens), batch_size):
            batch = torch.tensor(np.asarray(tokens[start : start + batch_size]), dtype=torch.float32)
            components = self.targets.encode(batch.to(self.device))
            embeds = self.targets.compared(components) if self.plain else self._image(components, subject)
            parts.append(embeds.cpu().numpy())
        return np.concatenate(parts)

    def without_constant(self, embeds: np.ndarray) -> np.ndarray:
        """Embeds (n, E) without the constant that they are compared with, if any: of an encoding model, responses."""
        return embeds if self.targets.constant is None else embeds[:, :-1]

    def responses_to(self, tokens: np.ndarray, subject: int | None = None) -> np.ndarray:
        """`embed_images` `without_constant`: of an encoding model, the responses it predicts, float32."""
        return self.without_constant(self.embed_images(tokens, subject=subject))

    def _image(self, components: torch.Tensor, subject: int | None) -> torch.Tensor:
        seen, head = components * self.targets.gain, self.network.image_head
        whose = [torch.full((len(seen),), subject, device=self.device)] if subject is not None else []
        image: torch.Tensor = head(seen, *whose) if isinstance(head, Router) else head(seen)
        return image

    def state(self) -> dict[str, torch.Tensor]:
        """Every tensor that `from_state` needs, by name."""
        return self.state_dict()

    def shapes(self) -> dict[str, Any]:
        """What `from_state` must know beside the configuration, ready for JSON."""
        basis = self.signals.basis
        return {
            "in_shape": list(self.in_shape),
            "signal_components": None if basis is None else len(basis),
            "token_shape": list(self.targets.token_shape),
            "components": self.targets.components,
            "sfreq": self.facts.sfreq,
            "ch_names": list(self.facts.channels),
            "n_subjects": self.subjects,
        }

    @classmethod
    def from_state(cls, config: Config, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> Aligner:
        """Rebuild from `state` and `shapes`; strict: missing, unexpected or prefixed names raise `UserError`."""
        wrapped = sorted(name for name in tensors if name.startswith(("module.", "_orig_mod.")))
        if wrapped:
            raise UserError(f"tensor {wrapped[0]!r} comes from a wrapped model; save the unwrapped model instead")
        _require_sizes(config, tensors, meta)
        signals = SignalSpace(tuple(meta["in_shape"]), meta["signal_components"])
        targets = TargetSpace((meta["token_shape"][0], meta["token_shape"][1]), meta["components"], config.target.root)
        if config.encoder.constant:
            targets.constant = torch.zeros(())
        subjects = meta.get("n_subjects", 1)
        if config.encoder.name in ANY_SHAPE:  # without memory first: sizes are what a file claims
            with torch.device("meta"):
                network = Network(config, signals.out_shape, targets.components, subjects=subjects).state_dict()
            _require_same({f"network.{name}": value for name, value in network.items()}, tensors, "network.")
        facts = SignalFacts(meta.get("sfreq"), tuple(meta.get("ch_names", ())))
        aligner = cls(config, signals, targets, facts, load=False, subjects=subjects)
        _require_same(aligner.state_dict(), tensors)
        aligner.load_state_dict(tensors)
        return aligner.eval()


def _require_sizes(config: Config, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
    """Refuse sizes that the tensors at hand do not have, before memory is asked for in these sizes."""
    rows, places = meta["signal_components"], math.prod(meta["in_shape"])
    shapes = {
        "signals.mean": meta["in_shape"],
        "signals.basis": None if rows is None else [rows, places],
        "targets.basis": [meta["components"], math.prod(meta["token_shape"])],
    }
    for name, shape in shapes.items():
        found = list(tensors[name].shape) if name in tensors else None
        if found is None and shape is not None:
            raise UserError(f"1 missing tensors in the saved model, first {name!r}")
        if found is not None and shape is not None and found != shape:
            raise UserError(f"tensor {name!r} has shape {tuple(found)}, not {tuple(shape)}")
    held = sum(value.numel() for value in tensors.values())
    sizes = {f"encoder.{name}": size for name, size in dataclasses.asdict(config.encoder).items()}
    for name, size in {**sizes, "n_subjects": meta.get("n_subjects", 1)}.items():
        most = max(len(tensors), 100) if name == "encoder.blocks" else max(held, 1000)
        if isinstance(size, int) and not 0 <= size <= most:
            raise UserError(f"{name} is {size}, which the weights ({len(tensors)} tensors, {held} numbers) cannot be")


def _require_same(own: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor], start: str = "") -> None:
    """Raise `UserError` unless ``tensors`` have the names (those with this ``start``), shapes and types of ``own``."""
    given = {name for name in tensors if name.startswith(start)}
    for what, names in (("missing", set(own) - given), ("unexpected", given - set(own))):
        if names:
            raise UserError(f"{len(names)} {what} tensors in the saved model, first {sorted(names)[0]!r}")
    for name, value in own.items():
        if value.shape != tensors[name].shape:
            raise UserError(f"tensor {name!r} has shape {tuple(tensors[name].shape)}, not {tuple(value.shape)}")
        if value.dtype != tensors[name].dtype:
            raise UserError(f"tensor {name!r} is of type {tensors[name].dtype}, not {value.dtype}")

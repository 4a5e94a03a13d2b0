"""The encoding model with a prior from other people: a new unit answers much as known units do.

The encoding model of `align.training.encoding` predicts responses from a picture's tokens. Here the weights of a new
unit get a Gaussian prior that is learned from the units of known people (empirical Bayes): their own weights, person by
person, and the subspace of features that they are tuned to, at any place of the picture. How much each known person
counts is chosen by the likelihood of the new person's responses (`align.adaptation.evidence`); people may record other
units and need not have seen a single picture in common. That known units serve as prior of new ones is the idea of
BrainCoDec (arXiv 2604.08537), which learns it with a transformer; here it is closed form. `Context` is its plainest
version: all known units count alike, and nothing else enters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from align.adaptation.contract import Adapted, Method, Shared, aligned
from align.adaptation.evidence import centred, kernel_weights, mix
from align.adaptation.people import Person
from align.config import Config
from align.data.rows import Rows
from align.errors import UserError
from align.model.aligner import Aligner
from align.model.spaces import SignalSpace, TargetSpace
from align.training.encoding import as_aligner, positions
from align.training.fit import fit
from align.training.whitening import whitener

SHRINKAGE = 0.7  # of the residual covariance: there are few pictures (chosen on training pictures of three V4 sessions)
MOST_PICTURES = 2000  # of one person; kernels are square in their number, so of more these many, evenly spread
TUNED = 300  # directions of the features that known units are tuned to
_SHARES = (0.1, 0.3, 1.0)  # of tuned features beside known units
_BOTH = (0.3, 1.0)  # likewise, with all features


@dataclass(frozen=True)
class Known:
    """What `Prior.share` stores, unpacked: target space, weights (V, N, D) of every person's units, tuning (D, r)."""

    targets: TargetSpace
    weights: list[torch.Tensor]
    tuning: torch.Tensor

    @property
    def of_units(self) -> torch.Tensor:
        """(U, N, D), all people's units."""
        return torch.cat(self.weights)


def readouts(config: Config, people: Sequence[Person], widths: Sequence[int]) -> Shared:
    """The encoding model of every known person, on one standardisation of the tokens."""
    if not people:
        raise UserError("adaptation needs one known person or more, got none; name them with --known")
    targets = _target_space(config, people, widths)
    nobody = Known(targets, [], torch.zeros(targets.token_shape[1], 0))
    tensors = {"mean": targets.mean, "scale": targets.scale, "deviation": targets.deviation}
    moment = torch.zeros(targets.token_shape[1], targets.token_shape[1], dtype=torch.float64)
    for i, person in enumerate(people):
        weight = _fit(nobody, person, responses_of(config, person)[1], Prior()._kernels).coefficients["free"]
        tensors[f"readouts.{i}"] = weight
        rows = weight.flatten(0, 1).double()
        moment += rows.T @ rows
    values, vectors = torch.linalg.eigh(moment)
    kept = min(TUNED, len(values))
    tensors["tuning"] = (vectors * values.clamp_min(0).sqrt())[:, -kept:].flip(1).float()
    return Shared(config, tuple(person.name for person in people), tuple(widths), tensors)


def known(shared: Shared) -> Known:
    """The shared tensors of `readouts` as they are used."""
    tensors = aligned(shared.tensors)
    first = tensors["readouts.0"]
    targets = TargetSpace((first.shape[1], first.shape[2]), 0, shared.config.target.root)
    for name in ("mean", "scale", "deviation"):
        setattr(targets, name, tensors[name])
    weights = [tensors[f"readouts.{i}"] for i in range(len(shared.people))]
    return Known(targets, weights, tensors["tuning"])


@dataclass(frozen=True)
class _Fit:
    """Weights of units by what they stand on (see `_Parts.coefficients`), and what is left over (n, V)."""

    coefficients: dict[str, torch.Tensor]
    residual: torch.Tensor
    tokens_mean: torch.Tensor
    response_mean: torch.Tensor


_Kernels = Callable[["_Parts", torch.Tensor], tuple[list[torch.Tensor], torch.Tensor]]


def _fit(base: Known, person: Person, responses: torch.Tensor, kernels_of: _Kernels) -> _Fit:
    """Fit responses (n, V) on the tokens of a person's pictures, `MOST_PICTURES` of them at most."""
    if len(person) > MOST_PICTURES:
        rows = np.linspace(0, len(person) - 1, MOST_PICTURES).round().astype(np.int64)
        person, responses = person.take(rows), responses[torch.from_numpy(rows)]
    x = base.targets.standardised(torch.from_numpy(np.asarray(person.tokens, np.float32)))
    parts, mean = _Parts.of(base, x), responses.double().mean(0)
    y = responses.double() - mean
    kernels, made_of = kernels_of(parts, y)
    found = mix(kernels, y)
    return _Fit(parts.coefficients(found.duals, made_of), y - found.held_out, x.mean(0), mean.float())


class Prior(Method):
    """Known people weighed by evidence, tuned features, and all features."""

    name = "prior"
    source = "ours: empirical Bayes over the weights of the encoding model"
    base = "readouts"

    def share(self, config: Config, people: Sequence[Person], widths: Sequence[int]) -> Shared:
        return readouts(config, people, widths)

    def adapt(self, config: Config, shared: Shared, person: Person) -> Adapted | None:
        return self._fitted(config, known(shared), person)

    def scratch(self, config: Config, person: Person, widths: Sequence[int]) -> Adapted:
        """The same likelihood and mixture without known people: receptive fields over all features alone."""
        targets = _target_space(config, [person], widths)
        shape = targets.token_shape
        return self._fitted(config, Known(targets, [], torch.zeros(shape[1], 0)), person)

    def rebuild(self, config: Config, shared: Shared, personal: dict[str, torch.Tensor]) -> Aligner:
        return _rebuilt(config, known(shared), personal)

    def _fitted(self, config: Config, base: Known, person: Person) -> Adapted:
        signals, responses = responses_of(config, person)
        found = _fit(base, person, responses, self._kernels)
        personal = {
            **{f"signals.{name}": value for name, value in signals.state_dict().items()},
            **found.coefficients,
            "whiten": whitener(found.residual, SHRINKAGE),
            "tokens_mean": found.tokens_mean,
            "response_mean": found.response_mean,
        }
        aligner = _rebuilt(config, base, personal)
        aligner.facts = person.facts
        fitted = sum(value.numel() for name, value in personal.items() if name in ("known", "tuned", "free", "whiten"))
        return Adapted(aligner, personal, fitted, sum(value.numel() for value in aligner.state().values()))

    def _kernels(self, parts: _Parts, y: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Kernels (n, n), and (J, S + 2 M) what each is made of: people, tuned features, features of M fields."""
        people, tuned, free = len(parts.people), parts.tuned, parts.free
        n_fields = len(free)
        rows: list[torch.Tensor] = []

        def row(tuned_share: float = 0.0, free_share: float = 0.0, field: int = 0, with_people: bool = True) -> None:
            one = torch.zeros(people + 2 * n_fields, dtype=y.dtype)
            if with_people and people:
                one[:people] = shares
            one[people + field] = tuned_share
            one[people + n_fields + field] = free_share
            rows.append(one)

        if not people:
            for field in range(n_fields):
                row(0.0, 1.0, field)
        else:
            flat = n_fields - 1
            found = kernel_weights([*parts.people, tuned[flat], free[flat]], y)[:people]
            shares = found / found.sum().clamp_min(1e-12)
            row()
            for field in range(n_fields):
                for share in _SHARES:
                    row(share, 0.0, field)
                for share in _BOTH:
                    row(share, share, field)
        made_of = torch.stack(rows)
        stack = torch.stack([*parts.people, *tuned, *free])
        sums = torch.einsum("jc,cab->jab", made_of, stack)
        units = sums.diagonal(dim1=1, dim2=2).mean(1)
        return list(sums / units[:, None, None]), made_of / units[:, None]


class Context(Prior):
    """All known units count alike, with one penalty; nothing else."""

    name = "context"
    source = "after BrainCoDec, arXiv 2604.08537, in closed form: known units as prior, then inversion"

    @property
    def alone(self) -> str:
        """That of `Prior`: nobody is known, so there is nothing to count alike."""
        return Prior.name

    def _kernels(self, parts: _Parts, y: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        if not parts.people:
            return super()._kernels(parts, y)
        people = len(parts.people)
        one = torch.zeros(1, people + 2 * len(parts.free), dtype=y.dtype)
        one[0, :people] = 1 / people
        kernel = torch.stack(list(parts.people)).mean(0)
        unit = kernel.diagonal().mean()
        return [kernel / unit], one / unit


class Encoding(Prior):
    """No adaptation: the encoding model of `align.training.encoding`, a line to compare with."""

    name = "encoding"
    source = "ours, see align.training.encoding"

    def adapt(self, config: Config, shared: Shared, person: Person) -> None:
        """None: it takes nothing from known people."""
        return None

    def scratch(self, config: Config, person: Person, widths: Sequence[int]) -> Adapted:
        rows = np.arange(len(person))
        encoder = replace(config.encoder, name="encoding")
        same: dict[str, Any] = {"groups": person.groups, "widths": widths, "facts": person.facts}
        aligner = fit(replace(config, encoder=encoder), person.x, person.tokens, rows, **same)
        count = sum(value.numel() for value in aligner.state().values())
        return Adapted(aligner, aligner.state(), count, count)


@dataclass(frozen=True)
class _Parts:
    """`centred` kernels of n pictures: one per known person, and per field one of tuned and one of all features."""

    x: torch.Tensor  # (n, N, D), centred
    predicted: list[torch.Tensor]  # (n, V) of every known person's units
    projected: torch.Tensor  # (n, N, r)
    masks: torch.Tensor  # (M, N)
    people: list[torch.Tensor]
    tuned: list[torch.Tensor]
    free: list[torch.Tensor]
    units: torch.Tensor  # (S + 2 M,), what the kernels were divided by

    @classmethod
    def of(cls, base: Known, x: torch.Tensor) -> _Parts:
        x = (x - x.mean(0)).unflatten(1, base.targets.token_shape)
        masks = positions(x.shape[1])
        predicted = [torch.einsum("npd,vpd->nv", x, weight).double() for weight in base.weights]
        projected = x @ base.tuning
        kernels = [values @ values.T for values in predicted]
        for values in (projected, x):
            grams = torch.stack([(values[:, p] @ values[:, p].T).double() for p in range(x.shape[1])])
            kernels += [torch.tensordot(mask, grams, 1) for mask in masks]
        made = [centred(kernel) for kernel in kernels]
        known, fields = len(predicted), len(masks)
        ready = [kernel for kernel, _ in made]
        units = torch.tensor([unit for _, unit in made], dtype=torch.float64)
        split = ready[:known], ready[known : known + fields], ready[known + fields :]
        return cls(x, predicted, projected, masks, *split, units)

    def coefficients(self, duals: torch.Tensor, made_of: torch.Tensor) -> dict[str, torch.Tensor]:
        """Weights of the new units, (V, ...) float32: on known units, tuned features and features."""
        share = torch.einsum("jc,jnv->cnv", made_of, duals) / self.units[:, None, None]  # of every kernel
        known, fields = len(self.people), len(self.masks)
        masks, n_units = self.masks.double(), duals.shape[2]
        on_known = [share[i].T @ values for i, values in enumerate(self.predicted)]
        tuned, free = (torch.einsum("mnv,mp->nvp", part, masks) for part in share[known:].split(fields))
        found = {"known": torch.cat(on_known, 1) if on_known else torch.zeros(n_units, 0)}
        found["tuned"] = torch.einsum("nvp,npr->vpr", tuned.float(), self.projected)
        found["free"] = torch.einsum("nvp,npd->vpd", free.float(), self.x)
        return {name: value.float().contiguous() for name, value in found.items()}


def _rebuilt(config: Config, base: Known, personal: dict[str, torch.Tensor]) -> Aligner:
    personal = aligned(personal)
    weight = _weights(base, personal)
    bias, whiten = personal["response_mean"] - weight @ personal["tokens_mean"], personal["whiten"]
    return linear_decoder(config, base, personal, whiten.T @ weight, whiten.T, -bias @ whiten)


def _weights(base: Known, coefficients: dict[str, torch.Tensor]) -> torch.Tensor:
    """(V, N * D) on standardised tokens."""
    weight = coefficients["free"] + coefficients["tuned"] @ base.tuning.T
    if base.weights:
        weight = weight + torch.tensordot(coefficients["known"], base.of_units, 1)
    return weight.flatten(1)


def linear_weights(shared: Shared, person: Person) -> tuple[np.ndarray, np.ndarray]:
    """The same encoding model without its decoder: x = tokens @ weight^T + bias, weight (V, N * D) and bias (V,).

    ``person.x`` (n, V); the weights are those of `Prior` for the tokens (n, N * D) as they were given.
    """
    base, x = known(shared), np.asarray(person.x, dtype=np.float64)
    level, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    found = _fit(base, person, torch.from_numpy((x - level) / spread).float(), Prior()._kernels)
    weight = _weights(base, found.coefficients) / base.targets.scale
    centre = base.targets.mean + base.targets.scale * found.tokens_mean
    bias = found.response_mean - weight @ centre
    return weight.numpy() * spread[:, None], bias.numpy() * spread + level


def linear_decoder(
    config: Config,
    base: Known,
    personal: dict[str, torch.Tensor],
    axes: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> Aligner:
    """`as_aligner` with the signal statistics among ``personal`` (names that begin with "signals.")."""
    state = {name.removeprefix("signals."): value for name, value in personal.items() if name.startswith("signals.")}
    signals = SignalSpace(tuple(state["mean"].shape), len(state["basis"]) if "basis" in state else None)
    signals.load_state_dict(state)
    targets = TargetSpace(base.targets.token_shape, 0, base.targets.root)
    targets.load_state_dict(base.targets.state_dict())
    encoder = replace(config.encoder, name="encoding")
    return as_aligner(replace(config, encoder=encoder), signals, targets, axes, weight, bias)


def responses_of(config: Config, person: Person) -> tuple[SignalSpace, torch.Tensor]:
    """Standardised signals (n, V) of a person."""
    signals = SignalSpace.fit(person.x, config.encoder.components, project=True)
    if len(signals.out_shape) > 1:
        raise UserError(
            f"the encoding model predicts every value of a trial, here {signals.out_shape} of subject {person.name}; "
            "set encoder.components=100"
        )
    return signals, signals(torch.from_numpy(np.asarray(person.x, np.float32)))


def _target_space(config: Config, people: Sequence[Person], widths: Sequence[int]) -> TargetSpace:
    """One standardisation of all people's tokens; every layer has the length 1 on average."""
    rows = Rows([(person.tokens, np.arange(len(person))) for person in people])
    targets = TargetSpace.scaled(rows, config.target.root, "cpu")
    scale = targets.scale.unflatten(0, targets.token_shape)  # a view
    squares, start = torch.zeros(len(widths), dtype=torch.float64), 0
    for person in people:
        x = targets.standardised(torch.from_numpy(np.asarray(person.tokens, np.float32)))
        parts = x.unflatten(1, targets.token_shape).split(list(widths), dim=2)
        squares += torch.stack([part.square().sum(dtype=torch.float64) for part in parts])
    for width, square in zip(widths, squares / len(rows), strict=True):
        scale[:, start : start + width] *= float(square.sqrt().clamp_min(1e-12))
        start += width
    return targets

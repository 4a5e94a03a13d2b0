"""Retrieval in sliding windows: for each window a decoder of its own, fitted on some rows and scored on others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError

if TYPE_CHECKING:
    import torch

    from align.config import Config
    from align.data.signals import Recording, Trials

BLOCK = 200  # candidates at most: as many as the test of the common studies has


@dataclass(frozen=True)
class Window:
    """Samples ``start`` to ``stop`` (not inside) of a trial; in s after onset, ``end`` is that of the last sample."""

    start: int
    stop: int
    begin: float
    end: float

    @property
    def centre(self) -> float:
        """In the middle, s."""
        return (self.begin + self.end) / 2


@dataclass(frozen=True)
class Fold:
    """One split: rows ``fit_rows`` of ``fit`` train the decoders, rows ``scored_rows`` of ``scored`` are scored."""

    fit: Trials
    fit_rows: np.ndarray
    scored: Trials
    scored_rows: np.ndarray


@dataclass(frozen=True)
class Hits:
    """Top-1 outcomes of n rows in W windows, kept so that other pairings of rows and pictures can be scored.

    ``block`` (n,): rows of one block are each other's candidates. ``best``: per window the picks as (row, candidate's
    row, share), arrays of equal length; shares of one row add up to 1 and are parts where candidates tie. ``stimulus``
    (n,) = index of the picture of each row.
    """

    block: np.ndarray
    stimulus: np.ndarray
    best: list[tuple[np.ndarray, np.ndarray, np.ndarray]]

    @property
    def chance(self) -> float:
        """Expected share of hits of a decoder that knows nothing."""
        sizes = np.bincount(self.block)
        return float(np.count_nonzero(sizes) / len(self.block))

    @property
    def candidates(self) -> float:
        """Pictures to choose from, mean over rows."""
        return float(np.bincount(self.block)[self.block].mean())

    def observed(self) -> np.ndarray:
        """(n, W) expected top-1 hit of every row."""
        out = np.zeros((len(self.block), len(self.best)))
        for w, (row, column, share) in enumerate(self.best):
            own = row == column
            out[row[own], w] = share[own]
        return out

    def null(self, n_perm: int, seed: int) -> np.ndarray:
        """(n_perm, W) mean hits under random pairings within blocks; one pairing serves all windows."""
        out = np.empty((n_perm, len(self.best)))
        for b, pairing in enumerate(self._pairings(n_perm, seed)):
            for w, (row, column, share) in enumerate(self.best):
                out[b, w] = share[pairing[row] == column].sum() / len(self.block)
        return out

    def _pairings(self, n_perm: int, seed: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng([seed, 2])
        order = np.argsort(self.block, kind="stable")
        for _ in range(n_perm):
            pairing = np.empty(len(order), dtype=np.int64)
            pairing[order] = order[np.lexsort((rng.random(len(order)), self.block[order]))]
            yield pairing


def sliding_windows(recording: Recording, width: float, step: float) -> list[Window]:
    """Windows of ``width`` s every ``step`` s that lie wholly inside the trial, the first at its start.

    Raises `UserError` where the signals have no time axis or rate, and for a width or step that is no whole sample.
    """
    who = f"{recording.study} subject {recording.subject}"
    if recording.train.x.ndim != 3 or recording.sfreq is None:
        lacks = "time axis" if recording.train.x.ndim != 3 else "sampling rate (info.json: sfreq)"
        raise UserError(f"a time course needs signals over time, and those of {who} have no {lacks}")
    rate, n_times = recording.sfreq, recording.train.x.shape[2]
    length, every = round(width * rate), step * rate
    if not 1 <= length <= n_times:
        raise UserError(f"--width {width:g} s is {length} samples of {who}, which has {n_times} at {rate:g} Hz")
    if every < 1 - 1e-9:
        raise UserError(f"--step {step:g} s is less than a sample of {who}, {1 / rate:g} s; take that or more")
    starts = [round(k * every) for k in range(int((n_times - length) / every + 1e-9) + 1)]
    first = recording.tmin
    return [Window(s, s + length, first + s / rate, first + (s + length) / rate) for s in starts]


def decode(
    config: Config,
    folds: Sequence[Fold],
    tokens: Mapping[str, np.ndarray],
    groups: np.ndarray,
    windows: Sequence[Window],
    among: Mapping[str, np.ndarray] | None = None,
    everywhere: bool = False,
) -> dict[str, Hits]:
    """Hits of every layer. ``tokens``: layer to (K, N, D) of all pictures; ``groups`` (K,) of the pictures.

    ``among``: tokens by which the candidates are compared, where these are not the ones that are learnt.
    ``everywhere``: the decoder of every window is scored in all windows; that of window i in window j is at i * W + j.
    The decoder is ridge regression from the standardised window to principal components of the tokens. All statistics
    and the penalty (held-out reciprocal rank in one inner fold of groups) come from the rows that are fitted.
    """
    blocks: list[np.ndarray] = []
    offset = 0
    found: dict[str, list[list[tuple[np.ndarray, ...]]]] = {layer: [] for layer in tokens}
    for number, fold in enumerate(folds):
        members = _blocks(len(fold.scored_rows), np.random.default_rng([config.seed, number]))
        blocks.append(members + (blocks[-1].max() + 1 if blocks else 0))
        sides = {layer: _targets(config, fold, rows, (among or tokens)[layer]) for layer, rows in tokens.items()}
        learnt = {layer: side[0] for layer, side in sides.items()}
        places: dict[str, list[tuple[np.ndarray, ...]]] = {layer: [] for layer in tokens}
        for window in windows:
            for estimates in _ridge(config, fold, groups, window, windows if everywhere else [window], learnt):
                for layer, estimate in estimates.items():
                    row, column, share = _best(estimate, sides[layer][1].numpy(), members)
                    places[layer].append((row + offset, column + offset, share))
        for layer, picks in places.items():
            found[layer].append(picks)
        offset += len(fold.scored_rows)
    block = np.concatenate(blocks)
    stimulus = np.concatenate([fold.scored.stimulus[fold.scored_rows] for fold in folds])
    return {
        layer: Hits(block, stimulus, [_joined(parts) for parts in zip(*per_fold, strict=True)])
        for layer, per_fold in found.items()
    }


def _joined(parts: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row, column, share = (np.concatenate(list(arrays)) for arrays in zip(*parts, strict=True))
    return row, column, share


def _blocks(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) number of a random block of equal sizes (give or take one): one block up to twice `BLOCK` rows."""
    count = max(1, n // BLOCK)
    return np.asarray(rng.permutation(np.arange(n) % count))


def _targets(config: Config, fold: Fold, tokens: np.ndarray, among: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Components (n_fit, k) of ``tokens`` and (n_scored, k) of ``among``, fitted on the pictures of the fitted rows."""
    import torch

    from align.data.rows import Rows
    from align.model.spaces import TargetSpace

    fitted, scored = fold.fit.stimulus[fold.fit_rows], fold.scored.stimulus[fold.scored_rows]
    target = config.target
    space = TargetSpace.fit(Rows.of(tokens).subset(fitted), target.components, target.whiten, "cpu", target.root)
    with torch.no_grad():
        return space.encode_all(Rows.of(tokens).subset(fitted)), space.encode_all(Rows.of(among).subset(scored))


def _ridge(
    config: Config,
    fold: Fold,
    groups: np.ndarray,
    window: Window,
    scored: Sequence[Window],
    targets: Mapping[str, torch.Tensor],
) -> Iterator[dict[str, np.ndarray]]:
    """Predicted components (n_scored, k) of every layer, by the decoder of ``window``, in each of the ``scored``.

    One decomposition of the signals serves all layers. The decoder keeps the mean and deviation of its own window.
    """
    import torch

    from align.data.splits import grouped_folds
    from align.encoders.ridge import FOLDS, RidgePath, reciprocal_ranks
    from align.model.spaces import SignalSpace

    fitted = _cut(fold.fit, fold.fit_rows, window)
    space = SignalSpace.fit(fitted)
    x = space.standardised(torch.from_numpy(fitted)).double()
    inner, held_out = grouped_folds(groups[fold.fit.stimulus[fold.fit_rows]], FOLDS, config.seed)[0]
    y = torch.cat(list(targets.values()), dim=1).double()
    widths = [target.shape[1] for target in targets.values()]
    alphas = config.encoder.alphas
    trial = [part.split(widths, dim=1) for part in RidgePath(x[inner], y[inner]).predict(x[held_out], alphas)]
    own = y[held_out].split(widths, dim=1)
    best = [
        int(np.argmax([reciprocal_ranks(parts[k], own[k]).mean().item() for parts in trial]))
        for k in range(len(targets))
    ]
    path = RidgePath(x, y)
    solved = {number: path.solve(alphas[number]) for number in set(best)}
    columns = torch.arange(y.shape[1]).split(widths)
    for place in scored:
        there = space.standardised(torch.from_numpy(_cut(fold.scored, fold.scored_rows, place))).double()
        yield {
            layer: (there @ solved[best[k]][0][columns[k]].T + solved[best[k]][1][columns[k]]).numpy()
            for k, layer in enumerate(targets)
        }


def _cut(trials: Trials, rows: np.ndarray, window: Window) -> np.ndarray:
    """(n, C, width) float32 of some rows."""
    return np.asarray(trials.x[rows, :, window.start : window.stop], dtype=np.float32)


def _best(estimate: np.ndarray, targets: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, candidate's row, share) of the nearest candidates within each block, by cosine."""
    from align.retrieval import scores

    parts = []
    for number in np.unique(block):
        rows = np.flatnonzero(block == number)
        similarity = scores(estimate[rows], targets[rows])
        best = similarity == similarity.max(axis=1, keepdims=True)
        row, column = np.nonzero(best)
        parts.append((rows[row], rows[column], 1 / best.sum(axis=1)[row]))
    return _joined(parts)


def cross_validation(trials: Trials, groups: np.ndarray, n_folds: int, seed: int) -> list[Fold]:
    """Grouped folds of one-row-per-picture ``trials``; ``groups`` (K,) of all pictures."""
    from align.data.splits import grouped_folds

    pairs = grouped_folds(groups[trials.stimulus], n_folds, seed)
    return [Fold(trials, fitted, trials, held_out) for fitted, held_out in pairs]


def restrict(config: Config, tokens: Mapping[str, np.ndarray]) -> Config:
    """The config with as many components as the narrowest layer has, so that all layers have the same number."""
    width = min(int(np.prod(part.shape[1:])) for part in tokens.values())
    return replace(config, target=replace(config.target, components=min(width, config.target.components)))

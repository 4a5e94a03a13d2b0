"""What training trials look like channel by channel, so that later ones in another unit, order or sign are noticed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from align.data.columns import sampled, sampled_trials

FAR_CHANNEL = 100.0  # times the size in training, against the other channels; a noisy electrode stays below
_SURE = 16  # values of a channel, trials of a mean, from which they say something
_CHANNELS = 8  # from which their order is looked at
_VARIED = 0.3  # deviation of the logarithms of the sizes: standardised channels have less and look all alike
_SAME_SIZES = 0.4  # of that deviation: how far the sorted sizes may be apart
_OTHER_ORDER = 0.3  # correlation of the logarithms below which channels are in another order
_OUT_OF_NOISE = 9.0  # energy of the mean trial in that of its error
_TURNED = -0.7  # correlation of two mean trials from which the sign is turned
_LISTED = 3


@dataclass(frozen=True)
class Profile:
    """Median absolute value of each channel or voxel (C,), and the mean trial (C, T) or (V,): 0 where it is noise."""

    sizes: np.ndarray
    middle: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> Profile:
        """That of some trials, spread over x (n, C, T) or (n, V)."""
        return cls(np.median(np.abs(sampled(x)), axis=1), _middle(sampled_trials(x)))

    def faults(self, x: np.ndarray, names: Sequence[str] = ()) -> str:
        """What is wrong with channels of x (n, ...), shaped as the training trials, in one sentence; "" = nothing.

        ``names``: of the channels; without, they are counted from 0.
        """
        values = sampled(x)
        sizes = np.median(np.abs(values), axis=1)
        named = names if len(names) == len(sizes) else [str(i) for i in range(len(sizes))]
        sure = values.shape[1] >= _SURE
        return self._of_scale(values, sizes, named, sure) or (sure and self._of_order(sizes)) or self._of_sign(x)

    def _of_scale(self, values: np.ndarray, sizes: np.ndarray, names: Sequence[str], sure: bool) -> str:
        known = (self.sizes > 0) & (sizes > 0)
        if not known.any():
            return ""
        ratio = np.ones(len(sizes))
        ratio[known] = sizes[known] / self.sizes[known]
        ratio /= np.median(ratio[known])
        ratio[~known] = 1.0
        far = (ratio > FAR_CHANNEL) | (sure & (ratio < 1 / FAR_CHANNEL))
        silent = (self.sizes > 0) & ~values.any(axis=1) & sure
        far_rows = [f"{names[i]} (about {ratio[i]:.1g} times)" for i in np.flatnonzero(far).tolist()]
        told = [*far_rows, *(f"{names[i]} (0 throughout)" for i in np.flatnonzero(silent).tolist())]
        if not told:
            return ""
        rest = f" and {len(told) - _LISTED} more" if len(told) > _LISTED else ""
        return (
            f"{len(told)} of {len(sizes)} channels are of another size than in training: {', '.join(told[:_LISTED])}"
            f"{rest}; pass them in the unit of the training signals"
        )

    def _of_order(self, sizes: np.ndarray) -> str:
        if len(sizes) < _CHANNELS or min(sizes.min(), self.sizes.min()) <= 0:
            return ""
        one, other = np.log(self.sizes), np.log(sizes)
        one, other = one - one.mean(), other - other.mean()
        apart = np.sqrt(((np.sort(one) - np.sort(other)) ** 2).mean())
        if min(one.std(), other.std()) < _VARIED or apart > _SAME_SIZES * one.std():
            return ""
        r = float(np.corrcoef(one, other)[0, 1])
        if r >= _OTHER_ORDER:
            return ""
        return (
            f"the channels have the sizes of training in another order (r {r:.2f} channel by channel); pass them in "
            "the order of the training signals"
        )

    def _of_sign(self, x: np.ndarray) -> str:
        trials = sampled_trials(x)
        if len(trials) < _SURE or not self.middle.any():
            return ""
        middle = _middle(trials)
        if not middle.any() or np.corrcoef(middle.ravel(), self.middle.ravel())[0, 1] > _TURNED:
            return ""
        return "the mean trial is that of training with the sign turned; pass signals of the polarity of training"


def _middle(trials: np.ndarray) -> np.ndarray:
    """Mean of trials (n, ...); 0 where it does not stand out of their noise."""
    middle = trials.mean(axis=0)
    error = trials.var(axis=0).sum() / len(trials)
    told = float((middle**2).sum()) > _OUT_OF_NOISE * float(error) > 0
    found: np.ndarray = middle if told else np.zeros_like(middle)
    return found

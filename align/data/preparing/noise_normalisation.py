"""Multivariate noise normalisation (MVNN): channels whitened by the noise covariance of their recording session.

Guggenmos, Sterzer & Cichy 2018 (NeuroImage 173), in the form that the THINGS-EEG2 code calls ``epochs``: the covariance
of the channels over the samples of every single trial, shrunk towards its diagonal, averaged over the repetitions of a
stimulus, then over the stimuli of the session. Shrinkage is that of Ledoit & Wolf 2004 on standardised channels, the
intensity found per trial (what scikit-learn's discriminant analysis does for ``shrinkage="auto"``). Trials are
multiplied by the inverse square root of that covariance. Only training trials are handed in here.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from align.errors import UserError

_SINGULAR = 1e-12  # an eigenvalue below this part of the largest is no variance


def shrunk_covariances(x: np.ndarray) -> np.ndarray:
    """Covariances (B, C, C) over the samples of trials x (B, C, T), float64, Ledoit-Wolf on standardised channels.

    With S = Z Z' / T for channels Z standardised over their T samples, the result is D ((1 - a) S + a m I) D, where
    m = trace(S) / C, D holds the standard deviations, and a = b / d bounded to [0, 1] with d = |S - m I|^2 / C and
    b = (mean over samples of |z z' - S|^2) / (C T). A channel that is flat in a trial has no variance there.
    """
    _, n_chans, n_times = x.shape
    z = x - x.mean(axis=2, keepdims=True)
    deviation = np.sqrt((z**2).mean(axis=2, keepdims=True))
    flat = deviation <= 10 * np.finfo(np.float64).eps * np.abs(x).max(axis=2, keepdims=True)
    deviation[flat] = 0.0
    z /= np.where(flat, np.inf, deviation)
    s = z @ z.transpose(0, 2, 1) / n_times
    m = np.trace(s, axis1=1, axis2=2) / n_chans
    squares = (s**2).sum(axis=(1, 2))
    lengths = (z**2).sum(axis=1)  # |z|^2 of every sample; the mean of its square is the mean of |z z'|^2
    b = ((lengths**2).mean(axis=1) - squares) / (n_chans * n_times)
    d = squares / n_chans - m**2
    a = np.where(d > 0, np.clip(b, 0, d) / np.where(d > 0, d, 1.0), 0.0)
    s *= (1 - a)[:, None, None]
    s[:, np.arange(n_chans), np.arange(n_chans)] += (a * m)[:, None]
    covariances: np.ndarray = s * deviation * deviation.transpose(0, 2, 1)
    return covariances


def session_covariances(
    pieces: Iterable[tuple[np.ndarray, np.ndarray]], stimulus: np.ndarray, session: np.ndarray
) -> dict[str, np.ndarray]:
    """Covariance (C, C) of every recording session: mean over repetitions, then over the stimuli of the session.

    ``pieces``: (row numbers (B,), trials float64 (B, C, T)) that cover all rows once; ``stimulus`` and ``session``
    (n,) belong to the rows.
    """
    _, pair, shown = np.unique(np.stack([_codes(session), stimulus]), axis=1, return_inverse=True, return_counts=True)
    pair = pair.reshape(-1)
    labels, inverse = np.unique(session, return_inverse=True)
    first_of_pair = np.unique(pair, return_index=True)[1]
    stimuli = np.bincount(inverse[first_of_pair], minlength=len(labels))
    weight = 1.0 / (shown[pair] * stimuli[inverse])
    sums: dict[int, np.ndarray] = {}
    for rows, x in pieces:
        weighted = shrunk_covariances(x) * weight[rows, None, None]
        for k in np.unique(inverse[rows]):
            part = weighted[inverse[rows] == k].sum(axis=0)
            sums[int(k)] = sums[int(k)] + part if int(k) in sums else part
    return {str(labels[k]): covariance for k, covariance in sums.items()}


def whitener(covariance: np.ndarray, ch_names: tuple[str, ...], what: str) -> np.ndarray:
    """The symmetric inverse square root (C, C); raises `UserError` where a channel is flat or a mixture."""
    values, vectors = np.linalg.eigh(covariance)
    if values[0] <= _SINGULAR * values[-1]:
        names = ch_names or tuple(str(i) for i in range(len(covariance)))
        channel = names[int(np.abs(vectors[:, 0]).argmax())]
        raise UserError(
            f"{what}: the noise covariance is singular (channel {channel!r} is flat or a mixture of the others); "
            "leave the channel out by preprocess.channels or set preprocess.mvnn=false"
        )
    root: np.ndarray = (vectors / np.sqrt(values)) @ vectors.T
    return root


def _codes(labels: np.ndarray) -> np.ndarray:
    return np.unique(labels, return_inverse=True)[1]

"""What a recipe made for THINGS-EEG2 needs on other signals: another encoder or shorter kernels, smaller batches.

Nothing is changed silently: without ``adapt`` a recipe that does not fit is refused in one line that names the change,
with it every change is a sentence of the table.
"""

from __future__ import annotations

from dataclasses import replace

from align.config import Config, EncoderConfig
from align.encoders import build_encoder
from align.encoders.shapes import SignalFacts
from align.errors import UserError

SAMPLES = 250  # of a trial in the papers' recordings: 1 s at 250 Hz
STEPS = 16  # an epoch of THINGS-EEG2: 16,540 rows in batches of 1024


def adapted(
    config: Config, in_shape: tuple[int, ...], facts: SignalFacts, n_rows: int, allowed: bool, given: set[str]
) -> tuple[Config, list[str]]:
    """``config`` for trials of ``in_shape`` and ``n_rows`` training rows, and what was changed, in sentences.

    An encoder that cannot read the trials becomes `substitute`. Trials without a time axis are not smoothed along it.
    Where an epoch would have fewer than `STEPS` steps, the batch is lowered until it has them. Keys in ``given`` (set
    by the user) stay as they are.

    Raises
    ------
    UserError
        Encoder or smoothing do not fit and ``allowed`` is False, or do not fit after the change either.
    """
    said = []
    try:
        build_encoder(in_shape, config.encoder, facts, load=False)
    except UserError as error:
        encoder, change = substitute(config.encoder, in_shape)
        if not allowed or "encoder.name" in given:
            raise UserError(f"{error}; or pass --adapt, which takes {change}") from error
        build_encoder(in_shape, encoder, facts, load=False)
        config = replace(config, encoder=encoder)
        said.append(change)
    if config.train.smooth > 0 and len(in_shape) != 2 and "train.smooth" not in given:
        change = f"train.smooth=0 instead of {config.train.smooth:g} (no time axis)"
        if not allowed:
            raise UserError(
                f"trials of shape {in_shape} cannot be smoothed along time; pass --adapt, which takes {change}"
            )
        config = replace(config, train=replace(config.train, smooth=0.0))
        said.append(change)
    batch = max(2, n_rows // STEPS)
    if batch < config.train.batch_size and "train.batch_size" not in given:
        change = f"train.batch_size={batch} instead of {config.train.batch_size}, {STEPS} steps an epoch as published"
        if allowed:
            config = replace(config, train=replace(config.train, batch_size=batch))
            said.append(change)
        else:
            steps = max(1, round(n_rows / config.train.batch_size))
            said.append(f"{steps} step(s) an epoch; --adapt takes {change}")
    return config, said


def substitute(encoder: EncoderConfig, in_shape: tuple[int, ...]) -> tuple[EncoderConfig, str]:
    """An encoder for trials without a time axis (``mlp``, same width and dropout) or with fewer samples than `SAMPLES`.

    For the latter, kernel, pooling window and stride keep their share of the trial.
    """
    if len(in_shape) != 2:
        return replace(encoder, name="mlp"), f"encoder.name=mlp instead of {encoder.name} (no time axis)"
    scale = in_shape[1] / SAMPLES
    sizes = {name: max(1, round(getattr(encoder, name) * scale)) for name in ("kernel", "pool", "stride")}
    told = " ".join(f"encoder.{name}={size}" for name, size in sizes.items())
    was = f"{encoder.kernel}, {encoder.pool}, {encoder.stride}"
    return replace(encoder, **sizes), f"{told} instead of {was} ({in_shape[1]} samples, not {SAMPLES})"

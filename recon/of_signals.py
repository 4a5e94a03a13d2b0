"""What a decoder makes of signals that are no test rows: halves of repetitions, null brains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recon.conditions import Condition
    from recon.decoder import Decoder
    from recon.generation.adapters import Adapter
    from recon.generation.bridges.choose import Conditioning


def condition_of(decoder: Decoder, adapter: Adapter, wanted: Conditioning, x: np.ndarray, seed: int) -> Condition:
    """For raw signals ``x`` (n, ...): tokens, and pixels and words where the decoder takes them. Owners are "".

    ``wanted.match`` must be spread.
    """
    from recon.conditions import Condition
    from recon.low_level import decoded_pixels
    from recon.predict import open_recording
    from recon.words import retrieved_captions

    run, told = decoder.run, decoder.run.aligner.predict(x)
    pixels = prompts = library = None
    if run.config.encoder.name == "encoding":
        from recon.library import read_library

        library = read_library(run)
    tokens = told["tokens"] if decoder.tokens == "predicted" else _from_library(decoder, adapter, told["embeds"], seed)
    if decoder.low_level in ("pixels", "both"):
        pixels = decoded_pixels(run, open_recording(run), x, library)
    if wanted.words != "none":
        prompts = retrieved_captions(run, open_recording(run), told["embeds"])
    return Condition(tokens, ("",) * len(x), told["embeds"], pixels, prompts)


def _from_library(decoder: Decoder, adapter: Adapter, embeds: np.ndarray, seed: int) -> np.ndarray:
    from recon.conditions import LibraryTokens
    from recon.library import read_library
    from recon.predict import signals_at_rest

    assert adapter.info is not None  # the decoder refuses any other for tokens from a library
    run, target = decoder.run, (adapter.info.layer, adapter.info.pooling)
    silence = run.aligner.predict(signals_at_rest(run))["embeds"][0]
    return LibraryTokens(run, read_library(run), embeds, silence, target).tokens(seed)

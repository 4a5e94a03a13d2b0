"""The text path: a caption for every response, that of the training picture it resembles most, or the nearest one in
text space (`recon.decoding.text_space`).

A prompt corrects what a picture is of where tokens alone leave it open (Gong et al., AAAI 2025, MindTuner). Captions
come from training pictures only; test captions are read for the oracle alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError
from recon.words.alignment import ALIGNMENTS

if TYPE_CHECKING:
    from align.checkpoint import Run
    from align.data.signals import Recording

WORDS = ("none", "retrieved", *ALIGNMENTS)


def retrieved_captions(run: Run, recording: Recording, embeds: np.ndarray) -> tuple[str, ...]:
    """For every row of ``embeds`` (n, E) the caption of the nearest captioned training picture, by cosine.

    Raises `UserError` for a study without captions.
    """
    from recon.decoding.predict import picture_tokens
    from recon.decoding.ridge import nearest

    rows = np.unique(recording.train.stimulus)
    rows = rows[[bool(recording.stimuli.captions[i]) for i in rows]]
    if not len(rows):
        raise UserError(f"--words retrieved needs captions, and the training pictures of {run.study} have none")
    tokens = np.asarray(picture_tokens(run, recording)[rows], dtype=np.float32)
    found = nearest(embeds, run.aligner.responses_to(tokens, run.number))
    return tuple(recording.stimuli.captions[rows[k]] for k in found)

"""How good texts are: METEOR and ROUGE-L against the true text, CLIPScore against the picture, similarity of sentences.

Each measure gives one value per text. METEOR is that of nltk and ROUGE-L that of rouge-score, both with their default
settings; the extra ``words`` installs them, and METEOR also needs the data of WordNet.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recon.words.text_tower import TextTower

if TYPE_CHECKING:
    import torch

INSTALL = "pip install 'shallow-recon[words]'"
WORDNET = "python -m nltk.downloader wordnet"
CLIP_SCALE = 2.5  # Hessel et al. 2021, section 3

Measure = Callable[[Sequence[str], Sequence[str]], np.ndarray]


class Unavailable(Exception):
    """A measure that cannot be computed here; the message says what is missing."""


def meteor(found: Sequence[str], true: Sequence[str]) -> np.ndarray:
    """METEOR (Banerjee & Lavie 2005) of each text, in [0, 1]; words are split at blanks, in small letters."""
    score = _module("nltk.translate.meteor_score").meteor_score
    try:
        values = [score([_words(b)], _words(a)) for a, b in zip(found, true, strict=True)]
    except (LookupError, OSError) as error:  # absent, or a part of it
        raise Unavailable(f"METEOR needs the data of WordNet, which nltk does not find; run: {WORDNET}") from error
    return np.array(values, dtype=np.float64)


def rouge_l(found: Sequence[str], true: Sequence[str]) -> np.ndarray:
    """F of ROUGE-L (Lin 2004) of each text, in [0, 1]."""
    scorer = _module("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    return np.array([scorer.score(b, a)["rougeL"].fmeasure for a, b in zip(found, true, strict=True)])


def sentence_similarity(tower: TextTower) -> Measure:
    """Cosine of the embeddings of both texts, in [-1, 1]."""

    def measure(found: Sequence[str], true: Sequence[str]) -> np.ndarray:
        embeds = tower.texts([*found, *true])
        value: np.ndarray = (embeds[: len(found)] * embeds[len(found) :]).sum(axis=1).astype(np.float64)
        return value

    return measure


def clip_score(tower: TextTower, images: torch.Tensor) -> Measure:
    """2.5 max(cosine, 0) of each text and the seen picture (Hessel et al. 2021), in [0, 2.5], without the true text."""
    seen = tower.pictures(images)

    def measure(found: Sequence[str], true: Sequence[str]) -> np.ndarray:
        cosine = (tower.texts(list(found)) * seen).sum(axis=1).astype(np.float64)
        value: np.ndarray = CLIP_SCALE * np.maximum(cosine, 0)
        return value

    return measure


def _words(text: str) -> list[str]:
    return text.lower().split()


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(f"{name.partition('.')[0]} is not installed; {INSTALL}") from error

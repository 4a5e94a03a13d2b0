"""Whether the files of a text tower or captioner belong together: an absent vocabulary is read as a short one."""

from __future__ import annotations

from typing import Any

from align.errors import UserError

_LEAST = 0.5  # of the words of a model that its tokenizer knows; public models have up to 1 % more words than theirs


def require_words(tokenizer: Any, config: Any, what: str) -> None:
    """Raise `UserError` where a tokenizer knows far fewer words than its model, so that texts would be lost in it."""
    words, known = getattr(getattr(config, "text_config", None) or config, "vocab_size", 0), len(tokenizer)
    if known < _LEAST * words:
        raise UserError(
            f"{what}: its tokenizer knows {known:,} words and its model {words:,}; tokenizer.json or the vocabulary "
            "beside it is missing or of another model"
        )

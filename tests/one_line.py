"""What every mistake of a user has to end in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from align.errors import UserError


def fails(words: str, action: Callable[[], object]) -> str:
    """``action`` raises `UserError` with one line that ``words`` (a regular expression) match; returns the line."""
    with pytest.raises(UserError, match=words) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)

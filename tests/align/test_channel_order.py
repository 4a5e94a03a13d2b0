"""Refusals about channel names say which differ first and how to bring them to one order."""

from __future__ import annotations

import numpy as np

from align.data.channel_order import channels_apart

NAMES = [f"c{i:02d}" for i in range(64)]


def test_the_first_that_differ_are_named() -> None:
    assert channels_apart(NAMES, list(NAMES)) == ""
    swapped = [*NAMES[:60], NAMES[61], NAMES[60], *NAMES[62:]]
    told = channels_apart(NAMES, swapped)
    assert "another order, 2 of 64 places differ (60: c60 and c61, 61: c61 and c60;" in told
    theirs, names = swapped, NAMES  # the advice, as it stands there
    assert "x[:, [theirs.index(name) for name in names]]" in told
    x = np.array([[theirs.index(name) for name in theirs]])
    assert [theirs[i] for i in x[:, [theirs.index(name) for name in names]][0]] == names
    assert "63: " not in channels_apart(NAMES, NAMES[::-1]) and "and 61 more" in channels_apart(NAMES, NAMES[::-1])


def test_channels_of_one_alone_are_named() -> None:
    assert channels_apart(NAMES, NAMES[:-1]).startswith("the first alone has c63; keep")
    told = channels_apart(["a", "b", "c"], ["a", "x", "y"])
    assert told.startswith("the first alone has b, c and the second alone has x, y; keep")
    assert channels_apart([], NAMES).startswith("only the second names its channels")
    assert channels_apart(["a", "a"], ["a"]).startswith("one of them has a channel twice")

"""How two lists of channel names differ, in words: which differ first, and how to bring them to one."""

from __future__ import annotations

from collections.abc import Sequence

_LISTED = 3  # names that are spelled out


def channels_apart(one: Sequence[str], two: Sequence[str]) -> str:
    """What differs between the names of a first and a second recording, and what to do; "" where they are equal."""
    if list(one) == list(two):
        return ""
    if not one or not two:
        return f"only the {'second' if not one else 'first'} names its channels; name those of both (ch_names)"
    lacking = [[name for name in these if name not in others] for these, others in ((one, two), (two, one))]
    if any(lacking):
        told = [
            f"the {which} alone has {', '.join(names[:_LISTED])}{_rest(len(names))}"
            for which, names in zip(("first", "second"), lacking, strict=True)
            if names
        ]
        return f"{' and '.join(told)}; keep the channels that both have, in one order"
    if len(one) != len(two):
        return "one of them has a channel twice; name each once"
    apart = [i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b]
    first = ", ".join(f"{i}: {one[i]} and {two[i]}" for i in apart[:_LISTED])
    return (
        f"the same channels in another order, {len(apart)} of {len(one)} places differ ({first}{_rest(len(apart))}; "
        "counted from 0); reorder the second: x[:, [theirs.index(name) for name in names]] in numpy, "
        "epochs.reorder_channels(names) in MNE"
    )


def _rest(count: int) -> str:
    return f" and {count - _LISTED} more" if count > _LISTED else ""

"""What the text fields of a configuration may hold: layers, views, windows, names with weights, bands, options."""

from __future__ import annotations

import re
from typing import Annotated

from align.errors import UserError
from align.fields.checks import Matches, OneOf, Read
from align.fields.syntax import network_names, parse_pooling, parse_view, parse_window
from align.known_names import BRAINDECODE, ENCODERS, OWN


def _expression(text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise UserError(f"no regular expression ({error})") from error


def _with_weights(entry: str) -> None:
    network_names(entry.partition("@")[0])


Names = Annotated[str, Read(_expression)]
Window = Annotated[str, Read(parse_window)]
Layer = Annotated[
    str, Matches(r"[^\s+]+(\+[^\s+]+)*", "a layer, or several joined by +, such as 6 or features.6+features.9")
]
Pooling = Annotated[str, Read(parse_pooling)]
View = Annotated[str, Read(parse_view)]
BackboneName = Annotated[str, Read(network_names)]
Weighted = Annotated[str, Read(_with_weights)]
EncoderName = Annotated[str, OneOf(*ENCODERS, unlisted=(OWN,), prefixes=(BRAINDECODE,))]
Band = Annotated[
    str, Matches(r"\s*0*[1-9][0-9]*\s*|.*[^\W\d_].*", "a size, a region or 'channel'; write for example [30,37]")
]
Option = Annotated[str, Matches(r"\s*\w+\s*=.*\S.*", "name=value")]

"""Every method of adaptation by name."""

from __future__ import annotations

from align.adaptation.common import Procrustes, SharedResponse
from align.adaptation.contract import Method
from align.adaptation.network_methods import NETWORK_METHODS
from align.adaptation.prior import Context, Encoding, Prior
from align.errors import UserError

CLOSED_FORM: tuple[Method, ...] = (Prior(), Context(), Encoding(), Procrustes(), SharedResponse())
METHODS: dict[str, Method] = {**{method.name: method for method in CLOSED_FORM}, **NETWORK_METHODS}
ALL = "all"


def methods_of(names: list[str]) -> list[Method]:
    """The methods of these names, each once; ``all`` means every one. Raises `UserError` for an unknown name."""
    wanted = list(METHODS) if ALL in names else list(dict.fromkeys(names))
    for name in wanted:
        if name not in METHODS:
            raise UserError(f"method {name!r} is not known; take some of {', '.join(METHODS)}, or {ALL}")
    return [METHODS[name] for name in wanted]

"""`sttm`: a shallow personal adapter and linear layer before a shared decoder (STTM, AAAI 2025, arXiv 2403.06361)."""

from __future__ import annotations

from align.adaptation.networks import NetworkMethod


class ShallowAdapter(NetworkMethod):
    """The front is an adapter and a linear layer; both are trained, the shared layers are frozen."""

    name = "sttm"
    base = "sttm"
    shared_encoder = "sttm"
    encoder = "sttm"
    source = (
        "the adapters of See Through Their Minds, AAAI 2025, arXiv 2403.06361; sizes are ours, as hardly any code is"
        " published; without its text supervision and pixel pipeline"
    )

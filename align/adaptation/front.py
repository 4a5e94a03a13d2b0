"""`linear`: a fresh linear front for the new person, everything after it as it is."""

from __future__ import annotations

from align.adaptation.networks import NetworkMethod


class LinearFront(NetworkMethod):
    """The plain case that the others are compared with."""

    name = "linear"
    source = "the subject-specific ridge of MindEye2 (arXiv 2403.11207), trained alone; all shared layers are frozen"

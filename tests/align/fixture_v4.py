"""V4 sessions with fewer test pictures than the real ones, for tests that write their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def short_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """The last ``TESTED`` pictures (a number of the module that imports this) are the test pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align.data.studies.cowley2023.N_TEST", request.module.TESTED)
        yield

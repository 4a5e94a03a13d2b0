"""Weights behind a gate on the hub, as REVE's: the client's own code meets a stand-in that answers 401 or 403."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session, get_session, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from align.encoders import weights
from tests.one_line import fails

GATED = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model brain-bzh/reve-base is restricted."}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """``status`` and ``headers`` of every answer, ``asked``: the paths; no socket is opened."""
    library = sys.modules[type(get_session()).__mro__[-2].__module__.partition(".")[0]]
    said: dict[str, Any] = {"status": 404, "headers": {}, "asked": []}

    def answer(request: Any) -> Any:
        said["asked"].append(request.url.path)
        return library.Response(said["status"], headers=said["headers"], request=request)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    set_client_factory(lambda: library.Client(transport=library.MockTransport(answer)))
    yield said
    set_client_factory(default_client_factory)
    close_session()


@pytest.mark.parametrize(("status", "headers"), [(401, GATED), (403, GATED), (403, {})])
def test_a_gate_is_explained_in_one_line(answers: dict[str, Any], status: int, headers: dict[str, str]) -> None:
    answers |= {"status": status, "headers": headers}
    line = fails("is given to those who accept its terms", lambda: weights.find("brain-bzh/reve-base"))
    assert "https://huggingface.co/brain-bzh/reve-base, then run: hf auth login" in line
    assert "encoder.pretrained=FOLDER" in line and answers["asked"]


def test_positions_behind_a_gate_are_explained_alike(answers: dict[str, Any]) -> None:
    answers |= {"status": 401, "headers": GATED}
    fails("brain-bzh/reve-positions is given to those", lambda: weights.electrode_positions(None, ["Cz"]))


def test_what_is_not_there_is_no_gate(answers: dict[str, Any]) -> None:
    answers |= {"status": 401, "headers": {"X-Error-Code": "RepoNotFound"}}
    assert "terms" not in fails("nobody/nothing cannot be fetched", lambda: weights.find("nobody/nothing"))

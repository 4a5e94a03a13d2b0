"""examples/quickstart.ipynb: its code runs, gives what its prose states, and was stored executed and without paths."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROJECT

NOTEBOOK = PROJECT / "examples" / "quickstart.ipynb"


def code_cells() -> list[dict[str, Any]]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_code_runs_and_finds_the_stated_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    told, found = [], []
    for number, cell in enumerate(code_cells()):
        exec(compile("".join(cell["source"]), f"quickstart cell {number}", "exec"), names)  # noqa: S102 - our own
        told.append(capsys.readouterr().out)
        if "result" in names and names["result"] not in found:
            found.append(names["result"])
    synthetic, trained = found
    assert synthetic["brain_to_image"]["top1"] == synthetic["image_to_brain"]["top1"] == 0.6
    table = names["table"]
    assert list(table.index[:2]) == ["PixCorr", "SSIM"]
    assert (table["value"] > table["shuffled"])[:2].all() and (table["p_shuffled"] < 0.01)[:2].all()
    assert trained["brain_to_image"]["top1"] > 5 * trained["brain_to_image"]["chance_top1"]
    assert trained["brain_to_image"]["p_permutation"] < 0.01
    own, planted = (text for text in told if "exact_duplicates" in text)
    assert re.search(r"^CLEAR +exact_duplicates", own, re.MULTILINE) and "LEAK " not in own
    assert re.search(r"^LEAK +exact_duplicates", planted, re.MULTILINE)
    assert list(tmp_path.iterdir()) == [] and Path.cwd() == tmp_path


def test_it_was_stored_executed_and_without_traces_of_a_machine() -> None:
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert len(outputs) >= 6
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result"}
    assert all(output.get("name") != "stderr" for output in outputs)
    assert not re.search(r"(?<![\w.])/(tmp|home|root|Users|mnt|usr|opt|var)/|0x[0-9a-f]{6}", json.dumps(outputs))
    assert "0.6" in json.dumps(outputs[0])

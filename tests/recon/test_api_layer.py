"""`recon.Decoder(layer="cv")`: the layer that `recon sweep --no-test` chooses, and no test row is read for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from torch import nn

from align.checkpoint import weights_hash
from align.config import Config, load_config
from align.data.studies.folder.study import Folder
from align.train import main as align_train
from recon import Decoder, Study, cli
from tests.one_line import fails
from tests.recon.api_study import (
    CHANNELS,
    N_PICTURES,
    N_TEST,
    N_TIMES,
    Net,
    as_the_command_words,
    decoder,
    pictures,
    signals,
    stimulus,
    study,
)

WALK: dict[str, Any] = {
    "sweep__layers": ["2", "4", "8"],
    "sweep__seeds": 1,
    "sweep__folds": 2,
}


class Locked:
    """Rows (n, ...) whose shape is known and whose values cannot be read."""

    def __init__(self, x: np.ndarray) -> None:
        self.shape, self.ndim, self.dtype = x.shape, x.ndim, x.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise AssertionError("test rows were read")

    __getitem__ = __array__ = __iter__ = _refuse


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Training from Python and by the command both take all cores; here both keep the thread that a test has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align.train.use_all_cores", lambda: None)
        yield


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No prepared test row of a folder study can be read; undone by ``locked.undo()``."""
    real = Folder.recording

    def recording(self: Folder, subject: str) -> Any:
        found = real(self, subject)
        return replace(found, test=replace(found.test, x=Locked(found.test.x)))

    monkeypatch.setattr(Folder, "recording", recording)
    return monkeypatch


def spoiled(folder: Path) -> Study:
    """The study of `study`, with test rows that say something else and say it louder."""
    x, test = signals(), stimulus() >= N_PICTURES - N_TEST
    x[test] = 50 * x[test][::-1]
    tests = list(range(N_PICTURES - N_TEST, N_PICTURES))
    return Study.from_arrays(x, pictures(), stimulus(), test=tests, folder=folder, sfreq=100.0, ch_names=CHANNELS)


def test_the_layer_is_that_of_the_sweep_and_no_test_row_is_read(
    locked: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = decoder(tmp_path, layer="cv", run_dir=tmp_path / "run", **WALK).fit(spoiled(tmp_path / "spoiled"))
    with pytest.raises(AssertionError, match="test rows were read"):
        one.score(n_boot=50, n_perm=50)
    locked.undo()
    assert one.score(n_boot=50, n_perm=50).loc["brain_to_image", "n"] == N_TEST

    study(tmp_path / "study")
    words = as_the_command_words(tmp_path, **WALK)
    assert cli.main(["sweep", *words, f"run_dir={tmp_path / 'sweep'}", "--no-test", "--json"]) == 0
    chosen = json.loads(capsys.readouterr().out)["chosen"]["layer"]
    target = one.run_.config.target
    assert chosen == target.layer != "1", "the first layer, which stands there until one is chosen, is not the best"
    assert target.chosen_on.startswith("grouped 2-fold cross-validation on training rows of 'folder ")
    assert target.chosen_on.endswith(", subject '01'")
    choices = [json.loads((tmp_path / part / "choice.json").read_text()) for part in ("run/sweep", "sweep")]
    assert choices[0] == choices[1] and not choices[0]["test_read"]

    best = tmp_path / "sweep" / "best.yaml"
    assert load_config(Config, best).target.layer == chosen
    assert align_train(["--config", str(best), f"run_dir={tmp_path / 'command'}"]) == 0
    assert weights_hash(tmp_path / "command") == one.run_.meta["weights_hash"]


def test_an_own_module_of_any_width_is_swept(tmp_path: Path) -> None:
    walk = {**WALK, "sweep__layers": ["1", "8"], "sweep__seeds": 1, "train__epochs": 1}
    one = decoder(tmp_path, layer="cv", encoder=Net(len(CHANNELS), None, 12), **walk).fit(study())
    assert one.run_.config.target.layer in ("1", "8") and one.run_.config.encoder.width == 12


def test_other_code_of_an_own_encoder_is_trained_anew(tmp_path: Path) -> None:
    """Two functions of one name: the configuration does not tell them apart, so no checkpoint is taken over."""
    walk = {**WALK, "layer": "cv", "sweep__layers": ["1"], "sweep__seeds": 1, "train__epochs": 1}
    made, hashes = study(), []
    for bias in (True, False, True):

        def net(n_chans: int, n_times: int, width: int, bias: bool = bias) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(n_chans * n_times, width, bias=bias))

        one = decoder(tmp_path, encoder=net, run_dir=tmp_path / "run", **walk).fit(made)
        cells = sorted((tmp_path / "run" / "sweep" / "cells").glob("*.json"))
        hashes.append((one.run_.meta["weights_hash"], [cell.read_text() for cell in cells]))
    assert hashes[0] == hashes[2]
    assert hashes[0][0] != hashes[1][0] and hashes[0][1] != hashes[1][1]


def test_an_own_module_reads_arrays_after_their_preparation(tmp_path: Path) -> None:
    wide = nn.Sequential(nn.Flatten(), nn.Linear(len(CHANNELS) * (N_TIMES - 6), 12))
    one = decoder(tmp_path, encoder=wide, preprocess__tmax=0.1)
    one.fit(signals(), pictures()[stimulus()], sfreq=100.0, ch_names=CHANNELS)
    assert one.predict(signals()[:3])[1].shape == (3, 12)


def test_signals_alone_choose_no_layer() -> None:
    fails("layer='cv' chooses on a study", lambda: Decoder(layer="cv").fit(signals(), pictures()[stimulus()]))

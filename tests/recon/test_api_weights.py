"""`recon.Decoder.fit` gives the weights of `align/train.py`: own encoders, closed forms, epochs and their import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch import nn

from align.checkpoint import weights_hash
from align.encoders.own import given
from align.train import main as align_train
from recon import Study, cli
from tests.recon.api_study import (
    CHANNELS,
    N_PICTURES,
    N_TEST,
    SFREQ,
    Net,
    as_the_command_words,
    decoder,
    pictures,
    signals,
    stimulus,
    study,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Training from Python and by the command both take all cores; here both keep the thread that a test has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align.train.use_all_cores", lambda: None)
        yield


def made_net(n_chans: int, n_times: int | None, width: int) -> nn.Module:
    return Net(n_chans, n_times, width)


@pytest.mark.parametrize(
    ("encoder", "settings"),
    [
        ("mlp", {}),
        ("tsconv", {"encoder__kernel": 3, "encoder__pool": 4, "encoder__stride": 2}),
        ("ridge", {"encoder__components": 20}),
        (made_net, {}),
        (Net(len(CHANNELS), None, 16), {}),
    ],
    ids=["mlp", "tsconv", "ridge", "own function", "own module"],
)
def test_the_weights_are_those_of_the_command(encoder: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    one = decoder(tmp_path, encoder=encoder, seed=3, **settings).fit(study(tmp_path / "study"))
    name = encoder if isinstance(encoder, str) else "own"
    words = as_the_command_words(tmp_path, encoder__name=name, seed=3, **settings)
    with given(None if isinstance(encoder, str) else encoder):
        assert align_train([*words, f"run_dir={tmp_path / 'command'}"]) == 0
    assert weights_hash(tmp_path / "command") == one.run_.meta["weights_hash"] == weights_hash(one.run_.path)


# MNE 1.13 reads metadata in a way that pandas 3.1 warns of
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.set_index:DeprecationWarning")
def test_epochs_in_memory_teach_what_their_import_teaches(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for i, pixels in enumerate(pictures()):
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i:02d}.png")
    split = ["test" if i >= N_PICTURES - N_TEST else "train" for i in stimulus()]
    shown = pd.DataFrame({"image": [f"{i:02d}.png" for i in stimulus()], "split": split})
    info = mne.create_info(list(CHANNELS), SFREQ, "eeg")
    epochs = mne.EpochsArray(signals() * 1e-6, info, tmin=-0.05, metadata=shown, verbose="error")
    epochs.save(tmp_path / "sub-01-epo.fif", fmt="double", verbose="error")

    words = ["--epochs", str(tmp_path / "sub-01-epo.fif"), "--images", str(tmp_path / "pictures")]
    assert cli.main(["data", "import", *words, "--out", str(tmp_path / "study")]) == 0
    assert align_train([*as_the_command_words(tmp_path), f"run_dir={tmp_path / 'command'}"]) == 0

    one = decoder(tmp_path).fit(Study.from_epochs(epochs, tmp_path / "pictures", test="split"))
    assert one.run_.meta["weights_hash"] == weights_hash(tmp_path / "command")
    np.testing.assert_allclose(one.preparation.size, np.median(np.abs(signals()[stimulus() < 24])) * 1e-6, rtol=1e-3)

"""Controls of a run: which rows each of them reads."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from align.checkpoint import Run
from align.errors import UserError
from align.files import read_tensors, save_tensors
from recon.decoding.predict import predict
from recon.evaluation.controls import enlarge, training_pictures
from recon.evaluation.recordings import RunData
from recon.images import load_image
from tests.recon.tiny_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("recordings"), n_test=6)


def test_controls_read_training_rows_and_keep_the_order_that_is_asked_for(run: Run) -> None:
    run_data = RunData(run)
    recording = run_data.recording
    train, test, size = recording.train.averaged(), recording.test.averaged(), 32
    names = [recording.stimuli.ids[i] for i in test.stimulus]
    order = [4, 0, 5]
    found = run_data.control_pictures([names[k] for k in order], size)

    seen = training_pictures(recording.stimuli, train.stimulus, size)
    ridge = make_pipeline(StandardScaler(), Ridge(alpha=100)).fit(train.x, seen.thumbnails.flatten(1).numpy())
    torch.testing.assert_close(found["pixel_ridge"], enlarge(ridge.predict(test.x[order]), size), atol=1e-4, rtol=0)
    torch.testing.assert_close(found["mean_image"], seen.mean.expand(3, -1, -1, -1))

    training = torch.stack([load_image(recording.stimuli, int(i), size) for i in train.stimulus])
    for name in ("random_training_image", "nearest_training_image"):
        apart = (found[name][:, None] - training[None]).abs().amax((2, 3, 4))
        assert (apart.min(1).values == 0).all(), name
    embeds = run_data.run.aligner.predict(test.x[order])["embeds"]
    pictures = run_data.picture_embeds(train.stimulus)
    cosine = (embeds / np.linalg.norm(embeds, axis=1, keepdims=True)) @ (
        pictures / np.linalg.norm(pictures, axis=1, keepdims=True)
    ).T
    torch.testing.assert_close(found["nearest_training_image"], training[cosine.argmax(1)])


@pytest.mark.parametrize("name", ["stranger", "", "../p", "\x1b[2J", "p" * 300])
def test_predictions_of_a_stimulus_the_study_does_not_have(run: Run, name: str) -> None:
    """Renamed in a whole file, with a checksum that fits; training pictures are no test stimuli either."""
    path = predict(run)
    tensors, told = read_tensors(path)
    first, *others = json.loads(told["ids"])
    for strange in (name, RunData(run).recording.stimuli.ids[0]):
        save_tensors(path, tensors, {**told, "ids": json.dumps([strange, *others])})
        with pytest.raises(UserError, match="which is no test stimulus") as raised:
            _ = RunData(run).predictions
        assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    save_tensors(path, tensors, {**told, "ids": json.dumps([first, *others])})
    assert RunData(run).predictions.ids == (first, *others)

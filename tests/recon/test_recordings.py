"""Controls of a run: which rows each of them reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from recon.evaluation.controls import enlarge, training_pictures
from recon.evaluation.recordings import RunData
from recon.images import load_image
from tests.recon.tiny_run import make_run


def test_controls_read_training_rows_and_keep_the_order_that_is_asked_for(tmp_path: Path) -> None:
    run_data = RunData(make_run(tmp_path, n_test=6))
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

"""What a report needs from the recording behind a run: pictures, signals, and the embeds of candidate pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError
from recon.decoding.ridge import Ridge, nearest
from recon.evaluation import controls
from recon.images import load_image

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run
    from align.data.signals import Recording
    from recon.decoding.predict import Predictions


class RunData:
    """The recording, predictions and picture embeds of one run; everything is read when first asked for."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @cached_property
    def recording(self) -> Recording:
        from recon.decoding.predict import open_recording

        return open_recording(self.run)

    @property
    def notes(self) -> list[str]:
        """Remarks on the recording, and on all people that the encoder was trained on together."""
        from align.checkpoint import SPLIT
        from align.data.sound import joint_remarks, remarks_of
        from align.data.splits import read_split

        stored = self.run.path / SPLIT
        return [*remarks_of(self.recording), *(joint_remarks(read_split(stored)) if stored.is_file() else [])]

    @cached_property
    def predictions(self) -> Predictions:
        from recon.decoding.predict import load_predictions

        found = load_predictions(self.run)
        self.require_known(found.ids, f"the file {str(found.path)!r}")
        return found

    @cached_property
    def row(self) -> dict[str, int]:
        """Stimulus id to its row in the recording's stimuli."""
        return {stimulus_id: i for i, stimulus_id in enumerate(self.recording.stimuli.ids)}

    @cached_property
    def _tokens(self) -> np.ndarray:
        from recon.decoding.predict import picture_tokens

        return picture_tokens(self.run, self.recording)

    def picture_embeds(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Embeds (K, E) of the pictures at ``rows`` of the stimuli."""
        order = np.asarray(rows)
        embeds: np.ndarray = self.run.aligner.embed_images(
            np.asarray(self._tokens[order], dtype=np.float32), subject=self.run.number
        )
        return embeds

    def targets(self, ids: Sequence[str]) -> torch.Tensor:
        """The true pictures (n, 3, H, W) in [0, 1]: at their own size when they share it, else at 256 x 256."""
        import torch

        from recon.metrics.pixels import enter

        images = [load_image(self.recording.stimuli, self.row[stimulus_id]) for stimulus_id in ids]
        if len({tuple(image.shape) for image in images}) > 1:
            images = [enter(image[None])[0] for image in images]
        return torch.stack(images)

    def control_pictures(self, ids: Sequence[str], size: int) -> dict[str, torch.Tensor]:
        """Every control that needs no generator: name to (n, 3, size, size), the same stimuli in the same order."""
        import torch

        stimuli, train = self.recording.stimuli, self.recording.train.averaged()
        seen = controls.training_pictures(stimuli, train.stimulus, size)
        test = self.recording.test.averaged()
        place = {stimuli.ids[i]: k for k, i in enumerate(test.stimulus)}
        test_x = test.x[[place[stimulus_id] for stimulus_id in ids]]
        thumbnails = Ridge.fit(train.x, seen.thumbnails.flatten(1).numpy())(test_x)
        predicted = {stimulus_id: k for k, stimulus_id in enumerate(self.predictions.ids)}
        embeds = self.predictions.embeds[[predicted[stimulus_id] for stimulus_id in ids]]
        near = nearest(embeds, self.picture_embeds(train.stimulus))
        drawn = controls.random_rows(len(ids), len(train), self.run.config.seed)

        def training(rows: np.ndarray) -> torch.Tensor:
            return torch.stack([load_image(stimuli, int(train.stimulus[k]), size) for k in rows])

        own = torch.stack([load_image(stimuli, self.row[stimulus_id], size) for stimulus_id in ids])
        return {
            "grey": controls.grey(len(ids), size),
            "mean_image": seen.mean[None].repeat(len(ids), 1, 1, 1),
            "random_training_image": training(drawn),
            "nearest_training_image": training(near),
            "pixel_ridge": controls.enlarge(thumbnails, size),
            "blurred_target": controls.blurred(own),
        }

    def training_pictures(self, size: int, batch: int = 64) -> Iterator[torch.Tensor]:
        """All training pictures, (B, 3, size, size) in [0, 1] at a time."""
        import torch

        stimuli, rows = self.recording.stimuli, np.unique(self.recording.train.stimulus)
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            yield torch.stack([load_image(stimuli, int(row), size) for row in part])

    def require_known(self, ids: Sequence[str], where: str) -> None:
        """Raise `UserError` when a picture belongs to no test stimulus of the recording."""
        test = {self.recording.stimuli.ids[i] for i in np.unique(self.recording.test.stimulus)}
        strange = [stimulus_id for stimulus_id in ids if stimulus_id not in test]
        if strange:
            raise UserError(f"{where} holds pictures of {strange[0]!r}, which is no test stimulus; generate again")

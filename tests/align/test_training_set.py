"""Several recordings as one training set, averages on disk, protocols, and the hashes of pictures kept on disk."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from align.data import signals
from align.data.reading import picture_hashes as module
from align.data.reading.picture_hashes import picture_hashes
from align.data.signals import Recording, Stimuli, Trials, pixel_hash
from align.data.splits import joint_manifest, manifest, refuse_overlap
from align.training.protocols import plan_jobs
from align.training.training_set import join, training_rows
from tests.one_line import fails

PICTURES = np.random.default_rng(0).integers(0, 255, size=(7, 8, 8, 3), dtype=np.uint8)


def recording(subject: str, pictures: list[int], train: list[int], test: list[int], shape: tuple[int, ...] = (2, 3)):
    """``train`` and ``test`` are indices into ``pictures``; the first value of a trial tells subject and row."""
    stimuli = Stimuli(
        ids=tuple(f"{subject}/{i}" for i in pictures),
        load=lambda i: PICTURES[pictures[i]],
        groups=np.arange(len(pictures)) // 2,
        concepts=tuple(f"c{i}" for i in pictures),
        captions=("",) * len(pictures),
    )

    def trials(shown: list[int], offset: int) -> Trials:
        x = np.zeros((len(shown), *shape), np.float32)
        x.reshape(len(shown), -1)[:, 0] = 100 * int(subject) + offset + np.arange(len(shown))
        return Trials(x, np.array(shown), np.zeros(len(shown), dtype=np.int64))

    return Recording("toy", subject, trials(train, 0), trials(test, 50), stimuli, ch_names=("a", "b"), sfreq=10.0)


def test_a_picture_that_two_subjects_saw_is_one_picture() -> None:
    one = recording("01", [0, 1, 2, 3], [0, 1, 2, 1], [3])
    two = recording("02", [4, 2, 0, 5], [0, 1, 2], [3])  # pictures 4, 2, 0
    tokens = [np.arange(4.0).reshape(4, 1, 1), 10 + np.arange(4.0).reshape(4, 1, 1)]
    data = join([one, two], [one.train, two.train], tokens)
    assert data.signals.all()[:, 0, 0].tolist() == [100, 101, 102, 103, 200, 201, 202]
    assert data.tokens.all()[:, 0, 0].tolist() == [0, 1, 2, 10], "pictures 0, 1, 2 of subject 01, picture 4 of 02"
    assert data.stimulus.tolist() == [0, 1, 2, 1, 3, 2, 0]
    groups = data.groups.tolist()  # scenes: (0, 1), (2, 3) for 01; (4, 2), (0, 5) for 02
    assert groups[0] == groups[1] == groups[3] == groups[6]
    assert groups[2] == groups[4] == groups[5] != groups[0], "joined through picture 2"
    alone = join([one], [one.train], tokens[:1])
    assert alone.stimulus.tolist() == [0, 1, 2, 1] and alone.groups.tolist() == [0, 0, 1, 0]


def test_subjects_with_other_channels_are_not_mixed() -> None:
    one, two = recording("01", [0, 1], [0], [1]), recording("02", [0, 1], [0], [1], shape=(2, 4))
    tokens = [np.zeros((2, 1, 1))] * 2
    fails(
        r"01 and 02 have trials of \(2, 3\) and \(2, 4\); one", lambda: join([one, two], [one.train, two.train], tokens)
    )
    renamed = replace(recording("02", [0, 1], [0], [1]), ch_names=("b", "a"))
    fails(
        r"with other channels: the same channels in another order, 2 of 2 places differ \(0: a and b, 1: b and a",
        lambda: join([one, renamed], [one.train, renamed.train], tokens),
    )


def test_protocols() -> None:
    assert [(job.trained_on, job.tested_on, job.label) for job in plan_jobs("intra", ["01", "02"])] == [
        (("01",), ("01",), "sub-01"),
        (("02",), ("02",), "sub-02"),
    ]
    (pooled,) = plan_jobs("pooled", ["01", "02", "03"])
    assert pooled.trained_on == pooled.tested_on == ("01", "02", "03") and pooled.label == "pooled_01-03"
    jobs = plan_jobs("loso", ["01", "02", "03"])
    assert [job.trained_on for job in jobs] == [("02", "03"), ("01", "03"), ("01", "02")]
    assert [job.label for job in jobs] == ["loso_sub-01", "loso_sub-02", "loso_sub-03"]
    fails("two subjects or more, got 01", lambda: plan_jobs("loso", ["01"]))


def test_a_test_picture_of_one_subject_must_not_train_the_encoder_through_another() -> None:
    one, two = recording("01", [0, 1, 2], [0, 1], [2]), recording("02", [2, 3, 4], [0, 1], [2])
    refuse_overlap(one)
    refuse_overlap(two, trained_on=[one, two])
    fails(
        "02 and the test of 01: training and test share 1 picture: 01/2", lambda: refuse_overlap(one, trained_on=[two])
    )
    same = recording("03", [5, 6], [0], [1])
    object.__setattr__(same.stimuli, "concepts", ("c2", "c6"))
    fails("share 1 concept: c2", lambda: refuse_overlap(one, True, trained_on=[same]))


def test_the_manifest_of_several_subjects() -> None:
    one, two = recording("01", [0, 1, 2], [0, 1, 0], [2]), recording("02", [1, 3, 4], [0, 1], [2])
    joint = joint_manifest([one, two], [one, two])
    assert joint["train"]["ids"] == ["01/0", "01/1", "02/3"] and joint["train"]["n_trials"] == 5
    assert joint["train"]["hashes"] == [pixel_hash(PICTURES[i]) for i in (0, 1, 3)]
    assert joint["test"]["ids"] == ["01/2", "02/4"]
    assert joint["test_of"] == {"01": manifest(one)["test"], "02": manifest(two)["test"]}
    left_out = joint_manifest([two], [one])
    assert (left_out["subject"], left_out["subjects"], left_out["trained_on"]) == ("01", ["01"], ["02"])
    assert left_out["train"]["ids"] == ["02/" + str(i) for i in (1, 3)] and left_out["test"]["ids"] == ["01/2"]
    assert joint_manifest([one], [one]) == manifest(one)


def test_large_averages_are_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = recording("01", [0, 1, 2, 3], [2, 0, 1, 0, 2], [3])
    expected = given.train.averaged()
    assert training_rows(given, False, tmp_path) is given.train
    assert signals.mapped_file(training_rows(given, True, tmp_path).x) is None and not list(tmp_path.iterdir())
    monkeypatch.setattr(signals, "HELD", 0)
    kept = training_rows(given, True, tmp_path)
    assert signals.mapped_file(kept.x) is not None and kept.x.dtype == np.float32
    np.testing.assert_array_equal(kept.x, expected.x)
    assert kept.stimulus.tolist() == expected.stimulus.tolist()
    (file,) = (tmp_path / "signals").iterdir()
    before = file.stat().st_mtime_ns
    training_rows(given, True, tmp_path)
    assert file.stat().st_mtime_ns == before, "taken, not made again"
    other = replace(given, train=replace(given.train, x=given.train.x + 1))
    np.testing.assert_array_equal(training_rows(other, True, tmp_path).x, expected.x + 1)
    order = replace(given, train=replace(given.train, stimulus=np.roll(given.train.stimulus, 1)))
    training_rows(order, True, tmp_path)
    assert len(list((tmp_path / "signals").iterdir())) == 3


def test_picture_hashes_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(PICTURES[i]).save(path)
    expected = tuple(pixel_hash(PICTURES[i]) for i in range(3))
    assert picture_hashes(paths, tmp_path / "cache") == expected
    decode = module.decode_image
    monkeypatch.setattr(module, "decode_image", lambda path: pytest.fail(f"{path} was decoded again"))
    assert picture_hashes(paths[::-1], tmp_path / "cache") == expected[::-1]
    Image.fromarray(PICTURES[5]).save(paths[1])
    os.utime(paths[1], (1, 1))
    decoded = []
    monkeypatch.setattr(module, "decode_image", lambda path: decoded.append(path) or decode(path))
    assert picture_hashes(paths, tmp_path / "cache")[1] == pixel_hash(PICTURES[5]) and decoded == [paths[1]]
    (tmp_path / "cache" / "pictures.json").write_text('{"a": 3}')
    assert picture_hashes(paths[:1], tmp_path / "cache") == expected[:1]
    fails("does not exist", lambda: picture_hashes([tmp_path / "no.png"], tmp_path / "cache"))

"""NSD on the surface: the folders of the Algonauts 2023 challenge, as its participants have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from align.config import Config, load_config
from align.data.studies import open_study
from align.data.studies.base import Study
from tests.one_line import fails

LEFT, RIGHT = 5, 4  # vertices
TRAIN, TEST = [40, 3, 17, 26, 9, 51, 60, 72, 15, 33, 8, 91], [12, 5, 70]  # of the 73,000, in the order of the rows


def picture(coco: int) -> np.ndarray:
    return np.random.default_rng(coco).integers(0, 256, (32, 32, 3)).astype(np.uint8)


def responses(pictures: list[int], side: str) -> np.ndarray:
    vertices = {"lh": LEFT, "rh": RIGHT}[side]
    return np.stack([np.random.default_rng([coco, vertices]).normal(size=vertices) for coco in pictures])


def write_split(folder: Path, name: str, pictures: list[int]) -> None:
    images, rows = (folder / f"{name}_split" / f"{name}_{kind}" for kind in ("images", "fmri"))
    images.mkdir(parents=True)
    rows.mkdir()
    for number, coco in enumerate(pictures, start=1):
        Image.fromarray(picture(coco)).save(images / f"{name[:5]}-{number:04d}_nsd-{coco:05d}.png")
    for side in ("lh", "rh"):
        np.save(rows / f"{side}_{name}_fmri.npy", responses(pictures, side).astype(np.float32))


def write_regions(folder: Path) -> None:
    masks = folder / "roi_masks"
    masks.mkdir()
    np.save(masks / "lh.prf-visualrois_challenge_space.npy", np.array([0, 1, 1, 2, 0]))
    np.save(masks / "rh.prf-visualrois_challenge_space.npy", np.array([1, 0, 0, 2]))
    np.save(masks / "mapping_prf-visualrois.npy", np.array({0: "Unknown", 1: "V1v", 2: "V1d"}, dtype=object))
    np.save(masks / "lh.streams_challenge_space.npy", np.array([0, 0, 0, 0, 3]))
    np.save(masks / "rh.streams_challenge_space.npy", np.zeros(4, dtype=int))
    np.save(masks / "lh.all-vertices_fsaverage_space.npy", np.ones(20))


def opened(root: Path, *pairs: str) -> Study:
    found = ["study.name=nsd", f"study.root={root}", f"cache_dir={root.parent / 'cache'}", *pairs]
    return open_study(load_config(Config, None, found))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One subject with test responses in another folder, as the organisers keep them, and regions."""
    folder = tmp_path / "algonauts"
    write_split(folder / "train_data" / "subj03", "training", TRAIN)
    write_split(folder / "test_data" / "subj03", "test", TEST)
    write_regions(folder / "train_data" / "subj03")
    return folder


def test_rows_stand_for_the_pictures_that_their_names_say(root: Path) -> None:
    study = opened(root)
    assert (study.variant, study.subjects) == ("algonauts", ("03",))
    recording = study.recording("03")
    assert recording.stimuli.ids == tuple(f"{coco:05d}" for coco in sorted(TRAIN + TEST))
    for part, pictures in ((recording.train, TRAIN), (recording.test, TEST)):
        assert [int(recording.stimuli.ids[i]) for i in part.stimulus] == pictures
        expected = np.concatenate([responses(pictures, side) for side in ("lh", "rh")], axis=1)
        np.testing.assert_allclose(part.x, expected, rtol=1e-6)
    for place, coco in enumerate(sorted(TRAIN + TEST)):
        np.testing.assert_array_equal(recording.stimuli.load(place), picture(coco))
    assert all(fact.holds for fact in study.check())
    assert "responses of the test split" in recording.log[0]


def test_regions_are_those_of_both_hemispheres(root: Path) -> None:
    study = opened(root)
    assert study.rois("03") == {"V1v": (1, 2, 5), "V1d": (3, 8), "streams-3": (4,)}
    found = opened(root, "study.roi=V1v").recording("03").train.x
    left, right = (responses(TRAIN, side) for side in ("lh", "rh"))
    np.testing.assert_allclose(found, np.column_stack([left[:, 1], left[:, 2], right[:, 0]]), rtol=1e-6)


def test_without_test_responses_the_same_pictures_stand_in_for_everybody(tmp_path: Path) -> None:
    for subject, pictures in (("01", list(range(60))), ("02", list(range(20, 90)))):
        write_split(tmp_path / "data" / f"subj{subject}", "training", pictures)
    study = opened(tmp_path / "data")
    tested, trained = set(), set()
    for subject in study.subjects:
        recording = study.recording(subject)
        assert "training pictures stand in" in recording.log[0]
        tested |= {recording.stimuli.ids[i] for i in recording.test.stimulus}
        trained |= {recording.stimuli.ids[i] for i in recording.train.stimulus}
    assert len(tested) >= 4 and not tested & trained


def test_what_does_not_fit_is_one_line(root: Path) -> None:
    folder = root / "train_data" / "subj03" / "training_split"
    rows = folder / "training_fmri" / "lh_training_fmri.npy"
    values = responses(TRAIN, "lh").astype(np.float32)
    np.save(rows, values[:-1])
    fails("expected floats .12 pictures of training_images", lambda: opened(root).recording("03"))
    np.save(rows, np.where(values == values[2, 1], np.nan, values))
    fails("1 values are NaN", lambda: opened(root).recording("03"))
    np.save(rows, values[:, :-1])
    fails("vertices", lambda: opened(root).recording("03"))
    np.save(rows, values)
    images = folder / "training_images"
    (images / "train-0002_nsd-00003.png").rename(images / "train-0002_nsd-00012.png")
    fails("training and test share 1 pictures, first 12", lambda: opened(root).recording("03"))
    (images / "train-0002_nsd-00012.png").rename(images / "train-0002_nsd-00040.png")
    fails("11 pictures in 12 train rows", lambda: opened(root).recording("03"))
    (images / "train-0002_nsd-00040.png").unlink()
    fails("pictures are not numbered 1 to 11", lambda: opened(root).recording("03"))
    fails("no subject '04'.*Known: 03", lambda: opened(root).recording("04"))
    fails("holds no webdataset_avg_split", lambda: opened(root, "study.variant=averaged"))


def test_a_mask_of_another_size_and_a_mapping_that_runs_code_are_refused(root: Path) -> None:
    masks = root / "train_data" / "subj03" / "roi_masks"
    np.save(masks / "lh.streams_challenge_space.npy", np.zeros(7, dtype=int))
    fails("has shape .7,., the responses 5 vertices", lambda: opened(root).rois("03"))
    np.save(masks / "lh.streams_challenge_space.npy", np.zeros(5, dtype=int))
    np.save(masks / "mapping_prf-visualrois.npy", np.array(["V1v", "V1d"]))
    fails("holds no names", lambda: opened(root).rois("03"))

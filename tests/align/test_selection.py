"""Named ablations: what study.roi, study.channels and study.window keep, compared with numpy's own slicing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from align.config import Config, dump_yaml, load_config
from align.data.preparing.selection import channel_indices, described, parse_window
from align.data.signals import Recording
from align.data.studies import open_study
from align.data.studies.simulated.brain import CHANNELS, OCCIPITAL
from tests.align.fixture_studies import default_rows, write_folder
from tests.one_line import fails

NAMES = ("O1", "Fz", "PO3", "Oz", "P7", "CP1")
ROIS = {"back": ["O1", "Oz"], "side": [4], "front": ["Fz"], "wrong": ["O9"], "far": [6], "none": []}
N_TIMES = 40  # at 100 Hz from -0.1 s: to 0.3 s


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    x = np.random.default_rng(0).normal(size=(len(default_rows()), len(NAMES), N_TIMES)).astype(np.float32)
    write_folder(folder, x)
    info = {"sfreq": 100, "tmin": -0.1, "ch_names": NAMES, "roi": ROIS}
    (folder / "info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def voxels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voxels")
    write_folder(folder, np.random.default_rng(1).normal(size=(len(default_rows()), 9)).astype(np.float32))
    (folder / "info.json").write_text(json.dumps({"roi": {"V1": [7, 2], "V2": [2, 0], "none": []}}))
    return folder


def opened(root: Path, *pairs: str) -> Recording:
    given = ["study.name=folder", f"study.root={root}", f"cache_dir={root / 'cache'}", *pairs]
    return open_study(load_config(Config, None, given)).recording("01")


@pytest.mark.parametrize(
    ("pairs", "channels", "samples"),
    [
        (["study.channels=^(O|P)"], [0, 2, 3, 4], slice(None)),
        (["study.channels=P"], [2, 4, 5], slice(None)),  # searched for anywhere: CP1 too
        (["study.channels=^[OF]"], [0, 1, 3], slice(None)),
        (["study.channels=Oz,O1"], [0, 3], slice(None)),
        (["study.channels=[Oz, O1]"], [0, 3], slice(None)),
        (["study.channels=[O1]"], [0], slice(None)),  # a list of one name, and no set of the signs O and 1
        (["study.roi=back"], [0, 3], slice(None)),
        (["study.roi=[side,back]"], [0, 3, 4], slice(None)),
        (["study.roi=[side,back]", "study.channels=^P"], [4], slice(None)),
        (["study.window=0.05:0.25"], [0, 1, 2, 3, 4, 5], slice(15, 35)),
        (["study.window=-0.1:0.3"], [0, 1, 2, 3, 4, 5], slice(None)),
        (["study.channels=^(O|P)", "study.window=0:0.1"], [0, 2, 3, 4], slice(10, 20)),
    ],
)
def test_kept_signals_are_those_of_numpy(root: Path, pairs: list[str], channels: list[int], samples: slice) -> None:
    whole, part = opened(root), opened(root, *pairs)
    for split in ("train", "test"):
        expected = getattr(whole, split).x[:, channels, samples]
        np.testing.assert_array_equal(getattr(part, split).x, expected)
        np.testing.assert_array_equal(getattr(part, split).stimulus, getattr(whole, split).stimulus)
    assert part.ch_names == tuple(NAMES[i] for i in channels)
    assert part.tmin == pytest.approx(-0.1 + (samples.start or 0) / 100)


def test_baseline_may_lie_outside_the_window(root: Path) -> None:
    whole = opened(root).train.x
    part = opened(root, "study.window=0.05:0.25", "preprocess.baseline=[-0.1,0]").train.x
    expected = whole - whole[:, :, :11].mean(axis=2, keepdims=True)
    np.testing.assert_allclose(part, expected[:, :, 15:35], atol=1e-6)


def test_voxels_are_chosen_by_index(voxels: Path) -> None:
    whole = opened(voxels)
    for pair, kept in (("study.roi=V1", [2, 7]), ("study.roi=V1,V2", [0, 2, 7])):
        part = opened(voxels, pair)
        np.testing.assert_array_equal(part.train.x, whole.train.x[:, kept])
        np.testing.assert_array_equal(part.test.x, whole.test.x[:, kept])


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (["study.roi=bakc"], "no region 'bakc'; did you mean 'back'"),
        (["study.roi=wrong"], "roi 'wrong' names the channel 'O9'"),
        (["study.roi=far"], "roi 'far' holds the index 6, but there are 6"),
        (["study.roi=[back,back]"], "study.roi=back,back names the region 'back' twice"),
        (["study.channels=[O1,Oz,O1]"], "names the channel 'O1' twice; name it once"),
        (["study.roi=none"], "study.roi=none is empty"),
        (["study.roi=back", "preprocess.channels=[O1]"], "study.roi and preprocess.channels both"),
        (["study.channels=^O", "preprocess.channels=[O1]"], "study.channels and preprocess.channels both"),
        (["study.window=0:0.1", "preprocess.tmax=0.2"], "study.window and preprocess.tmin or tmax both"),
        (["study.channels=^X"], "fits no channel"),
        (["study.channels=[Oz,O2]"], "has no channel 'O2'"),
        (["study.channels=(O"], "no regular expression"),
        (["study.window=0.1"], "is not FROM:TO"),
        (["study.window=a:b"], "is not FROM:TO"),
        (["study.window=0.2:0.1"], "from an earlier to a later"),
        (["study.window=0:nan"], "from an earlier to a later"),
        (
            ["study.window=0:0.4"],
            "folder subject 01, -0.1 to 0.29 s .first and last sample.; .* 0.3 at most",
        ),
        (["study.window=-0.3:0.1"], "leaves the recording"),
        (["study.window=0.101:0.102"], "holds no sample"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(root: Path, pairs: list[str], words: str) -> None:
    fails(words, lambda: opened(root, *pairs))


def test_what_voxels_lack_is_one_line(voxels: Path) -> None:
    fails("needs signals over time", lambda: opened(voxels, "study.window=0:0.1"))
    fails("needs channel names", lambda: opened(voxels, "study.channels=^O"))


@pytest.mark.parametrize(
    ("roi", "told"),
    [
        ([0, 99], "roi 'a' holds the index 99, but there are 6 channels or voxels, from 0 to 5"),
        ([0, -1], "roi 'a' holds the index -1"),
        ([0, 0], r"roi 'a' names a channel or voxel twice \(0\); name it once"),
        ([0, NAMES[0]], rf"names a channel or voxel twice \(0 and '{NAMES[0]}'\)"),
    ],
)
def test_members_of_a_region_are_there_and_stand_once(roi: list[int | str], told: str, tmp_path: Path) -> None:
    write_folder(tmp_path, np.random.default_rng(0).normal(size=(len(default_rows()), len(NAMES), 5)))
    (tmp_path / "info.json").write_text(json.dumps({"ch_names": NAMES, "roi": {"a": roi}}))
    fails(told, lambda: opened(tmp_path, "study.roi=a"))
    fails(told, lambda: opened(tmp_path, "encoder.name=banded_ridge", "encoder.bands=[a,rest]"))


def test_a_study_without_regions_says_so(tmp_path: Path) -> None:
    write_folder(tmp_path)
    fails("declares no regions; choose channels by study.channels", lambda: opened(tmp_path, "study.roi=V1"))
    fails("needs a sampling rate", lambda: opened(tmp_path, "study.window=0:0.1"))


@pytest.mark.parametrize("roi", [[1], {"a": "O1"}, {"a": [1.5]}, {"a": [True]}, {"a": [-1]}])
def test_regions_of_another_form_are_refused(tmp_path: Path, roi: object) -> None:
    write_folder(tmp_path)
    (tmp_path / "info.json").write_text(json.dumps({"roi": roi}))
    fails("roi", lambda: opened(tmp_path, "study.roi=a"))


def test_the_regions_of_the_simulation_are_where_its_codes_are() -> None:
    study = open_study(load_config(Config, None, []))
    rois = study.rois("01")
    assert set(rois) == {"occipital", "temporal"}
    assert rois["occipital"] == OCCIPITAL
    assert all(set(members) <= set(CHANNELS) for members in rois.values())


def test_the_posterior_set_of_the_literature_is_one_expression() -> None:
    found = [CHANNELS[i] for i in channel_indices("^(O|P)", CHANNELS, "it")]
    assert found == [name for name in CHANNELS if name[0] in "OP"]
    assert len(found) == 17


def test_what_was_chosen_is_recorded(tmp_path: Path) -> None:
    pairs = ["study.roi=V1", "study.channels=^(O|P)", "study.window=0.05:0.35"]
    config = load_config(Config, None, pairs)
    file = tmp_path / "config.yaml"
    file.write_text(dump_yaml(config))
    assert load_config(Config, file) == config
    told = described(config, (17, 30))
    assert told == {
        "roi": ["V1"],
        "channels": "^(O|P)",
        "window": [0.05, 0.35],
        "n_channels": 17,
        "n_times": 30,
    }
    other = load_config(Config, None, ["preprocess.channels=[O1]", "preprocess.tmin=0.1"])
    assert described(other, (1, 30)) | {"n_times": 0} == {
        "roi": None,
        "channels": ["O1"],
        "window": [0.1, None],
        "n_channels": 1,
        "n_times": 0,
    }
    assert described(Config(), (5,)) == {
        "roi": None,
        "channels": None,
        "window": None,
        "n_channels": 5,
        "n_times": None,
    }


def test_window_is_read_as_two_times() -> None:
    assert parse_window("-0.1:0.35") == (-0.1, 0.35)

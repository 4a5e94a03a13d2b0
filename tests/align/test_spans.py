"""One rule for windows of time: a recording is named by its last sample, a window that is asked for ends before its."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from align.config import Config, PreprocessConfig, StudyConfig, load_config
from align.data.preparing.selection import resolve
from align.data.preparing.steps import plan_chain
from align.data.signals import Recording, Stimuli, Trials
from align.data.spans import asked, ends, span
from tests.one_line import fails


def recording() -> Recording:
    """101 samples at 100 Hz from -0.2 s on: the last is at 0.8 s."""
    one = np.zeros(2, np.int64)
    trials = Trials(np.random.default_rng(0).normal(size=(2, 3, 101)).astype(np.float32), one, one)
    stimuli = Stimuli(("a",), lambda i: np.zeros((2, 2, 3), np.uint8), one[:1], ("",), ("",))
    return Recording("toy", "01", trials, trials, stimuli, sfreq=100.0, tmin=-0.2)


def test_first_and_last_sample() -> None:
    assert ends(-0.2, 101, 100) == pytest.approx((-0.2, 0.8))
    assert span(-0.2, 101, 100) == "-0.2 to 0.8 s (first and last sample)"
    assert asked([0.1, 0.3]) == "0.1 s up to, not including, 0.3 s"
    assert asked([None, 0.3]) == "the first sample up to, not including, 0.3 s"
    assert asked([0.1, None]) == "0.1 s to the last"


def test_tmax_is_the_first_sample_that_is_not_kept() -> None:
    chain = plan_chain(recording(), PreprocessConfig(tmin=0.1, tmax=0.3))
    assert chain.shape == (3, 20) and chain.log == [
        "cropped to 0.1 to 0.29 s (first and last sample) at 100 Hz, 20 samples"
    ]
    assert plan_chain(recording(), PreprocessConfig(tmax=0.81)).shape == (3, 101)
    fails(
        r"tmax=0\.82 .* -0\.2 to 0\.8 s \(first and last sample\) at 100 Hz; tmax itself .* may be 0\.81 at most",
        lambda: plan_chain(recording(), PreprocessConfig(tmax=0.82)),
    )


def test_the_end_of_study_window_is_not_kept_either() -> None:
    def steps(window: str) -> PreprocessConfig:
        config = replace(load_config(Config), study=StudyConfig(window=window))
        return resolve(config, recording(), dict)[0]

    assert plan_chain(recording(), steps("0.1:0.3")).shape == (3, 20)
    assert plan_chain(recording(), steps("-0.2:0.81")).shape == (3, 101)
    fails(r"leaves .* -0\.2 to 0\.8 s \(first and last sample\); the end .* 0\.81 at most", lambda: steps("-0.2:0.83"))

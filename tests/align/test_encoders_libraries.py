"""The optional libraries: absent until used, one line when missing, options checked against the class."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from align.config import EncoderConfig
from align.encoders import build_encoder, libraries
from align.encoders.shapes import SignalFacts
from tests.one_line import fails

needs_braindecode = pytest.mark.skipif(
    find_spec("braindecode") is None, reason="needs braindecode: pip install '.[encoders]'"
)


def test_importing_the_encoders_imports_no_library() -> None:
    code = (
        "import sys, align.encoders, align.encoders.banded_ridge; "
        "heavy = {'braindecode', 'himalaya', 'mne', 'sklearn', 'torchaudio', 'huggingface_hub'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["eegnet", "shallownet", "conformer", "labram", "cbramod", "reve"])
def test_a_missing_library_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "braindecode_models", libraries.braindecode_models.__wrapped__)
    monkeypatch.setattr("align.encoders.braindecode_nets.braindecode_models", libraries.braindecode_models)
    monkeypatch.setattr("align.encoders.pretrained.braindecode_models", libraries.braindecode_models)
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    message = r"braindecode is not installed; pip install '.\[encoders\]'"
    fails(message, lambda: build_encoder((6, 200), EncoderConfig(name=name)))


def test_himalaya_missing_or_broken_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(package: str) -> None:
        raise ImportError("built for\nanother numpy")

    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    fails(r"himalaya is not installed; pip install '.\[encoders\]'", libraries.himalaya)
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: object())
    monkeypatch.setattr(importlib, "import_module", broken)
    fails(r"himalaya.kernel_ridge cannot be imported \(built for another numpy\)", libraries.himalaya)


@needs_braindecode
def test_no_stand_in_is_left_behind() -> None:
    libraries.braindecode_models()
    for name in ("torchaudio", "torchaudio.functional", "torchaudio.transforms"):
        assert name not in sys.modules or sys.modules[name].__spec__ is not None


def test_the_stand_in_serves_imports_and_base_classes() -> None:
    with libraries._StandIn("no_such_package", "no_such_package.part"):
        import no_such_package.part as part
        from no_such_package.part import Anything

        class Own(part.Base):
            pass

        assert Own.__mro__[1].__name__ == "Base"
        with pytest.raises(ImportError, match="Base is of torchaudio, which is not installed"):
            Own()
        assert isinstance(Anything, type)
    assert find_spec("no_such_package") is None


@needs_braindecode
def test_options_reach_the_class_and_are_checked() -> None:
    def build(*options: str, name: str = "shallownet", shape: tuple[int, int] = (6, 60)) -> torch.nn.Module:
        return build_encoder(shape, EncoderConfig(name=name, width=8, options=list(options)))

    fails("'shallownet' does not fit 6 channels and 60 samples .*encoder.options", build)
    net = build("pool_time_length=20", "pool_time_stride=5", "pool_mode=max")
    assert net.pool.kernel_size == (20, 1)
    assert isinstance(net.pool, torch.nn.MaxPool2d)
    fails("'pool=3' is not name=value with a name of n_filters_time, filter_time_length", lambda: build("pool=3"))
    fails("'pool_mode' is not name=value", lambda: build("pool_mode"))
    fails("neither a number", lambda: build("pool_time_length=[20]"))
    fails("'n_outputs=3' is not name=value", lambda: build("n_outputs=3"))
    fails("does not fit", lambda: build("pool_mode=median", shape=(6, 200)))
    fails("does not fit", lambda: build("activation=os.system", name="eegnet", shape=(6, 200)))
    fails("does not fit", lambda: build("num_heads=7", name="conformer", shape=(6, 200)))


@needs_braindecode
@pytest.mark.parametrize(("name", "options"), [("EEGSimpleConv", ["resampling_freq=200"]), ("BrainModule", [])])
def test_any_class_is_built_by_its_name(name: str, options: list[str]) -> None:
    config = EncoderConfig(name=f"braindecode:{name}", width=8, options=options)
    config.check("encoder.")
    net = build_encoder((6, 200), config, SignalFacts(sfreq=200.0)).eval()
    assert type(net).__name__ == name
    x = torch.randn(3, 6, 200)
    assert net(x).shape == (3, 8)
    torch.testing.assert_close(net(x[1:2]), net(x)[1:2], atol=1e-4, rtol=1e-3)
    fails("needs trials of shape", lambda: build_encoder((67,), config))


@needs_braindecode
def test_a_class_that_does_not_serve_is_one_line() -> None:
    def build(name: str, rate: float | None = 200.0, **options: object) -> torch.nn.Module:
        return build_encoder((6, 200), EncoderConfig(name=name, width=8, **options), SignalFacts(sfreq=rate))

    fails("has no EEGNoNet", lambda: build("braindecode:EEGNoNet"))
    fails("names no class after the colon", lambda: build("braindecode:os.system"))
    fails("'braindecode:EEGSimpleConv' does not fit", lambda: build("braindecode:EEGSimpleConv", None))
    if find_spec("torchaudio") is None:
        fails("cannot read .*fftconvolve is of torchaudio, which is not installed", lambda: build("braindecode:FBCNet"))
    features = ["resampling_freq=200", "return_feature=true"]
    fails(r"gives \(.*\) for a trial, not \(1, 8\)", lambda: build("braindecode:EEGSimpleConv", options=features))
    fails("'hidden=3' is not name=value", lambda: build("braindecode:BrainModule", options=["hidden=3"]))

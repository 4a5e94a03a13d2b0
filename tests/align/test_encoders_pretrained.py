"""Pretrained EEG models: real classes of braindecode, tiny, saved by the library itself and read back offline."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from align.config import Config, EncoderConfig
from align.encoders import build_encoder
from align.encoders.libraries import braindecode_models
from align.encoders.shapes import SignalFacts
from align.files import read_tensors
from align.model.aligner import Aligner
from align.model.spaces import SignalSpace, TargetSpace
from tests.align.test_encoders import ELECTRODES, TINY
from tests.one_line import fails

pytestmark = pytest.mark.skipif(find_spec("braindecode") is None, reason="needs braindecode: pip install '.[encoders]'")
FACTS = SignalFacts(200.0, ELECTRODES)
NAMES = {"labram": "Labram", "cbramod": "CBraMod", "reve": "REVE"}
LONG = {"labram": 600, "cbramod": 600, "reve": 560}  # samples that the stored weights were made for: three patches
PLACES = {name.upper(): [0.1 * i, 0.2 - 0.05 * i, 0.3] for i, name in enumerate(ELECTRODES)}


def _options(name: str) -> dict[str, Any]:
    pairs = (option.split("=") for option in TINY[name])
    return {key: json.loads(value) for key, value in pairs}


def _their_model(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library's class with random weights, for 4 classes and three patches."""
    folder.mkdir(exist_ok=True)
    (folder / "reve_positions.json").write_text(json.dumps(PLACES))
    monkeypatch.setenv("REVE_POSITIONS_PATH", str(folder))
    torch.manual_seed(1)
    model = getattr(braindecode_models(), NAMES[name])(
        n_outputs=4, n_chans=6, n_times=LONG[name], sfreq=200, **_options(name)
    )
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(0, 0.1)
    return model.eval()


@pytest.fixture(autouse=True)
def offline_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub client does not even try, as with HF_HUB_OFFLINE=1; trying and failing takes it 20 s."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each, written by the library: config.json, model.safetensors, pytorch_model.bin."""
    root = tmp_path_factory.mktemp("stored")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in NAMES:
            model = _their_model(name, root / "bank", monkeypatch)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.save_pretrained(root / name)
            (root / name / "positions.json").write_text(json.dumps(PLACES))
            assert (root / name / "model.safetensors").is_file()
    return {name: root / name for name in NAMES}


def _config(name: str, source: Path | str | None, **changes: Any) -> EncoderConfig:
    pretrained = None if source is None else str(source)
    return EncoderConfig(**{"name": name, "width": 8, "options": TINY[name], "pretrained": pretrained, **changes})


def _their_features(name: str, model: Any, x: torch.Tensor) -> torch.Tensor:
    return model(x, return_features=True, **_extra(name, len(x)))["features"]


def _extra(name: str, count: int) -> dict[str, Any]:
    """What the library's own call wants beside the signals."""
    places = torch.tensor(list(PLACES.values())).expand(count, -1, -1)
    return {"labram": {"ch_names": list(ELECTRODES)}, "cbramod": {}, "reve": {"pos": places}}[name]


@pytest.mark.parametrize("kind", ["folder", "model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("name", NAMES)
def test_stored_weights_give_the_librarys_features(
    name: str, kind: str, stored: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = stored[name] if kind == "folder" else stored[name] / kind
    reader = build_encoder((6, LONG[name]), _config(name, source), FACTS).eval()
    x = torch.randn(2, 6, LONG[name])
    theirs = _their_model(name, tmp_path / "bank", monkeypatch)
    expected = _their_features(name, theirs, x)
    torch.testing.assert_close(_their_features(name, reader.model, x), expected, atol=1e-5, rtol=1e-5)
    fresh = build_encoder((6, LONG[name]), _config(name, None), FACTS, load=False).eval()
    assert not torch.allclose(_their_features(name, fresh.model, x), expected, atol=1e-2)
    seen: list[torch.Tensor] = []
    handle = reader.model.final_layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert reader(x).shape == (2, 8)
    handle.remove()
    if name == "labram":  # its head reads the class token, the others' the patches
        expected = theirs(x, return_features=True, **_extra(name, 2))["cls_token"]
    torch.testing.assert_close(seen[0].flatten(), expected.flatten(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_short_windows_are_filled_with_zeros(name: str, stored: dict[str, Path]) -> None:
    whole = {"labram": 400, "cbramod": 400, "reve": 560}[name]
    reader = build_encoder((6, 395), _config(name, stored[name]), FACTS).eval()
    longer = build_encoder((6, whole), _config(name, stored[name]), FACTS).eval()
    longer.load_state_dict(reader.state_dict())
    x = torch.randn(3, 6, 395)
    filled = torch.cat([x, torch.zeros(3, 6, whole - 395)], 2)
    torch.testing.assert_close(reader(x), longer(filled), rtol=0, atol=0)
    if name == "labram":
        rows = read_tensors(stored[name] / "model.safetensors")[0]["temporal_embedding"]
        torch.testing.assert_close(reader.model.temporal_embedding, rows[:, :3], rtol=0, atol=0)
    torch.nn.init.normal_(reader.model.final_layer[-1].weight if name != "labram" else reader.model.final_layer.weight)
    changed = x.clone()
    changed[..., -1] += 5
    assert not torch.allclose(reader(changed), reader(x), atol=1e-6), "the last sample must be read"


@pytest.mark.parametrize("name", NAMES)
def test_frozen_trains_the_last_layer_only(name: str, stored: dict[str, Path]) -> None:
    config = _config(name, stored[name], frozen=True, dropout=0.5)
    reader = build_encoder((6, 200), config, FACTS).train()
    before = {key: value.clone() for key, value in reader.state_dict().items()}
    trained = [value for value in reader.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(trained, 1.0)
    x = torch.randn(4, 6, 200)
    torch.testing.assert_close(reader(x), reader(x), rtol=0, atol=0)  # no dropout in what is frozen
    reader(x).square().sum().backward()
    optimizer.step()
    changed = {key for key, value in reader.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.startswith("model.final_layer.") for key in changed)
    tuned = build_encoder((6, 200), _config(name, stored[name]), FACTS)
    assert sum(v.numel() for v in tuned.parameters() if v.requires_grad) > 5 * sum(v.numel() for v in trained)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_rebuilt_without_the_files(name: str, stored: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(stored[name], folder)
    config = _config(name, folder)
    reader = build_encoder((6, 250), config, FACTS).eval()
    shutil.rmtree(folder)
    again = build_encoder((6, 250), config, FACTS, load=False)
    again.load_state_dict(reader.state_dict())
    x = torch.randn(2, 6, 250)
    torch.testing.assert_close(again.eval()(x), reader(x), rtol=0, atol=0)


def test_weights_that_do_not_fit(stored: dict[str, Path], tmp_path: Path) -> None:
    def build(name: str, source: Path | str, **changes: Any) -> Any:
        return lambda: build_encoder((6, 200), _config(name, source, **changes), FACTS)

    fails("has no tensor '.*': it is for another model", build("cbramod", stored["labram"]))
    fails("has no tensor 'blocks.2", build("labram", stored["labram"], options=["num_layers=3", "num_heads=2"]))
    wide = ["n_layer=2", "nhead=4", "dim_feedforward=64"]
    fails(r"shape \(32, 200\), the model's has \(64, 200\)", build("cbramod", stored["cbramod"], options=wide))
    (tmp_path / "empty").mkdir()
    fails("holds neither model.safetensors nor pytorch_model.bin", build("cbramod", tmp_path / "empty"))
    fails("no file, no folder and no hub name", build("cbramod", tmp_path / "absent.safetensors"))
    fails("braindecode/nowhere.*encoder.pretrained=FOLDER", build("cbramod", "braindecode/nowhere@main"))
    (tmp_path / "cut.safetensors").write_bytes((stored["cbramod"] / "model.safetensors").read_bytes()[:100])
    fails("safetensors", build("cbramod", tmp_path / "cut.safetensors"))


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this code was run",)


def test_weights_that_would_run_code_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    braindecode_models()
    torch.save({"state": _Evil()}, tmp_path / "torch.pth")
    (tmp_path / "plain.bin").write_bytes(pickle.dumps(_Evil()))
    for file in ("torch.pth", "plain.bin"):
        config = _config("cbramod", tmp_path / file)
        fails("plain tensors", lambda config=config: build_encoder((6, 200), config, FACTS))
    assert "this code was run" not in capsys.readouterr().out


def test_what_the_signals_must_be(stored: dict[str, Path], tmp_path: Path) -> None:
    def build(name: str, facts: SignalFacts | None, **changes: Any) -> Any:
        return lambda: build_encoder((6, 200), _config(name, stored[name], **changes), facts)

    for name in NAMES:
        fails("reads signals of 200 Hz, these have 250; .*sfreq=200", build(name, SignalFacts(250.0, ELECTRODES)))
        fails("frozen=true without weights", build(name, FACTS, pretrained=None, frozen=True))
    fails("needs the names of the 6 channels, the study gives 0", build("labram", None))
    fails("needs the names of the 6 channels, the study gives 2", build("reve", SignalFacts(200.0, ("Oz", "Pz"))))
    other = SignalFacts(200.0, (*ELECTRODES[:5], "MLO11"))
    fails("knows no electrode 'MLO11'", build("labram", other))
    fails("has no position for 'MLO11'", build("reve", other))
    assert build("cbramod", None)()(torch.zeros(1, 6, 200)).shape == (1, 8)
    (tmp_path / "positions.json").write_text("[1, 2]")
    shutil.copy(stored["reve"] / "model.safetensors", tmp_path)
    fails("is not a table of electrode positions", build("reve", FACTS, pretrained=str(tmp_path)))
    (tmp_path / "positions.json").write_text(json.dumps({**PLACES, "OZ": [0.1, "north", 0.2]}))
    fails("has no position for 'Oz'", build("reve", FACTS, pretrained=str(tmp_path)))
    (tmp_path / "positions.json").unlink()
    fails("reve-positions.*encoder.pretrained=FOLDER", build("reve", FACTS, pretrained=str(tmp_path)))


def test_position_bank_leaves_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("REVE_POSITIONS_PATH", "before")
    build_encoder((6, 200), _config("reve", None), FACTS, load=False)
    assert os.environ["REVE_POSITIONS_PATH"] == "before"
    monkeypatch.delenv("REVE_POSITIONS_PATH")
    build_encoder((6, 200), _config("reve", None), FACTS, load=False)
    assert "REVE_POSITIONS_PATH" not in os.environ


@pytest.mark.parametrize("name", ["labram", "cbramod", "reve", "braindecode:EEGSimpleConv"])
def test_a_stored_decoder_is_rebuilt_with_rate_and_electrodes_and_without_the_weights_it_began_with(
    name: str, stored: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens a run has neither the pretrained file nor its bank of positions."""
    config = Config()
    config.encoder = EncoderConfig(name=name, width=8, options=TINY.get(name, ["resampling_freq=200"]))
    if name in stored:
        config.encoder.pretrained = str(stored[name])
    torch.manual_seed(0)
    made = Aligner(config, SignalSpace((6, 200), None), TargetSpace((4, 5), 3), FACTS).eval()
    config.encoder.pretrained = config.encoder.pretrained and "/nowhere"
    again = Aligner.from_state(config, made.state(), made.shapes())
    x = torch.randn(3, 6, 200)
    torch.testing.assert_close(again.network.encoder(x), made.network.encoder(x), rtol=0, atol=0)

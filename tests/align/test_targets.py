"""The targets cache: same numbers as the backbone, streamed, resumed after SIGKILL with identical bytes."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from align.data.signals import Stimuli
from align.errors import Damaged, UserError, one_line
from align.files import write_sealed
from align.files.checksums import KEY
from align.vision import targets as module
from align.vision.part import Part
from align.vision.taps import Backbone, Tap
from align.vision.targets import cached_targets, health, open_targets, target_key

N = 23
LAYERS = ["first", "second"]


def pictures(n: int = N) -> Stimuli:
    """Random pictures of different sizes."""

    def load(index: int) -> np.ndarray:
        side = 16 + 4 * (index % 3)
        return np.random.default_rng(index).integers(0, 256, (side, side, 3), dtype=np.uint8)

    ids = tuple(f"picture/{i:03d}.png" for i in range(n))
    return Stimuli(ids, load, np.arange(n), ("",) * n, ("",) * n)


def tiny_backbone(seed: int = 0, name: str = "toy/net") -> Backbone:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3))
    own = {"size": 16, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "antialias": True}
    return Backbone(name, layers, {"first": Tap("0"), "second": Tap("2")}, own)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("[!.]*")}


def test_rows_are_the_backbones_tokens(tmp_path: Path) -> None:
    backbone, stimuli = tiny_backbone(), pictures()
    found = cached_targets(backbone, stimuli, LAYERS, "grid:2", tmp_path, batch_size=5, progress=False)
    assert list(found) == LAYERS
    for layer, width in zip(LAYERS, (4, 6), strict=True):
        target = found[layer]
        assert target.tokens.shape == (N, 4, width) and target.tokens.dtype == np.float16
        assert target.ids == stimuli.ids and target.hashes == stimuli.hashes and target.layer == layer
        for row in (0, 7, N - 1):
            image = torch.tensor(stimuli.load(row)).permute(2, 0, 1)[None] / 255
            expected = backbone.tokens(image, [layer], "grid:2")[layer][0]
            np.testing.assert_allclose(target.tokens[row], expected, atol=2e-3)
        stored = load_file(target.path)["tokens"]  # the public reader agrees about the file
        assert np.array_equal(stored, target.tokens)
        info = json.loads(target.path.with_suffix(".json").read_text())
        assert info["ids"] == list(stimuli.ids) and info["layer"] == layer and info["pooling"] == "grid:2"
    kept = {path.name for path in (tmp_path / "targets").iterdir()}
    assert kept == {f"{t.key}{end}" for t in found.values() for end in (".safetensors", ".json")}


def test_the_second_call_reads_and_only_absent_layers_are_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, stimuli = tiny_backbone(), pictures()
    cached_targets(backbone, stimuli, ["first"], "mean", tmp_path, progress=False)
    asked = []
    original = backbone.read
    monkeypatch.setattr(
        backbone, "read", lambda pixels, layers, pooling: asked.append(layers) or original(pixels, layers, pooling)
    )
    both = cached_targets(backbone, stimuli, LAYERS, "mean", tmp_path, batch_size=N, progress=False)
    assert asked == [["second"]]
    again = cached_targets(backbone, stimuli, LAYERS, "mean", tmp_path, progress=False)
    assert len(asked) == 1
    assert all(np.array_equal(both[layer].tokens, again[layer].tokens) for layer in LAYERS)


def test_the_key_changes_with_everything_that_changes_the_tokens() -> None:
    backbone, stimuli = tiny_backbone(), pictures(3)
    other_size = tiny_backbone()
    other_size.preprocessing = backbone.preprocessing | {"size": 17}
    repainted = replace(stimuli, load=lambda i: 255 - stimuli.load(i))
    renamed = replace(stimuli, ids=("a", "b", "c"))
    keys = [
        target_key(backbone, stimuli, "first", "mean"),
        target_key(backbone, stimuli, "second", "mean"),
        target_key(backbone, stimuli, "first", "grid:2"),
        target_key(tiny_backbone(seed=1), stimuli, "first", "mean"),
        target_key(tiny_backbone(name="toy/other"), stimuli, "first", "mean"),
        target_key(other_size, stimuli, "first", "mean"),
        target_key(backbone, repainted, "first", "mean"),
        target_key(backbone, renamed, "first", "mean"),
        target_key(backbone, pictures(2), "first", "mean"),
    ]
    assert len(set(keys)) == len(keys)
    assert target_key(tiny_backbone(), pictures(3), "first", "mean") == keys[0]


def test_an_interrupted_extraction_continues_where_it_was(tmp_path: Path) -> None:
    backbone, stimuli = tiny_backbone(), pictures()
    cached_targets(backbone, stimuli, LAYERS, "tokens", tmp_path / "whole", batch_size=4, progress=False)
    expected = digests(tmp_path / "whole" / "targets")

    seen: list[int] = []

    def failing(index: int) -> np.ndarray:
        seen.append(index)
        if index == 14 and seen.count(14) == 2:  # once for the hashes, then during extraction
            raise KeyboardInterrupt
        return stimuli.load(index)

    broken = replace(stimuli, load=failing)
    with pytest.raises(KeyboardInterrupt):
        cached_targets(backbone, broken, LAYERS, "tokens", tmp_path / "cut", batch_size=4, progress=False)
    parts = list((tmp_path / "cut" / "targets").glob("*.part"))
    assert len(parts) == 2 and not list((tmp_path / "cut" / "targets").glob("*.safetensors"))
    with parts[0].open("ab") as file:  # killed in the middle of a write, before the count of rows
        file.write(b"half a row")
    seen.clear()
    cached_targets(backbone, broken, LAYERS, "tokens", tmp_path / "cut", batch_size=4, progress=False)
    assert min(seen) == 12  # rows 0 to 11 were done
    assert digests(tmp_path / "cut" / "targets") == expected


def test_another_batch_size_or_a_lost_part_starts_over(tmp_path: Path) -> None:
    backbone, stimuli = tiny_backbone(), pictures()
    whole = cached_targets(backbone, stimuli, ["first"], "mean", tmp_path / "whole", batch_size=4, progress=False)[
        "first"
    ]
    folder = tmp_path / "cut" / "targets"
    for fault in ("batch_size", "shorter", "gone"):
        part = Part(folder, whole.key, N, 7)
        folder.mkdir(parents=True, exist_ok=True)
        part.append(np.ones((7, 1, 4), dtype=np.float16))
        if fault == "shorter":
            part.path.write_bytes(part.path.read_bytes()[:-1])
        if fault == "gone":
            part.path.unlink()
        size = 4 if fault == "batch_size" else 7
        again = cached_targets(backbone, stimuli, ["first"], "mean", tmp_path / "cut", batch_size=size, progress=False)[
            "first"
        ]
        np.testing.assert_allclose(again.tokens, whole.tokens, atol=1e-3)
        again.path.unlink()


# One process that imports torch once; every attempt is a fork of it that extracts, and perhaps kills itself.
SCRIPT = """
import os, signal, sys
from dataclasses import replace
import torch
from align.vision import part, targets
from tests.align.test_targets import LAYERS, pictures, tiny_backbone

torch.set_num_threads(1)
stimuli = pictures()

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def start(folder, at_picture=None, at_record=None):
    child = os.fork()
    if child:
        return child
    slain = replace(stimuli, load=lambda index: die() if index == at_picture else stimuli.load(index))
    slain.__dict__["hashes"] = stimuli.hashes
    record, count = part.write_sealed, []
    def write_sealed(path, value, **how):
        count.append(path)
        die() if len(count) == at_record else record(path, value, **how)
    part.write_sealed = write_sealed
    targets.cached_targets(tiny_backbone(), slain, LAYERS, "tokens", folder, batch_size=2, progress=False)
    os._exit(0)

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

whole, killed, both = sys.argv[1:]
assert ended(start(whole)) == 0
for fault in ({"at_picture": 5}, {"at_record": 1}, {"at_record": 4}, {"at_picture": 18}, {"at_record": 7}):
    assert ended(start(killed, **fault)) == -signal.SIGKILL, fault
    assert not list(targets.Path(killed).rglob("*.safetensors"))
assert ended(start(killed)) == 0
assert [ended(child) for child in [start(both), start(both)]] == [0, 0]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes; this system has no os.fork")
def test_sigkill_at_any_moment_and_two_processes_at_once_end_with_identical_files(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("whole", "killed", "both")]
    subprocess.run([sys.executable, "-c", SCRIPT, *map(str, folders)], check=True)
    whole, killed, both = (digests(folder / "targets") for folder in folders)
    assert len(whole) == 4
    assert killed == whole
    assert both == whole


class Held:
    """Pictures whose extraction stops at one of them until ``go``."""

    def __init__(self, stimuli: Stimuli, stop: int = 0) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        self.stimuli = replace(stimuli, load=lambda index: self._load(stimuli, index, stop))
        self.stimuli.__dict__["hashes"] = stimuli.hashes

    def _load(self, stimuli: Stimuli, index: int, stop: int) -> np.ndarray:
        if index == stop:
            self.reached.set()
            assert self.go.wait(20)
        return stimuli.load(index)


def started(stimuli: Stimuli, layers: list[str], folder: Path) -> threading.Thread:
    def extract() -> None:
        cached_targets(tiny_backbone(), stimuli, layers, "mean", folder, progress=False)

    thread = threading.Thread(target=extract, daemon=True)
    thread.start()
    return thread


def test_only_those_who_want_the_same_wait_for_each_other(tmp_path: Path) -> None:
    """Locks of threads keep each other out as those of processes do."""
    held, others = Held(pictures()), pictures(7)
    assert target_key(tiny_backbone(), held.stimuli, "first", "mean") == target_key(
        tiny_backbone(), pictures(), "first", "mean"
    )
    slow = started(held.stimuli, ["first"], tmp_path)
    assert held.reached.wait(20)
    for stimuli, layers in ((pictures(), ["second"]), (others, ["first"]), (others, LAYERS)):
        quick = started(stimuli, layers, tmp_path)
        quick.join(20)
        assert not quick.is_alive(), f"{layers} of {len(stimuli)} pictures waited for another extraction"
    same = started(pictures(), LAYERS, tmp_path)
    same.join(0.5)
    assert same.is_alive(), "the same layer of the same pictures is extracted once"
    held.go.set()
    for thread in (slow, same):
        thread.join(20)
        assert not thread.is_alive()
    assert len(list((tmp_path / "targets").glob("*.safetensors"))) == 4 and not list(tmp_path.rglob(".*lock"))


@pytest.mark.parametrize("turn", [1, -1])
def test_overlapping_sets_cannot_block_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: int) -> None:
    """Whatever the order in which layers are named, locks are taken in the order of the keys."""
    taken: list[str] = []

    @contextmanager
    def noted(lock: Path, doing: str, **how: object) -> Iterator[None]:
        lock.parent.mkdir(exist_ok=True)
        taken.append(doing.split(" of layer ")[1].split(" ")[0])
        yield

    monkeypatch.setattr(module, "locked", noted)
    cached_targets(tiny_backbone(), pictures(5), LAYERS[::turn], "mean", tmp_path, progress=False)
    keys = {name: target_key(tiny_backbone(), pictures(5), name, "mean") for name in LAYERS}
    assert taken == sorted(keys, key=lambda name: keys[name])


def test_health_against_all_pairs(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3, 8)).astype(np.float32) + 3

    def brute(values: np.ndarray) -> float:
        flat = values.reshape(len(values), -1)
        pairs = [
            float(flat[i] @ flat[j] / np.linalg.norm(flat[i]) / np.linalg.norm(flat[j]))
            for i in range(len(flat))
            for j in range(i)
        ]
        return float(np.mean(pairs))

    report = health(rows)
    assert report["cosine_raw"] == pytest.approx(brute(rows), abs=1e-5) and report["cosine_raw"] > 0.8
    assert report["cosine_centred"] == pytest.approx(brute(rows - rows.mean(0)), abs=1e-5)
    assert "anisotropic" in report["warning"] and f"{report['cosine_raw']:.2f}" in report["warning"]
    assert health(rows - rows.mean(0))["warning"] is None
    assert health(np.zeros((5, 2, 2), dtype=np.float16)) == {"cosine_raw": 0, "cosine_centred": 0, "warning": None}
    assert health(np.repeat(rows, 20, axis=0))["cosine_raw"] > 0.8  # more rows than are looked at

    backbone = tiny_backbone()
    with torch.no_grad():
        backbone.model[0].bias.fill_(50)
    with caplog.at_level("WARNING"):
        found = cached_targets(backbone, pictures(), ["first"], "mean", tmp_path, progress=False)["first"]
    assert "strongly anisotropic" in caplog.text and found.health["cosine_raw"] > 0.9
    assert found.health == open_targets(found.path).health


def test_faults_end_in_one_line_and_damage_is_extracted_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backbone, stimuli = tiny_backbone(), pictures(4)
    with pytest.raises(UserError, match="did you mean 'second'"):
        cached_targets(backbone, stimuli, ["secnd"], "mean", tmp_path, progress=False)
    with pytest.raises(UserError, match="use tokens, mean"):
        cached_targets(backbone, stimuli, ["first"], "median", tmp_path, progress=False)
    grey = replace(stimuli, load=lambda i: np.zeros((8, 8), dtype=np.uint8))
    with pytest.raises(UserError, match=r"'picture/000\.png' is uint8 \(8, 8\)"):
        cached_targets(backbone, grey, ["first"], "mean", tmp_path, progress=False)
    with torch.no_grad():
        backbone.model[2].bias.fill_(1e6)
    with pytest.raises(UserError, match="outside float16"):
        cached_targets(backbone, stimuli, ["second"], "mean", tmp_path, progress=False)
    assert not list((tmp_path / "targets").glob("*.safetensors"))

    whole = cached_targets(tiny_backbone(), stimuli, ["first"], "mean", tmp_path, progress=False)["first"]
    tokens = np.array(whole.tokens)
    sound, note = whole.path.read_bytes(), whole.path.with_suffix(".json")
    for content in (sound[:-2], b"", b"not safetensors at all", sound[:-9] + bytes([sound[-9] ^ 1]) + sound[-8:]):
        whole.path.write_bytes(content)
        caplog.clear()
        again = cached_targets(tiny_backbone(), stimuli, ["first"], "mean", tmp_path, progress=False)["first"]
        assert "these targets are extracted again" in caplog.text
        assert whole.path.read_bytes() == sound and np.array_equal(again.tokens, tokens)
    told = note.read_text(encoding="utf-8")
    note.write_text(told.replace("picture/001.png", "picture/003.png"), encoding="utf-8")
    caplog.clear()
    cached_targets(tiny_backbone(), stimuli, ["first"], "mean", tmp_path, progress=False)
    assert "these targets are extracted again" in caplog.text and note.read_text(encoding="utf-8") == told


def test_writing_into_the_mapped_tokens_never_reaches_the_file(tmp_path: Path) -> None:
    found = cached_targets(tiny_backbone(), pictures(4), ["first"], "mean", tmp_path, progress=False)["first"]
    before = found.path.read_bytes()
    torch.from_numpy(found.tokens[:2]).zero_()
    assert found.path.read_bytes() == before


def test_the_command_caches_what_the_config_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from align.config import Config
    from align.vision import backbones

    stimuli = pictures(4)

    class OneStudy:
        subjects = default_subjects = ("01",)

        def require_subject(self, subject: str) -> None:
            if subject not in self.subjects:
                raise UserError(f"no subject {subject}")

        def recording(self, subject: str) -> object:
            return type("Recording", (), {"stimuli": stimuli})

    monkeypatch.setattr("align.data.studies.open_study", lambda config: OneStudy())
    monkeypatch.setattr(backbones, "load_backbone", lambda config: tiny_backbone())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = Config(cache_dir=str(tmp_path))
    config.target.layer, config.target.pooling, config.sweep.layers = "1.0", "mean", []
    with pytest.raises(UserError, match="has no layer"):
        module.run(config, progress=False)
    config.target.layer, config.sweep.layers = "second", ["first", "second"]
    report = module.run(config, progress=False)
    assert list(report["subjects"]["01"]) == ["second", "first"]
    assert report["subjects"]["01"]["second"]["shape"] == [4, 1, 6]
    assert json.loads(json.dumps(report)) == report
    config.subjects = ["02"]
    with pytest.raises(UserError, match="no subject 02"):
        module.run(config, progress=False)


def test_a_cache_under_the_name_of_another_is_extracted_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backbone, other, stimuli = tiny_backbone(), tiny_backbone(seed=1, name="toy/other"), pictures()

    def extracted(net: Backbone) -> dict[str, np.ndarray]:
        found = cached_targets(net, stimuli, LAYERS, "mean", tmp_path, batch_size=5, progress=False)
        return {layer: np.array(target.tokens) for layer, target in found.items()}

    right = [extracted(net) for net in (backbone, other)]
    keys = [target_key(net, stimuli, layer, "mean") for net, layer in ((backbone, "first"), (backbone, "second"))]
    folder = tmp_path / "targets"
    for key in (keys[1], target_key(other, stimuli, "first", "mean")):  # of another layer, of another backbone
        for end in (".safetensors", ".json"):
            (folder / f"{keys[0]}{end}").write_bytes((folder / f"{key}{end}").read_bytes())
        with pytest.raises(Damaged, match="is of another layer, backbone or set"):
            open_targets(folder / f"{keys[0]}.safetensors")
        caplog.clear()
        again = extracted(backbone)
        assert all(np.array_equal(again[layer], right[0][layer]) for layer in LAYERS)
        assert "these targets are extracted again" in caplog.text
    info = json.loads((folder / f"{keys[0]}.json").read_text())
    del info["crc32"]
    write_sealed(folder / f"{keys[0]}.json", {name: value for name, value in info.items() if name != KEY})
    with pytest.raises(Damaged, match="no checksum"):
        open_targets(folder / f"{keys[0]}.safetensors")


def test_a_part_under_the_name_of_another_is_not_gone_on_with(tmp_path: Path) -> None:
    first = Part(tmp_path, "a", 9, 3)
    first.append(np.ones((3, 1, 4), dtype=np.float16))
    assert Part(tmp_path, "a", 9, 3).rows == 3
    for path in (first.path, first.progress):
        path.rename(path.with_name(path.name.replace("a.", "b.", 1)))
    assert Part(tmp_path, "b", 9, 3).rows == 0


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_full_disk_names_the_part(tmp_path: Path) -> None:
    import resource
    import signal

    part, before = Part(tmp_path, "a", 9, 3), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError) as raised:
            part.append(np.ones((3, 100, 40), dtype=np.float16))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert one_line(raised.value) == f"{str(part.path)!r}: File too large; make room or write elsewhere"

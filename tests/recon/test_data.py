"""`recon data`: its grammar and exit codes; every variant from files over check and two epochs to retrieval scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from align import train
from align.data.reading import safe_load
from recon import cli
from tests.align import fixture_nsd
from tests.align import fixture_things as things
from tests.align.fixture_studies import write_folder
from tests.conftest import PROJECT

PARTLY = "usable, but not the whole published dataset"


def _eeg(name: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        things.WRITERS[name](root, things.epochs())
        things.write_pictures(root, "train_images" if name == "ubp" else "training_images")

    return write


def _raw(root: Path) -> None:
    things.write_raw(root, n_train=len(things.TRAIN), n_test=len(things.TEST), noise=0.3)
    things.write_pictures(root)


def _meg(name: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        things.write_meg(root / "published")
        if name != "openneuro":
            things.write_meg_repack(root / "published", root / "repack", name)

    return write


def _nsd(root: Path) -> None:
    fixture_nsd.write_nsd(root, {0: fixture_nsd.training_trials(), 3: fixture_nsd.training_trials(3, range(140, 170))})


def _folder(root: Path) -> None:
    shown = [(f"pic{i:03d}.png", "train" if i < 12 else "test") for i in range(16)]
    rows = [{"row": i, "image": image, "split": split, "subject": "01"} for i, (image, split) in enumerate(shown)]
    write_folder(root, np.random.default_rng(0).normal(size=(16, 4, 5)), rows)


VARIANTS: dict[tuple[str, str], Callable[[Path], None]] = {
    **{("things_eeg2", name): _eeg(name) for name in things.WRITERS},
    ("things_eeg2", "raw"): _raw,
    **{("things_meg", name): _meg(name) for name in ("openneuro", "atm", "ubp", "neurobridge")},
    ("nsd", "40-hour"): _nsd,
    ("nsd", "1-hour"): _nsd,
    ("folder", ""): _folder,
}
LONG = (  # read like the others of their study; NSD is taken to a report by test_nsd
    ("nsd", "40-hour"),
    ("nsd", "1-hour"),
    ("things_meg", "ubp"),
    ("things_meg", "neurobridge"),
)


@pytest.mark.parametrize(
    ("study", "variant"),
    [pytest.param(*one, marks=[pytest.mark.long] if one in LONG else []) for one in VARIANTS],
)
def test_from_files_over_check_and_training_to_retrieval(
    study: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if variant == "raw":  # a recording takes 1.5 s per picture
        monkeypatch.setattr(things, "TRAIN", [name for name in things.TRAIN if name[1][-6] in "01"][:16])
        monkeypatch.setattr(things, "TEST", things.TEST[:3])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECON_HOME", str(tmp_path))
    root = tmp_path / "files"
    VARIANTS[study, variant](root)
    pairs = ["subjects=[07]" if study == "nsd" else "subjects=[01]"]
    if variant:
        pairs.append(f"study.variant={variant}")
    if study == "things_meg":
        root = root / ("published" if variant == "openneuro" else "repack")
    assert cli.main(["data", "check", study, "--root", str(root), *pairs]) == 0
    verdict = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert verdict == "verdict: usable" if study == "folder" else verdict.startswith(f"verdict: {PARTLY}: ")
    config = str(PROJECT / "configs" / "align" / f"{study}.yaml")
    small = ["train.epochs=2", "encoder.width=16", "target.components=4"]
    assert train.main(["--config", config, f"study.root={root}", *pairs, *small]) == 0
    assert cli.main(["retrieve", "--subject", pairs[0][-3:-1], "--json"]) == 0
    out = capsys.readouterr().out
    report = json.loads(out[out.index("\n{") :])
    scores = report["retrieval"]["brain_to_image"]
    assert report["study"] == study and scores["n"] == scores["candidates"] >= 3
    assert 0 <= scores["top1"] <= 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path)
    return tmp_path


def test_check_gives_the_whole_object(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["data", "check", "folder", "--json"], ["data", "--json", "check", "folder"]):
        assert cli.main([*words, "--root", str(folder)]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["usable"] is True and found["verdict"] == "usable"
        assert found["subjects"]["01"]["training"]["repetitions"] == [2, 2]
        assert found["facts"][0] == {
            "what": "trials",
            "declared": "30",
            "found": "30",
            "usable": False,
            "as_declared": True,
        }


def test_not_usable_is_one_line_on_stderr_and_exit_code_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signals = np.load(folder / "signals.npy")
    signals[3, 0, 0] = np.nan
    np.save(folder / "signals.npy", signals)
    assert cli.main(["data", "check", "folder", "--root", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.startswith("recon data check: not usable: subject 08: ")
    assert "1 values are NaN" in err and err.endswith("without fault: subjects=[01]\n")
    assert out.splitlines()[-1] == f"verdict: {err.removeprefix('recon data check: ').rstrip()}"


def test_pairs_and_options_reach_the_action(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "check", "folder", "--root", str(folder), "subjects=[08]", "--json"]
    assert cli.main(words) == 0
    assert list(json.loads(capsys.readouterr().out)["subjects"]) == ["08"]
    for words, told in (
        (["data"], "ACTION"),
        (["data", "chekc", "folder"], "chekc"),
        (["data", "check", "folder", "--out", "x"], "--out"),
        (["data", "download", "nsd", "seed=1"], "takes no key=value pairs"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        err = capsys.readouterr().err
        assert stop.value.code == 2 and told in err and err.count("\n") == 1
    for action in ("check", "convert", "import", "download"):
        with pytest.raises(SystemExit) as stop:
            cli.main(["data", action, "--help"])
        assert stop.value.code == 0 and f"usage: recon data {action}" in capsys.readouterr().out


def test_convert_tells_where_to_train_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    _eeg("nice")(root)
    words = ["data", "convert", "things_eeg2", "--root", str(root), "--out", str(out), "--json"]
    assert cli.main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["written"]) == 3 and found["there already"] == [] and found["study.root"] == str(out)
    assert cli.main(words) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["written"] == [] and sorted(again["there already"]) == sorted(found["written"])
    assert cli.main(["data", "check", "things_eeg2", "--root", str(out)]) == 0
    assert PARTLY in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["things_eg2", "--root", "."], "did you mean 'things_eeg2'"),
        (["things_eeg2"], "study.root"),
        (["things_eeg2", "--root", "."], "holds no THINGS-EEG2 recording"),
        (["simulated"], "has no files of others to convert"),
    ],
)
def test_nothing_to_convert_is_one_line(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "convert", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and told in err and not list(tmp_path.iterdir())


def test_the_limit_of_a_picture_is_a_fault_not_a_trace(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(safe_load, "MOST_PIXELS", 10)
    assert cli.main(["data", "check", "folder", "--root", str(folder)]) == 2
    assert "make it smaller" in capsys.readouterr().err

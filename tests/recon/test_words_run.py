"""A run compared with texts: above chance where something is planted, what the maps read, commands, prompts."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.checkpoint import Run, load_run
from align.config import set_key
from align.data.signals import Recording, Stimuli
from align.errors import UserError
from recon import cli
from recon.decoding.predict import open_recording, signals_at_rest
from recon.decoding.text_space import TextDecoder, TextSettings
from recon.evaluation import captions
from recon.evaluation.captions import caption_run, captions_path
from recon.evaluation.settings import EvaluateConfig
from recon.evaluation.text_retrieval import ORACLE, PERMUTED, text_report, text_report_path
from recon.words.bank import CONCEPTS
from tests.recon.words_run import N_TEST, N_TRAIN, planted_run

QUICK = EvaluateConfig(n_boot=100, n_perm=199, networks=False)
PAIRS = ["evaluate.n_boot=50", "evaluate.n_perm=99"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return planted_run(tmp_path_factory.mktemp("words"))


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    """A copy, whose folder a test may write to."""
    shutil.copytree(made.path, tmp_path / "run")
    return load_run(tmp_path / "run")


def decoder(run: Run, recording: Recording | None = None, **settings: str) -> TextDecoder:
    return TextDecoder(run, recording or open_recording(run), TextSettings(**settings))  # type: ignore[arg-type]


def with_stimuli(recording: Recording, **parts: tuple[str, ...]) -> Recording:
    return dataclasses.replace(recording, stimuli=dataclasses.replace(recording.stimuli, **parts))


@pytest.mark.parametrize("alignment", ["pivot", "joint"])
def test_planted_texts_are_found_both_ways_and_permuted_ones_are_not(run: Run, alignment: str) -> None:
    report = text_report(run, TextSettings(alignment), QUICK)
    for part in report["retrieval"].values():
        assert part["p_permutation"] <= 0.01 and part["top5"] > 2 * part["chance_top5"]
        assert part["ci95_top1"][0] > part["chance_top1"]
    for name, part in report["controls"][PERMUTED].items():
        chance = report["retrieval"][name]["chance_top1"]
        assert part["p"] <= 0.02 and abs(part["top1"] - chance) < 0.02 and part["range95_top1"][0] < chance
    oracle = report["controls"][ORACLE]["brain_to_text"]
    assert oracle["top5"] >= 0.75 and oracle["p_permutation"] <= 0.01
    assert report["bank"] == {
        "source": "captions",
        "texts": N_TEST,
        "candidates": N_TEST - report["bank"]["equal_texts"],
        "equal_texts": report["bank"]["equal_texts"],
        "training_texts": N_TRAIN,
    }
    assert report["bank"]["equal_texts"] > 0
    assert report["retrieval"]["brain_to_text"]["n"] == N_TEST
    assert report["categories"]["classes"] == N_TEST and report["categories"]["classes_in_training"] == 0
    stored = json.loads(text_report_path(run, alignment).read_text())
    assert stored["retrieval"] == report["retrieval"] and stored["alignment"] == alignment


def test_pivot_never_reads_the_brain(run: Run) -> None:
    """Other signals, the same map; joint is another one."""
    recording = open_recording(run)
    train = dataclasses.replace(recording.train, x=np.random.default_rng(9).normal(size=recording.train.x.shape))
    other = dataclasses.replace(recording, train=train)
    maps = [decoder(run, one, alignment="pivot").alignment.mapped for one in (recording, other)]
    np.testing.assert_array_equal(maps[0].weight, maps[1].weight)
    joint = [decoder(run, one, alignment="joint").alignment.mapped for one in (recording, other)]
    assert np.abs(joint[0].weight - joint[1].weight).max() > 1e-4


@pytest.mark.parametrize("alignment", ["pivot", "joint"])
def test_no_fit_reads_test_captions_or_test_pictures(run: Run, alignment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = open_recording(run)
    test = set(recording.test.stimulus.tolist())
    changed = tuple("nothing" if i in test else text for i, text in enumerate(recording.stimuli.captions))
    own = decoder(run, recording, alignment=alignment).alignment
    other = decoder(run, with_stimuli(recording, captions=changed), alignment=alignment).alignment
    np.testing.assert_array_equal(own.mapped.weight, other.mapped.weight)
    np.testing.assert_array_equal(own.centre, other.centre)
    from recon.decoding import predict

    tokens = np.array(predict.picture_tokens(run, recording))
    tokens[sorted(test)] = 1e4
    monkeypatch.setattr(predict, "picture_tokens", lambda *_: tokens)
    np.testing.assert_array_equal(
        decoder(run, recording, alignment=alignment).alignment.mapped.weight, own.mapped.weight
    )


def test_training_rows_of_signals_go_with_their_captions(run: Run) -> None:
    """Some training pictures without a caption: the rows that are left are those of the captions that are left."""
    recording = open_recording(run)
    captions = tuple("" if i % 3 == 0 else text for i, text in enumerate(recording.stimuli.captions))
    found = decoder(run, with_stimuli(recording, captions=captions), alignment="joint")
    assert all(row % 3 for row in found.training_rows)
    train = recording.train.averaged()
    x = np.stack([train.x[train.stimulus.tolist().index(row)] for row in found.training_rows])
    np.testing.assert_allclose(found._training_signals, found.inputs(x), rtol=1e-6)


def test_a_bank_adds_candidates_and_gives_pictures_their_text(run: Run, tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text("a tree\na horse\nA TREE \n", encoding="utf-8")
    found = text_report(run, TextSettings(bank=few), QUICK)
    plain = text_report(run, TextSettings(), QUICK)
    assert (
        found["bank"]["candidates"] == plain["bank"]["candidates"] + 2
        and found["bank"]["source"] == "captions, few.txt"
    )
    ids = open_recording(run).stimuli.ids
    table = tmp_path / "all.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "caption"], *([name, f"ü {i % 2} 狗"] for i, name in enumerate(ids))])
    two = text_report(run, TextSettings(bank=table), QUICK)
    assert two["bank"]["candidates"] == 2 and two["retrieval"]["text_to_brain"]["n"] == 2
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "caption"], *([name, "one text"] for name in ids)])
    with pytest.raises(UserError, match="have the same text"):
        text_report(run, TextSettings(bank=table), QUICK)


def test_pictures_without_a_text_are_left_out_and_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = open_recording(run)
    first = int(recording.test.averaged().stimulus[0])
    captions = tuple("" if i == first else text for i, text in enumerate(recording.stimuli.captions))
    changed = with_stimuli(recording, captions=captions)
    monkeypatch.setattr("recon.decoding.predict.open_recording", lambda _: changed)
    report = text_report(run, TextSettings(), QUICK)
    assert report["n_stimuli"] == N_TEST - 1 and "1 test pictures have no text" in report["notes"][0]
    none = with_stimuli(recording, captions=("",) * len(captions))
    monkeypatch.setattr("recon.decoding.predict.open_recording", lambda _: none)
    report = text_report(run, TextSettings(), QUICK)
    assert report["bank"]["source"] == CONCEPTS and "names of concepts stand for them" in report["notes"][0]
    bare = with_stimuli(none, concepts=("",) * len(captions))
    monkeypatch.setattr("recon.decoding.predict.open_recording", lambda _: bare)
    with pytest.raises(UserError, match="neither captions nor concepts"):
        text_report(run, TextSettings(), QUICK)


def test_captions_are_training_texts_in_files(run: Run, tmp_path: Path) -> None:
    report = caption_run(run, TextSettings("joint"), evaluate=QUICK)
    recording = open_recording(run)
    stimuli: Stimuli = recording.stimuli
    trained = {stimuli.captions[i] for i in recording.train.stimulus}
    assert set(report["captions"]["decoded"].values()) <= trained
    scores = report["scores"]["decoded"]
    assert scores["sentences(mini)"]["p_vs_shuffled"] < 0.02 and scores["CLIPScore(mini)"]["p_vs_shuffled"] < 0.05
    with captions_path(run).with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [stimuli.ids[i] for i in recording.test.averaged().stimulus]
    assert {row["id"]: row["decoded"] for row in rows} == report["captions"]["decoded"]
    assert all(row["caption"] == stimuli.captions[stimuli.ids.index(row["id"])] for row in rows)
    bank = tmp_path / "bank.txt"
    bank.write_text("=1+1\na green thing on grass\n", encoding="utf-8")
    report = caption_run(run, TextSettings("joint", bank=bank), evaluate=QUICK)
    assert set(report["captions"]["decoded"].values()) <= {"=1+1", "a green thing on grass"}


def test_table_and_report_of_captions_are_of_one_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first command stops between its two files until the second one waits for it, or has ended."""
    between, moved, over = (threading.Event() for _ in range(3))
    seal, lock = captions.write_sealed, captions.locked

    def write_sealed(path: Path, report: dict[str, Any]) -> None:
        if report["alignment"] == "pivot":
            between.set()
            assert moved.wait(60)
            over.wait(0.5)
        seal(path, report)

    def locked(*words: Any, **settings: Any) -> Any:
        if between.is_set():
            moved.set()
        return lock(*words, **settings)

    monkeypatch.setattr(captions, "write_sealed", write_sealed)
    monkeypatch.setattr(captions, "locked", locked)
    first = threading.Thread(target=lambda: caption_run(run, TextSettings("pivot"), evaluate=QUICK))
    first.start()
    assert between.wait(60)
    second = caption_run(run, TextSettings("joint"), evaluate=QUICK)
    moved.set()
    over.set()
    first.join()
    stored = json.loads(captions_path(run).read_text(encoding="utf-8"))
    with captions_path(run).with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        assert {row["id"]: row["decoded"] for row in csv.DictReader(file)} == stored["captions"]["decoded"]
    assert stored["captions"] == second["captions"] and not list(run.path.glob(".captions*"))


def test_a_captioner_reads_reconstructions_and_says_what_it_has_seen(run: Run, tmp_path: Path) -> None:
    import torch

    from recon.decoding.predict import load_predictions, run_id
    from recon.drawing.folders import PictureFolders, write_pictures
    from recon.evaluation.captions import Drawn
    from tests.recon.test_words_towers import git

    (tmp_path / "git").mkdir()
    git(tmp_path / "git").save_pretrained(tmp_path / "git")
    ids = list(load_predictions(run).ids)[:5]
    folder = PictureFolders(run.path, "tiny", run.subject).reconstructions
    images = torch.rand(5, 3, 16, 16)
    write_pictures(folder, ids, images, seed=3, run_id=run_id(run))
    report = caption_run(run, TextSettings(), drawn=Drawn(str(tmp_path / "git")), evaluate=QUICK)
    assert list(report["captions"]["captioner"]) == ids and len(report["captions"]["decoded"]) == N_TEST
    assert report["scores"]["captioner"]["sentences(mini)"]["n"] == 5
    assert any("NSD" in note for note in report["notes"])
    write_pictures(folder, ids, images, seed=3, run_id="another@0")
    with pytest.raises(UserError, match="holds pictures of another@0"):
        caption_run(run, TextSettings(), drawn=Drawn(str(tmp_path / "git")), evaluate=QUICK)


def test_commands_print_and_store(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--subject", "01", "--run", str(run.path), *PAIRS]
    assert cli.main(["retrieve", *words, "--against", "text", "--alignment", "joint"]) == 0
    out = capsys.readouterr().out
    assert "brain_to_text" in out and "chance" in out and "category" in out and "text_joint_sub-01.json" in out
    assert cli.main(["retrieve", *words, "--against", "text", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["alignment"] == "pivot"
    assert cli.main(["caption", *words]) == 0
    out = capsys.readouterr().out
    assert "shuffled" in out and "captions_sub-01.csv" in out
    assert cli.main(["info", str(captions_path(run))]) == 0
    assert cli.main(["info", str(text_report_path(run, "pivot"))]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["retrieve", "--alignment", "joint"], "--alignment is about texts"),
        (["retrieve", "--bank", "x.txt"], "--bank is about texts"),
        (["retrieve", "--against", "text", "--bank", "nowhere.txt"], "'nowhere.txt' does not exist"),
        (["retrieve", "--against", "text", "--text-tower", "no tower"], "is no folder and no hub id"),
        (["retrieve", "--against", "text", "--out", "here"], "scores one run"),
        (["caption", "--seed", "1"], "pass --captioner too"),
        (["caption", "--captioner", "microsoft/git-base-coco"], "no reconstructions|--captioner DIR"),
        (["generate", "--text-tower", "mini"], "pass one of them too"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(
    run: Run, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in run.path.iterdir())
    assert cli.main([words[0], "--subject", "01", "--run", str(run.path), *words[1:]]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert any(part in last for part in said.split("|")), last
    after = {path.name for path in run.path.iterdir()} - {"predictions", "cache"}
    assert after <= set(before)


def test_alignments_say_what_they_need(run: Run) -> None:
    with pytest.raises(UserError, match="alignment 'both' is not known"):
        TextSettings("both")
    set_key(run.config, "loss.regression", "0")
    set_key(run.config, "encoder.name", "mlp")
    with pytest.raises(UserError, match="predicts none; use joint"):
        decoder(run, alignment="pivot")
    stranger = dataclasses.replace(run, meta={**run.meta, "trained_on": ["02"]})
    with pytest.raises(UserError, match="has never seen"):
        decoder(stranger, alignment="joint")


def test_the_words_of_a_drawing_are_recorded_and_name_its_folder(run: Run, tmp_path: Path) -> None:
    from types import SimpleNamespace

    from recon.decoding.bridges.choose import Conditioning
    from recon.decoding.plan import Sampling
    from recon.drawing.folders import generator_label
    from recon.drawing.record import read_record, write_record

    for wanted, label in (
        (Conditioning(), "mini"),
        (Conditioning(words="pivot"), "mini_words-pivot"),
        (Conditioning(words="joint", text_tower="openai/clip"), "mini_words-joint_clip"),
    ):
        assert generator_label("mini", wanted) == label
        decoder = SimpleNamespace(tokens="predicted", low_level="none")
        plan = SimpleNamespace(run=run, used=Sampling(), conditioning=wanted, decoder=decoder, drawing=label)
        write_record(plan, tmp_path / label, None)  # type: ignore[arg-type]
        found = read_record(run, tmp_path / label, 0, label)
        assert read_record(run, tmp_path / label, 0, "other") is None
        assert found is not None
        expected = {} if wanted.words == "none" else {"words": wanted.words, "text_tower": wanted.text_tower}
        assert {name: found[name] for name in ("words", "text_tower") if name in found} == expected


@pytest.mark.parametrize("alignment", ["pivot", "joint"])
def test_prompts_are_training_captions_nearest_in_text_space(run: Run, alignment: str) -> None:
    """As `recon generate --words` takes them: of the test pictures, of silence, and the true ones for the oracle."""
    from recon.decoding.bridges.choose import Conditioning
    from recon.decoding.decoder import RunDecoder
    from recon.generation.adapters import Adapter

    recording = open_recording(run)
    wanted = Conditioning(words=alignment, low_level="none")
    adapter = Adapter.__new__(Adapter)
    vars(adapter).update(kind="pooled", path=Path("none"), info=None)
    found = RunDecoder(run, adapter, wanted)
    text = decoder(run, recording, alignment=alignment)
    expected = text.nearest(text.test_inputs, text.training_candidates())
    place = {recording.stimuli.ids[row]: k for k, row in enumerate(text.test_rows)}
    own = found.condition("reconstructions", 0)
    assert own.prompts == tuple(expected[place[name]] for name in found.ids)
    trained = {recording.stimuli.captions[i] for i in recording.train.stimulus}
    assert set(own.prompts or ()) <= trained and len(set(own.prompts or ())) > 3
    silent = found.condition("zero_brain", 0).prompts
    assert silent is not None and len(set(silent)) == 1 and set(silent) <= trained
    assert silent[0] == text.nearest(text.inputs(signals_at_rest(run)), text.training_candidates())[0]
    true = found.condition("oracle", 0).prompts
    assert true == tuple(recording.stimuli.captions[recording.stimuli.ids.index(name)] for name in found.ids)
    assert found.of_signals(recording.test.averaged().x[:2], 0).prompts == expected[:2]

"""Cards that say what the files say, and the way to the hub and back through a hub made of folders."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import filter_repo_objects

import recon
from align.checkpoint import Run, load_run, weights_hash
from align.config import Config, load_config, set_key
from align.errors import UserError
from align.files import read_json, read_tensors, write_json
from recon import cli
from recon.evaluation import judges, report
from recon.evaluation.settings import EvaluateConfig
from recon.generation.adapters import load_adapter
from recon.generation.places import find_adapter
from recon.metrics import metrics
from recon.publishing.card import card, write_card
from recon.publishing.facts import RunFacts, read_facts
from recon.publishing.methods import methods
from recon.publishing.places import is_local, without_paths, without_places
from recon.publishing.push import push
from tests.recon import tiny_run
from tests.recon.tiny import tiny_conditioner, tiny_unet

NAME = "someone/tiny-run"
WANTED = {"model.safetensors", "config.yaml", "split.json", "report_sub-01.json", "README.md"}
WANTED |= {"preparation_sub-01.safetensors"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluated run with pictures, predictions and training state beside it."""
    folder = tmp_path_factory.mktemp("publishing")
    run = tiny_run.make_run(folder)
    tiny_run.add_pictures(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "PIXEL_SIZE", 64)
        patch.setenv("TORCH_HOME", str(folder / "no weights"))
        patch.setattr(judges, "load_judge", tiny_run.only_pixels)
        report.evaluate_run(run, settings=EvaluateConfig(judge="torchvision/squeezenet1_0", n_boot=50, n_perm=99))
    (run.path / "state").mkdir(exist_ok=True)
    (run.path / "state" / "signals.npy").write_bytes(b"recordings")
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))


@pytest.fixture
def conditioner(tmp_path: Path) -> Path:
    from recon.generation.conditioner import save_conditioner

    torch.manual_seed(0)
    made = tiny_conditioner(tiny_unet(), str(tmp_path / "generator"))
    told = {"steps": "12", "seed": "3", "rendered": "40", "photographs": "2", "sources": json.dumps(["photos.zip"])}
    save_conditioner(made, tmp_path / "mine" / "ip_adapter.safetensors", told)
    return tmp_path / "mine"


class Hub:
    """Repositories as folders; every call must fit the signature of the client it stands for."""

    def __init__(self, root: Path) -> None:
        self.root, self.public, self.uploads = root, set[str](), 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("create_repo", "model_info", "upload_folder"):
            patch.setattr(HfApi, name, self._same_call(getattr(HfApi, name), getattr(self, name)))
        patch.setattr(
            huggingface_hub, "snapshot_download", self._same_call(huggingface_hub.snapshot_download, self.snapshot)
        )
        patch.setattr(huggingface_hub, "get_token", lambda: "hf_token")

    @staticmethod
    def _same_call(real: Callable[..., Any], own: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(real)

        def call(*args: Any, **kwargs: Any) -> Any:
            given = dict(signature.bind(*args, **kwargs).arguments)
            given.pop("self", None)
            return own(**given)

        return call

    def create_repo(self, repo_id: str, private: bool, repo_type: str, exist_ok: bool) -> None:
        if (self.root / repo_id).exists():
            assert exist_ok
            return
        (self.root / repo_id).mkdir(parents=True)
        if not private:
            self.public.add(repo_id)

    def model_info(self, repo_id: str) -> SimpleNamespace:
        return SimpleNamespace(private=repo_id not in self.public)

    def upload_folder(self, repo_id: str, folder_path: Path, **given: Any) -> SimpleNamespace:
        assert set(given) == {"repo_type", "commit_message", "allow_patterns", "delete_patterns"}
        target = self.root / repo_id
        for name in filter_repo_objects([p.name for p in target.iterdir()], allow_patterns=given["delete_patterns"]):
            (target / name).unlink()
        found = [str(path.relative_to(folder_path)) for path in Path(folder_path).rglob("*") if path.is_file()]
        for name in filter_repo_objects(found, allow_patterns=given["allow_patterns"]):
            shutil.copy(Path(folder_path) / name, target / name)
        self.uploads += 1
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/{self.uploads}")

    def snapshot(
        self, repo_id: str, allow_patterns: list[str], revision: str | None = None, local_files_only: bool = False
    ) -> str:
        source = self.root / (f"{repo_id}@{revision}" if revision else repo_id)
        if not source.is_dir():
            raise huggingface_hub.errors.LocalEntryNotFoundError("cannot find it\nin the cache")
        target = self.root.parent / "cache" / source.name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in filter_repo_objects([path.name for path in source.iterdir()], allow_patterns=allow_patterns):
            shutil.copy(source / name, target / name)
        return str(target)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    made.install(monkeypatch)
    return made


def signals() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(4, 60)).astype(np.float32)


def head_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def table_after(text: str, line: str) -> dict[str, list[str]]:
    """Rows of the first Markdown table after ``line``, by their first cell; the header's too."""
    rows = re.search(r"(?:^\|.*\n?)+", text[text.index(line) :], re.MULTILINE)
    assert rows is not None
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[0].strip().split("\n")]
    return {row[0]: row[1:] for row in cells if row[0] != "---"}


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_the_numbers_of_a_card_are_those_of_the_report(folder: Path) -> None:
    assert write_card(folder) == {"card": str(folder / "README.md"), "evaluated": ["01"]}
    text = (folder / "README.md").read_text()
    told = json.loads((folder / "report_sub-01.json").read_text())
    results = ModelCard(text).data.eval_results  # the hub's own reader
    found = {(entry.task_type, entry.metric_name): entry for entry in results}
    for direction in ("brain_to_image", "image_to_brain"):
        scores = told["retrieval"][direction]
        for key in ("top1", "top5"):
            entry = found.pop(("image-retrieval", f"{key}, {direction}"))
            assert entry.metric_value == scores[key]
            assert entry.metric_args["chance"] == scores[f"chance_{key}"] and entry.metric_args["n"] == scores["n"]
        row = table_after(text, "Retrieval among the test")[direction]
        wanted = [scores[key] for key in ("chance_top1", "top5", "chance_top5", "median_rank", "n", "candidates")]
        assert [float(cell) for cell in row[2:8]] == pytest.approx(wanted, rel=1e-3)
        assert float(row[0]) == pytest.approx(scores["top1"], rel=1e-3)
        assert json.loads(row[1]) == pytest.approx(scores["ci95_top1"], rel=1e-3)
        assert float(row[8]) == pytest.approx(scores["p_permutation"], rel=1e-3)
    controls, against = table_after(text, "for the controls"), table_after(text, "no better than a control")
    for column, (name, scored) in enumerate(told["reconstruction"].items()):
        entry = found.pop(("image-to-image", f"{name}, generator tiny"))
        assert (entry.metric_value, entry.metric_args["p_vs_control"]) == (scored["value"], scored["p_vs_control"])
        row = table_after(text, "Reconstructions by")[name]
        assert float(row[0]) == pytest.approx(scored["value"], rel=1e-3)
        assert json.loads(row[1]) == pytest.approx(scored["ci95"], rel=1e-3) and int(row[3]) == scored["n"]
        for control, scores in told["controls"].items():
            value, interval = controls[control][column].split(" ", 1)
            assert float(value) == pytest.approx(scores[name]["value"], rel=1e-3, abs=1e-12)
            assert json.loads(interval) == pytest.approx(scores[name]["ci95"], rel=1e-3, abs=1e-12)
        for control, p in scored["p_vs_control"].items():
            assert float(against[control][column]) == pytest.approx(p, rel=1e-3)
    assert not found
    assert all(f"{name} (" in text for name in told["skipped"])


def test_a_card_says_what_the_files_say(folder: Path, trained: Path) -> None:
    write_card(folder, license_id="cc-by-4.0")
    text = (folder / "README.md").read_text()
    run, split = load_run(folder), json.loads((folder / "split.json").read_text())
    rows = table_after(text, "# Brain encoder")
    expected = {
        "study": "folder",
        "subjects": "01",
        "protocol": "intra",
        "layer": "features.3",
        "layer chosen on": run.config.target.chosen_on,
        "pooling": "grid:2",
        "training rows": f"{split['train']['n_trials']} trials of {tiny_run.N_TRAIN} pictures",
        "test pictures": f"{tiny_run.N_TEST}, {split['test']['n_trials']} trials",
        "seed": str(run.config.seed),
        "weights": f"SHA-256 {weights_hash(folder)}",
    }
    assert {key: rows[key][0] for key in expected} == expected
    head = head_of(text)
    assert (head["license"], head["datasets"], head["library_name"]) == ("cc-by-4.0", ["folder"], "shallow-recon")
    assert head_of((trained / "run" / "README.md").read_text())["library_name"] == head["library_name"], "of training"
    for part in ("Selection rule:", "Not to be used", "that of the recordings", "load_run('OWNER/NAME')", "sample of"):
        assert part in text, part
    assert "'subjects=[01]' study.root=FOLDER backbone.weights=FILE" in text
    for secret in (str(folder.parent), run.config.study.root or "", run.config.backbone.weights or ""):
        assert secret not in text


def test_a_run_without_report_claims_nothing(folder: Path) -> None:
    (folder / "report_sub-01.json").unlink()
    assert write_card(folder)["evaluated"] == []
    text = (folder / "README.md").read_text()
    assert "**Not evaluated.**" in text and "model-index" not in text and "top1" not in text
    assert head_of(text)["license"] == "other"


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("report_sub-01.json", {"run": "folder_sub-01@000000000000"}, "run recon evaluate again"),
        ("report_sub-01.json", {"schema": 2}, "no report of recon evaluate"),
        ("config.yaml", {"seed": 7}, "not the configuration of the weights"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    folder: Path, hub: Hub, file: str, change: dict[str, Any], told: str
) -> None:
    before = (folder / "README.md").read_bytes()
    old = yaml.safe_load((folder / file).read_text())
    old.pop("recon_checksum", None)  # as somebody does who changes a file on purpose
    (folder / file).write_text(json.dumps(old | change))
    for act in (write_card, lambda path: push(path, NAME)):
        with pytest.raises(UserError) as error:
            act(folder)
        assert told in one_line(error)
    assert (folder / "README.md").read_bytes() == before and not hub.uploads


def test_changed_weights_are_refused(folder: Path) -> None:
    from align.files import save_tensors

    tensors, metadata = read_tensors(folder / "model.safetensors")
    name = next(name for name, value in tensors.items() if value.is_floating_point() and value.numel())
    save_tensors(folder / "model.safetensors", tensors | {name: tensors[name] + 1}, metadata)
    with pytest.raises(UserError, match="other weights than its metadata names"):
        write_card(folder)


def test_a_pushed_run_comes_back_the_same(folder: Path, hub: Hub, trained: Path) -> None:
    result = push(folder, NAME)
    assert result["uploaded"] and result["commit"].endswith(f"{NAME}/commit/1")
    assert {item["file"] for item in result["files"]} == WANTED == {p.name for p in (hub.root / NAME).iterdir()}
    assert sum(item["bytes"] for item in result["files"]) == result["bytes"] > 0
    own, back = load_run(folder), recon.load_run(NAME)
    assert weights_hash(back.path) == weights_hash(folder)
    for key, value in own.predict(signals()).items():
        np.testing.assert_array_equal(back.predict(signals())[key], value)
    told = read_json(hub.root / NAME / "report_sub-01.json")
    mine = read_json(folder / "report_sub-01.json")
    assert {key: told[key] for key in told if key != "skipped"} == {key: mine[key] for key in mine if key != "skipped"}
    assert f"load_run('{NAME}')" in (hub.root / NAME / "README.md").read_text()
    write_card(hub.root / NAME)  # what was pushed is a whole run itself: its files still belong together


def test_the_recording_is_read_again_once_its_place_is_told(folder: Path, hub: Hub, trained: Path) -> None:
    from recon.decoding.predict import open_recording, split_trials

    push(folder, NAME)
    own, back = load_run(folder), recon.load_run(NAME)
    assert back.config.study.root is None and back.config.backbone.weights == "squeezenet1_1.pth"
    set_key(back.config, "study.root", str(trained / "study"))

    def of(run: Run) -> np.ndarray:
        return run.aligner.predict(split_trials(open_recording(run), "test").x)["embeds"]

    np.testing.assert_array_equal(of(back), of(own))


def test_no_path_of_this_machine_is_pushed(folder: Path, hub: Hub, trained: Path) -> None:
    told = read_json(folder / "report_sub-01.json")
    told["skipped"]["CLIP"] = (
        f"no file under '{trained / 'a b' / 'clip.pt'}' or {trained}/clip.pt, see https://x.org/a/b"
    )
    write_json(folder / "report_sub-01.json", told)
    push(folder, NAME)
    for path in (hub.root / NAME).iterdir():
        assert str(trained).encode() not in path.read_bytes(), path.name
        assert str(folder.parent).encode() not in path.read_bytes(), path.name
    pushed = json.loads((hub.root / NAME / "report_sub-01.json").read_text())
    assert pushed["skipped"]["CLIP"] == "no file under 'clip.pt' or clip.pt, see https://x.org/a/b"


def test_a_new_training_takes_the_old_scores_away(folder: Path, hub: Hub) -> None:
    push(folder, NAME)
    (folder / "report_sub-01.json").unlink()
    push(folder, NAME)
    assert {path.name for path in (hub.root / NAME).iterdir()} == WANTED - {"report_sub-01.json"}


def test_revisions_are_other_states(folder: Path, hub: Hub) -> None:
    push(folder, NAME)
    shutil.copytree(hub.root / NAME, hub.root / f"{NAME}@v1")
    shutil.rmtree(hub.root / NAME)
    assert recon.load_run(f"{NAME}@v1").subject == "01"
    with pytest.raises(UserError) as error:
        recon.load_run(NAME)
    assert f"run '{NAME}'" in one_line(error) and "cannot be fetched" in one_line(error)
    with pytest.raises(UserError, match="not '02'"):
        recon.load_run(f"{NAME}@v1", "02")


def test_a_folder_wins_over_the_hub(folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    (folder.parent / "a").mkdir()
    shutil.copytree(folder, folder.parent / "a" / "b")
    assert recon.load_run("a/b").path == Path("a/b")
    for absent in (folder.parent / "c", "no such folder", str(folder.parent / "c")):
        with pytest.raises(UserError, match="holds no model"):
            recon.load_run(absent)


def test_safetensors_only(folder: Path, hub: Hub) -> None:
    (hub.root / NAME).mkdir(parents=True)
    torch.save({"weights": 1}, hub.root / NAME / "pytorch_model.bin")
    shutil.copy(folder / "config.yaml", hub.root / NAME)
    with pytest.raises(UserError) as error:
        recon.load_run(NAME)
    assert "has no model.safetensors" in one_line(error)
    assert not (hub.root.parent / "cache" / "tiny-run" / "pytorch_model.bin").exists()


def test_without_network_one_line_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as error:  # the client itself, nothing in its place
        recon.load_run("someone/absent@v2")
    assert "run 'someone/absent@v2' is no local folder" in one_line(error)


def test_what_the_real_client_left_in_its_cache_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    place = tmp_path / "hub" / "models--someone--tiny-run"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("a" * 40)
    shutil.copytree(folder, place / "snapshots" / ("a" * 40))
    assert recon.load_run(NAME).path == place / "snapshots" / ("a" * 40)
    assert recon.load_run(f"{NAME}@{'a' * 40}").subject == "01"
    (place / "snapshots" / ("a" * 40) / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors|cannot be fetched"):
        recon.load_run(NAME)


def test_without_the_network_the_cache_serves_whatever_the_client_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def client(repository: str, local_files_only: bool = False, **_: object) -> str:
        if not local_files_only:
            raise ConnectionError("no route")
        if repository != NAME:
            raise FileNotFoundError("not cached")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", client)
    assert recon.load_run(NAME).path == folder
    with pytest.raises(UserError, match="ConnectionError: no route"):
        recon.load_run("someone/else")


def test_push_refuses(folder: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tiny-run", "a/b/c", "a b/c", "/a/b", ""):
        with pytest.raises(UserError, match="OWNER/NAME"):
            push(folder, name)
    with pytest.raises(UserError, match="holds neither model"):
        push(tmp_path, NAME)
    push(folder, NAME)
    with pytest.raises(UserError, match="exists and is public"):
        push(folder, NAME, private=True)
    push(folder, "someone/hidden", private=True)
    push(folder, "someone/hidden", private=True)
    assert "someone/hidden" not in hub.public and hub.uploads == 3
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError) as error:
        push(folder, NAME)
    assert "no token" in one_line(error) and "hf auth login" in one_line(error) and hub.uploads == 3


def test_what_the_hub_refuses_is_one_line(folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: HfApi, *args: Any, **kwargs: Any) -> None:
        raise OSError("403 Forbidden\nyou may not write there")

    monkeypatch.setattr(HfApi, "upload_folder", refuse)
    with pytest.raises(UserError) as error:
        push(folder, NAME)
    assert "403 Forbidden you may not write there" in one_line(error)


def test_a_dry_run_needs_nothing_and_changes_nothing(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert cli.main(["push", "--run", str(folder), "--to", NAME, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert set(re.findall(r"bytes  (\S+)", printed)) == WANTED and "nothing was uploaded" in printed
    assert not hub.root.exists() and {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert cli.main(["push", "--run", str(folder), "--to", NAME]) == 2
    assert "no token" in capsys.readouterr().err


def test_a_folder_of_runs_gets_the_card_of_each(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = folder.parent / "both"
    for name in ("sub-01", "sub-02"):
        shutil.copytree(folder, both / name)
        (both / name / "README.md").unlink()
    assert cli.main(["card", "--run", str(both), "--to", NAME]) == 2
    assert "--to names the place of one run" in capsys.readouterr().err
    assert cli.main(["card", "--run", str(both)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"card: {both / n / 'README.md'}" for n in ("sub-01", "sub-02")]
    (both / "sub-01" / "README.md").unlink()
    (both / "sub-02" / "config.yaml").write_text("seed: 5\n")
    assert cli.main(["card", "--run", str(both)]) == 2 and not (both / "sub-01" / "README.md").exists()
    capsys.readouterr()
    for words in (["card", "--methods"], ["push", "--to", NAME, "--dry-run"]):
        assert cli.main([words[0], "--run", str(both), *words[1:]]) == 2
        assert f"pass one of its runs: {both / 'sub-01'}, {both / 'sub-02'}" in capsys.readouterr().err


def test_scores_of_pictures_that_changed_have_no_card(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["card", "--run", str(folder)]) == 0
    picture = next(folder.glob("reconstructions/*/sub-01/*.png"))
    picture.write_bytes(picture.read_bytes() + b"x")
    assert cli.main(["card", "--run", str(folder)]) == 2
    assert "was changed after it was drawn" in capsys.readouterr().err
    assert cli.main(["info", str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["report"]
    assert "was changed after it was drawn" in report["refused"] and "top1" not in report


def test_the_commands(folder: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["card", "--run", str(folder), "--to", NAME, "--license", "mit", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluated"] == ["01"]
    local = (folder / "README.md").read_text()
    assert cli.main(["push", "--run", str(folder), "--to", NAME, "--license", "mit", "--private"]) == 0
    assert f"uploaded: https://hub/{NAME}/commit/1" in capsys.readouterr().out
    assert (hub.root / NAME / "README.md").read_text() == local and NAME not in hub.public
    assert cli.main(["card", "--run", str(folder / "state")]) == 2


def test_an_encoder_of_several_subjects(folder: Path, hub: Hub) -> None:
    from align.config import dump_yaml, to_dict
    from align.files import save_tensors

    tensors, metadata = read_tensors(folder / "model.safetensors")
    meta = json.loads(metadata["meta"]) | {"subjects": ["01", "02"], "trained_on": ["01", "02"]}
    config = load_run(folder).config
    config.protocol, config.subjects = "pooled", ["02", "01"]
    (folder / "config.yaml").write_text(dump_yaml(config))
    told = {"meta": json.dumps(meta), "subjects": json.dumps(["01", "02"]), "config": json.dumps(to_dict(config))}
    save_tensors(folder / "model.safetensors", tensors, metadata | told)
    push(folder, NAME)
    text = (hub.root / NAME / "README.md").read_text()
    assert "**Not evaluated** for subject 02." in text and "### Subject 01" in text
    assert "subject='01')" in text and "'subjects=[02,01]'" in text
    assert recon.load_run(NAME, "02").subject == "02"
    with pytest.raises(UserError, match="several subjects"):
        recon.load_run(NAME)


def test_a_conditioner_goes_and_comes_back(conditioner: Path, hub: Hub) -> None:
    assert write_card(conditioner)["evaluated"] == []
    (conditioner / "latents.npy").write_bytes(b"pictures")
    result = push(conditioner, "someone/adapter")
    assert [item["file"] for item in result["files"]] == ["README.md", "ip_adapter.safetensors"]
    text = (hub.root / "someone/adapter/README.md").read_text()
    rows = table_after(text, "# Conditioner")
    assert rows["pictures trained on"] == ["40 rendered, 2 photographs (from photos.zip)"]
    assert (rows["backbone"], rows["layer"], rows["steps"], rows["generator"]) == (
        ["mini"],
        ["2"],
        ["12"],
        ["generator"],
    )
    assert rows["weights"] == [f"SHA-256 {weights_hash(conditioner / 'ip_adapter.safetensors')}"]
    assert "--adapter someone/adapter/ip_adapter.safetensors" in text and "**Not evaluated**" in text
    assert str(conditioner.parent).encode() not in b"".join(p.read_bytes() for p in hub.root.rglob("*.*"))
    place = find_adapter("someone/adapter/ip_adapter.safetensors", "sd")
    back, own = load_adapter(place.path), load_adapter(conditioner / "ip_adapter.safetensors")
    assert (back.kind, place.repository) == ("own", "someone/adapter")
    for part, tensors in own.state.items():
        assert all(torch.equal(value, back.state[part][name]) for name, value in tensors.items())


def test_training_says_what_the_card_shows(conditioner: Path) -> None:
    from align.files import save_tensors
    from recon.config import ConditionerConfig
    from recon.pretraining.pictures import Pool
    from recon.train import training_facts

    overrides = ["train.steps=7", "train.lr=2e-4", "seed=5", "pictures.photographs=[/data/me/photos.zip]"]
    pool = Pool(np.zeros((5, 64, 64, 3), np.uint8), tuple("abcde"), ("",) * 5, 3)
    file = conditioner / "ip_adapter.safetensors"
    tensors, metadata = read_tensors(file)
    facts = training_facts(load_config(ConditionerConfig, None, overrides, check=False), pool)
    save_tensors(file, tensors, metadata | facts)
    write_card(conditioner)
    text = (conditioner / "README.md").read_text()
    rows = table_after(text, "# Conditioner")
    assert rows["pictures trained on"] == ["3 rendered, 2 photographs (from photos.zip)"]
    assert (rows["steps"], rows["lr"], rows["seed"]) == (["7"], ["0.0002"], ["5"])
    for pair in ("train.steps=7", "train.lr=0.0002", "seed=5", "pictures.rendered=3"):
        assert f" {pair}" in text, pair
    assert "/data/me" not in text


def test_facts_a_conditioner_does_not_hold_are_not_made_up(conditioner: Path) -> None:
    from align.files import save_tensors

    file = conditioner / "ip_adapter.safetensors"
    tensors, metadata = read_tensors(file)
    kept = ("backbone", "layer", "pooling", "n_tokens", "width", "generator", "mean")
    save_tensors(file, tensors, {key: metadata[key] for key in kept})
    write_card(conditioner)
    rows = table_after((conditioner / "README.md").read_text(), "# Conditioner")
    assert rows["pictures trained on"] == rows["steps"] == ["not recorded in the file"]
    assert "seed" not in rows


def test_places_are_taken_out_of_a_configuration(tmp_path: Path) -> None:
    overrides = [
        f"study.root={tmp_path}",
        "backbone.weights=some/where/net.pth",
        f"encoder.pretrained={tmp_path}/labram",
    ]
    overrides += [f"sweep.backbones=[mini@{tmp_path}/w.pth,mini]", f"run_dir={tmp_path}", f"cache_dir={tmp_path}"]
    config = load_config(Config, None, [*overrides, "target.layer=features.3"], check=False)
    clean = without_places(config)
    assert (clean.study.root, clean.run_dir, clean.cache_dir) == (None, None, Config().cache_dir)
    assert (clean.backbone.weights, clean.encoder.pretrained) == ("net.pth", "labram")
    assert clean.sweep.backbones == ["mini", "mini"] and clean.target.layer == "features.3"
    assert config.study.root == str(tmp_path)
    set_key(config, "encoder.pretrained", "owner/model@v1")
    assert without_places(config).encoder.pretrained == "owner/model@v1"
    assert is_local(str(tmp_path)) and not is_local("mini") and not is_local("owner/model")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("see /home/me/data/x.pt now", "see x.pt now"),
        ("'~/data/two words/x y.pt' is missing", "'x y.pt' is missing"),
        ("https://osf.io/3jk45/files", "https://osf.io/3jk45/files"),
        ("gray/2-D and 1/2, study/images", "gray/2-D and 1/2, study/images"),
        (r"C:\Users\me\x.pt", "x.pt"),
    ],
)
def test_paths_in_texts(text: str, left: str) -> None:
    assert without_paths({"a": [text, 1.5, None]}) == {"a": [left, 1.5, None]}


def test_the_methods_say_what_was_drawn_and_how(folder: Path) -> None:
    facts = read_facts(folder)
    assert isinstance(facts, RunFacts)
    (own,) = facts.reports.values()
    judge = {"name": "a/net", "weights": "a.pth@1", "family": "a", "relatives": [], "score": "two_way"}
    few = {**own, "n_stimuli": 8, "n_test_stimuli": 20, "judges": [judge], "drawn_with": {"steps": 6}}
    whole = {**few, "n_stimuli": 20, "drawn_with": {"steps": 4}}
    facts.run.config.study.roi = ["V1", "V2"]
    told = methods(replace(facts, reports={"01": few}, image_seeds={"01": 3}))
    sentence = (
        f"8 of the 20 test pictures were drawn by {own['generator']} (6 steps, noise of seed 3) and scored next to "
        "controls, judged by a/net (independent of the run's networks)."
    )
    assert f"p values permutations. {sentence} Software" in told
    assert "(regions V1 and V2)" in told and "['V1" not in told and "chosen on: set by hand" not in told
    both = methods(replace(facts, reports={"01": few, "02": whole}, image_seeds={"01": 3}))
    assert f"Of subject 01: {sentence} Of subject 02: 20 of the 20 test pictures were" in both
    assert "roi V1 and V2" in card(facts)

"""`recon audit` from files and from folders: what is read, what is refused, exit codes, JSON."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from align.errors import UserError
from recon.audit import tables
from recon.audit.checks import Material
from recon.audit.collect import from_folder
from recon.audit.files import read_pictures
from recon.commands import audit
from tests.recon.clean_material import blend, random_pictures

N_TRAIN, N_TEST = 40, 30


def arguments(*words: str | Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    audit.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def verdicts(*words: str | Path) -> dict[str, str]:
    found: dict[str, Any] = audit.run(arguments(*words))
    json.dumps(found, allow_nan=False)
    return {finding["check"]: finding["verdict"] for finding in found["findings"]}


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_pictures(folder: Path, pictures: np.ndarray, suffix: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"p{i:03d}{suffix}.png")
    return folder


def test_pictures_in_folders_and_stacks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    train, test = random_pictures(rng, N_TRAIN), random_pictures(rng, N_TEST)
    samples = np.stack([blend(test, random_pictures(rng, N_TEST), 0.4) for _ in range(3)], axis=1)
    folders = [write_pictures(tmp_path / "train", train), write_pictures(tmp_path / "test", test)]
    torch.save(torch.from_numpy(test / 255).permute(0, 3, 1, 2), tmp_path / "test.pt")
    stack = read_pictures(tmp_path / "test.pt")
    assert stack.hashes == read_pictures(folders[1]).hashes and stack.ids[:2] == ("0", "1")
    for k in range(3):
        write_pictures(tmp_path / "samples", samples[:, k], f"_seed-{k}")
    shown = write_pictures(tmp_path / "shown", samples[:, 1])
    options = ("--train-images", folders[0], "--test-images", folders[1], "--reconstructions", shown)
    found = verdicts(*options, "--samples", tmp_path / "samples")
    for check in ("exact_duplicates", "near_duplicates", "memorisation", "seen_pictures", "sample_selection"):
        assert found.pop(check) == "clear"
    assert set(found.values()) == {"not checked"}

    write_pictures(tmp_path / "train", test[:1], "_again")
    leaky = audit.run(arguments(*options, "--strict", "--out", tmp_path / "audit.json"))
    assert leaky["verdict"] == "leak" and leaky["exit_code"] == 1
    assert "exact_duplicates" in leaky["summary"] and leaky["text"].splitlines()[2].startswith("LEAK")
    assert json.loads((tmp_path / "audit.json").read_text())["findings"] == leaky["findings"]
    assert audit.run(arguments(*options))["exit_code"] == 0


def test_embeds_labels_and_samples_of_embeds(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    images, known = rng.normal(size=(N_TEST, 16)), rng.normal(size=(N_TRAIN, 16))
    samples = images[:, None] + rng.normal(size=(N_TEST, 8, 16))
    best = np.argmax([[np.corrcoef(s, t)[0, 1] for s in row] for row, t in zip(samples, images, strict=True)], axis=1)
    for name, array in (("z", images), ("k", known), ("s", samples), ("c", best), ("e", images[::-1].copy())):
        np.save(tmp_path / f"{name}.npy", array)
    ids = write_table(tmp_path / "ids.csv", [{"id": f"s{i}"} for i in range(N_TEST)])
    rows = [{"stimulus_id": f"s{i}", "label": i % 3, "split": "test"} for i in reversed(range(N_TEST))]
    labels = write_table(tmp_path / "labels.csv", [*rows, {"stimulus_id": "t", "label": 1, "split": "train"}])
    options = ["--images", tmp_path / "z.npy", "--train-embeds", tmp_path / "k.npy", "--ids", ids, "--labels", labels]
    options += ["--sample-embeds", tmp_path / "s.npy", "--chosen", tmp_path / "c.npy"]
    found = verdicts("--brain", tmp_path / "e.npy", *options)
    assert found["row_order"] == "leak"  # the rows lie in reverse
    assert found["sample_selection"] == "leak"
    assert found["shared_categories"] == "leak"
    assert found["anisotropy"] == "clear" and found["category_only"] == "clear"
    chosen = write_table(tmp_path / "c.csv", [{"stimulus_id": f"s{i}", "sample": i % 8} for i in range(N_TEST)])
    options[-1] = chosen
    assert verdicts("--brain", tmp_path / "z.npy", *options)["sample_selection"] == "clear"


def test_tables_of_trials_and_scores(tmp_path: Path) -> None:
    trials = [
        {"label": i // 30, "onset": i, "split": "test" if i % 3 else "train", "stimulus_id": i} for i in range(300)
    ]
    order = write_table(tmp_path / "order.csv", trials)
    scores = [{"epoch": i, "validation": 0.3 - 0.001 * i, "test": 0.2 + 0.001 * (i == 20)} for i in range(40)]
    table = write_table(tmp_path / "scores.csv", scores)
    found = verdicts("--order", order, "--scores", table, "--reported", "0.201")
    assert found["block_design"] == "leak" and found["choice_on_test"] == "leak"
    assert found["repeated_stimuli"] == "clear"
    seeds = write_table(tmp_path / "seeds.csv", [{"seed": i, "test": 0.01 * i} for i in range(10)])
    assert verdicts("--scores", seeds, "--reported", "0.045")["seed_variance"] == "clear"
    assert verdicts("--scores", seeds, "--reported", "0.09")["seed_variance"] == "suspect"


def test_marked_choices_of_several_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((4, 2, 12))  # subject; validation, test; layer
    for side, verdict in ((0, "clear"), (1, "leak")):
        rows = [
            {"group": i, "layer": k, "validation": v[0, k], "test": v[1, k], "chosen": int(k == v[side].argmax())}
            for i, v in enumerate(scores)
            for k in range(12)
        ]
        assert verdicts("--scores", write_table(tmp_path / "layers.csv", rows))["choice_on_test"] == verdict


def test_sessions_of_the_trials(tmp_path: Path) -> None:
    """Normalisation fitted on both splits of each session, of which the table of trials tells."""
    rows = np.random.default_rng(1).normal(size=(120, 10))
    session, test = np.arange(120) % 2, np.arange(120) >= 90
    for name in (0, 1):
        part = session == name
        rows[part] = (rows[part] - rows[part].mean(0)) / rows[part].std(0)
    np.save(tmp_path / "train.npy", rows[~test])
    np.save(tmp_path / "test.npy", rows[test])
    signals = ("--train-signals", tmp_path / "train.npy", "--test-signals", tmp_path / "test.npy")
    trials = [
        {"label": i % 5, "split": "test" if test[i] else "train", "session": session[i], "stimulus_id": i}
        for i in range(120)
    ]
    found = audit.run(arguments(*signals, "--order", write_table(tmp_path / "order.csv", trials)))
    pooled = next(finding for finding in found["findings"] if finding["check"] == "pooled_normalisation")
    assert pooled["verdict"] == "leak" and "in 2 of 2 sessions" in pooled["evidence"]
    with pytest.raises(UserError, match="89 training and 30 test trials"):
        audit.run(arguments(*signals, "--order", write_table(tmp_path / "short.csv", trials[1:])))


def test_sweep_folder(tmp_path: Path) -> None:
    curve = {"backbone": "b", "encoder": "ridge", "chosen": "2", "last": "3", "validation_top1": {"1": 0.1, "2": 0.3}}
    (tmp_path / "choice.json").write_text(json.dumps({"criterion": "cross-validation", "curves": [curve]}))
    material, source = from_folder(tmp_path)
    assert source.startswith("sweep") and material.choices[0].chosen == 1
    assert verdicts(tmp_path)["choice_on_test"] == "clear"

    same = {"backbone": "b", "encoder": "ridge", "direction": "brain_to_image", "split": "test"}
    tops = {"1": (0.2, 0.3), "2": (0.1, 0.1)}  # two seeds each
    rows = [{**same, "layer": layer, "top1": top} for layer, found in tops.items() for top in found]
    write_table(tmp_path / "sweep.csv", [*rows, {**rows[0], "direction": "image_to_brain", "top1": 0.9}])
    assert from_folder(tmp_path)[0].choices[0].test.tolist() == pytest.approx([0.25, 0.1])
    (tmp_path / "choice.json").write_text(json.dumps({"criterion": "test top1", "curves": [{**curve, "chosen": "1"}]}))
    found = verdicts(tmp_path)
    assert found["choice_on_test"] == "suspect" and found["declared_choice"] == "leak"
    (tmp_path / "choice.json").write_text("{}")
    with pytest.raises(UserError, match="criterion is missing"):
        from_folder(tmp_path)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "nothing to audit"),
        (["--reconstructions", "empty"], "--targets"),
        (["--train-images", "empty"], "holds no picture"),
        (["--train-images", "wide.npy"], r"\[0, 1\]"),
        (["--train-images", "many.npy"], "2 pictures per stimulus"),
        (["--train-images", "flat.npy"], "shape"),
        (["--scores", "labels.csv"], "'test'"),
        (["--labels", "labels.csv", "--brain", "e.npy"], "2 test rows for 3 rows"),
        (["--brain", "e.npy", "--images", "flat.npy"], "differ in shape"),
        (["--samples", "flat.npy"], "--targets"),
        (["--samples", "many.npy", "--targets", "one.npy"], "--chosen"),
        (["--samples", "many.npy", "--targets", "one.npy", "--chosen", "c.npy"], "2 is none of the 2 samples"),
        (["--samples", "many.npy", "--targets", "one.npy", "--chosen", "c.csv"], "column 'sample'"),
        (["--sample-embeds", "e.npy", "--images", "flat.npy"], "n, k, E"),
        (["--sample-embeds", "e.npy", "--images", "e.npy"], "--chosen"),
        (["--brain", "e.npy", "--ids", "ids.csv"], "2 ids for 3 rows"),
        (["--brain", "e.npy", "--train-embeds", "flat.npy"], "width 5"),
        (["--test-signals", "nan.npy"], "NaN"),
        (["--order", "nowhere.csv"], "does not exist"),
        (["--scores", "percent.csv", "--reported", ".62"], "percentages"),
        (["--scores", "unmarked.csv"], "column chosen"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    np.save("wide.npy", np.full((2, 16, 16, 3), 255.0))
    np.save("one.npy", np.arange(2 * 768, dtype=np.uint8).reshape(2, 16, 16, 3))
    np.save("many.npy", np.arange(4 * 768, dtype=np.uint8).reshape(2, 2, 16, 16, 3))
    np.save("c.npy", np.array([0, 2]))
    np.save("nan.npy", np.full((12, 9), np.nan))
    np.save("flat.npy", np.zeros((4, 5)))
    np.save("e.npy", np.eye(3))
    write_table(tmp_path / "labels.csv", [{"label": "a"}, {"label": "b"}])
    write_table(tmp_path / "c.csv", [{"stimulus_id": "a"}, {"stimulus_id": "b"}])
    write_table(tmp_path / "ids.csv", [{"id": "a"}, {"id": "b"}])
    write_table(tmp_path / "percent.csv", [{"seed": i, "test": 60 + i} for i in range(6)])
    write_table(tmp_path / "unmarked.csv", [{"epoch": i, "test": i} for i in range(6)])
    with pytest.raises(UserError, match=complaint) as caught:
        audit.run(arguments(*words))
    assert "\n" not in str(caught.value)


def test_malicious_stack_is_refused(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "x.pt").write_bytes(pickle.dumps(print))
    with pytest.raises(UserError, match="can run code"):
        read_pictures(tmp_path / "x.pt")


def test_unknown_split_and_unmatched_score(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'val' is neither"):
        tables.add_labels(Material(), write_table(tmp_path / "a.csv", [{"label": "x", "split": "val"}]))
    path = write_table(tmp_path / "b.csv", [{"epoch": 1, "test": 0.1}, {"epoch": 2, "test": 0.2}])
    with pytest.raises(UserError, match=r"nearest is 0\.2"):
        tables.add_scores(Material(), path, 0.5)

"""`recon score`: real score matrices, hand-made toys with known answers, nulls, files of strangers."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from scipy.integrate import quad
from scipy.stats import binom, hypergeom, kstest, norm

from align import retrieval
from align.errors import UserError
from recon import cli
from recon.scoring.retrieval import score, score_matrix
from tests.conftest import shared_path

FAST: dict[str, Any] = {"n_boot": 200, "n_perm": 99}
BOTH = ("brain_to_image", "image_to_brain")


def _case(n: int = 30, k: int = 30, noise: float = 1.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(k, 12)).astype(np.float32)
    return (images[:n] + noise * rng.normal(size=(n, 12))).astype(np.float32), images


def _things_eeg2() -> dict[str, np.ndarray]:
    return load_file(shared_path("data/things_eeg2_scores") / "scores_200x200.safetensors")


def test_real_things_eeg2_scores() -> None:
    matrices = _things_eeg2()
    clip = score_matrix(matrices["vitl_image_seed0"], **FAST)
    assert (clip["brain_to_image"]["top1"], clip["brain_to_image"]["top5"]) == pytest.approx((0.300, 0.620))
    ensemble = score_matrix(matrices["ensemble_test_tuned"], **FAST)
    assert (ensemble["brain_to_image"]["top1"], ensemble["brain_to_image"]["top5"]) == pytest.approx((0.670, 0.890))
    assert ensemble["image_to_brain"]["top1"] == pytest.approx(0.730)
    assert ensemble["transductive"]["hungarian"]["top1"] == pytest.approx(0.965)
    low, high = ensemble["brain_to_image"]["ci95_top1"]
    assert low < 0.67 < high
    assert ensemble["brain_to_image"]["p_permutation"] == 1 / 100
    assert ensemble["notes"] == []
    assert ensemble["transductive"]["sinkhorn"]["sharpness"] == pytest.approx(np.sqrt(2 * np.log(200)))


def test_embeddings_and_their_matrix_give_the_scores_of_a_report() -> None:
    brain, images = _case(n=24, k=24)
    matrix = retrieval.scores(brain, images)
    report = retrieval.report(matrix, **FAST)
    for found in (
        score(brain, images, **FAST),
        score_matrix(matrix, **FAST),
        score(torch.tensor(brain, requires_grad=True), images, **FAST),
    ):
        for direction in BOTH:
            for key, value in report[direction].items():
                assert found[direction][key] == pytest.approx(value), (direction, key)
        assert found["transductive"]["csls"] == report["transductive"]["csls"]
        assert json.loads(json.dumps(found)) == found


def test_a_matrix_in_pieces_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = retrieval.scores(*_case(n=23, k=31, noise=6.0)).round(1)  # p far from its floor
    names = [str(i) for i in range(31)]
    options: dict[str, Any] = {"ids": names[:23], "image_ids": names, "labels": np.arange(31) % 3, **FAST}
    whole = score_matrix(matrix, **options)
    for cells in (1, 70, 31 * 22):
        monkeypatch.setattr("recon.scoring.contest._CELLS", cells)
        assert score_matrix(matrix, **options) == whole


def test_asymmetric_hub() -> None:
    """Every recording resembles picture 0 most; every picture's most similar recording is the right one."""
    n = 20
    matrix = 0.5 * np.eye(n)
    matrix[:, 0] += 0.6
    matrix[0, 0] += 0.6
    found = score_matrix(matrix, **FAST)
    assert found["brain_to_image"]["top1"] == 1 / n
    assert found["image_to_brain"]["top1"] == 1.0
    assert found["transductive"]["hungarian"]["top1"] == 1.0
    other = score_matrix(matrix.T, **FAST)
    assert (other["brain_to_image"]["top1"], other["image_to_brain"]["top1"]) == (1.0, 1 / n)
    pull = np.full((n, 1), 2.0)  # the same with embeddings: one shared axis makes the hub
    images = np.hstack([np.eye(n), np.zeros((n, 1))])
    images[0, -1] = 5.0
    told = score(np.hstack([np.eye(n), pull]), images, **FAST)
    assert told["brain_to_image"]["top1"] == 1 / n
    assert told["image_to_brain"]["top1"] == pytest.approx(1.0)


def test_ties_are_the_mean_over_orders() -> None:
    found = score_matrix(np.zeros((40, 40)), **FAST)
    for direction in BOTH:
        part = found[direction]
        assert (part["top1"], part["top5"]) == pytest.approx((1 / 40, 5 / 40))
        assert (part["median_rank"], part["rank_percentile"]) == (20.5, 0.5)
        assert part["p_permutation"] == part["p_permutation_rank"] == 1.0
    assert any("40 rows of scores are constant (first: row 0)" in note for note in found["notes"])


def test_constant_rows_and_duplicated_candidates_are_said_and_score_their_share() -> None:
    images = np.eye(8, dtype=np.float32)
    images[5] = images[2]
    brain = images.copy()
    brain[7] = 0
    found = score(brain, images, **FAST)
    # 5 sure hits, the two copies half each, the silent row 1 of 8
    assert found["brain_to_image"]["top1"] == pytest.approx((5 + 0.5 + 0.5 + 1 / 8) / 8)
    assert found["per_stimulus"]["brain_to_image"]["top1"] == pytest.approx([1, 1, 0.5, 1, 1, 0.5, 1, 1 / 8])
    assert any("1 brain rows are constant (first: row 7)" in note for note in found["notes"])
    assert any("1 candidate pictures are identical to another's (first: 2 = 5)" in note for note in found["notes"])
    collapsed = score(np.tile(images[:1] + 0.1, (8, 1)), images, **FAST)
    assert collapsed["brain_to_image"]["top1"] == pytest.approx(1 / 8)
    assert any("7 brain rows are identical" in note for note in collapsed["notes"])


def test_nan_is_refused_with_its_place() -> None:
    brain, images = _case()
    broken = images.copy()
    broken[4, 3] = np.nan
    with pytest.raises(UserError, match="row 4"):
        score(brain, broken)
    with pytest.raises(UserError, match="row 4"):
        score(broken, images)
    matrix = np.zeros((5, 5))
    matrix[2, 3] = np.inf
    with pytest.raises(UserError, match=r"score matrix: 1 values .* \(2, 3\)"):
        score_matrix(matrix)


def test_smaller_pools_follow_the_hypergeometric_law() -> None:
    brain, images = _case(n=30, k=60, noise=3.0)
    names = [f"p{i}" for i in range(60)]
    found = score(brain, images, ids=names[:30], image_ids=names, pools=(2, 50, 60, 100), topk=(3,), **FAST)
    similarity = retrieval.scores(brain, images)
    better = (similarity > np.diagonal(similarity)[:, None]).sum(axis=1)
    pools = found["brain_to_image"]["pools"]
    assert list(pools) == ["2", "50", "60"]
    for size in (2, 50, 60):
        for k in (1, 3, 5):
            law = hypergeom(59, better, size - 1).cdf(k - 1).mean()
            assert pools[str(size)][f"top{k}"] == pytest.approx(law)
            assert pools[str(size)][f"chance_top{k}"] == min(k, size) / size
    assert found["brain_to_image"]["candidates"] == 60
    assert found["image_to_brain"]["candidates"] == 30
    assert any("30 candidate pictures have no recording" in note for note in found["notes"])


def test_within_and_between_categories_equal_brute_force() -> None:
    brain, images = _case(n=20, k=34, noise=2.0)
    labels = np.arange(34) % 4
    names = [str(i) for i in range(34)]
    found = score(brain, images, ids=names[:20], image_ids=names, labels=labels, **FAST)
    similarity = retrieval.scores(brain, images)
    views = {"brain_to_image": (similarity, labels), "image_to_brain": (similarity[:, :20].T, labels[:20])}
    for direction, (view, kinds) in views.items():
        for part, same in (("within_category", True), ("between_category", False)):
            hits, chances = [], []
            for i in range(20):
                rivals = [j for j in range(view.shape[1]) if j != i and (kinds[j] == kinds[i]) == same]
                hits.append(all(view[i, j] < view[i, i] for j in rivals))
                chances.append(1 / (len(rivals) + 1))
            assert found[part][direction]["top1"] == pytest.approx(np.mean(hits))
            assert found[part][direction]["chance_top1"] == pytest.approx(np.mean(chances))


def _categories(rng: np.random.Generator, share: float) -> dict[str, Any]:
    """48 pictures in 8 categories; the decoder knows the category and a ``share`` of what is special of the picture."""
    labels = np.repeat(np.arange(8), 6)
    centres, special = 4 * rng.normal(size=(8, 16))[labels], rng.normal(size=(48, 16))
    brain = centres + share * special + rng.normal(size=(48, 16))
    return score(brain, centres + special, labels=labels, n_boot=0, n_perm=99, transductive=False)


def test_a_decoder_of_categories_knows_nothing_within_them() -> None:
    """200 experiments: within its category the right picture is found by chance only, and p says so."""
    rng = np.random.default_rng(1)
    found = [_categories(rng, share=0.0) for _ in range(200)]
    for direction in BOTH:
        within = [experiment["within_category"][direction] for experiment in found]
        between = [experiment["between_category"][direction] for experiment in found]
        assert all(part["chance_top1"] == pytest.approx(1 / 6) for part in within)
        hits = np.array([part["top1"] for part in within])
        assert abs(hits.mean() - 1 / 6) < 3 * hits.std() / np.sqrt(200) < 0.015
        assert kstest([part["p_permutation_rank"] for part in within], "uniform").pvalue > 0.05
        never_too_small([part["p_permutation"] for part in within])
        assert np.mean([part["top1"] for part in between]) > 0.95
        assert {part["p_permutation"] for part in between} == {1 / 100}


def test_knowledge_within_categories_is_found() -> None:
    found = _categories(np.random.default_rng(2), share=1.0)["within_category"]
    for direction in BOTH:
        assert found[direction]["top1"] > 0.5
        assert found[direction]["p_permutation"] == found[direction]["p_permutation_rank"] == 1 / 100


def test_labels_without_company() -> None:
    brain, images = _case(n=6, k=6)
    found = score(brain, images, labels=list("abcdef"), **FAST)
    assert found["within_category"] is None and "no label holds two" in " ".join(found["notes"])
    assert found["between_category"]["brain_to_image"]["top1"] == found["brain_to_image"]["top1"]
    assert "one label" in " ".join(score(brain, images, labels=["a"] * 6, **FAST)["notes"])
    with pytest.raises(UserError, match="5 labels for 6 candidate"):
        score(brain, images, labels=list("abcde"))


def test_ids_pair_rows_and_average_repetitions() -> None:
    brain, images = _case(n=10, k=10)
    names = [f"im{i}" for i in range(10)]
    order = np.random.default_rng(0).permutation(10)
    plain = score(brain, images, ids=names, **FAST)
    shuffled = score(brain[order], images, ids=[names[i] for i in order], image_ids=names, **FAST)
    assert shuffled["brain_to_image"] == plain["brain_to_image"]
    assert shuffled["per_stimulus"]["ids"] == names
    twice = np.concatenate([brain + 1, brain - 1])
    repeated = score(twice, images, ids=names + names, image_ids=names, **FAST)
    assert repeated["brain_to_image"]["top1"] == plain["brain_to_image"]["top1"]
    assert "20 brain rows show 10 pictures" in repeated["notes"][0]
    matrix = retrieval.scores(brain, images)  # uneven repetitions of rows of scores: a sum would weigh some more
    uneven = score_matrix(np.concatenate([matrix, matrix[:5]]), ids=names + names[:5], image_ids=names, **FAST)
    assert uneven["image_to_brain"] == plain["image_to_brain"]
    with pytest.raises(UserError, match="average the repetitions first"):
        score(twice, images, ids=names + names, image_ids=names, repeats="refuse")


def test_row_numbers_as_ids_are_never_passed_over() -> None:
    """Shuffled trials, one per picture, name the row of their picture: in row order the score was that of chance."""
    brain, images = _case(n=10, k=10)
    order = np.random.default_rng(0).permutation(10)
    rows = [str(row) for row in range(10)]
    plain = score(brain, images, **FAST)["brain_to_image"]
    assert score(brain, images, ids=rows, **FAST)["brain_to_image"] == plain
    for shuffled in (order, order[::-1], np.roll(np.arange(10), 1)):
        with pytest.raises(UserError, match="Give --image-ids"):
            score(brain[shuffled], images, ids=shuffled, **FAST)
        told = score(brain[shuffled], images, ids=shuffled, image_ids=rows, **FAST)
        assert told["brain_to_image"] == plain
    twice = np.r_[order[:9], order[0]]  # as many trials as pictures by accident
    found = score(brain[twice], images, ids=twice, **FAST)
    assert found["n_stimuli"] == 9 and found["brain_to_image"]["candidates"] == 10
    with pytest.raises(UserError, match="do not say which candidate"):
        score(brain, images, ids=[f"im{i}" for i in twice], **FAST)


@pytest.mark.parametrize(
    ("ids", "image_ids", "told"),
    [
        (None, None, "10 brain rows but 12 pictures"),
        (["x"] * 9, [str(i) for i in range(12)], "9 ids are given for 10 brain rows"),
        ([str(i) for i in range(10)], ["0"] * 12, "picture '0' stands twice"),
        ([*map(str, range(9)), "99"], [str(i) for i in range(12)], "first id '99'"),
        (None, [str(i) for i in range(12)], "ids of the brain rows"),
    ],
)
def test_ids_that_do_not_fit(ids: list[str] | None, image_ids: list[str] | None, told: str) -> None:
    with pytest.raises(UserError, match=told):
        score(np.ones((10, 3)), np.ones((12, 3)), ids=ids, image_ids=image_ids)


def test_one_row_and_half_precision() -> None:
    found = score(np.ones((1, 3)), np.eye(3)[:1], **FAST)["brain_to_image"]
    assert (found["top1"], found["chance_top1"], found["median_rank"]) == (1, 1, 1)
    brain, images = _case(n=9, k=9)
    half = torch.tensor(brain).bfloat16()
    assert score(half, images, **FAST) == score(half.float(), images, **FAST)


def test_settings_that_do_not_fit() -> None:
    brain, images = _case(n=4, k=4)
    for settings, told in (({"pool": 3}, "no setting 'pool'"), ({"pools": (0,)}, "1 or more"), ({"repeats": "x"}, "x")):
        with pytest.raises(UserError, match=told):
            score(brain, images, **settings)
    with pytest.raises(UserError, match="12 wide, picture embeddings 3"):
        score(brain, np.ones((4, 3)))
    with pytest.raises(UserError, match="numbers"):
        score(np.array([["a"]]), images)
    assert score(brain, images, transductive=False, **FAST)["transductive"] == {}


def never_too_small(p: list[float]) -> None:
    """Hits are few and whole, so their p is coarse: it cannot be uniform, but P(p <= a) <= a must hold."""
    for level in (0.05, 0.1, 0.25, 0.5):
        assert np.sum(np.array(p) <= level) <= binom.ppf(0.999, len(p), level)


def _null_ps(experiments: list[dict[str, Any]], parts: tuple[str, ...]) -> None:
    """p of the ranks is nearly continuous and must be uniform; p of top1 must be valid."""
    for direction in BOTH:
        for part in parts:
            found = [(experiment if part == "" else experiment[part])[direction] for experiment in experiments]
            assert kstest([entry["p_permutation_rank"] for entry in found], "uniform").pvalue > 0.05
            never_too_small([entry["p_permutation"] for entry in found])


def test_p_of_shuffled_pairs_is_uniform() -> None:
    """200 experiments without signal, hubs included, pictures of three categories."""
    rng = np.random.default_rng(0)
    found = []
    for repeat in range(200):
        images = rng.normal(size=(25, 4))
        brain = images[rng.permutation(25)] + 1.0 + 0.3 * rng.normal(size=(25, 4))
        found.append(score(brain, images, labels=np.arange(25) % 3, n_boot=0, n_perm=99, seed=repeat))
    _null_ps(found, ("", "within_category", "between_category"))
    for name in ("csls", "sinkhorn", "hungarian"):
        never_too_small([experiment["transductive"][name]["p_permutation"] for experiment in found])


def test_p_of_shuffled_real_scores_is_uniform() -> None:
    matrix, rng = _things_eeg2()["vitl_image_seed0"][:100, :100], np.random.default_rng(0)
    options: dict[str, Any] = {"n_boot": 0, "n_perm": 99, "transductive": False, "pools": ()}
    _null_ps([score_matrix(matrix[:, rng.permutation(100)], **options, seed=i) for i in range(200)], ("",))


def test_intervals_cover_the_truth() -> None:
    """500 experiments: 100 queries among 100, the score of the right one raised by 2.5; truth by integration."""
    truth = quad(lambda x: norm.pdf(x - 2.5) * norm.cdf(x) ** 99, -6, 10)[0]
    assert 0.4 < truth < 0.6
    rng = np.random.default_rng(0)
    covered = 0
    for repeat in range(500):
        matrix = rng.normal(size=(100, 100)) + 2.5 * np.eye(100)
        part = score_matrix(matrix, n_boot=400, n_perm=0, transductive=False, pools=(), seed=repeat)["brain_to_image"]
        low, high = part["ci95_top1"]
        covered += low <= truth <= high
    assert 0.93 <= covered / 500 <= 0.97


def test_intervals_cover_the_truth_of_embeddings_that_share_their_candidates() -> None:
    """500 experiments of 60 new pictures each; the truth is the mean of 4,000 further ones."""
    rng = np.random.default_rng(0)
    whole = [_hits(rng).mean() for _ in range(4000)]
    covered = 0
    for repeat in range(500):
        low, high = retrieval.bootstrap_interval([_hits(rng)], seed=repeat, n_boot=400) or [0, 0]
        covered += low <= np.mean(whole) <= high
    assert 0.93 <= covered / 500 <= 0.97


def _hits(rng: np.random.Generator) -> np.ndarray:
    images = rng.normal(size=(60, 16))
    cosine = retrieval.scores(images + 2.0 * rng.normal(size=(60, 16)), images)
    return np.array(retrieval.per_stimulus(cosine)["brain_to_image"]["top1"])


def test_few_hits_have_an_exact_interval_in_the_notes() -> None:
    matrix = np.roll(np.eye(30), 1, axis=1)
    matrix[np.arange(30), np.arange(30)] = -1
    found = score_matrix(matrix, **FAST)
    assert found["brain_to_image"]["ci95_top1"] == [0, 0]
    assert "0 hits in 30" in found["notes"][0] and "is 0 to 0.116" in found["notes"][0]  # 1 - .025 ** (1 / 30)
    assert "distances" in " ".join(found["notes"])


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.main(["score", *words, "--json", "--n-boot", "50", "--n-perm", "49"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_kind_of_file_gives_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    brain, images = _case(n=12, k=12)
    np.save(tmp_path / "e.npy", brain)
    np.savez(tmp_path / "e.npz", a=brain, b=images)
    save_file({"embeds": brain, "tokens": images[:, :3].copy()}, tmp_path / "e.safetensors")
    torch.save(torch.tensor(brain), tmp_path / "e.pt")
    torch.save({"img": torch.tensor(images), "eeg": torch.tensor(brain), "epoch": 3}, tmp_path / "both.pt")
    np.savetxt(tmp_path / "e.csv", brain, delimiter=",", header=",".join(map(str, "abcdefghijkl")), comments="")
    np.save(tmp_path / "z.npy", images)
    first = _run(capsys, "--brain", str(tmp_path / "e.npy"), "--images", str(tmp_path / "z.npy"))
    for name in ("e.npz:a", "e.safetensors", "e.safetensors:embeds", "e.pt", "both.pt:eeg", "e.csv"):
        found = _run(capsys, "--brain", str(tmp_path / name), "--images", str(tmp_path / "both.pt:img"))
        assert found["brain_to_image"] == first["brain_to_image"], name
    np.save(tmp_path / "s.npy", retrieval.scores(brain, images))
    assert _run(capsys, "--scores", str(tmp_path / "s.npy"))["image_to_brain"] == first["image_to_brain"]


def test_listings_pair_by_id_and_bring_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    brain, images = _case(n=8, k=12)
    np.save(tmp_path / "z.npy", images)
    order = [3, 1, 0, 2, 7, 6, 5, 4, 3]
    np.save(tmp_path / "e.npy", brain[order])
    with (tmp_path / "ids.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "row"], *[[f"im{i}", row] for row, i in reversed(list(enumerate(order)))]])
    with (tmp_path / "images.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image_id", "kind"], *[[f"im{i}", "ab"[i % 2]] for i in range(12)]])
    words = [
        "--brain",
        str(tmp_path / "e.npy"),
        "--images",
        str(tmp_path / "z.npy"),
        "--ids",
        str(tmp_path / "ids.csv"),
    ]
    words += ["--image-ids", str(tmp_path / "images.csv"), "--labels", "kind", "--out", str(tmp_path / "out.json")]
    found = _run(capsys, *words, "--name", "mine", "--subject", "08", "--seed", "3")
    names = [f"im{i}" for i in range(12)]
    direct = score(
        brain, images, ids=names[:8], image_ids=names, labels=[i % 2 for i in range(12)], n_boot=50, n_perm=49
    )
    for part in (*BOTH, "within_category"):
        assert found[part] == direct[part]
    assert (found["name"], found["subject"], found["seed"]) == ("mine", "08", 3)
    assert json.loads((tmp_path / "out.json").read_text()) == found
    assert cli.main(["score", *words]) == 0
    told = capsys.readouterr().out
    assert "brain_to_image" in told and "transductive" in told and "note: 9 brain rows show 8 pictures" in told


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("owned"),))


def _bad_files(folder: Path) -> None:
    brain, images = _case(n=4, k=4)
    np.save(folder / "e.npy", brain)
    np.save(folder / "z.npy", images)
    np.save(folder / "flat.npy", np.ones(4))
    np.savez(folder / "two.npz", a=brain, b=images)
    np.save(folder / "objects.npy", np.array([{}, {}], dtype=object))
    (folder / "evil.pt").write_bytes(pickle.dumps(_Evil()))
    torch.save({"model": _Evil()}, folder / "evil_zip.pt")
    torch.save([1, 2], folder / "list.pt")
    (folder / "words.csv").write_text("a,b\n1,2\nx,y\n")
    (folder / "broken.safetensors").write_bytes(b"12345678")
    (folder / "noid.csv").write_text("name\nx\n")
    (folder / "three.csv").write_text("id\na\nb\nc\n")
    (folder / "gap.csv").write_text("id,kind\na,1\nb,\nc,1\nd,1\n")
    torch.save(torch.eye(4).to_sparse(), folder / "sparse.pt")
    (folder / "rows.csv").write_text("row,id\n0,a\n1,b\n1,c\n3,d\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--brain", "e.npy"], "pass --brain E with --images Z"),
        (["--brain", "e.npy", "--images", "z.npy", "--scores", "e.npy"], "or --scores S alone"),
        (["--scores", "absent.npy"], "does not exist"),
        (["--scores", "flat.npy"], r"shape \(4,\)"),
        (["--scores", "e.npy"], "4 brain rows but 12 pictures"),
        (["--scores", "two.npz"], "one of: a, b"),
        (["--scores", "two.npz:c"], "no array 'c'"),
        (["--scores", "objects.npy"], "pickle"),
        (["--scores", "evil.pt"], "refused"),
        (["--scores", "evil_zip.pt"], "refused"),
        (["--scores", "list.pt"], "holds a list"),
        (["--scores", "sparse.pt"], "plain"),
        (["--brain", "e.npy", "--images", "z.npy", "--ids", "gap.csv", "--labels", "kind"], "row 1 has no kind"),
        (["--scores", "words.csv"], "no table of numbers"),
        (["--scores", "broken.safetensors"], "not a whole safetensors file"),
        (["--scores", "notes.txt"], "known endings"),
        (["--brain", "e.npy", "--images", "z.npy", "--ids", "noid.csv"], "no column id"),
        (["--brain", "e.npy", "--images", "z.npy", "--ids", "three.csv"], "3 ids are given for 4 brain rows"),
        (["--brain", "e.npy", "--images", "z.npy", "--ids", "rows.csv"], "'1' twice"),
        (["--brain", "e.npy", "--images", "z.npy", "--labels", "kind"], "names a column"),
        (["--brain", "e.npy", "--images", "z.npy", "--ids", "three.csv", "--labels", "kind"], "no column 'kind'"),
        (["--brain", "e.npy", "--images", "z.npy", "--pools", "5,x"], "--pools '5,x'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import re

    _bad_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["score", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(told, error) and error.count("\n") == 0
    assert not (tmp_path / "owned").exists()


def test_nearest_pictures_are_those_of_the_highest_correlation() -> None:
    from recon.scoring.alike import nearest

    x = np.random.default_rng(0).normal(size=(40, 9))
    r = np.corrcoef(x)
    np.fill_diagonal(r, -2)
    own = np.array([3, 0, 39])
    np.testing.assert_array_equal(nearest(x.astype(np.float32), own, 5), np.argsort(-r[own], axis=1)[:, :5])


def test_alike_distractors_show_which_layer_is_read() -> None:
    """The brain carries the low features alone: what is alike in these is confused, what is alike in others is not."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    low = rng.normal(size=(20, 12))[groups] + 0.3 * rng.normal(size=(200, 12))
    high = rng.normal(size=(200, 12))
    brain = low + 0.6 * rng.normal(size=low.shape)
    found = score(brain, low, alike={"low": low, "high": high}, **FAST)["alike"]
    one, other = found["of"]["low"], found["of"]["high"]
    assert found["size"] == one["candidates"] == 10 and one["n"] == 200
    assert other["top1"] - one["top1"] > 0.3 and one["chance_top1"] < one["top1"]
    (pair,) = found["pairs"]
    assert (pair["a"], pair["b"]) == ("low", "high")
    above = [part["top1"] - part["chance_top1"] for part in (one, other)]
    assert pair["difference"] == pytest.approx(above[0] - above[1])
    assert pair["ci95"][0] <= pair["difference"] <= pair["ci95"][1] < 0 and pair["p"] == pytest.approx(0.02)
    again = score_matrix(retrieval.scores(brain, low), alike={"low": low, "high": high}, **FAST)["alike"]
    assert again["of"]["low"]["per_stimulus"] == one["per_stimulus"]


def test_alike_distractors_of_a_brain_that_knows_nothing_are_at_chance() -> None:
    """Pictures in the middle of those that are like them are found less than one time in the size of the pool."""
    p = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        images, brain = rng.normal(size=(80, 8)), rng.normal(size=(80, 8))
        features = {"own": images, "any": rng.normal(size=(80, 8))}
        found = score(brain, images, alike=features, alike_size=5, n_boot=0, n_perm=199)["alike"]
        assert found["of"]["own"]["chance_top1"] < 0.16 < found["of"]["any"]["chance_top1"]
        p.append([found["of"]["own"]["p_permutation"], found["pairs"][0]["p"]])
    for column in np.transpose(p):
        assert kstest(column, "uniform").pvalue > 0.01
    assert found["of"]["own"]["ci95_top1"] is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--alike", "low"], "--alike 'low': write NAME=FILE"),
        (["--alike", "a={z}", "--alike", "a={z}"], "--alike 'a' is given twice"),
        (["--alike", "a={short}"], "features 'a' have 29 rows for 30 candidate pictures"),
        (["--alike", "a={flat}"], "features 'a': row 4 holds one value throughout"),
        (["--alike", "a={z}", "--alike-size", "31"], "pools of 31 alike pictures: give 2 to 30"),
        (["--alike", "a={z}", "--alike-size", "1"], "give 2 to 30"),
    ],
)
def test_alike_mistakes_are_one_line(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brain, images = _case()
    flat = images.copy()
    flat[4] = 1.0
    files = {"e": brain, "z": images, "short": images[:-1], "flat": flat}
    for name, values in files.items():
        np.save(tmp_path / f"{name}.npy", values)
    names = {name: tmp_path / f"{name}.npy" for name in files}
    base = ["score", "--brain", str(names["e"]), "--images", str(names["z"]), "--n-boot", "20", "--n-perm", "9"]
    assert cli.main([*base, *(word.format(**names) for word in words)]) == 2
    assert told in capsys.readouterr().err
    good = ["--alike", f"low={names['z']}", "--out", str(tmp_path / "s.json")]
    assert cli.main([*base, *good]) == 0
    assert "alike in low" in capsys.readouterr().out
    assert json.loads((tmp_path / "s.json").read_text())["alike"]["of"]["low"]["candidates"] == 10

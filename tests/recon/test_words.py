"""Banks of texts, linear maps to text space and scores of texts, each against a second computation."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from align.data.signals import Stimuli
from align.errors import UserError
from recon.evaluation.captions import with_control
from recon.evaluation.settings import EvaluateConfig
from recon.evaluation.text_retrieval import directions, permuted_captions
from recon.words import scores
from recon.words.alignment import fit_joint, fit_pivot, permuted_brains, pooled
from recon.words.bank import CONCEPTS, Candidates, concept_name, read_bank, study_captions, with_bank
from recon.words.maps import TEMPERATURE, Target, centred, fit_map
from recon.words.text_tower import TextTower

OPTIONS = {"n_boot": 50, "n_perm": 199}


def stimuli(captions: list[str], concepts: list[str] | None = None) -> Stimuli:
    n = len(captions)
    names = tuple(concepts or [""] * n)
    return Stimuli(
        tuple("abcdefghij"[:n]), lambda i: np.zeros((2, 2, 3), np.uint8), np.arange(n), names, tuple(captions)
    )


# banks


def test_a_bank_is_lines_a_table_or_a_stored_list(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("ein Hund\n\n  ein schöner Tag \nna\n狗\n", encoding="utf-8-sig")
    assert read_bank(lines) == [("", "ein Hund"), ("", "ein schöner Tag"), ("", "狗")]
    table = tmp_path / "table.csv"
    table.write_text('caption,id\n"a dog, asleep",x\na cat,\n,y\n', encoding="utf-8")
    assert read_bank(table) == [("x", "a dog, asleep"), ("", "a cat")]
    torch.save(["a dog", "a cat"], tmp_path / "all_captions.pt")
    assert read_bank(tmp_path / "all_captions.pt") == [("", "a dog"), ("", "a cat")]
    np.save(tmp_path / "texts.npy", np.array(["a dog", "a cat"]))
    assert read_bank(tmp_path / "texts.npy") == [("", "a dog"), ("", "a cat")]


class Runs:
    """What a stock unpickler would call."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("/tmp/owned"),))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.txt", None, "does not exist"),
        ("empty.txt", b"\n  \n", "holds no text"),
        ("bytes.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("columns.csv", b"id,text\na,b\n", "no column 'caption'"),
        ("twice.csv", b"id,caption\na,x\na,y\n", "two rows with id 'a'"),
        ("other.csv", b"id,caption\nz,x\n", "none of its 1 ids is a picture"),
        ("broken.pt", b"PK\x03\x04", "broken.pt"),
    ],
)
def test_a_bank_that_cannot_be_used_is_one_line(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        with_bank(stimuli(["x", "y"]), tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_stored_bank_runs_no_code_and_holds_texts(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps([Runs()]))
    with pytest.raises(UserError):
        read_bank(tmp_path / "evil.pkl")
    assert not Path("/tmp/owned").exists()
    torch.save([1, 2], tmp_path / "numbers.pt")
    with pytest.raises(UserError, match="no list of texts"):
        read_bank(tmp_path / "numbers.pt")


def test_ids_of_a_bank_name_pictures_and_other_texts_are_further(tmp_path: Path) -> None:
    bank = tmp_path / "bank.csv"
    bank.write_text("id,caption\nb,a bird\n,a tree\nnobody,a rock\n", encoding="utf-8")
    found = with_bank(stimuli(["a dog", "a cat", ""]), bank)
    assert (found.of, found.further, found.source) == (
        ("a dog", "a bird", ""),
        ("a tree", "a rock"),
        "captions, bank.csv",
    )
    bare = with_bank(stimuli(["", ""]), bank)
    assert (bare.of, bare.source, bare.stand_in) == (("", "a bird"), "bank.csv", False)
    named = with_bank(stimuli(["", ""], ["cat", "dog"]), bank)
    assert (named.of, named.stand_in) == (("cat", "a bird"), True)
    bank.write_text("id,caption\nb,a bird\na,a fish\n", encoding="utf-8")
    assert with_bank(stimuli(["", ""], ["cat", "dog"]), bank).source == "bank.csv"
    assert found.rows(np.array([0, 1, 2])).tolist() == [0, 1]


def test_concepts_stand_for_captions() -> None:
    found = study_captions(stimuli(["", ""], ["ice_cream", "bat2"]))
    assert (found.of, found.source) == (("ice cream", "bat"), CONCEPTS)
    assert concept_name("42") == "42"
    with pytest.raises(UserError, match="neither captions nor concepts"):
        study_captions(stimuli(["", "n/a"][:1]))


def test_equal_texts_are_one_candidate() -> None:
    found = Candidates.of(["Caf\u00e9 ", "a  dog", "cafe\u0301", "A dog"])
    assert found.texts == ("Caf\u00e9 ", "a  dog") and found.index.tolist() == [0, 1, 0, 1]


# maps


def planted(n: int = 90, seed: int = 0, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs (n, 8), texts (n, 6) that follow from them, groups of two."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8)) * rng.uniform(0.5, 3, 8) + rng.normal(size=8)
    y = x @ rng.normal(size=(8, 6)) + noise * rng.normal(size=(n, 6)) + 4
    return x, y / np.linalg.norm(y, axis=1, keepdims=True), np.arange(n) // 2


def test_the_map_is_that_of_scikit_learn() -> None:
    x, y, groups = planted()
    values = centred(y, y.mean(0))
    found = fit_map(x, [Target(values)], groups)
    z = (x - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(found.weight, Ridge(alpha=found.penalty).fit(z, values).coef_, atol=1e-5)
    np.testing.assert_allclose(found(x), z @ found.weight.T, atol=1e-5)


def test_two_targets_have_the_minimum_of_both_errors() -> None:
    x, y, groups = planted()
    first, second = centred(y, y.mean(0)), np.random.default_rng(1).normal(size=y.shape)
    found = fit_map(x, [Target(first, 0.25), Target(second, 0.75)], groups)
    z = torch.tensor((x - x.mean(0)) / x.std(0))
    w = torch.tensor(found.weight.astype(np.float64), requires_grad=True)
    bias = (0.25 * torch.tensor(first) + 0.75 * torch.tensor(second)).mean(0)
    error = sum(s * (z @ w.T + bias - torch.tensor(t)).square().sum() for s, t in ((0.25, first), (0.75, second)))
    (error + found.penalty * w.square().sum()).backward()
    assert w.grad is not None and float(w.grad.abs().max()) < 1e-3


def test_a_constant_input_says_nothing() -> None:
    x, y, groups = planted()
    x[:, 3] = 7.0
    found = fit_map(x, [Target(centred(y, y.mean(0)))], groups)
    moved = x.copy()
    moved[:, 3] = 900.0
    np.testing.assert_array_equal(found(moved), found(x))


def test_infonce_lowers_its_loss_and_equal_texts_are_no_negatives() -> None:
    from recon.words.maps import _descend, _one_direction

    x, y, _ = planted(noise=1.0)
    z, value = torch.tensor((x - x.mean(0)) / x.std(0)), torch.tensor(centred(y, y.mean(0)))

    def loss(weight: torch.Tensor) -> float:
        logits = torch.nn.functional.normalize(z @ weight.T, dim=1) @ value.T / TEMPERATURE
        return float(torch.nn.functional.cross_entropy(logits, torch.arange(len(z))))

    start = torch.linalg.lstsq(z, value).solution.T
    path = _descend(z, [value], [1.0], start, 0)
    assert loss(path[200]) < 0.7 * loss(path[0])
    estimate = torch.nn.functional.normalize(z[:3] @ start.T, dim=1)
    double = value[[0, 0, 2]]
    own = _one_direction(estimate, double, torch.tensor([0, 0, 1]))
    logits = estimate @ double.T / TEMPERATURE
    kept = [logits[0, [0, 2]].log_softmax(0)[0], logits[1, [1, 2]].log_softmax(0)[0], logits[2].log_softmax(0)[2]]
    assert float(own) == pytest.approx(-float(torch.stack(kept).mean()), rel=1e-6)


def test_pivot_and_joint_find_planted_texts() -> None:
    x, y, groups = planted()
    signals = x @ np.random.default_rng(3).normal(size=(8, 12))
    train, test = slice(0, 70), slice(70, 90)
    for fit in ("ridge", "infonce"):
        pivot = fit_pivot(x[train], y[train], groups[train], fit)
        joint = fit_joint(signals[train], x[train], y[train], groups[train], fit)
        for alignment, inputs in ((pivot, x), (joint, signals)):
            found = directions(alignment.brain(inputs[test]), alignment.texts(y[test]), np.arange(20), OPTIONS)
            assert all(part["top1"] > 0.3 and part["p_permutation"] < 0.01 for part in found.values()), (fit, found)


def test_permuted_captions_are_at_chance_with_uniform_p() -> None:
    """The captions that the map is fitted to are permuted from the start: the p against further permutations is
    uniform, up to the ties of a discrete score, which make it no smaller."""
    found, means = [], []
    for draw in range(60):
        x, y, groups = planted(n=80, seed=draw)
        rng = np.random.default_rng(draw)
        wrong = y[:50][rng.permutation(50)]
        alignment = fit_pivot(x[:50], wrong, groups[:50])
        texts, index = alignment.texts(y[50:]), np.arange(30)
        own = directions(alignment.brain(x[50:]), texts, index, {"n_boot": 0, "n_perm": 0})
        orders = (rng.permutation(50) for _ in range(39))
        parts = permuted_captions(own, permuted_brains(alignment, x[:50], x[:50], wrong, x[50:], orders), texts, index)
        found += [part["p"] for part in parts.values()]
        means += [part["top1"] for part in parts.values()]
    p = np.array(found)
    assert abs(np.mean(means) - 1 / 30) < 0.006
    for level in (0.05, 0.1, 0.25, 0.5):
        assert (p <= level).mean() <= level + 2.6 * np.sqrt(level * (1 - level) / 60)
    assert (p <= 0.5).mean() > 0.15 and p.max() > 0.9


@pytest.mark.parametrize("name", ["pivot", "joint"])
@pytest.mark.parametrize("n", [40, 6])
def test_a_permuted_fit_is_the_fit_to_permuted_captions(name: str, n: int) -> None:
    """Of the true order the fit itself; of another one scikit-learn's, in both forms of the solution."""
    x, y, groups = planted(n + 20)
    signals = x @ np.random.default_rng(3).normal(size=(8, 12))
    inputs = {"pivot": x, "joint": signals}[name]
    fitted = (
        fit_pivot(x[:n], y[:n], groups[:n]) if name == "pivot" else fit_joint(signals[:n], x[:n], y[:n], groups[:n])
    )
    order = np.random.default_rng(4).permutation(n)
    (same,) = permuted_brains(fitted, inputs[:n], x[:n], y[:n], inputs[n:], iter([np.arange(n)]))
    np.testing.assert_allclose(same, fitted.brain(inputs[n:]), atol=1e-4)
    felt = {part: replace(getattr(fitted, part), penalty=30.0) for part in ("mapped", "pictures")}
    fitted = replace(fitted, **felt)
    (other,) = permuted_brains(fitted, inputs[:n], x[:n], y[:n], inputs[n:], iter([order]))
    z = fitted.mapped.standardised(inputs)
    texts = centred(y[:n], y[:n].mean(0))[order]
    if name == "joint":
        t = fitted.pictures.standardised(x[:n])
        seen = t @ Ridge(alpha=fitted.pictures.penalty, fit_intercept=False).fit(t, texts).coef_.T
        texts = 0.5 * seen / np.linalg.norm(seen, axis=1, keepdims=True) + 0.5 * texts
    own = Ridge(alpha=fitted.mapped.penalty, fit_intercept=False).fit(z[:n], texts)
    np.testing.assert_allclose(other, z[n:] @ own.coef_.T, atol=1e-6)


def test_rows_of_one_text_are_averaged_before_texts_look_for_them() -> None:
    brain = np.array([[1.0, 0.0], [-0.2, 1.0], [0.3, 1.0]])
    texts = np.array([[1.0, 0.2], [0.0, 1.0], [-1.0, 0.0]])
    found = directions(brain, texts, np.array([0, 0, 1]), OPTIONS)
    assert found["brain_to_text"]["candidates"] == 3 and found["brain_to_text"]["n"] == 3
    assert found["brain_to_text"]["top1"] == pytest.approx(2 / 3)  # the second row is nearer to the other text
    assert found["text_to_brain"]["candidates"] == 2 and found["text_to_brain"]["top1"] == 1.0


def test_tokens_are_pooled_over_places() -> None:
    tokens = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float16)
    np.testing.assert_allclose(pooled(tokens), tokens.astype(np.float32).mean(1), rtol=1e-6)


@pytest.mark.parametrize(("fit", "groups", "said"), [("lasso", 2, "not known"), ("ridge", 1, "2 scenes")])
def test_a_map_that_cannot_be_fitted_is_one_line(fit: str, groups: int, said: str) -> None:
    x, y, _ = planted(10)
    with pytest.raises(UserError, match=said):
        fit_map(x, [Target(y)], np.arange(10) % groups, fit)


# scores of texts


def letters(name: str = "letters") -> TextTower:
    """Counts of letters: equal texts have cosine 1."""

    def read(texts: list[str]) -> torch.Tensor:
        return torch.tensor([[float(text.count(letter)) for letter in "abcdefgh"] for text in texts])

    return TextTower(name, read, lambda images: images.flatten(1)[:, :8])


def test_similarity_and_clip_score_are_cosines() -> None:
    tower = letters()
    value = scores.sentence_similarity(tower)(["abc", "aa"], ["cba", "b"])
    np.testing.assert_allclose(value, [1, 0], atol=1e-6)
    images = torch.zeros(2, 1, 1, 8)
    images[0, 0, 0, 0], images[1, 0, 0, 1] = 1, -1
    np.testing.assert_allclose(scores.clip_score(tower, images)(["ab", "b"], []), [2.5 / np.sqrt(2), 0], atol=1e-6)


def test_the_control_is_the_same_texts_for_other_pictures() -> None:
    true = [letter * 3 for letter in "abcdefgh"]
    settings = EvaluateConfig(n_boot=100, n_perm=200)
    right = with_control(scores.sentence_similarity(letters()), true, true, settings)
    assert (right["value"], right["shuffled"], right["n"]) == (pytest.approx(1), pytest.approx(0), 8)
    assert right["p_vs_shuffled"] < 0.02 and right["ci95_minus_shuffled"][0] > 0.9
    wrong = with_control(scores.sentence_similarity(letters()), true[1:] + true[:1], true, settings)
    assert wrong["value"] < wrong["shuffled"] and wrong["p_vs_shuffled"] > 0.9


@pytest.mark.parametrize("missing", [LookupError, OSError])
def test_missing_libraries_and_data_are_one_line(monkeypatch: pytest.MonkeyPatch, missing: type[Exception]) -> None:
    import sys
    import types

    for name in ("nltk", "nltk.translate", "nltk.translate.meteor_score", "rouge_score", "rouge_score.rouge_scorer"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(scores.Unavailable, match=r"nltk is not installed; pip install 'shallow-recon\[words\]'"):
        scores.meteor(["a"], ["a"])
    with pytest.raises(scores.Unavailable, match="rouge_score is not installed"):
        scores.rouge_l(["a"], ["a"])
    stub = types.ModuleType("nltk.translate.meteor_score")

    def without_data(*_: object) -> float:
        raise missing("\n***\nResource wordnet not found\n")

    vars(stub)["meteor_score"] = without_data
    monkeypatch.setattr(scores, "_module", lambda name: stub)
    with pytest.raises(scores.Unavailable, match="needs the data of WordNet") as error:
        scores.meteor(["a"], ["a"])
    assert "\n" not in str(error.value)


def test_meteor_and_rouge_of_their_libraries() -> None:
    """The longest common part of "a b c d" and "a c d e" is "a c d": precision and recall 3/4."""
    pytest.importorskip("rouge_score", reason="needs rouge-score (the extra words)")
    np.testing.assert_allclose(scores.rouge_l(["a b c d", "x"], ["a c d e", "y"]), [0.75, 0])
    pytest.importorskip("nltk", reason="needs nltk (the extra words)")
    try:
        same, other = scores.meteor(["a dog runs on grass", "x"], ["a dog runs on grass", "y"])
    except scores.Unavailable as reason:
        pytest.skip(str(reason))
    assert same == pytest.approx(1 - 0.5 / 5**3) and other == 0


def test_a_table_keeps_texts_that_begin_like_formulas(tmp_path: Path) -> None:
    bank = tmp_path / "bank.csv"
    with bank.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "caption"], ["a", "=1+1"], ["b", "line\nbreak"]])
    assert read_bank(bank) == [("a", "=1+1"), ("b", "line\nbreak")]

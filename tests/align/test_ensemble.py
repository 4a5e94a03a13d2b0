"""Ensembles of similarity matrices: by hand, against a loop, and what averaging must and must not do."""

from __future__ import annotations

import numpy as np
import pytest

from align import retrieval
from align.retrieval.ensemble import averaged, ensemble_report
from tests.one_line import fails


def _noisy(n: int, seed: int, noise: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.eye(n) + noise * rng.normal(size=(n, n))


def test_rows_have_one_scale_before_they_are_averaged() -> None:
    """The loud decoder of small ranges and the one of large ranges weigh the same; row 0 by hand."""
    small, large = np.array([[0.1, 0.2, 0.3], [0, 0, 1]]), np.array([[5.0, -5.0, 0.0], [3, 3, 3]])
    unit = np.sqrt(1.5)
    found = averaged([small, large])
    np.testing.assert_allclose(found[0], [(-unit + unit) / 2, (0 - unit) / 2, (unit + 0) / 2], atol=1e-12)
    np.testing.assert_allclose(found[1], np.array([-1, -1, 2]) / np.sqrt(2) / 2, err_msg="a flat row says nothing")
    loop = [[(row - row.mean()) / row.std() for row in _noisy(5, seed)] for seed in (1, 2, 3)]
    np.testing.assert_allclose(averaged([_noisy(5, seed) for seed in (1, 2, 3)]), np.mean(loop, axis=0))
    np.testing.assert_allclose(averaged([100 * small, large]), found, atol=1e-12)


@pytest.mark.parametrize("count", [1, 3])
def test_copies_of_one_decoder_score_as_it_does_alone(count: int) -> None:
    similarity = _noisy(30, 0)
    similarity[:, 7] += 2  # a hub, which the two directions see differently
    similarity[4] += 3
    alone = retrieval.report(similarity, n_boot=50, n_perm=50)
    found, each = ensemble_report([similarity] * count, n_boot=50, n_perm=50)
    assert found == alone
    assert each == retrieval.per_stimulus(similarity)


def test_errors_that_differ_are_averaged_out() -> None:
    members = [_noisy(100, seed, 0.5) for seed in range(6)]
    alone = [retrieval.both_directions(one, n_boot=0, n_perm=0) for one in members]
    found, each = ensemble_report(members, n_boot=0, n_perm=0)
    for name in ("brain_to_image", "image_to_brain"):
        best = max(one[name]["top1"] for one in alone)
        assert found[name]["top1"] > best + 0.1
        assert np.mean(each[name]["top1"]) == pytest.approx(found[name]["top1"])
    noise = [np.random.default_rng(seed).normal(size=(100, 100)) for seed in range(6)]
    assert ensemble_report(noise, n_boot=0, n_perm=99)[0]["brain_to_image"]["p_permutation"] > 0.05


def test_matrices_that_do_not_belong_together_are_refused() -> None:
    fails("matrices of one shape", lambda: averaged([np.eye(3), np.eye(4)]))
    fails("matrices of one shape", lambda: averaged([]))

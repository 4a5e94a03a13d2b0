"""Pooling against loops written out."""

import pytest
import torch

from align.errors import UserError
from align.vision.pooling import parse_pooling, pool

TOKENS = torch.randn(2, 2 + 36, 5, generator=torch.Generator().manual_seed(0))  # 2 prefix tokens, 6 x 6 patches
MAP = torch.randn(2, 5, 6, 6, generator=torch.Generator().manual_seed(1))


def test_tokens_keep_everything_and_maps_become_row_major_tokens() -> None:
    assert torch.equal(pool(TOKENS, "tokens", prefix=2, has_cls=True), TOKENS)
    out = pool(MAP, "tokens")
    assert out.shape == (2, 36, 5)
    assert torch.equal(out[:, 1 * 6 + 4], MAP[:, :, 1, 4])


def test_mean_leaves_the_prefix_out() -> None:
    expected = sum(TOKENS[:, i] for i in range(2, 38)) / 36
    torch.testing.assert_close(pool(TOKENS, "mean", prefix=2, has_cls=True)[:, 0], expected)
    torch.testing.assert_close(pool(MAP, "mean")[:, 0], MAP.flatten(2).mean(-1))


def test_max_is_the_largest_value_of_every_channel_over_the_patches() -> None:
    tokens = TOKENS.clone()
    tokens[:, :2] += 100  # the prefix would show
    expected = torch.stack([tokens[:, i] for i in range(2, 38)]).max(0).values
    assert torch.equal(pool(tokens, "max", prefix=2, has_cls=True)[:, 0], expected)
    assert torch.equal(pool(MAP, "max")[:, 0], MAP.flatten(2).max(-1).values)


def test_cls_is_token_0_and_refused_without_one() -> None:
    assert torch.equal(pool(TOKENS, "cls", prefix=2, has_cls=True), TOKENS[:, :1])
    for features, prefix in ((MAP, 0), (TOKENS[:, 2:], 0), (torch.zeros(2, 5), 0)):
        with pytest.raises(UserError, match="CLS"):
            pool(features, "cls", prefix=prefix)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_grid_averages_cells_in_row_major_order(n: int) -> None:
    step = 6 // n
    for features, maps in ((TOKENS, TOKENS[:, 2:].reshape(2, 6, 6, 5).permute(0, 3, 1, 2)), (MAP, MAP)):
        out = pool(features, f"grid:{n}", prefix=2 if features.ndim == 3 else 0)
        assert out.shape == (2, n * n, 5)
        for i in range(n):
            for j in range(n):
                cell = maps[:, :, i * step : (i + 1) * step, j * step : (j + 1) * step].mean((2, 3))
                torch.testing.assert_close(out[:, i * n + j], cell)


@pytest.mark.parametrize("pooling", ["tokens", "mean", "max", "grid:4"])
def test_a_pooled_vector_stays_one_token(pooling: str) -> None:
    vector = torch.randn(3, 7)
    assert torch.equal(pool(vector, pooling), vector[:, None])
    assert torch.equal(pool(vector[:, :, None, None], pooling), vector[:, None])


def test_the_result_has_its_own_memory_and_is_float32() -> None:
    source = TOKENS.clone().half()
    out = pool(source, "tokens")
    kept = out.clone()
    source.zero_()
    assert out.dtype == torch.float32 and out.is_contiguous() and torch.equal(out, kept)


def test_too_fine_a_grid_is_refused() -> None:
    with pytest.raises(UserError, match="finer than the layer's own 6 x 6"):
        pool(MAP, "grid:7")


@pytest.mark.parametrize("text", ["", "grid", "grid:", "grid:0", "grid:-1", "grid:2x", "mean:2", "maximum"])
def test_unknown_pooling_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="use tokens, mean, max, cls or grid:n"):
        parse_pooling(text)

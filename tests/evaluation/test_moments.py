"""Moments in one pass equal those of all vectors at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st

from unstir.evaluation.metric import Embedded
from unstir.evaluation.moments import Moments, Stream


@given(st.integers(0, 2**31), st.lists(st.integers(0, 40), min_size=1, max_size=6), st.sampled_from([0.0, 1e6]))
@settings(max_examples=30, deadline=None)
def test_any_batches_give_what_numpy_gives(seed: int, sizes: list[int], offset: float) -> None:
    x = np.random.default_rng(seed).normal(size=(sum(sizes) + 2, 5)) + offset
    stream, start = Stream(), 0
    for size in [*sizes, 2]:
        stream.add(torch.from_numpy(x[start : start + size]))
        stream._flush()  # merge after every batch, however small
        start += size
    moments = stream.result(5)
    assert moments.count == len(x)
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-13, atol=1e-13)
    # the offset's digits are lost in the data themselves, at 1e6 * 2e-16
    np.testing.assert_allclose(moments.covariance, np.cov(x.T), rtol=1e-8, atol=1e-8 if offset else 1e-13)


def test_a_large_mean_costs_no_digits() -> None:
    """The textbook's E x² - (E x)² in float64 would be off by about 1e16 * 2e-16 = 2."""
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shifted = x + 1e8
    stream = Stream()
    for batch in shifted.split(64):
        stream.add(batch)
    exact = np.cov((shifted - 1e8).numpy().T)  # subtraction of near numbers is exact
    np.testing.assert_allclose(stream.result(3).covariance, exact, atol=1e-7)


def test_merging_is_commutative_and_associative() -> None:
    g = torch.Generator().manual_seed(1)
    a, b, c = (Moments.of(torch.randn(n, 4, generator=g) + n) for n in (3, 50, 7))
    for x, y in ((a + b, b + a), ((a + b) + c, a + (b + c)), (a + Moments.empty(4), a), (Moments.empty(4) + a, a)):
        assert x.count == y.count
        torch.testing.assert_close(x.mean, y.mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(x.scatter, y.scatter, rtol=1e-13, atol=1e-11)


def test_blocks_are_a_partition() -> None:
    x = torch.randn(103, 6, generator=torch.Generator().manual_seed(2))
    cut, whole = Embedded.of(x, blocks=10), Embedded.of(x)
    assert [block.count for block in cut.blocks] == [11] * 3 + [10] * 7
    torch.testing.assert_close(cut.blocks[3].mean, x[3::10].double().mean(0), rtol=0, atol=1e-15)
    torch.testing.assert_close(cut.moments.covariance, whole.moments.covariance, rtol=0, atol=1e-14)


def test_one_process_needs_no_exchange_and_one_vector_has_no_covariance() -> None:
    moments = Moments.of(torch.ones(1, 3))
    assert moments.over_processes(Accelerator()) is moments
    with pytest.raises(ValueError, match="at least 2"):
        _ = moments.covariance

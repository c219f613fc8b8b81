"""The data order is a function of (seed, step), and shows everything once an epoch."""

from __future__ import annotations

import numpy as np
import pytest

from unstir.data.order import indices


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (7, 7), (5, 12), (1, 4), (64, 1)])
def test_every_epoch_shows_every_sample_exactly_once(n: int, batch_size: int) -> None:
    steps = -(-3 * n // batch_size)
    line = np.concatenate([indices(n, batch_size, step, seed=3) for step in range(steps)])
    for epoch in range(3):
        assert sorted(line[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_one_line_whatever_the_batch_size() -> None:
    small = np.concatenate([indices(100, 5, step, seed=1) for step in range(60)])
    large = np.concatenate([indices(100, 30, step, seed=1) for step in range(10)])
    np.testing.assert_array_equal(small, large)


def test_depends_on_nothing_but_seed_and_step() -> None:
    first = indices(1000, 32, 500, seed=0).copy()
    indices(1000, 32, 3, seed=9)
    indices(17, 4, 2, seed=0)
    np.testing.assert_array_equal(indices(1000, 32, 500, seed=0), first)
    assert not np.array_equal(indices(1000, 32, 500, seed=1), first)


def test_epochs_differ_and_the_order_is_pinned() -> None:
    epochs = [tuple(indices(50, 50, epoch, seed=0)) for epoch in range(5)]
    assert len(set(epochs)) == 5
    # The definition, written out: position p belongs to epoch p // n, drawn from (seed, epoch).
    expected = np.random.Generator(np.random.PCG64([7, 2])).permutation(50)
    np.testing.assert_array_equal(indices(50, 50, 2, seed=7), expected)


def test_result_can_be_changed_without_harm() -> None:
    batch = indices(8, 8, 0, seed=0)
    before = batch.copy()
    batch[:] = 0
    np.testing.assert_array_equal(indices(8, 8, 0, seed=0), before)

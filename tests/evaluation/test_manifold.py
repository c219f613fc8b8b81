"""Precision, recall, density and coverage, and nearest neighbours, against plain loops over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import unstir.evaluation.manifold as module
import unstir.evaluation.neighbours as neighbours
from unstir.errors import UserError
from unstir.evaluation.manifold import PrecisionRecall, manifold, squared_radii
from unstir.evaluation.metric import Embedded
from unstir.evaluation.neighbours import Neighbours, memorisation, nearest


def plain(fake: np.ndarray, real: np.ndarray, k: int, wide: int) -> tuple[float, float, float, float]:
    """The papers' definitions, all distances at once."""

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    def radius(x: np.ndarray, neighbours: int) -> np.ndarray:
        return np.sort(distances(x, x), axis=1)[:, neighbours]  # column 0 is the point itself

    d = distances(real, fake)
    precision = (d <= radius(real, k)[:, None]).any(0).mean()
    recall = (d <= radius(fake, k)[None]).any(1).mean()
    inside = d < radius(real, wide)[:, None]
    return precision, recall, inside.sum() / (wide * len(fake)), inside.any(1).mean()


@given(st.integers(0, 2**31), st.sampled_from([0.0, 1.0, 4.0]), st.sampled_from([7, 1000]))
@settings(max_examples=25, deadline=None)
def test_equals_the_plain_definitions_in_any_chunks(seed: int, shift: float, chunk: int) -> None:
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(40, 3)), 0.7 * rng.normal(size=(33, 3)) + shift
    before, module.CHUNK = module.CHUNK, chunk
    try:
        found = manifold(torch.from_numpy(fake), torch.from_numpy(real))
    finally:
        module.CHUNK = before
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(plain(fake, real, 3, 5))


def test_density_and_precision_of_equal_distributions() -> None:
    """Naeem et al. 2020: for equal distributions E density = 1 and E coverage = 1 - (1/2)^k for equal counts."""
    g = torch.Generator().manual_seed(0)
    found = [manifold(*torch.randn(2, 500, 6, generator=g, dtype=torch.float64)) for _ in range(8)]
    assert np.mean([f.density for f in found]) == pytest.approx(1, abs=0.03)
    assert np.mean([f.coverage for f in found]) == pytest.approx(1 - 0.5**5, abs=0.01)


def test_identical_and_disjoint_sets() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    same, far = manifold(x, x), manifold(x + 1000, x)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)


def test_a_sample_is_no_neighbour_of_its_own() -> None:
    assert squared_radii(torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64), 1).tolist() == [1, 1, 4]


def test_the_metric_takes_equally_many_of_both() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 3, generator=g), torch.randn(200, 3, generator=g)
    value = PrecisionRecall().compute(Embedded.of(x), Embedded.of(y))
    expected = plain(x.double().numpy(), y[:60].double().numpy(), 3, 5)
    assert tuple(value.extra[name] for name in ("precision", "recall", "density", "coverage")) == pytest.approx(
        expected
    )
    assert value.extra["recall_error"] == pytest.approx((expected[1] * (1 - expected[1]) / 60) ** 0.5)
    with pytest.raises(UserError, match="at least 6"):
        PrecisionRecall().compute(Embedded.of(x[:5]), Embedded.of(y))


def test_nearest_equals_all_pairs_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "CHUNK", 7)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(25, 4)), rng.normal(size=(30, 4))
    d = np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))
    distance, row = nearest(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_array_equal(row, d.argmin(1))
    np.testing.assert_allclose(distance, d.min(1), rtol=1e-12)
    own = np.sqrt(((y[:, None] - y[None]) ** 2).sum(-1)) + np.diag(np.full(30, np.inf))
    distance, row = nearest(torch.from_numpy(y), torch.from_numpy(y), others=True)
    np.testing.assert_array_equal(row, own.argmin(1))
    np.testing.assert_allclose(distance, own.min(1), rtol=1e-12)


def test_a_copying_model_is_caught_and_an_honest_one_is_not() -> None:
    g = torch.Generator().manual_seed(0)
    training, fresh, held = (torch.randn(n, 3, generator=g) for n in (3000, 2000, 1500))
    copies = torch.cat([training[:200] + 1e-4 * torch.randn(200, 3, generator=g), fresh[:1800]])
    for held_out in (None, Embedded.of(held)):
        honest = Neighbours().compute(Embedded.of(fresh), Embedded.of(training), held_out)
        assert honest.value == pytest.approx(1, abs=0.06)
        assert honest.extra["closer_than_1_percent_of_real"] == pytest.approx(0.01, abs=0.006)
        caught = Neighbours().compute(Embedded.of(copies), Embedded.of(training), held_out)
        assert caught.extra["closer_than_1_percent_of_real"] == pytest.approx(0.11, abs=0.01)
        assert set(caught.order[:190].tolist()) <= set(range(200))
        assert caught.rows[caught.order[0]] == caught.order[0]


def test_exact_copies_are_at_distance_0() -> None:
    training = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) + 1000
    value = Neighbours().compute(Embedded.of(training[:10]), Embedded.of(training))
    assert value.value == 0
    assert value.extra["closer_than_1_percent_of_real"] == 1
    assert memorisation(torch.ones(5), torch.full((9,), 2.0)) == (0.5, 1.0)

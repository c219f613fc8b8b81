"""The adaptive solver: against scipy's step for step, closed forms, both directions, and samples that share nothing."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from unstir.errors import UserError
from unstir.integrate import State, dormand_prince


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64).reshape(-1, 1)


def oscillator(t: Tensor, state: State) -> State:
    """x'' = -(1 + t) x, in two tensors."""
    x, v = state
    return v, -(1 + t).reshape(-1, 1) * x


@pytest.mark.parametrize(("rtol", "atol"), [(1e-3, 1e-6), (1e-6, 1e-9), (1e-9, 1e-12)])
def test_it_takes_scipy_s_steps(rtol: float, atol: float) -> None:
    """One tensor of one sample, so that its norm is scipy's."""

    def slope(t: Tensor, state: State) -> State:
        (y,) = state
        return (torch.stack([y[:, 1], -(1 + t) * y[:, 0]], 1),)

    ours = dormand_prince(slope, (torch.tensor([[1.0, 0.3]], dtype=torch.float64),), 0.5, 7.0, rtol, atol)
    theirs = solve_ivp(lambda t, y: [y[1], -(1 + t) * y[0]], (0.5, 7.0), [1.0, 0.3], rtol=rtol, atol=atol)
    torch.testing.assert_close(ours.y[0][0], torch.from_numpy(theirs.y[:, -1]), rtol=1e-11, atol=1e-12)
    assert ours.evaluations == theirs.nfev
    assert int(ours.steps) == len(theirs.t) - 1


def test_closed_form_and_tolerance() -> None:
    """y' = rate y cos t, for rates of its own for each sample: the error follows the tolerance."""
    rate, y_0 = column(0.5, -2.0, 6.0), column(1.0, 2.0, -1.0)
    exact = y_0 * (rate * math.sin(4.0)).exp()

    def error(tolerance: float) -> tuple[float, int]:
        found = dormand_prince(
            lambda t, y: (rate * t.cos().reshape(-1, 1) * y[0],), (y_0,), 0, 4.0, tolerance, tolerance
        )
        return float((found.y[0] / exact - 1).abs().max()), found.evaluations

    errors, evaluations = zip(*map(error, (1e-3, 1e-6, 1e-9)), strict=True)
    assert errors[0] < 1e-1
    assert errors[1] < 1e-4
    assert errors[2] < 1e-7
    assert errors[2] < errors[1] / 100 < errors[0] / 1e4
    assert evaluations[0] < evaluations[1] < evaluations[2]


@pytest.mark.parametrize("stop", [5.0, -3.0])
def test_there_and_back(stop: float) -> None:
    start = (column(1.0, 0.2), column(0.0, -1.0))
    there = dormand_prince(oscillator, start, 1.0, stop, 1e-10, 1e-10)
    back = dormand_prince(oscillator, there.y, stop, 1.0, 1e-10, 1e-10)
    for ours, wanted in zip(back.y, start, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-7)


def test_samples_do_not_share_their_steps() -> None:
    """A stiff neighbour changes nothing, to the bit."""
    rate = column(0.3, 60.0)

    def solve(rows: list[int]) -> Tensor:
        mine = rate[rows]
        return dormand_prince(lambda t, y: (-mine * (y[0] - t.sin().reshape(-1, 1)),), (mine * 0,), 0, 3).y[0]

    assert torch.equal(solve([0, 1])[:1], solve([0]))
    assert torch.equal(solve([0, 1])[1:], solve([1]))


def test_float32_states_and_shapes() -> None:
    x = torch.ones(3, 2, 4, 5)
    found = dormand_prince(lambda t, y: (-y[0], y[0].flatten(1).sum(1)), (x, torch.zeros(3)), 0, 1, 1e-5, 1e-5)
    assert found.y[0].dtype == torch.float32
    torch.testing.assert_close(found.y[0], math.exp(-1) * x, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.y[1], torch.full((3,), 40 * (1 - math.exp(-1))), rtol=1e-4, atol=1e-4)
    assert found.evaluations == 2 + 6 * int(found.steps[0])


def test_nowhere_to_go() -> None:
    found = dormand_prince(oscillator, (column(1.0), column(2.0)), 1.0, 1.0)
    assert (float(found.y[0]), float(found.y[1]), found.evaluations) == (1.0, 2.0, 0)


def test_it_does_not_walk_over_a_wall() -> None:
    with pytest.raises(UserError, match=r"1 of 2 samples are stuck, the first at (1|0\.99\d*)\."):
        dormand_prince(lambda t, y: (y[0] ** 2,), (column(1.0, 0.1),), 0, 2.0)  # y = 1 / (1 - t)
    with pytest.raises(UserError, match="not finite there"):
        dormand_prince(lambda t, y: (y[0] * torch.where(t > 0.5, torch.nan, 1.0).reshape(-1, 1),), (column(1.0),), 0, 1)


def test_a_limit_ends_it() -> None:
    with pytest.raises(UserError, match="stuck"):
        dormand_prince(oscillator, (column(1.0), column(0.0)), 0, 50, 1e-10, 1e-10, limit=5)

"""Time grids at numbers worked out by hand or given in the papers. What holds for all of them is in test_compositions."""

from __future__ import annotations

import math

import pytest
import torch

from unstir.processes import EDM, VP, CosineVP, GeometricLadder, LinearVP, RectifiedFlow
from unstir.samplers.grids import Karras, Leading, LogSNR, Quadratic, Strided, Uniform


def test_uniform() -> None:
    assert Uniform().times(LinearVP(), 4).tolist() == [1000, 750, 500, 250, 0]
    assert Uniform().times(LinearVP(), 3).tolist() == [1000, 667, 333, 0]  # Lin et al. 2024: round(1000 - i 1000 / 3)
    assert Uniform().times(RectifiedFlow(), 4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert Uniform().times(LinearVP(steps=5), 5).tolist() == [5, 4, 3, 2, 1, 0]


def test_leading() -> None:
    assert Leading().times(LinearVP(), 4).tolist() == [751, 501, 251, 1, 0]
    assert Leading().times(LinearVP(), 3).tolist() == [667, 334, 1, 0]  # floor(1000 / 3) = 333
    torch.testing.assert_close(Leading().times(RectifiedFlow(), 2), torch.tensor([0.75, 0.25, 0]).double())


def test_quadratic() -> None:
    times = Quadratic().times(LinearVP(), 5)
    assert times.tolist() == [1 + round(800 * (i / 4) ** 2) for i in (4, 3, 2, 1, 0)] + [0]
    torch.testing.assert_close(
        Quadratic().times(RectifiedFlow(), 2), torch.tensor([0.8, 0.2, 0]).double(), rtol=1e-6, atol=0
    )


def test_karras() -> None:
    # The paper's sigmas for N = 3: ((80^(1/7) + 0.002^(1/7)) / 2)^7 lies in the middle.
    middle = ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
    torch.testing.assert_close(Karras().times(EDM(), 3), torch.tensor([80, middle, 0.002, 0], dtype=torch.float64))
    # Under another process: the same noise levels, in its own time.
    process = CosineVP()
    times = Karras(sigma_min=0.01, sigma_max=20).times(process, 6)[:-1]
    wanted = Karras().times(EDM(sigma_min=0.01, sigma_max=20), 6)[:-1]
    torch.testing.assert_close(process.sigma(times) / process.alpha(times), wanted)
    assert float(Karras().times(process, 6)[0]) == process.t_max
    assert float(Karras().times(RectifiedFlow(), 6)[0]) == 1  # where the noise level is infinite


def test_log_snr() -> None:
    process = VP()
    times = LogSNR().times(process, 6)
    log_snr = process.log_snr(times[:-1])
    torch.testing.assert_close(log_snr.diff(), log_snr.diff().mean().expand(5))
    assert float(times[0]) == 1
    assert float(log_snr[-1]) == pytest.approx(
        min(float(process.log_snr(torch.tensor(1e-5).double())), -2 * math.log(0.002)), rel=1e-6
    )


@pytest.mark.parametrize("process", [LinearVP(steps=4), GeometricLadder(levels=6)])
@pytest.mark.parametrize("grid", [Uniform(), Leading(), Quadratic()])
def test_more_steps_than_the_process_has(process: LinearVP | GeometricLadder, grid: Uniform) -> None:
    # Every whole step once is all that can be asked for.
    times = grid.times(process, 50)
    top = math.floor(0.8 * process.t_max + 1) if isinstance(grid, Quadratic) else process.t_max
    assert times[0] in (top, top + 1)
    assert times.tolist() == list(range(int(times[0]), -1, -1))


def test_noise_levels_beyond_the_process_are_its_end() -> None:
    times = Karras(sigma_max=1000).times(EDM(), 20)
    assert float(times[0]) == 80
    assert (times.diff() < 0).all()


def test_strided() -> None:
    """Every so-manieth of the finer grid's, to the bit; half as many steps stop at every second of them."""
    fine = Karras(sigma_min=0.02).times(EDM(), 48)
    grid = Strided(Karras(sigma_min=0.02), 48)
    for steps in (48, 24, 12, 6, 3, 1):
        assert torch.equal(grid.times(EDM(), steps), fine[:: 48 // steps])
    assert torch.equal(grid.times(EDM(), 50), Karras(sigma_min=0.02).times(EDM(), 50))
    nearest = [round(i * 48 / 5) for i in range(6)]
    assert torch.equal(grid.times(EDM(), 5), fine[nearest])
    # A process in whole steps has no more than there are, and they are shared out evenly.
    assert Strided(Uniform(), 64).times(LinearVP(steps=9), 3).tolist() == [9, 6, 3, 0]
    assert Strided(Uniform(), 64).times(LinearVP(steps=9), 9).tolist() == list(range(9, -1, -1))

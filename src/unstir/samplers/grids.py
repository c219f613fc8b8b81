"""Time grids: where a sampler stops on its way from t_max to the data. Separate from samplers: any goes with any."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unstir.process import Process
from unstir.sampling import Grid


def _finish(process: Process, times: Tensor, *, snap: bool) -> Tensor:
    """Ends the grid at the data and, for a process in whole steps, puts its stops on them.

    Rounding may have put several stops on one whole step, as it must where more are asked for than there are: one stays.
    """
    times = process.snap(times).clamp(process.t_min, process.t_max) if snap else times
    times = torch.cat([times, torch.zeros(1, dtype=torch.float64)])
    return torch.cat([times[:1], times[1:][times[1:] < times[:-1]]])


def _noise_ratio(process: Process, t: float, limit: tuple[float, float]) -> float:
    """sigma / alpha at t, kept within the limits where it would be 0 or infinite."""
    t_ = torch.tensor(t, dtype=torch.float64)
    return min(max(float(process.sigma(t_) / process.alpha(t_)), limit[0]), limit[1])


@dataclass(frozen=True)
class Uniform(Grid):
    """Equal steps of t from t_max; for DDPM's chain also known as "trailing".

    Equation:
        t_i = t_max (1 - i / K)
    Source:
        Lin et al. 2024, table 2 ("trailing"), https://arxiv.org/abs/2305.08891
    """

    def times(self, process: Process, steps: int) -> Tensor:
        return _finish(process, torch.linspace(process.t_max, 0, steps + 1, dtype=torch.float64)[:-1], snap=True)


@dataclass(frozen=True)
class Leading(Grid):
    """DDIM's original stops: equal steps counted from the data, so that t_max itself is never asked for.

    Equation:
        t_i = t_min + (K - 1 - i) floor(T / K)
    Source:
        Song, Meng & Ermon 2021, appendix D.2 ("linear"), https://arxiv.org/abs/2010.02502
    """

    def times(self, process: Process, steps: int) -> Tensor:
        stride = process.t_max / steps
        if process.snap(torch.tensor(0.25)) == 0:  # a process in whole steps
            stride = max(math.floor(stride), 1)
        times = process.t_min + stride * torch.arange(steps - 1, -1, -1, dtype=torch.float64)
        return _finish(process, times if process.t_min > 0 else times + stride / 2, snap=True)


@dataclass(frozen=True)
class Quadratic(Grid):
    """DDIM's stops for CIFAR-10: closer together near the data.

    Equation:
        t_i = t_min + (sqrt(0.8 t_max) (K - 1 - i) / (K - 1))²
    Source:
        Song, Meng & Ermon 2021, appendix D.2 ("quadratic"), https://arxiv.org/abs/2010.02502
    """

    def times(self, process: Process, steps: int) -> Tensor:
        count = steps if process.t_min > 0 else steps + 1  # whose last is then the data's own
        root = torch.linspace(math.sqrt(0.8 * process.t_max), 0, count, dtype=torch.float64)
        return _finish(process, process.t_min + root[:steps].square(), snap=True)


@dataclass(frozen=True)
class Karras(Grid):
    """EDM's stops, a power law in the noise level sigma / alpha; the first is t_max.

    Equation:
        sigma_i = (sigma_max^(1/rho) + i / (K - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho
    Source:
        Karras, Aittala, Aila & Laine 2022, eq. 5, https://arxiv.org/abs/2206.00364
    """

    rho: float = 7.0
    """Larger puts more stops near the data."""
    sigma_min: float = 0.0
    """Lowest noise level before the data; 0: the process's own, at least 0.002."""
    sigma_max: float = 0.0
    """Highest noise level; 0: the process's own, 80 where that is infinite."""

    def times(self, process: Process, steps: int) -> Tensor:
        low = self.sigma_min or _noise_ratio(process, process.t_min, (0.002, math.inf))
        high = self.sigma_max or _noise_ratio(process, process.t_max, (0.0, math.inf))
        high = 80.0 if math.isinf(high) else high
        i = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
        sigma = (high ** (1 / self.rho) + i * (low ** (1 / self.rho) - high ** (1 / self.rho))) ** self.rho
        times = process.t_at_noise_ratio(sigma)
        if not self.sigma_max:
            times[0] = process.t_max
        return _finish(process, times, snap=False)


@dataclass(frozen=True)
class LogSNR(Grid):
    """Equal steps of log-SNR, the natural variable of DPM-Solver; the first stop is t_max.

    Equation:
        lambda_i = lambda(t_max) + i / (K - 1) (lambda(t_min) - lambda(t_max))
    Source:
        Lu et al. 2022, section 5 and appendix, https://arxiv.org/abs/2206.00927
    """

    def times(self, process: Process, steps: int) -> Tensor:
        low = _noise_ratio(process, process.t_min, (0.002, math.inf))
        high = _noise_ratio(process, process.t_max, (0.0, math.inf))
        high = 80.0 if math.isinf(high) else high
        ratio = torch.linspace(math.log(high), math.log(low), steps, dtype=torch.float64).exp()
        times = process.t_at_noise_ratio(ratio)
        times[0] = process.t_max
        return _finish(process, times, snap=False)


@dataclass(frozen=True)
class Strided(Grid):
    """Every so-manieth stop of a finer grid, so that the stops of half as many steps are among them: those of a student among its
    teacher's.

    Equation:
        t_i = T_j,   j = i M / K to the nearest,   T_0 > ... > T_M the finer grid
    Source:
        Salimans & Ho 2022, algorithm 2 (t = i / N, i / N - 0.5 / N), https://arxiv.org/abs/2202.00512
    """

    grid: Grid = field(default_factory=Uniform)
    """The finer grid."""
    of: int = 64
    """Its number of steps M."""

    def times(self, process: Process, steps: int) -> Tensor:
        fine = self.grid.times(process, max(self.of, steps))
        count = len(fine) - 1  # a process in whole steps may have fewer than were asked for
        if steps >= count:
            return fine
        i = torch.arange(steps + 1)
        return fine[(2 * i * count + steps) // (2 * steps)]


GRIDS: dict[str, type[Grid]] = {
    "uniform": Uniform,
    "trailing": Uniform,
    "leading": Leading,
    "quadratic": Quadratic,
    "karras": Karras,
    "log-snr": LogSNR,
    "strided": Strided,
}

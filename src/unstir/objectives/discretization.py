"""Pairs of neighbouring times t > s, at which a consistency model learns to say the same; they move together as training goes on.

Noise levels are sigma / alpha, so that a schedule means the same under every process. The lower time of the lowest pair is 0, the
data themselves, where the consistency function is known: there it gives back what it is asked about.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from unstir.errors import UserError
from unstir.objectives.times import LogNormal, Times
from unstir.process import Process
from unstir.samplers.grids import Karras

MOST_NOISE = 80.0
"""Noise level at which a consistency model starts where its process goes further, to nothing but noise: EDM's. What is left of the data
is an eightieth, and a network need not learn to tell apart what lies beyond."""
LEAST_NOISE = 0.002
"""Noise level from which the rest is the data, of a process that does not say so itself: EDM's."""


def noise_ratio(process: Process, t: Tensor) -> Tensor:
    """sigma / alpha, in the shape of t."""
    return process.sigma(t) / process.alpha(t)


@lru_cache(maxsize=32)
def ends(process: Process) -> tuple[float, float]:
    """(lowest, highest) time at which a consistency model of this process is asked."""
    least, most = (process.t_at_noise_ratio(torch.tensor(r, dtype=torch.float64)) for r in (LEAST_NOISE, MOST_NOISE))
    return process.t_min or float(least), min(float(most), process.t_max)


def karras(process: Process, **settings: float) -> Karras:
    """EDM's grid from the highest of these times."""
    high = ends(process)[1]
    return Karras(sigma_max=MOST_NOISE if high < process.t_max else 0.0, **settings)


class Pairs(ABC):
    """How neighbouring times are drawn. A new one is a frozen dataclass and a line in ``PAIRS``."""

    @abstractmethod
    def pair(self, process: Process, u: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
        """(B,) float64 u in [0, 1) -> times t > s >= 0, (B,) each, of this distribution for uniform u.

        Args:
            fraction: of the training that is done.
        """

    @abstractmethod
    def refinement(self, fraction: float) -> float:
        """How many times finer than in the beginning the pairs are by now."""


# ---- levels, and pairs of neighbours among them --------------------------------------------------------------------------------


def square_root(fraction: float, first: int, last: int) -> int:
    """N grows like the square root of the time trained.

    Equation:
        N(k) = ceil(sqrt(k/K ((s_1 + 1)² - s_0²) + s_0²) - 1) + 1
    Source:
        Song, Dhariwal, Chen & Sutskever 2023, appendix C (schedule functions), https://arxiv.org/abs/2303.01469
    """
    return math.ceil(math.sqrt(fraction * ((last + 1) ** 2 - first**2) + first**2) - 1) + 1


def doubling(fraction: float, first: int, last: int) -> int:
    """N doubles in equal stretches of the training.

    Equation:
        N(k) = min(s_0 2^floor(k / K'), s_1) + 1,   K' = K / (log2 floor(s_1 / s_0) + 1)
    Source:
        Song & Dhariwal 2023, section 3.4, https://arxiv.org/abs/2310.14189
    """
    doublings = math.floor(fraction * (math.log2(last // first) + 1))
    return int(min(first * 2**doublings, last)) + 1


def constant(fraction: float, first: int, last: int) -> int:
    """N stays what it is, ``last``: consistency distillation's choice."""
    return last


GROWTHS: dict[str, Callable[[float, int, int], int]] = {
    "constant": constant,
    "square-root": square_root,
    "doubling": doubling,
}


@lru_cache(maxsize=32)
def _levels(process: Process, rho: float, count: int) -> tuple[Tensor, Tensor]:
    """(N,) times t_1 .. t_N, of which t_1 is 0, and the noise levels that they stand for, where that of t_1 is the process's lowest."""
    times = karras(process, rho=rho).times(process, count)[:-1].flip(0)  # without the data
    ratios = noise_ratio(process, times)
    return torch.cat([torch.zeros_like(times[:1]), times[1:]]), ratios


@dataclass(frozen=True)
class KarrasPairs(Pairs):
    """Neighbours among N levels of EDM's grid, each pair as often as any other; N may grow with training.

    The lowest level is 0 instead of sigma_min: the consistency function's boundary lies at the data themselves.

    Equation:
        sigma_n = (sigma_min^(1/rho) + (n - 1) / (N - 1) (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho,   (t, s) = (t_{n+1}, t_n),   n ~ U{1, ..., N - 1}
    Source:
        Song, Dhariwal, Chen & Sutskever 2023, algorithms 2 and 3, https://arxiv.org/abs/2303.01469
    """

    first: int = 10
    """The paper's s_0: about how many levels there are in the beginning."""
    last: int = 1280
    """The paper's s_1: about how many there are in the end."""
    growth: Literal["constant", "square-root", "doubling"] = "doubling"
    """How their number grows: not at all (last, from the beginning), like the square root of the time trained, or by doubling."""
    rho: float = 7.0
    """How much denser they are near the data."""

    def __post_init__(self) -> None:
        if not 2 <= self.first <= self.last:
            raise UserError(
                f"pairs.first and pairs.last are numbers of levels, 2 <= first <= last: not {self.first}, {self.last}"
            )

    def count(self, fraction: float) -> int:
        """N, the number of levels."""
        return GROWTHS[self.growth](min(max(fraction, 0.0), 1.0), self.first, self.last)

    def refinement(self, fraction: float) -> float:
        return self.count(fraction) / self.count(0.0)

    def probabilities(self, ratios: Tensor) -> Tensor:
        """(N,) noise levels, rising -> (N - 1,) how often each pair of neighbours is drawn."""
        return torch.full_like(ratios[1:], 1 / (len(ratios) - 1))

    def pair(self, process: Process, u: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
        times, ratios = _levels(process, self.rho, self.count(fraction))
        edges = self.probabilities(ratios).cumsum(0)
        n = torch.searchsorted(edges, u, right=True).clamp(max=len(edges) - 1)
        return times[n + 1], times[n]


@dataclass(frozen=True)
class LogNormalPairs(KarrasPairs):
    """The same levels, drawn as if the noise level were log-normal.

    Equation:
        p(n) proportional to erf((ln sigma_{n+1} - P_mean) / (sqrt(2) P_std)) - erf((ln sigma_n - P_mean) / (sqrt(2) P_std))
    Source:
        Song & Dhariwal 2023, section 3.5, https://arxiv.org/abs/2310.14189
    """

    mean: float = -1.1
    """P_mean: mean of ln(sigma / alpha)."""
    std: float = 2.0
    """P_std: its standard deviation."""

    def probabilities(self, ratios: Tensor) -> Tensor:
        mass = torch.erf((ratios.log() - self.mean) / (math.sqrt(2) * self.std)).diff()
        return mass / mass.sum()


# ---- times, and a neighbour for each of them -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShrinkingPairs(Pairs):
    """Any time t, and below it one that comes nearer from stage to stage. The first stage's is mostly the data, so that tuning starts
    with what a diffusion model is trained for anyway.

    Equation:
        sigma_s / sigma_t = max(1 - n(sigma_t) / q^a, 0),   n(sigma) = 1 + k sigmoid(-b sigma),   a = 1, 2, ... the stage
    Source:
        Geng, Pokle, Luo, Lin & Kolter 2024 (easy consistency tuning), https://arxiv.org/abs/2406.14548, and its code, https://github.com/locuslab/ect
    """

    times: Times = field(default_factory=lambda: LogNormal(-1.1, 2.0))
    """Distribution of the upper times t."""
    q: float = 2.0
    """By how much the pairs shrink from stage to stage."""
    stages: int = 8
    """How many stages the training has, of equal length. One of q = 256 is the last of eight of q = 2."""
    k: float = 8.0
    """How much further apart pairs near the data are, on the scale of their noise level."""
    b: float = 1.0
    """From which noise level down they are, 1 / b."""

    def __post_init__(self) -> None:
        if self.q <= 1 or self.stages < 1 or self.k < 0:
            raise UserError(
                f"pairs.q must be more than 1, stages at least 1, k at least 0: not {self.q:g}, {self.stages}, {self.k:g}"
            )

    def stage(self, fraction: float) -> int:
        """The paper's a, 1 .. stages."""
        return 1 + min(max(math.floor(fraction * self.stages), 0), self.stages - 1)

    def refinement(self, fraction: float) -> float:
        return float(self.q ** (self.stage(fraction) - 1))

    def pair(self, process: Process, u: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
        low, high = ends(process)
        t = self.times.quantile(process, u).clamp(low, high)
        ratio = noise_ratio(process, t)
        n = 1 + self.k * torch.sigmoid(-self.b * ratio)
        s = process.t_at_noise_ratio(ratio * (1 - n * self.q ** -float(self.stage(fraction))).clamp(min=0))
        return t, torch.where(s < low, torch.zeros_like(s), torch.minimum(s, t))


PAIRS: dict[str, type[Pairs]] = {"karras": KarrasPairs, "log-normal": LogNormalPairs, "shrinking": ShrinkingPairs}

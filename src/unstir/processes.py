"""Processes: those in whole steps (DDPM's chain, NCSN's ladder), and those in continuous time (the SDEs, EDM, rectified flow)."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from unstir.ladder import insist, ladder_levels, largest_distance
from unstir.process import Process

# ---- processes in whole steps ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DiscreteVP(Process):
    """The variance-preserving chain of DDPM, t = 1..T; alpha_bar[0] = 1 is the data, so indices are the paper's.

    Between whole steps the angle atan(sigma / alpha) is interpolated: it is finite at both ends, also for a schedule that
    reaches alpha = 0 (zero terminal SNR), and exact at the steps.

    Equation:
        q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I),   alpha_t = sqrt(alpha_bar_t),   sigma_t = sqrt(1 - alpha_bar_t)
    Source:
        Ho, Jain & Abbeel 2020, eqs. 2 and 4, https://arxiv.org/abs/2006.11239
    """

    @abstractmethod
    def beta_schedule(self) -> Tensor:
        """(T,) float64: beta_1 .. beta_T, each in (0, 1]."""

    @cached_property
    def beta(self) -> Tensor:
        """(T + 1,) float64 with the paper's indices: beta[0] = 0 does nothing."""
        return torch.cat([torch.zeros(1, dtype=torch.float64), self.beta_schedule()])

    @cached_property
    def alpha_bar(self) -> Tensor:
        """(T + 1,) float64 with the paper's indices: alpha_bar[0] = 1."""
        return (1 - self.beta).cumprod(0)

    @cached_property
    def _angles(self) -> tuple[Tensor, Tensor]:
        # asin(alpha) and asin(sigma) add up to pi/2; both are kept so that neither end is lost to rounding. 1 - alpha_bar is
        # summed up in logarithms, because at the first steps it is 1e-4 of what it would be subtracted from.
        alpha = self.alpha_bar.sqrt()
        sigma = (-torch.expm1(torch.log1p(-self.beta).cumsum(0))).sqrt()
        return torch.atan2(alpha, sigma), torch.atan2(sigma, alpha)

    def _interpolate(self, table: Tensor, t: Tensor) -> Tensor:
        table = table.to(t.device)
        # At a whole step the slope is that of the step below, s -> t: the one whose beta is beta_t.
        below = (t.detach().ceil() - 1).clamp(0, self.t_max - 1).long()
        weight = t - below
        return table[below] * (1 - weight) + table[below + 1] * weight

    def alpha(self, t: Tensor) -> Tensor:
        return self._interpolate(self._angles[0], t).sin()

    def sigma(self, t: Tensor) -> Tensor:
        return self._interpolate(self._angles[1], t).sin()

    def t_at_log_snr(self, log_snr: Tensor) -> Tensor:
        angles = self._angles[1]
        angle = (-0.5 * torch.as_tensor(log_snr, dtype=torch.float64)).exp().atan()
        below = (torch.searchsorted(angles, angle) - 1).clamp(0, len(angles) - 2)
        return (below + (angle - angles[below]) / (angles[below + 1] - angles[below])).clamp(0, self.t_max)

    @property
    def t_max(self) -> float:
        return float(len(self.beta) - 1)

    @property
    def t_min(self) -> float:
        return 1.0

    def snap(self, t: Tensor) -> Tensor:
        return t.round()

    def time_of_fraction(self, u: Tensor) -> Tensor:
        return (u * self.t_max).floor() + 1


@dataclass(frozen=True)
class LinearVP(DiscreteVP):
    """DDPM's schedule: beta grows linearly.

    Equation:
        beta_t = beta_start + (t - 1) / (T - 1) · (beta_end - beta_start)
    Source:
        Ho, Jain & Abbeel 2020, section 4, https://arxiv.org/abs/2006.11239
    """

    steps: int = 1000
    """Number of steps T of the chain."""
    beta_start: float = 1e-4
    """beta_1."""
    beta_end: float = 0.02
    """beta_T."""

    def beta_schedule(self) -> Tensor:
        return torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float64)


@dataclass(frozen=True)
class CosineVP(DiscreteVP):
    """The cosine schedule of improved DDPM: destroys information more slowly, better for small pictures.

    Equation:
        alpha_bar_t = f(t) / f(0),   f(t) = cos²((t/T + s) / (1 + s) · pi/2),   beta_t = min(1 - alpha_bar_t / alpha_bar_{t-1}, 0.999)
    Source:
        Nichol & Dhariwal 2021, eq. 17, https://arxiv.org/abs/2102.09672
    """

    steps: int = 1000
    """Number of steps T of the chain."""
    offset: float = 0.008
    """The paper's s: keeps beta from vanishing near t = 0."""
    beta_max: float = 0.999
    """Upper limit of every beta; 1 gives zero terminal SNR."""

    def beta_schedule(self) -> Tensor:
        t = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        f = ((t + self.offset) / (1 + self.offset) * math.pi / 2).cos().square()
        return (1 - f[1:] / f[:-1]).clamp(max=self.beta_max)


@dataclass(frozen=True)
class SigmoidVP(DiscreteVP):
    """The sigmoid schedule, for larger pictures.

    Equation:
        alpha_bar_t = (S(end) - S(start + t/T (end - start))) / (S(end) - S(start)),   S(u) = sigmoid(u / temperature)
    Source:
        Jabri, Fleet & Chen 2022, algorithm 3 (appendix), https://arxiv.org/abs/2212.11972; Chen 2023, https://arxiv.org/abs/2301.10972
    """

    steps: int = 1000
    """Number of steps T of the chain."""
    start: float = -3.0
    """Where on the sigmoid t = 0 lies."""
    end: float = 3.0
    """Where on the sigmoid t = T lies."""
    temperature: float = 1.0
    """Stretches the sigmoid."""
    beta_max: float = 0.999
    """Upper limit of every beta; 1 gives zero terminal SNR."""

    def beta_schedule(self) -> Tensor:
        t = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        sigmoid = torch.sigmoid((self.start + t * (self.end - self.start)) / self.temperature)
        alpha_bar = (sigmoid[-1] - sigmoid) / (sigmoid[-1] - sigmoid[0])
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=self.beta_max)


@dataclass(frozen=True)
class GivenVP(DiscreteVP):
    """Any betas. Raises ValueError unless every one lies in (0, 1]."""

    betas: tuple[float, ...] = (0.5, 0.5, 0.5, 0.5)
    """beta_1 .. beta_T."""

    def __post_init__(self) -> None:
        if not self.betas or not all(0 < beta <= 1 for beta in self.betas):
            raise ValueError("betas must be a non-empty sequence of numbers in (0, 1]")

    def beta_schedule(self) -> Tensor:
        return torch.tensor(self.betas, dtype=torch.float64)


@dataclass(frozen=True)
class GeometricLadder(Process):
    """NCSN's ladder of noise levels, t = 1..levels (the paper counts them downwards); geometric also between the levels.

    With levels = 0 or sigma_max = 0 these are read off the data when training begins (NCSNv2's techniques 1 and 2).

    Equation:
        x_t = x_0 + sigma_t eps,   sigma_t = sigma_min (sigma_max / sigma_min)^((t - 1) / (levels - 1))
    Source:
        Song & Ermon 2019, section 4.1, https://arxiv.org/abs/1907.05600
    """

    levels: int = 10
    """Number of noise levels L. 0: as many as the data's dimension asks for."""
    sigma_min: float = 0.01
    """Smallest noise level."""
    sigma_max: float = 50.0
    """Largest noise level. 0: the largest distance between two samples of the data."""

    def fitted(self, x_0: Tensor) -> GeometricLadder:
        sigma_max = self.sigma_max or largest_distance(x_0)
        levels = self.levels or ladder_levels(self.sigma_min, sigma_max, x_0[0].numel())
        return replace(self, levels=levels, sigma_max=sigma_max)

    @property
    def t_max(self) -> float:
        return float(self.levels)

    @property
    def t_min(self) -> float:
        return 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        insist(self.levels > 0 and self.sigma_max > 0, self)
        ladder = self.sigma_min * (self.sigma_max / self.sigma_min) ** ((t - 1) / max(self.levels - 1, 1))
        return torch.where(t < 1, self.sigma_min * t, ladder)  # straight down to the data below the lowest level

    def t_at_log_snr(self, log_snr: Tensor) -> Tensor:
        ratio = (-0.5 * torch.as_tensor(log_snr, dtype=torch.float64)).exp() / self.sigma_min
        t = 1 + ratio.log() / (math.log(self.sigma_max / self.sigma_min) or 1.0) * (self.levels - 1)
        return torch.where(ratio < 1, ratio, t).clamp(max=self.t_max)

    def snap(self, t: Tensor) -> Tensor:
        return t.round()

    def time_of_fraction(self, u: Tensor) -> Tensor:
        return (u * self.levels).floor() + 1


# ---- processes in continuous time --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VP(Process):
    """The variance-preserving SDE, t in [0, 1]: the limit of DDPM's chain.

    Equation:
        dx = -beta(t)/2 x dt + sqrt(beta(t)) dw,   log alpha(t) = -t²/4 (beta_max - beta_min) - t/2 beta_min,   sigma² = 1 - alpha²
    Source:
        Song et al. 2021, eqs. 11 and 32-33, https://arxiv.org/abs/2011.13456
    """

    beta_min: float = 0.1
    """beta(0)."""
    beta_max: float = 20.0
    """beta(1)."""

    @property
    def t_max(self) -> float:
        return 1.0

    @property
    def t_min(self) -> float:
        return 1e-5  # the paper's epsilon: the score explodes at t = 0

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.25 * t.square() * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def alpha(self, t: Tensor) -> Tensor:
        return self._log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self._log_alpha(t))).sqrt()

    def _log_alpha_at(self, log_snr: Tensor) -> Tensor:
        return -0.5 * torch.nn.functional.softplus(-log_snr)

    def t_at_log_snr(self, log_snr: Tensor) -> Tensor:
        log_snr = torch.as_tensor(log_snr, dtype=torch.float64)
        end = self._log_alpha(torch.ones_like(log_snr))
        c = -self._log_alpha_at(log_snr).maximum(end)
        t = 2 * c / (self.beta_min / 2 + (self.beta_min**2 / 4 + (self.beta_max - self.beta_min) * c).sqrt())
        return torch.where(c == -end, self.t_max, t)


@dataclass(frozen=True)
class SubVP(VP):
    """The sub-VP SDE: the same drift as VP, never more noise.

    Equation:
        alpha(t) as VP,   sigma(t) = 1 - alpha(t)²
    Source:
        Song et al. 2021, eqs. 12 and 29, https://arxiv.org/abs/2011.13456
    """

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(2 * self._log_alpha(t))

    def _log_alpha_at(self, log_snr: Tensor) -> Tensor:
        return -torch.asinh((-0.5 * log_snr).exp() / 2)


@dataclass(frozen=True)
class VE(Process):
    """The variance-exploding SDE, t in [0, 1]: NCSN's ladder in continuous time. sigma jumps to 0 at t = 0, as in the paper.

    Equation:
        x_t = x_0 + sigma(t) eps,   sigma(t) = sigma_min (sigma_max / sigma_min)^t for t > 0
    Source:
        Song et al. 2021, eqs. 9 and 30-31, https://arxiv.org/abs/2011.13456
    """

    sigma_min: float = 0.01
    """Noise level just above t = 0."""
    sigma_max: float = 50.0
    """Noise level at t = 1. 0: the largest distance between two samples of the data, read off when training begins."""

    def fitted(self, x_0: Tensor) -> VE:
        return replace(self, sigma_max=self.sigma_max or largest_distance(x_0))

    @property
    def t_max(self) -> float:
        return 1.0

    @property
    def t_min(self) -> float:
        return 1e-5

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        insist(self.sigma_max > 0, self)
        return torch.where(t > 0, self.sigma_min * (self.sigma_max / self.sigma_min) ** t, torch.zeros_like(t))

    def t_at_log_snr(self, log_snr: Tensor) -> Tensor:
        sigma = (-0.5 * torch.as_tensor(log_snr, dtype=torch.float64)).exp()
        t = (sigma / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)
        return torch.where(sigma == 0, 0.0, t.clamp(1e-24, self.t_max))  # below sigma_min: just above the data


@dataclass(frozen=True)
class EDM(Process):
    """The process of EDM: time is the noise level.

    Equation:
        x_t = x_0 + t eps
    Source:
        Karras, Aittala, Aila & Laine 2022, section 3, https://arxiv.org/abs/2206.00364
    """

    sigma_min: float = 0.002
    """Smallest noise level that a network is asked for."""
    sigma_max: float = 80.0
    """Where sampling starts."""

    @property
    def t_max(self) -> float:
        return self.sigma_max

    @property
    def t_min(self) -> float:
        return self.sigma_min

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def t_at_log_snr(self, log_snr: Tensor) -> Tensor:
        return (-0.5 * torch.as_tensor(log_snr, dtype=torch.float64)).exp().clamp(max=self.sigma_max)


@dataclass(frozen=True)
class RectifiedFlow(Process):
    """Straight lines from data (t = 0) to noise (t = 1); the papers' t is our 1 - t or t, depending on the paper.

    Equation:
        x_t = (1 - t) x_0 + t eps
    Source:
        Liu, Gong & Liu 2022, eq. 1, https://arxiv.org/abs/2209.03003; Lipman et al. 2023, https://arxiv.org/abs/2210.02747
    """

    @property
    def t_max(self) -> float:
        return 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def t_at_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-0.5 * torch.as_tensor(log_snr, dtype=torch.float64))


PROCESSES: dict[str, type[Process]] = {
    "linear": LinearVP,
    "cosine": CosineVP,
    "sigmoid": SigmoidVP,
    "betas": GivenVP,
    "vp": VP,
    "sub-vp": SubVP,
    "ve": VE,
    "ladder": GeometricLadder,
    "edm": EDM,
    "rectified-flow": RectifiedFlow,
}

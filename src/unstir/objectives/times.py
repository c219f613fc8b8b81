"""At which times to train: distributions of t, each given by its quantile function, so that any can be stratified."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir.process import Process
from unstir.sampling import SampleNoise


def spread(rng: SampleNoise, stratified: bool) -> Tensor:
    """(B,) float64 in [0, 1): each sample's own draw, or spread evenly over the batch, which is the same distribution and leaves
    less noise in the gradient."""
    u = rng.uniform()
    if not stratified:
        return u
    # Position i of the (global) batch draws from one of its `total` equal slices, whichever process it is on.
    return (torch.tensor(rng.indices, dtype=torch.float64) % rng.total + u) / rng.total


class Times(ABC):
    """A distribution of training times. A new one is a frozen dataclass and a line in ``TIMES``."""

    @abstractmethod
    def quantile(self, process: Process, u: Tensor) -> Tensor:
        """(B,) float64 u in [0, 1) -> t, so that uniform u gives t of this distribution."""


@dataclass(frozen=True)
class UniformTimes(Times):
    """Uniform over the process's times.

    Equation:
        t ~ Uniform({1, ..., T}) or Uniform([t_min, t_max])
    Source:
        Ho, Jain & Abbeel 2020, algorithm 1, line 3, https://arxiv.org/abs/2006.11239
    """

    def quantile(self, process: Process, u: Tensor) -> Tensor:
        return process.time_of_fraction(u)


@dataclass(frozen=True)
class LogNormal(Times):
    """The noise level sigma / alpha is log-normal.

    Equation:
        ln(sigma / alpha) ~ N(mean, std²)
    Source:
        Karras, Aittala, Aila & Laine 2022, table 1 (P_mean, P_std), https://arxiv.org/abs/2206.00364
    """

    mean: float = -1.2
    """P_mean: mean of ln(sigma / alpha)."""
    std: float = 1.2
    """P_std: its standard deviation."""

    def quantile(self, process: Process, u: Tensor) -> Tensor:
        normal = torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9))
        t = process.t_at_log_snr(-2 * (self.mean + self.std * normal))
        return process.snap(t).clamp(process.t_min, process.t_max)


@dataclass(frozen=True)
class LogitNormal(LogNormal):
    """Rectified flow's choice. For x_t = (1 - t) x_0 + t eps, logit(t) = ln(sigma / alpha): a log-normal by another name.

    Equation:
        logit(t) ~ N(mean, std²)
    Source:
        Esser et al. 2024, eq. 19, https://arxiv.org/abs/2403.03206
    """

    mean: float = 0.0
    """Mean of logit(t)."""
    std: float = 1.0
    """Its standard deviation."""


TIMES: dict[str, type[Times]] = {"uniform": UniformTimes, "log-normal": LogNormal, "logit-normal": LogitNormal}

"""Adams-Bashforth for the belief about the noise, in the form d(x / alpha) = eps d(sigma / alpha): DEIS, and k-diffusion's LMS.

They differ in the variable in which eps is a polynomial: time, rho = sigma / alpha, or log rho.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from unstir.prediction import Prediction
from unstir.process import Process
from unstir.samplers.exponential import EpsInLogSNR, Expansion
from unstir.samplers.multistep import Multistep

_POINTS, _WEIGHTS = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(32))


def noise_ratio(process: Process, t: Tensor) -> Tensor:
    """rho = sigma / alpha, EDM's noise level; infinite where alpha = 0."""
    return process.sigma(t) / process.alpha(t)


@dataclass(frozen=True)
class EpsInRho(Expansion):
    """eps as a polynomial in rho = sigma / alpha: rhoAB-DEIS, and LMS. Reaches the data at full order.

    Equation:
        x_s / alpha_s = x_t / alpha_t + ∫_{rho_t}^{rho_s} eps(rho) drho
    Source:
        Zhang & Chen 2023, section 3 (rhoAB-DEIS), https://arxiv.org/abs/2204.13902
    """

    def belief(self, prediction: Prediction) -> Tensor:
        return prediction.eps

    def position(self, process: Process, t: Tensor) -> Tensor:
        return noise_ratio(process, t)

    def moments(self, process: Process, t: Tensor, s: Tensor, count: int) -> Tensor:
        change = process.alpha(s) * self.span(process, t, s)
        return change / torch.arange(1, count + 1, dtype=change.dtype)


@dataclass(frozen=True)
class EpsInTime(Expansion):
    """eps as a polynomial in the process's own time: tAB-DEIS. Reaches the data at full order.

    Equation:
        C_j = alpha_s ∫_t^s L_j(tau) drho(tau),   L_j the j-th Lagrange polynomial; by parts, so that no derivative of rho is needed
    Source:
        Zhang & Chen 2023, section 3 (tAB-DEIS), https://arxiv.org/abs/2204.13902
    """

    def belief(self, prediction: Prediction) -> Tensor:
        return prediction.eps

    def position(self, process: Process, t: Tensor) -> Tensor:
        return t

    def moments(self, process: Process, t: Tensor, s: Tensor, count: int) -> Tensor:
        u = (_POINTS + 1) / 2
        rho = noise_ratio(process, t + u * (s - t))
        end = noise_ratio(process, s)
        # ∫ u^k drho = rho_s - k ∫ u^(k-1) rho du for k > 0
        higher = [end - k * (_WEIGHTS / 2 * u ** (k - 1) * rho).sum() for k in range(1, count)]
        return process.alpha(s) * torch.stack([end - noise_ratio(process, t), *higher])


VARIABLES: dict[str, type[Expansion]] = {"log-rho": EpsInLogSNR, "rho": EpsInRho, "time": EpsInTime}
"""In what eps is a polynomial, by name."""


@dataclass(frozen=True)
class DEIS(Multistep):
    """Exponential Adams-Bashforth for eps, one evaluation a step. In log rho it is also DPM-Solver's multistep form.

    Equation:
        x_s = alpha_s / alpha_t x_t + sum_j C_j eps_j,   C_j = alpha_s ∫_{rho_t}^{rho_s} L_j drho,   L_j the Lagrange polynomials through the last ``order`` times
    Source:
        Zhang & Chen 2023, section 3, https://arxiv.org/abs/2204.13902
    """

    order: Literal[1, 2, 3, 4] = 3
    """How many beliefs the polynomial goes through: the paper's r + 1."""
    variable: Literal["log-rho", "rho", "time"] = "log-rho"
    """In what eps is a polynomial: the paper's tAB-DEIS is "time", its rhoAB-DEIS "rho"; "log-rho" is smooth under every process."""

    def scheme(self) -> tuple[Expansion, int]:
        return VARIABLES[self.variable](), self.order


@dataclass(frozen=True)
class LMS(Multistep):
    """Linear multistep: Adams-Bashforth with steps of any size, in EDM's coordinates. One evaluation a step.

    Equation:
        x_s / alpha_s = x_t / alpha_t + sum_j eps_j ∫_{rho_t}^{rho_s} L_j(rho) drho,   rho = sigma / alpha
    Source:
        Crowson 2022, k-diffusion (sample_lms), https://github.com/crowsonkb/k-diffusion; Zhang & Chen 2023 (rhoAB-DEIS), https://arxiv.org/abs/2204.13902
    """

    order: Literal[1, 2, 3, 4] = 4
    """How many beliefs the polynomial goes through."""

    def scheme(self) -> tuple[Expansion, int]:
        return EpsInRho(), self.order

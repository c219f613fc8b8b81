"""DEIS: Zhang & Chen 2023, Fast Sampling of Diffusion Models with Exponential Integrator, https://arxiv.org/abs/2204.13902.

For dx = F_t x dt + G_t dw with scalar F and G; L_t is the standard deviation of the noise in x_t. t decreases to t[N] (the paper counts
it up from t_0 to t_N).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Scalar = Callable[[Tensor], Tensor]


def coefficient(
    t: Tensor, i: int, j: int, order: int, Psi: Callable[[Tensor, Tensor], Tensor], weight: Scalar
) -> Tensor:
    """C_ij, the integral of the j-th Lagrange polynomial in time, which the paper too computes numerically.

    Equation:
        C_ij = ∫_{t_i}^{t_{i-1}} 1/2 Psi(t_{i-1}, tau) G_tau² / L_tau prod_{k != j} (tau - t_{i+k}) / (t_{i+j} - t_{i+k}) dtau
    Source:
        Zhang & Chen 2023, section 3, https://arxiv.org/abs/2204.13902
    """
    u, w = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(64))
    tau = t[i] + (u + 1) / 2 * (t[i + 1] - t[i])
    lagrange = [(tau - t[i - k]) / (t[i - j] - t[i - k]) for k in range(order + 1) if k != j]
    product = math.prod(lagrange, start=torch.ones_like(tau))
    return (t[i + 1] - t[i]) / 2 * (w * Psi(t[i + 1], tau) * weight(tau) * product).sum()


def t_ab_deis(
    eps_theta: Callable[[Tensor, Tensor], Tensor],
    x_T: Tensor,
    t: Tensor,
    r: int,
    Psi: Callable[[Tensor, Tensor], Tensor],
    weight: Scalar,
) -> Tensor:
    """tAB-DEIS of order r, with lower orders in the first steps.

    Equation:
        x_{t_{i-1}} = Psi(t_{i-1}, t_i) x_{t_i} + sum_{j=0}^r C_ij eps_theta(x_{t_{i+j}}, t_{i+j})
    Source:
        Zhang & Chen 2023, section 3, https://arxiv.org/abs/2204.13902

    Args:
        Psi: Psi(s, tau), the solution of dPsi/ds = F_s Psi, Psi(tau, tau) = 1.
        weight: 1/2 G_tau² / L_tau.
    """
    x = x_T
    eps: list[Tensor] = []
    for i in range(len(t) - 1):
        eps.append(eps_theta(x, t[i]))
        order = min(r, i)
        C = [coefficient(t, i, j, order, Psi, weight) for j in range(order + 1)]
        x = Psi(t[i + 1], t[i]) * x + sum(c * e for c, e in zip(C, reversed(eps)))
    return x

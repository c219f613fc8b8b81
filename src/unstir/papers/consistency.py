"""Consistency models: Song, Dhariwal, Chen & Sutskever 2023, https://arxiv.org/abs/2303.01469; with the improvements of Song & Dhariwal 2023."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

F_theta = Callable[[Tensor, Any], Tensor]


def N_of(k: int, K: int, s_0: int, s_1: int) -> int:
    """The schedule of appendix C."""
    return math.ceil(math.sqrt(k / K * ((s_1 + 1) ** 2 - s_0**2) + s_0**2) - 1) + 1


def N_improved(k: int, K: int, s_0: int, s_1: int) -> int:
    """Song & Dhariwal 2023, table 1, https://arxiv.org/abs/2310.14189."""
    K_prime = math.floor(K / (math.log2(math.floor(s_1 / s_0)) + 1))
    return int(min(s_0 * 2 ** math.floor(k / K_prime), s_1) + 1)


def time_steps(N: int, eps: float = 0.002, T: float = 80.0, rho: float = 7.0) -> Tensor:
    """(N,) float64 t_1 = eps < ... < t_N = T (section 2)."""
    i = torch.arange(1, N + 1, dtype=torch.float64)
    return torch.as_tensor((eps ** (1 / rho) + (i - 1) / (N - 1) * (T ** (1 / rho) - eps ** (1 / rho))) ** rho)


def algorithm_1(f: F_theta, x_T: Tensor, T: float, tau: list[float], z: list[Tensor], eps: float) -> Tensor:
    """Multistep consistency sampling; x_T ~ N(0, T² I)."""
    x = f(x_T, T)  # line 1
    for n in range(len(tau)):  # line 2
        x_tau = x + math.sqrt(tau[n] ** 2 - eps**2) * z[n]  # lines 3-4
        x = f(x_tau, tau[n])  # line 5
    return x


def consistency_loss(
    f: F_theta, f_minus: F_theta, Phi: Callable[[Tensor, float], Tensor] | None, x: Tensor, z: Tensor, t: Tensor, n: int
) -> Tensor:
    """x - f difference of algorithm 2 (with the teacher's drift Phi: dx/dt, Euler's solver) or of algorithm 3 (without); n counts from 1."""
    x_next = x + t[n] * z  # x_{t_{n+1}} ~ N(x, t_{n+1}² I)
    x_hat = x + t[n - 1] * z if Phi is None else x_next + (t[n - 1] - t[n]) * Phi(x_next, float(t[n]))
    return f(x_next, float(t[n])) - f_minus(x_hat, float(t[n - 1]))


def algorithm_4(f: F_theta, y: Tensor, Omega: Tensor, t: list[float], z: list[Tensor], eps: float) -> Tensor:
    """Zero-shot editing with A = identity: inpainting where Omega is 1. t falls."""
    y = y * (1 - Omega) + 0 * Omega
    x = y + t[0] * z[0]
    x = y * (1 - Omega) + f(x, t[0]) * Omega
    for n in range(1, len(t)):
        x = x + math.sqrt(t[n] ** 2 - eps**2) * z[n]
        x = y * (1 - Omega) + f(x, t[n]) * Omega
    return x

"""Elucidating the Design Space of Diffusion-Based Generative Models: Karras, Aittala, Aila & Laine 2022, https://arxiv.org/abs/2206.00364.

With the paper's choice sigma(t) = t and s(t) = 1; D(x, sigma) is the denoiser. x counts towards the data: x_0 is noise, x_N data.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

D_theta = Callable[[Tensor, Tensor], Tensor]


def time_steps(N: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """(N + 1,) float64 from sigma_max to t_N = 0.

    Equation:
        t_i = (sigma_max^(1/rho) + i / (N - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,   t_N = 0
    Source:
        Karras, Aittala, Aila & Laine 2022, eq. 5, https://arxiv.org/abs/2206.00364
    """
    i = torch.arange(N, dtype=torch.float64)
    t = (sigma_max ** (1 / rho) + i / (N - 1) * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return torch.cat([t, torch.zeros(1, dtype=torch.float64)])


def algorithm_1(D: D_theta, x: Tensor, t: Tensor) -> Tensor:
    """Deterministic sampling by Heun's second order method; x is x_0 ~ N(0, t_0² I) of line 2.

    Equation:
        dx/dt = (x - D(x; t)) / t
    Source:
        Karras, Aittala, Aila & Laine 2022, algorithm 1, https://arxiv.org/abs/2206.00364
    """
    for i in range(len(t) - 1):  # line 3
        d = (x - D(x, t[i])) / t[i]  # line 4
        x_next = x + (t[i + 1] - t[i]) * d  # line 5
        if t[i + 1] != 0:  # line 6
            d_prime = (x_next - D(x_next, t[i + 1])) / t[i + 1]  # line 7
            x_next = x + (t[i + 1] - t[i]) * (d / 2 + d_prime / 2)  # line 8
        x = x_next
    return x  # line 9


def algorithm_2(
    D: D_theta, x: Tensor, t: Tensor, z: list[Tensor], S_churn: float, S_tmin: float, S_tmax: float, S_noise: float
) -> Tensor:
    """Stochastic sampling; x is x_0 ~ N(0, t_0² I) of line 2 and z[i] the standard normal noise of step i.

    Equation:
        t_hat = t + gamma t,   x_hat = x + sqrt(t_hat² - t²) S_noise z,   gamma = min(S_churn / N, sqrt(2) - 1) if t in [S_tmin, S_tmax]
    Source:
        Karras, Aittala, Aila & Laine 2022, algorithm 2, https://arxiv.org/abs/2206.00364
    """
    N = len(t) - 1
    for i in range(N):  # line 3
        gamma = min(S_churn / N, math.sqrt(2) - 1) if S_tmin <= t[i] <= S_tmax else 0.0
        eps = S_noise * z[i]  # line 4
        t_hat = t[i] + gamma * t[i]  # line 5
        x_hat = x + (t_hat**2 - t[i] ** 2).sqrt() * eps  # line 6
        d = (x_hat - D(x_hat, t_hat)) / t_hat  # line 7
        x = x_hat + (t[i + 1] - t_hat) * d  # line 8
        if t[i + 1] != 0:  # line 9
            d_prime = (x - D(x, t[i + 1])) / t[i + 1]  # line 10
            x = x_hat + (t[i + 1] - t_hat) * (d / 2 + d_prime / 2)  # line 11
    return x  # line 12

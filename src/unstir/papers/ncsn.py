"""Noise-conditional score networks: Song & Ermon 2019, https://arxiv.org/abs/1907.05600, and 2020, https://arxiv.org/abs/2006.09011.

sigma[1] > ... > sigma[L] are the noise levels (sigma[0] is not used); z[i][t] is the noise of step t = 1..T at level i. The two boxes
differ by a factor of two in what they call alpha, and by the last denoising step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STheta = Callable[[Tensor, int], Tensor]
"""(x, i) -> the score at level i."""


def loss(s_theta: STheta, x: Tensor, i: list[int], eps: Tensor, sigma: Tensor) -> Tensor:
    """Denoising score matching with lambda(sigma) = sigma²: (B,), for noise eps and levels i.

    Equation:
        1/2 lambda(sigma_i) || s_theta(x~, sigma_i) + (x~ - x) / sigma_i² ||²,   x~ = x + sigma_i eps
    Source:
        Song & Ermon 2019, eqs. 5-6, https://arxiv.org/abs/1907.05600
    """
    losses = []
    for one, n, e in zip(x, i, eps):
        noisy = one + sigma[n] * e
        error = s_theta(noisy.unsqueeze(0), n)[0] + (noisy - one) / sigma[n] ** 2
        losses.append(0.5 * sigma[n] ** 2 * error.square().sum())
    return torch.stack(losses)


def algorithm_1(s_theta: STheta, x: Tensor, z: list[list[Tensor]], sigma: Tensor, epsilon: float, T: int) -> Tensor:
    """Annealed Langevin dynamics, 2019; x is line 1's.

    Equation:
        x_t = x_{t-1} + alpha_i / 2 s_theta(x_{t-1}, sigma_i) + sqrt(alpha_i) z_t,   alpha_i = epsilon sigma_i² / sigma_L²
    Source:
        Song & Ermon 2019, algorithm 1, https://arxiv.org/abs/1907.05600
    """
    L = len(sigma) - 1
    for i in range(1, L + 1):  # line 2
        alpha = epsilon * sigma[i] ** 2 / sigma[L] ** 2  # line 3
        for t in range(1, T + 1):  # line 4
            x = x + alpha / 2 * s_theta(x, i) + alpha.sqrt() * z[i][t]  # lines 5-6
    return x


def algorithm_1_v2(
    s_theta: STheta, x: Tensor, z: list[list[Tensor]], sigma: Tensor, epsilon: float, T: int, *, denoise: bool = True
) -> Tensor:
    """Annealed Langevin dynamics, 2020; x is line 1's.

    Equation:
        x_t = x_{t-1} + alpha_i s_theta(x_{t-1}, sigma_i) + sqrt(2 alpha_i) z_t,   alpha_i = epsilon sigma_i² / sigma_L²
    Source:
        Song & Ermon 2020, algorithm 1, https://arxiv.org/abs/2006.09011
    """
    L = len(sigma) - 1
    for i in range(1, L + 1):
        alpha = epsilon * sigma[i] ** 2 / sigma[L] ** 2
        for t in range(1, T + 1):
            x = x + alpha * s_theta(x, i) + (2 * alpha).sqrt() * z[i][t]
    return x + sigma[L] ** 2 * s_theta(x, L) if denoise else x

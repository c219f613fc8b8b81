"""SDEdit: Meng, He, Song, Song, Wu, Zhu & Ermon 2022, https://arxiv.org/abs/2108.01073."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def algorithm_1(
    s_theta: Callable[[Tensor, float], Tensor],
    x_g: Tensor,
    t_0: float,
    N: int,
    sigma: Callable[[float], float],
    z: list[Tensor],
) -> Tensor:
    """Guided image synthesis and editing (VE-SDE). The box numbers no lines, so the comments quote it.

    Equation:
        x = x_g + sigma(t_0) z;   for n = N .. 1:   x <- x + eps² s_theta(x, t) + eps z,   eps = sqrt(sigma²(t) - sigma²(t - dt))
    Source:
        Meng et al. 2022, algorithm 1, https://arxiv.org/abs/2108.01073

    Args:
        x_g: the guide.
        z: z[0] is the noise of the start, z[N + 1 - n] that of step n.
    """
    dt = t_0 / N
    x = x_g + sigma(t_0) * z[0]
    for n in range(N, 0, -1):
        t = t_0 * n / N
        eps = (sigma(t) ** 2 - sigma(t - dt) ** 2) ** 0.5
        x = x + eps**2 * s_theta(x, t) + eps * z[N + 1 - n]
    return x


def released_vp(
    eps_theta: Callable[[Tensor, int], Tensor], x_g: Tensor, t_0: int, e: Tensor, z: list[Tensor], beta: Tensor
) -> Tensor:
    """The same with a DDPM, as the released code runs it ("fixedlarge", no mask).

    Equation:
        x = sqrt(alpha_bar_{t_0}) x_g + sqrt(1 - alpha_bar_{t_0}) e;   for t = t_0 .. 1:   x <- 1 / sqrt(alpha_t) (x - beta_t / sqrt(1 - alpha_bar_t) eps_theta(x, t)) + sqrt(beta_t) z
    Source:
        Meng et al. 2022, the released code (VP), https://github.com/ermongroup/SDEdit

    Args:
        e: noise of the start. z: z[t] is the noise of step t = t_0 .. 2.
        beta: with beta[0] = 0 for the data.
    """
    alpha_bar = (1 - beta).cumprod(0)
    x = x_g * alpha_bar[t_0].sqrt() + e * (1 - alpha_bar[t_0]).sqrt()
    for t in range(t_0, 0, -1):
        mean = (x - beta[t] / (1 - alpha_bar[t]).sqrt() * eps_theta(x, t)) / (1 - beta[t]).sqrt()
        x = mean + beta[t].sqrt() * (z[t] if t > 1 else torch.zeros_like(x))
    return x

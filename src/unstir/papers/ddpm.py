"""Denoising Diffusion Probabilistic Models: Ho, Jain & Abbeel 2020, https://arxiv.org/abs/2006.11239.

Tables beta and alpha_bar have T + 1 entries and the paper's indices: beta[0] = 0 and alpha_bar[0] = 1 are the data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EpsTheta = Callable[[Tensor, int], Tensor]


def algorithm_1(eps_theta: EpsTheta, x_0: Tensor, t: list[int], eps: Tensor, beta: Tensor) -> Tensor:
    """Training: the loss of each sample (B,), averaged over its entries; lines 2-4, the drawing of x_0, t and eps, are the caller's.

    Equation:
        ||eps - eps_theta(sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, t)||²
    Source:
        Ho, Jain & Abbeel 2020, algorithm 1, https://arxiv.org/abs/2006.11239
    """
    alpha_bar = (1 - beta).cumprod(0)
    losses = []
    for x, n, e in zip(x_0, t, eps):
        x_t = alpha_bar[n].sqrt() * x + (1 - alpha_bar[n]).sqrt() * e  # line 5
        losses.append((e - eps_theta(x_t.unsqueeze(0), n)[0]).square().mean())
    return torch.stack(losses)


def algorithm_2(
    eps_theta: EpsTheta, x_T: Tensor, z: list[Tensor], beta: Tensor, *, fixed_large: bool = False
) -> Tensor:
    """Sampling; z[t] is the noise of step t = T..2 (z[0] and z[1] are not used).

    Equation:
        x_{t-1} = 1 / sqrt(alpha_t) (x_t - (1 - alpha_t) / sqrt(1 - alpha_bar_t) eps_theta(x_t, t)) + sigma_t z
    Source:
        Ho, Jain & Abbeel 2020, algorithm 2 and section 3.2 (sigma_t² = beta_tilde_t, or beta_t), https://arxiv.org/abs/2006.11239
    """
    alpha = 1 - beta
    alpha_bar = alpha.cumprod(0)
    x = x_T  # line 1
    for t in range(len(beta) - 1, 0, -1):  # line 2
        z_t = z[t] if t > 1 else torch.zeros_like(x)  # line 3
        beta_tilde = (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]) * beta[t]  # eq. 7
        sigma = (beta[t] if fixed_large else beta_tilde).sqrt()
        mean = (x - (1 - alpha[t]) / (1 - alpha_bar[t]).sqrt() * eps_theta(x, t)) / alpha[t].sqrt()
        x = mean + sigma * z_t  # line 4
    return x  # line 6

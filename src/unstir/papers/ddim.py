"""Denoising Diffusion Implicit Models: Song, Meng & Ermon 2021, https://arxiv.org/abs/2010.02502.

The paper writes alpha_t for what DDPM calls alpha_bar_t, and so does this file.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor


def sample(
    eps_theta: Callable[[Tensor, int], Tensor], x: Tensor, tau: list[int], eps: list[Tensor], alpha: Tensor, eta: float
) -> Tensor:
    """Sampling along a sub-sequence of the steps; the paper has no box, only eq. 12, so the comments name its terms.

    Equation:
        x_{t-1} = sqrt(alpha_{t-1}) (x_t - sqrt(1 - alpha_t) eps_theta) / sqrt(alpha_t) + sqrt(1 - alpha_{t-1} - sigma_t²) eps_theta + sigma_t eps_t
        sigma_{tau_i}(eta) = eta sqrt((1 - alpha_{tau_{i-1}}) / (1 - alpha_{tau_i})) sqrt(1 - alpha_{tau_i} / alpha_{tau_{i-1}})
    Source:
        Song, Meng & Ermon 2021, eqs. 12 and 16, https://arxiv.org/abs/2010.02502

    Args:
        x: at time tau[-1].
        tau: the increasing sub-sequence tau_0 = 0 (the data), tau_1, ..., tau_S.
        eps: eps[i] is the noise of the step tau_i -> tau_{i-1}, i = 1..S.
        alpha: alpha[t], t = 0..T, with alpha[0] = 1.
    """
    for i in range(len(tau) - 1, 0, -1):
        a, a_next = alpha[tau[i]], alpha[tau[i - 1]]
        sigma = eta * ((1 - a_next) / (1 - a)).sqrt() * (1 - a / a_next).sqrt()  # eq. 16
        eps_t = eps_theta(x, tau[i])
        predicted_x_0 = (x - (1 - a).sqrt() * eps_t) / a.sqrt()  # eq. 12, "predicted x_0"
        direction = (1 - a_next - sigma**2).clamp(min=0).sqrt() * eps_t  # eq. 12, "direction pointing to x_t"
        noise = sigma * eps[i] if sigma > 0 else torch.zeros_like(x)  # eq. 12, "random noise"
        x = a_next.sqrt() * predicted_x_0 + direction + noise
    return x


def encode(eps_theta: Callable[[Tensor, int], Tensor], x: Tensor, tau: list[int], alpha: Tensor) -> Tensor:
    """The reverse of sampling with eta = 0: from x at time tau[0] up to time tau[-1], by Euler steps of the ODE.

    Equation:
        x_{t+dt} / sqrt(alpha_{t+dt}) = x_t / sqrt(alpha_t) + (sqrt((1 - alpha_{t+dt}) / alpha_{t+dt}) - sqrt((1 - alpha_t) / alpha_t)) eps_theta(x_t)
    Source:
        Song, Meng & Ermon 2021, eq. 13 turned round (section 4.3), https://arxiv.org/abs/2010.02502

    Args:
        x: at time tau[0] > 0.
        tau: increasing.
        alpha: alpha[t], t = 0..T, with alpha[0] = 1.
    """
    for t, t_next in itertools.pairwise(tau):
        a, a_next = alpha[t], alpha[t_next]
        d_sigma = ((1 - a_next) / a_next).sqrt() - ((1 - a) / a).sqrt()  # sigma = sqrt((1 - alpha) / alpha) of eq. 14
        x = a_next.sqrt() * (x / a.sqrt() + d_sigma * eps_theta(x, t))
    return x

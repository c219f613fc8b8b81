"""Classifier-Free Diffusion Guidance: Ho & Salimans 2022, https://arxiv.org/abs/2207.12598.

The paper's time is the log-SNR lambda = log(alpha² / sigma²), which grows towards the data; alpha² = sigmoid(lambda) = 1 - sigma².
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def algorithm_2(
    eps_c: Callable[[Tensor, int], Tensor],
    eps: Callable[[Tensor, int], Tensor],
    z_1: Tensor,
    lambda_: Tensor,
    noise: list[Tensor],
    w: float,
    v: float,
) -> Tensor:
    """Conditional sampling with classifier-free guidance; eps_c(z, t) = eps_theta(z, c) and eps(z, t) = eps_theta(z) at lambda_[t].

    Equation:
        eps_tilde = (1 + w) eps_theta(z, c) - w eps_theta(z)
        z_{t+1} ~ N(mu(z_t, x_tilde), (sigma_tilde²)^(1-v) (sigma²)^v),   x_tilde = (z_t - sigma eps_tilde) / alpha
    Source:
        Ho & Salimans 2022, algorithm 2 and eqs. 3-4, https://arxiv.org/abs/2207.12598

    Args:
        z_1: standard normal.
        lambda_: (T,) increasing.
        noise: noise[t] for the steps t = 0..T - 2; the last step draws none.
        w: guidance strength; 0 is off.
        v: interpolates the variance.
    """
    z = z_1
    T = len(lambda_)
    for t in range(T):
        eps_tilde = (1 + w) * eps_c(z, t) - w * eps(z, t)
        alpha2 = lambda_[t].sigmoid()
        x_tilde = (z - (1 - alpha2).sqrt() * eps_tilde) / alpha2.sqrt()
        if t == T - 1:
            return torch.as_tensor(x_tilde)
        alpha2_next = lambda_[t + 1].sigmoid()
        e = (lambda_[t] - lambda_[t + 1]).exp()
        mean = e * (alpha2_next / alpha2).sqrt() * z + (1 - e) * alpha2_next.sqrt() * x_tilde  # eq. 3
        small, large = (1 - e) * (1 - alpha2_next), (1 - e) * (1 - alpha2)  # sigma_tilde², sigma²
        z = mean + (small ** (1 - v) * large**v).sqrt() * noise[t]  # eq. 4
    return z

"""Hierarchical Text-Conditional Image Generation with CLIP Latents (unCLIP): Ramesh, Dhariwal, Nichol, Chu & Chen 2022, https://arxiv.org/abs/2204.06125."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

At = Callable[[Tensor, int], Tensor]


def prior(f_theta: At, beta: Tensor, z_T: Tensor, noise: list[Tensor]) -> Tensor:
    """z_i ~ P(z_i | y): ancestral sampling of the CLIP image embedding with a model that predicts the unnoised z_i directly.

    f_theta(z, t) knows the caption; noise[t] is that of step t = T..2 (the last step draws none).

    Equation:
        z^(t-1) ~ q(z^(t-1) | z^(t), z_i = f_theta(z^(t), t, y))
    Source:
        Ramesh et al. 2022, section 2.2, https://arxiv.org/abs/2204.06125; the posterior: Ho, Jain & Abbeel 2020, eqs. 6-7, https://arxiv.org/abs/2006.11239
    """
    alpha_bar, z = (1 - beta).cumprod(0), z_T
    for t in range(len(beta) - 1, 0, -1):
        z_i, before = f_theta(z, t), alpha_bar[t - 1]
        mu = (before.sqrt() * beta[t] * z_i + (1 - beta[t]).sqrt() * (1 - before) * z) / (1 - alpha_bar[t])
        z = mu + ((1 - before) / (1 - alpha_bar[t]) * beta[t]).sqrt() * noise[t]
    return z


def chosen(z_i: Tensor, z_i_2: Tensor, z_t: Tensor) -> Tensor:
    """Of two samples of the prior (B, D) the one with a higher dot product with z_t (section 2.2)."""
    return torch.stack([a if a @ t >= b @ t else b for a, b, t in zip(z_i, z_i_2, z_t, strict=True)])


def decoder(
    eps_theta: Callable[[Tensor, int, Tensor | None], Tensor], beta: Tensor, x_T: Tensor, z_i: Tensor, s: float
) -> Tensor:
    """x ~ P(x | z_i) by DDIM (eta = 0) from the DDIM latent x_T, guided by scale s: the embedding was dropped in a tenth of the training.

    Equation:
        (z_i, x_T) -> x,   eps = eps(x_t) + s (eps(x_t | z_i) - eps(x_t))
    Source:
        Ramesh et al. 2022, sections 2.1 and 3, https://arxiv.org/abs/2204.06125
    """
    alpha_bar, x = (1 - beta).cumprod(0), x_T
    for t in range(len(beta) - 1, 0, -1):
        without = eps_theta(x, t, None)
        eps = without + s * (eps_theta(x, t, z_i) - without)
        x_0 = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()
        x = alpha_bar[t - 1].sqrt() * x_0 + (1 - alpha_bar[t - 1]).sqrt() * eps
    return x


def text_diff(z_i: Tensor, z_t: Tensor, z_t0: Tensor, theta: float) -> Tensor:
    """z_theta = slerp(z_i, z_d, theta) with the text diff vector z_d = norm(z_t - z_t0), all (D,) and of length 1 (section 3.3)."""
    z_d = (z_t - z_t0) / (z_t - z_t0).norm()
    omega = torch.acos(z_i @ z_d)
    left, right = torch.sin((1 - theta) * omega) / torch.sin(omega), torch.sin(theta * omega) / torch.sin(omega)
    z_theta: Tensor = left * z_i + right * z_d
    return z_theta

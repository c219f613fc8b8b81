"""Denoising Diffusion Probabilistic Models: Ho, Jain & Abbeel 2020, https://arxiv.org/abs/2006.11239: the variational bound.

Tables beta and alpha_bar have T + 1 entries and the paper's indices: beta[0] = 0 and alpha_bar[0] = 1 are the data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EpsTheta = Callable[[Tensor, int], Tensor]


def variational_bound(
    eps_theta: EpsTheta,
    x_0: Tensor,
    eps: list[Tensor],
    beta: Tensor,
    *,
    fixed_large: bool = False,
    prior_std: float = 1.0,
) -> Tensor:
    """The terms L_0, L_1, ..., L_T of every sample, (T + 1, B) in nats; eps[t] is the noise of x_t. x_0 are whole numbers 0 ... 255 scaled
    to [-1, 1].

    Equation:
        L_T = KL(q(x_T | x_0) || p(x_T)),   L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p_theta(x_{t-1} | x_t)),   L_0 = -log p_theta(x_0 | x_1)
        p_theta(x_0 | x_1) = product over entries of the integral of N(x; mu_theta(x_1, 1), sigma_1²) from delta_-(x_0) to delta_+(x_0)
    Source:
        Ho, Jain & Abbeel 2020, eqs. 5-8, 10-11 and 13, https://arxiv.org/abs/2006.11239; sigma_1² = beta_tilde_2: the paper's code
    """
    alpha, alpha_bar, T = 1 - beta, (1 - beta).cumprod(0), len(beta) - 1
    beta_tilde = (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:]) * beta[1:]  # eq. 7; beta_tilde[t - 1] is that of step t
    terms = []
    for t in range(1, T + 1):
        x_t = alpha_bar[t].sqrt() * x_0 + (1 - alpha_bar[t]).sqrt() * eps[t]
        mean = (x_t - beta[t] / (1 - alpha_bar[t]).sqrt() * eps_theta(x_t, t)) / alpha[t].sqrt()  # eq. 11
        if t == 1:
            sigma = beta_tilde[1].sqrt()
            delta_plus = torch.where(x_0 > 0.999, torch.inf, x_0 + 1 / 255)  # eq. 13
            delta_minus = torch.where(x_0 < -0.999, -torch.inf, x_0 - 1 / 255)
            ndtr = torch.special.ndtr
            nats = -(ndtr((delta_plus - mean) / sigma) - ndtr((delta_minus - mean) / sigma)).log()
        else:
            a, b = alpha_bar[t - 1].sqrt() * beta[t], alpha[t].sqrt() * (1 - alpha_bar[t - 1])
            mean_tilde = (a * x_0 + b * x_t) / (1 - alpha_bar[t])  # eq. 7
            q, p = beta_tilde[t - 1], beta[t] if fixed_large else beta_tilde[t - 1]
            nats = 0.5 * ((mean_tilde - mean).square() / p + q / p - 1 - (q / p).log())
        terms.append(nats.flatten(1).sum(1))
    ratio = (1 - alpha_bar[T]) / prior_std**2
    prior = 0.5 * (alpha_bar[T] * x_0.square() / prior_std**2 + ratio - 1 - ratio.log())
    return torch.stack([*terms, prior.flatten(1).sum(1)])

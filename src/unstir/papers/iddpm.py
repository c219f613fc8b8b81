"""Improved Denoising Diffusion Probabilistic Models: Nichol & Dhariwal 2021, https://arxiv.org/abs/2102.09672.

The paper has no boxes; these are its equations in its symbols. Tables have T + 1 entries, alpha_bar[0] = 1 is the data; v is in [0, 1].
As in the paper's code beta_tilde of the step to the data, which is 0, is that of the step before, where its logarithm is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

EpsTheta = Callable[[Tensor, int], Tensor]


def strided(alpha_bar: Tensor, S: list[int]) -> tuple[Tensor, Tensor]:
    """beta and beta_tilde of the chain that stops at S = [0, S_1, ..., S_K] only; index i is the step S_i -> S_{i-1}.

    Equation:
        beta_{S_t} = 1 - alpha_bar_{S_t} / alpha_bar_{S_{t-1}},   beta_tilde_{S_t} = (1 - alpha_bar_{S_{t-1}}) / (1 - alpha_bar_{S_t}) beta_{S_t}
    Source:
        Nichol & Dhariwal 2021, eq. 19, https://arxiv.org/abs/2102.09672
    """
    here, before = alpha_bar[S[1:]], alpha_bar[S[:-1]]
    beta = 1 - here / before
    zero = torch.zeros(1, dtype=alpha_bar.dtype)
    return torch.cat([zero, beta]), torch.cat([zero, (1 - before) / (1 - here) * beta])


def sample(
    eps_theta: EpsTheta, v_theta: EpsTheta, x: Tensor, S: list[int], z: list[Tensor], alpha_bar: Tensor
) -> Tensor:
    """Sampling on a sub-sequence of the steps with the learned variance; z[i] is the noise of the step S_i -> S_{i-1}.

    Equation:
        Sigma_theta = exp(v log beta_t + (1 - v) log beta_tilde_t),   mu_theta = 1 / sqrt(alpha_t) (x_t - beta_t / sqrt(1 - alpha_bar_t) eps_theta)
    Source:
        Nichol & Dhariwal 2021, eqs. 13, 15 and 19, https://arxiv.org/abs/2102.09672
    """
    beta, beta_tilde = strided(alpha_bar, S)
    for i in range(len(S) - 1, 0, -1):
        mean = (x - beta[i] / (1 - alpha_bar[S[i]]).sqrt() * eps_theta(x, S[i])) / (1 - beta[i]).sqrt()
        if i == 1:
            return mean
        v = v_theta(x, S[i])
        x = mean + torch.exp(v * beta[i].log() + (1 - v) * beta_tilde[i].log()).sqrt() * z[i]
    return x


def hybrid(
    eps_theta: EpsTheta, v_theta: EpsTheta, x_0: Tensor, t: list[int], eps: Tensor, alpha_bar: Tensor, decoder_nll: Callable[[Tensor, Tensor, Tensor], Tensor], lambda_: float = 0.001
) -> Tensor:  # fmt: skip
    """L_hybrid of each sample (B,), from one step t of the chain each: L_vlb is T times that step's term, in bits for each entry.

    Equation:
        L_hybrid = L_simple + lambda L_vlb,   no gradient of L_vlb through mu_theta
    Source:
        Nichol & Dhariwal 2021, eqs. 4-7 and 16, https://arxiv.org/abs/2102.09672; the units: the paper's code

    Args:
        decoder_nll: (x_0, mean, std) -> L_0 of every entry, in nats.
    """
    T = len(alpha_bar) - 1
    beta, beta_tilde = strided(alpha_bar, list(range(T + 1)))
    losses = []
    for x, n, e in zip(x_0, t, eps):
        x_t = (alpha_bar[n].sqrt() * x + (1 - alpha_bar[n]).sqrt() * e).unsqueeze(0)
        eps_n, v = eps_theta(x_t, n)[0], v_theta(x_t, n)[0]
        x_t, tilde = x_t[0], beta_tilde[max(n, 2)]
        simple = (e - eps_n).square().mean()
        mean = (x_t - beta[n] / (1 - alpha_bar[n]).sqrt() * eps_n.detach()) / (1 - beta[n]).sqrt()
        log_variance = v * beta[n].log() + (1 - v) * tilde.log()
        if n == 1:
            L = decoder_nll(x, mean, (log_variance / 2).exp())
        else:
            a, b = alpha_bar[n - 1].sqrt() * beta[n], (1 - beta[n]).sqrt() * (1 - alpha_bar[n - 1])
            mean_tilde = (a * x + b * x_t) / (1 - alpha_bar[n])  # eq. 11
            ratio = log_variance - tilde.log()
            L = (ratio + (-ratio).exp() - 1 + (mean_tilde - mean).square() * (-log_variance).exp()) / 2
        losses.append(simple + lambda_ * T * L.mean() / math.log(2))
    return torch.stack(losses)

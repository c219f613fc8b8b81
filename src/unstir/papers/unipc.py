"""UniPC: Zhao, Bai, Rao, Zhou & Lu 2023, https://arxiv.org/abs/2302.04867, in its form for data prediction.

lambda_t = log(alpha_t / sigma_t), h_i = lambda_{t_i} - lambda_{t_{i-1}}. For data prediction the paper's functions phi become psi.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

BOfH: dict[str, Callable[[Tensor], Tensor]] = {"bh1": lambda h: h, "bh2": lambda h: 1 - torch.exp(-h)}


def psi_p(p: int, h: Tensor) -> Tensor:
    """(p,) h^n n! psi_{n+1}(h), n = 1..p, with psi_0 = exp(-h) and psi_{n+1} = (1/n! - psi_n) / h."""
    psi = [torch.exp(-h)]
    for n in range(p + 1):
        psi.append((1 / math.factorial(n) - psi[n]) / h)
    return torch.stack([h**n * math.factorial(n) * psi[n + 1] for n in range(1, p + 1)])


def a_p(r: list[Tensor], h: Tensor, B: Tensor) -> Tensor:
    """The coefficients a_1 .. a_p that belong to r_1 .. r_p; a single one is 1/2 whatever B is."""
    if len(r) == 1:
        return torch.full((1,), 0.5, dtype=h.dtype)
    R = torch.stack([(torch.stack(r) * h) ** n for n in range(len(r))])  # R_p(h)
    solution: Tensor = torch.linalg.solve(R, psi_p(len(r), h) / B)
    return solution


def sample(
    x_theta: Callable[[Tensor, int], Tensor], x_T: Tensor, alpha: Tensor, sigma: Tensor, p: int, B: str = "bh2"
) -> Tensor:
    """UniPC-p; x_theta(x, i) predicts the data at time t_i, where the scales are alpha[i], sigma[i], i = 0..M.

    Equation:
        UniP-p: x_{t_i} = sigma_{t_i} / sigma_{t_{i-1}} x^c_{t_{i-1}} + alpha_{t_i} (1 - exp(-h_i)) Q_{i-1} + alpha_{t_i} B(h_i) sum_{m=1}^{p-1} a_m / r_m D_m
        UniC-p: x^c_{t_i} = the same with the sum up to m = p, r_p = 1;   D_m = x_theta(x_{s_m}, s_m) - Q_{i-1},   s_m = t_{i-1-m} and s_p = t_i
    Source:
        Zhao, Bai, Rao, Zhou & Lu 2023, section 3 and appendix (data prediction), https://arxiv.org/abs/2302.04867
    """
    lambda_ = alpha.log() - sigma.log()
    x, Q = x_T, [x_theta(x_T, 0)]  # the buffer Q
    for i in range(1, len(alpha)):
        p_i = min(p, i)  # warm-up with lower orders
        h = lambda_[i] - lambda_[i - 1]
        base = sigma[i] / sigma[i - 1] * x + alpha[i] * (1 - torch.exp(-h)) * Q[i - 1]
        if torch.isinf(h):  # the step to the data: first order, and nothing to correct it with
            return base
        r = [(lambda_[i - 1 - m] - lambda_[i - 1]) / h for m in range(1, p_i)]
        D = [Q[i - 1 - m] - Q[i - 1] for m in range(1, p_i)]
        B_h = BOfH[B](h)
        x_tilde = base
        if p_i > 1:
            x_tilde = base + sum(alpha[i] * B_h * a_m / r_m * D_m for a_m, r_m, D_m in zip(a_p(r, h, B_h), r, D))
        if i == len(alpha) - 1:
            return x_tilde
        Q.append(x_theta(x_tilde, i))
        r, D = [*r, torch.ones_like(h)], [*D, Q[i] - Q[i - 1]]
        x = base + sum(alpha[i] * B_h * a_m / r_m * D_m for a_m, r_m, D_m in zip(a_p(r, h, B_h), r, D))
    return x

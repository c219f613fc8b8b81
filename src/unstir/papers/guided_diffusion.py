"""Diffusion Models Beat GANs on Image Synthesis: Dhariwal & Nichol 2021, https://arxiv.org/abs/2105.05233.

Tables alpha_bar have T + 1 entries and DDPM's indices: alpha_bar[0] = 1 is the data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

At = Callable[[Tensor, int], Tensor]


def algorithm_1(mu_theta: At, Sigma_theta: At, grad_log_p: At, x_T: Tensor, z: list[Tensor], s: float) -> Tensor:
    """Classifier guided diffusion sampling; grad_log_p(x, t) is the gradient of log p_phi(y | x_t), Sigma_theta a variance.

    z[t] is the noise of step t = T..1; the released code draws none in the last step, z[1] = 0.

    Equation:
        x_{t-1} ~ N(mu + s Sigma grad log p_phi(y | x_t), Sigma)
    Source:
        Dhariwal & Nichol 2021, algorithm 1, https://arxiv.org/abs/2105.05233
    """
    x = x_T  # line 1
    for t in range(len(z) - 1, 0, -1):  # line 2
        mu, Sigma = mu_theta(x, t), Sigma_theta(x, t)  # line 3
        x = mu + s * Sigma * grad_log_p(x, t) + Sigma.sqrt() * z[t]  # line 4
    return x  # line 6


def algorithm_2(eps_theta: At, grad_log_p: At, x_T: Tensor, alpha_bar: Tensor, s: float = 1.0) -> Tensor:
    """Classifier guided DDIM sampling. The box has no gradient scale; here, as in the released code, it multiplies the gradient.

    Equation:
        eps_hat = eps_theta(x_t) - sqrt(1 - alpha_bar_t) grad log p_phi(y | x_t)
        x_{t-1} = sqrt(alpha_bar_{t-1}) (x_t - sqrt(1 - alpha_bar_t) eps_hat) / sqrt(alpha_bar_t) + sqrt(1 - alpha_bar_{t-1}) eps_hat
    Source:
        Dhariwal & Nichol 2021, algorithm 2, https://arxiv.org/abs/2105.05233
    """
    x = x_T  # line 1
    for t in range(len(alpha_bar) - 1, 0, -1):  # line 2
        a, a_next = alpha_bar[t], alpha_bar[t - 1]
        eps_hat = eps_theta(x, t) - (1 - a).sqrt() * s * grad_log_p(x, t)  # line 3
        x = a_next.sqrt() * (x - (1 - a).sqrt() * eps_hat) / a.sqrt() + (1 - a_next).sqrt() * eps_hat  # line 4
    return torch.as_tensor(x)  # line 6

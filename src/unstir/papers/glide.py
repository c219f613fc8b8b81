"""GLIDE, Towards Photorealistic Image Generation and Editing with Text-Guided Diffusion Models: Nichol et al. 2022, https://arxiv.org/abs/2112.10741."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

At = Callable[[Tensor, int], Tensor]


def clip_guidance(mu_theta: At, Sigma_theta: At, f: At, g_c: Tensor, x_T: Tensor, z: list[Tensor], s: float) -> Tensor:
    """CLIP-guided sampling: f(x, t) are the image encoder's vectors of the noised pictures, g_c those of the captions, Sigma_theta a
    variance.

    z[t] is the noise of step t = T..1; the released code draws none in the last step, z[1] = 0, and scales the dot product by exp(logit_scale).

    Equation:
        mu_hat(x_t | c) = mu(x_t | c) + s Sigma(x_t | c) grad_{x_t} (f(x_t) · g(c)),   x_{t-1} ~ N(mu_hat, Sigma)
    Source:
        Nichol et al. 2022, on CLIP guidance, https://arxiv.org/abs/2112.10741
    """
    x = x_T
    for t in range(len(z) - 1, 0, -1):
        x_t = x.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad((f(x_t, t) * g_c).sum(), x_t)
        mu, Sigma = mu_theta(x, t), Sigma_theta(x, t)
        x = mu + s * Sigma * gradient + Sigma.sqrt() * z[t]
    return x

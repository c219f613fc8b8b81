"""Distribution matching distillation: Yin et al. 2024, https://arxiv.org/abs/2311.18828; with several steps, Yin et al. 2024, https://arxiv.org/abs/2405.14867."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Mu = Callable[[Tensor, Tensor], Tensor]
G = Callable[[Tensor, Tensor], Tensor]


def distributionMatchingLoss(mu_real: Mu, mu_fake: Mu, x: Tensor, eps: Tensor, sigma_t: Tensor) -> Tensor:
    """Algorithm 2, for x_t = x + sigma_t eps. Each sample's mean in place of the batch's."""
    noisy_x = x + sigma_t * eps
    pred_fake_image = mu_fake(noisy_x, sigma_t).detach()
    pred_real_image = mu_real(noisy_x, sigma_t).detach()
    weighting_factor = (x - pred_real_image).abs().mean(dim=1, keepdim=True).detach()  # eq. 8
    grad = (pred_fake_image - pred_real_image) / weighting_factor  # eq. 7
    return 0.5 * (x - (x - grad).detach()).square().mean(dim=1)


def denoising_loss(mu_fake: Mu, x: Tensor, eps: Tensor, sigma_t: Tensor) -> Tensor:
    """Eq. 6: of the fake score, unweighted."""
    return (mu_fake(x.detach() + sigma_t * eps, sigma_t) - x.detach()).square().mean(dim=1)


def backward_simulation(G: G, z: Tensor, sigmas: Tensor, eps: list[Tensor]) -> list[Tensor]:
    """2405.14867, sections 4.4 and 4.5: what the generator is shown at each of its stops, in sampling and in training."""
    x_t = [sigmas[0] * z]
    for sigma, sigma_next, noise in zip(sigmas[:-1], sigmas[1:], eps, strict=True):
        x_t.append((G(x_t[-1], sigma) + sigma_next * noise).detach())
    return x_t

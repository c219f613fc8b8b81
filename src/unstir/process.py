"""The first word: a Process, the way in which data turn into noise.

A process is two functions of time, the signal scale alpha(t) and the noise scale sigma(t):

    q(x_t | x_0) = N(alpha(t) x_0, sigma(t)² I),    t = 0 is data (alpha = 1, sigma = 0),    t = t_max is noise.

Everything else in this file is derived from the two, once, for all processes. t keeps the unit of the paper the process comes
from: 1..T for DDPM, [0, 1] for the SDEs, sigma itself for EDM. (Papers on flow matching turn time round: their t is our 1 - t.)

Times are float64 tensors on the CPU, a scalar or one per sample; only ``scales`` brings their coefficients to where the data are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def broadcast(coefficient: Tensor, like: Tensor) -> Tensor:
    """A coefficient () or (B,) in the dtype, device and number of axes of ``like`` (B, ...).

    A scalar stays on the CPU: PyTorch multiplies it into a tensor on any device without a transfer to wait for.
    """
    if coefficient.ndim == 0:
        return coefficient.to(like.dtype)
    return coefficient.to(like.dtype).to(like.device).reshape(-1, *[1] * (like.ndim - 1))


def _derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """d function / dt at every entry of t; each entry of the result depends on its own t alone."""
    # Backwards, because forward mode (torch.func.jvp) warns of torch.jit's deprecation at its first use.
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        value = function(t)
        if not value.requires_grad:  # the function is constant
            return torch.zeros_like(value)
        return torch.autograd.grad(value.sum(), t)[0]


@dataclass(frozen=True)
class Process(ABC):
    """q(x_t | x_0) = N(alpha(t) x_0, sigma(t)² I).

    A new process is a frozen dataclass with ``alpha``, ``sigma`` and ``t_max``, and a line in ``PROCESSES`` (processes.py). sigma / alpha must
    grow with t, alpha(0) = 1 and sigma(0) = 0.
    """

    @property
    @abstractmethod
    def t_max(self) -> float:
        """Where sampling starts."""

    @property
    def t_min(self) -> float:
        """The smallest time at which a network is trained or asked."""
        return 0.0

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The signal scale, in the shape of t."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The noise scale (a standard deviation), in the shape of t."""

    def snap(self, t: Tensor) -> Tensor:
        """The nearest time the process knows; a process in steps rounds to a whole step."""
        return t

    def time_of_fraction(self, u: Tensor) -> Tensor:
        """u in [0, 1) -> t, so that uniform u gives uniform t between t_min and t_max."""
        return self.t_min + u * (self.t_max - self.t_min)

    def fitted(self, x_0: Tensor) -> Process:
        """This process with what it leaves open taken from samples of the data (N, *shape); most leave nothing open."""
        return self

    # ---- derived, once for all -------------------------------------------------------------------------------------------

    def scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha(t), sigma(t)), ready to be multiplied into ``like`` (B, ...)."""
        return broadcast(self.alpha(t), like), broadcast(self.sigma(t), like)

    def add_noise(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Jumps from data to time t.

        Equation:
            x_t = alpha_t x_0 + sigma_t eps
        Source:
            Ho, Jain & Abbeel 2020, eq. 4, https://arxiv.org/abs/2006.11239
        """
        alpha, sigma = self.scales(t, x_0)
        return alpha * x_0 + sigma * eps

    def log_snr(self, t: Tensor) -> Tensor:
        """The logarithm of the signal-to-noise ratio; +inf at data, -inf at pure noise.

        Equation:
            lambda(t) = log(alpha_t² / sigma_t²)
        Source:
            Kingma, Salimans, Poole & Ho 2021, eq. 2, https://arxiv.org/abs/2107.00630
        """
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def t_at_log_snr(self, log_snr: Tensor) -> Tensor:
        """The time at which ``log_snr`` is reached, by bisection; clamped to [0, t_max] where it never is."""
        log_snr = torch.as_tensor(log_snr, dtype=torch.float64)
        low, high = torch.zeros_like(log_snr), torch.full_like(log_snr, self.t_max)
        for _ in range(80):  # halves 2^10 down to the last bit of a float64 near t = 1e-6
            middle = (low + high) / 2
            noisier = self.log_snr(middle) < log_snr
            low, high = torch.where(noisier, low, middle), torch.where(noisier, middle, high)
        middle = (low + high) / 2
        middle = torch.where(log_snr >= self.log_snr(torch.zeros_like(log_snr)), torch.zeros_like(middle), middle)
        return torch.where(log_snr <= self.log_snr(torch.full_like(log_snr, self.t_max)), self.t_max, middle)

    def t_at_noise_ratio(self, ratio: Tensor) -> Tensor:
        """The time at which sigma / alpha, the noise level in EDM's sense, is ``ratio``."""
        return self.t_at_log_snr(-2 * torch.as_tensor(ratio, dtype=torch.float64).log())

    def drift(self, t: Tensor) -> Tensor:
        """The coefficient f(t) of the forward SDE dx = f(t) x dt + g(t) dw.

        Equation:
            f(t) = d log alpha / dt
        Source:
            Kingma, Salimans, Poole & Ho 2021, appendix B; Song et al. 2021, eq. 5, https://arxiv.org/abs/2011.13456
        """
        return _derivative(self.alpha, t) / self.alpha(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """The coefficient g(t)² of the forward SDE dx = f(t) x dt + g(t) dw.

        Equation:
            g(t)² = d sigma² / dt - 2 f(t) sigma²
        Source:
            Kingma, Salimans, Poole & Ho 2021, appendix B; Song et al. 2021, eq. 5, https://arxiv.org/abs/2011.13456
        """
        return _derivative(lambda t: self.sigma(t).square(), t) - 2 * self.drift(t) * self.sigma(t).square()

    def transition_std(self, t: Tensor, s: Tensor) -> Tensor:
        """The standard deviation of one forward step s -> t; for DDPM's process sqrt(beta_t).

        Equation:
            q(x_t | x_s) = N(alpha_t / alpha_s x_s, std²),   std² = sigma_t² - (alpha_t / alpha_s)² sigma_s²
        Source:
            Kingma, Salimans, Poole & Ho 2021, appendix A.1, https://arxiv.org/abs/2107.00630; Ho et al. 2020, eq. 2
        """
        ratio = self.alpha(t) / self.alpha(s)
        return (self.sigma(t).square() - (ratio * self.sigma(s)).square()).clamp(min=0).sqrt()

    def posterior_std(self, t: Tensor, s: Tensor) -> Tensor:
        """The standard deviation of q(x_s | x_t, x_0) for s < t; for DDPM's process sqrt(beta_tilde_t).

        Equation:
            std = sigma_s / sigma_t · transition_std(t, s)
        Source:
            Ho, Jain & Abbeel 2020, eq. 7, https://arxiv.org/abs/2006.11239
        """
        return self.sigma(s) / self.sigma(t) * self.transition_std(t, s)

    def prior_std(self) -> float:
        """The standard deviation of the noise that sampling starts from."""
        return float(self.sigma(torch.tensor(self.t_max, dtype=torch.float64)))

    def prior_sample(self, eps: Tensor, t: Tensor | None = None) -> Tensor:
        """Standard normal noise (B, ...) -> x_t at t_max, or at the time t at which a grid starts instead.

        At t the data still show; what they add is taken to be of unit variance, so that a variance-preserving process starts
        from the same noise everywhere, as in DDIM, and one that explodes from as much as there is at t.
        """
        if t is None:
            return self.prior_std() * eps
        end = torch.tensor(self.t_max, dtype=torch.float64)
        norm = self.alpha(t).hypot(self.sigma(t)) / self.alpha(end).hypot(self.sigma(end))
        return broadcast(norm, eps) * self.prior_std() * eps

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B,) log density in nats of the prior N(0, sigma(t_max)² I)."""
        std = self.prior_std()
        terms = -0.5 * (x / std).square() - math.log(std) - 0.5 * math.log(2 * math.pi)
        return terms.flatten(1).sum(1)

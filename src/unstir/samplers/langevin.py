"""Langevin dynamics: a random walk that, with nothing but the score, finds its way to the distribution at one noise level; and
annealed, level after level, a sampler.

Steps are measured in the noise: e = step / sigma_t². In terms of what is believed to be noise, score = -eps / sigma, a step is

    x <- x - e sigma_t eps + sqrt(2 e) sigma_t z

which says the same in every process's own scale: with e = 1 all believed noise is taken away, and sqrt(2) of as much put in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.ladder import langevin_step_size
from unstir.prediction import Prediction
from unstir.process import Process, broadcast
from unstir.samplers.ancestral import mean_toward
from unstir.sampling import Cond, Memory, SampleNoise, Sampler


def langevin_step(prediction: Prediction, step_size: float | Tensor, z: Tensor) -> Tensor:
    """One step of unadjusted Langevin dynamics; the noise level stays.

    Its stationary distribution is that of x_t up to the step's own error: a Gaussian of variance v comes out with
    v / (1 - e sigma² / (2 v)).

    Equation:
        x <- x + alpha score + sqrt(2 alpha) z,   alpha = e sigma_t²
    Source:
        Song & Ermon 2020, algorithm 1, line 6, https://arxiv.org/abs/2006.09011; Song & Ermon 2019, eq. 4 with epsilon = 2 alpha

    Args:
        prediction: at x. step_size: e, a number or a tensor that broadcasts to x. z: standard normal noise.
    """
    step = torch.as_tensor(step_size, dtype=prediction.x_t.dtype)
    return prediction.x_t - step * prediction.sigma * prediction.eps + (2 * step).sqrt() * prediction.sigma * z


def langevin(
    denoiser: Denoiser,
    x: Tensor,
    t: Tensor,
    *,
    step_size: float,
    repeats: int,
    rng: SampleNoise,
    cond: Cond | None = None,
) -> Tensor:
    """A walk of so many steps at noise level t > 0, from x (B, ...) towards q(x_t), with any denoiser's score.

    Args:
        step_size: e of ``langevin_step``: small enough for the accuracy wanted, of order 1 / repeats for any change to be seen.
    """
    for _ in range(repeats):
        x = langevin_step(denoiser(x, t, **(cond or {})), step_size, rng.normal_like(x))
    return x


def _level(process: Process, t: Tensor) -> float:
    """sigma / alpha: infinite where nothing is left of the data."""
    return float(process.sigma(t) / process.alpha(t))


@dataclass(frozen=True)
class AnnealedLangevin(Sampler):
    """Langevin dynamics at every noise level of the grid, from the highest to the lowest.

    A step t -> s walks at level t and hands x on to level s as it is. "As it is" means x / alpha, which for the papers' ladder
    (alpha = 1) is x itself; from alpha = 0, where x / alpha does not exist, DDIM's step hands it on instead.

    The defaults are NCSNv2's. NCSN's own: repeats 100, step-size 0.1, no denoise (and a ladder of 10 levels).

    Equation:
        at each level, repeats times:   x <- x + alpha_i score + sqrt(2 alpha_i) z,   alpha_i = e sigma_i²,   e = epsilon / sigma_L²
        at the end:   x <- x + sigma_L² score = x_0(x, sigma_L)
    Source:
        Song & Ermon 2019, algorithm 1 (whose alpha_i is twice ours), https://arxiv.org/abs/1907.05600; Song & Ermon 2020, algorithm 1, https://arxiv.org/abs/2006.09011
    """

    repeats: int = 5
    """T: Langevin steps at each noise level."""
    step_size: float = 0.0
    """e = epsilon / sigma_L²: the steps' size, in units of the noise. 0: NCSNv2's technique 4, from the grid's ratio and repeats."""
    denoise: bool = True
    """End with the believed data (NCSNv2), not with x, which still has the lowest level's noise (NCSN)."""

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        process = denoiser.process
        step_size = self.step_size or langevin_step_size(self._ratio(process, t, s, memory), self.repeats)
        x = langevin(denoiser, x_t, t, step_size=step_size, repeats=self.repeats, rng=rng, cond=cond)
        if process.alpha(t) == 0 or (self.denoise and process.sigma(s) == 0):
            return mean_toward(process, denoiser(x, t, **cond), s, torch.zeros_like(s))
        return broadcast(process.alpha(s) / process.alpha(t), x) * x

    @staticmethod
    def _ratio(process: Process, t: Tensor, s: Tensor, memory: Memory) -> float:
        """gamma: how much higher the level was from which x came; at the first level, by how much the next is lower."""
        here, below = _level(process, t), _level(process, s)
        above = float(memory.get("level", math.inf))
        memory["level"] = here
        if math.isfinite(above):
            return above / here
        return here / below if below > 0 and math.isfinite(here) else math.inf

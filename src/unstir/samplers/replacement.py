"""Samplers around samplers for a sample of which a part is known: the known part of x_s is what q(x_s | x_0) says it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.sampling import Cond, Memory, SampleNoise, Sampler


@dataclass(frozen=True, eq=False)  # tensors don't compare to one truth
class Known:
    """What is known of a sample: its projection on some directions, orthogonal to each other, of the space of samples.

    A known part of pixels is the case of a mask, known greys in a picture whose colours are not known the case of one direction
    in the space of colours. The two projections add up to the identity; they are given apart so that what is known of
    pixels stays exact to the bit.

    Equation:
        y = A x_0 with A A^T = I,   project(x) = A^T A x,   complement(x) = x - A^T A x
    Source:
        Song et al. 2021, appendix I (conditional sampling by projections), https://arxiv.org/abs/2011.13456

    Args:
        x_0: (1, *shape) or (B, *shape) in model units, any sample with the known part; the rest of it is never looked at.
        project: (B, *shape) -> its part in the known directions.
        complement: the part in all others.
    """

    x_0: Tensor
    project: Callable[[Tensor], Tensor]
    complement: Callable[[Tensor], Tensor]

    def put(self, x: Tensor, source: Tensor) -> Tensor:
        """x with its known part taken from ``source``."""
        return self.project(source) + self.complement(x)


@dataclass(frozen=True, eq=False)
class Replacement(Sampler):
    """After each step of another sampler, the known part is replaced by known data with the noise of that time.

    What is not known sees the known part at every step, but the noise of the two is of different origin, so that they agree only
    roughly: ``RePaint`` repeats the steps until they do.

    Equation:
        x_s <- A^T A (alpha_s y + sigma_s eps) + (I - A^T A) x_s,   eps ~ N(0, I)
    Source:
        Song & Ermon 2019, algorithm 2 (inpainting), https://arxiv.org/abs/1907.05600; Song et al. 2021, appendix I.2, https://arxiv.org/abs/2011.13456

    Args:
        inner: the sampler that steps.
        known: what is known.
    """

    inner: Sampler
    known: Known

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        x_s = self.inner.step(denoiser, x_t, t, s, cond, memory, rng)
        if denoiser.process.sigma(s) == 0:
            return self.known.put(x_s, self.known.x_0)
        return self.known.put(x_s, denoiser.process.add_noise(self.known.x_0, s, rng.normal_like(x_t)))

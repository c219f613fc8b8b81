"""RePaint's resampling: the same stretch of the way down, again and again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.process import Process, broadcast
from unstir.sampling import Cond, Memory, SampleNoise, Sampler


def go_up(process: Process, x_s: Tensor, s: Tensor, t: Tensor, rng: SampleNoise) -> Tensor:
    """x_s -> x_t at a noisier time, by the forward process.

    Equation:
        x_t = alpha_t / alpha_s x_s + transition_std(t, s) z
    Source:
        Ho, Jain & Abbeel 2020, eq. 2, https://arxiv.org/abs/2006.11239
    """
    std = broadcast(process.transition_std(t, s), x_s)
    return broadcast(process.alpha(t) / process.alpha(s), x_s) * x_s + std * rng.normal_like(x_s)


@dataclass(frozen=True, eq=False)
class RePaint(Sampler):
    """Walks every stretch of ``jump`` steps ``resamplings`` times: after each walk down but the last, the forward process goes up again.

    Around ``Replacement`` it gives the unknown part the time to come to terms with the known one. The last step, to the data, is
    made once. It costs (K - 1) resamplings + 1 steps instead of K.

    Equation:
        for u = 1 .. U:   x_s ~ inner(x_t);   if u < U:   x_t ~ q(x_t | x_s)
    Source:
        Lugmayr, Danelljan, Romero, Yu, Timofte & Van Gool 2022, algorithm 1 (jump = 1) and section 4.2, https://arxiv.org/abs/2201.09865

    Args:
        inner: the sampler that steps, ``Replacement`` around any other.
        resamplings: the paper's U (its released code and diffusers call it jump_n_sample).
        jump: the paper's j, in steps of the grid. The steps before the data make a shorter stretch where they don't fill one.
    """

    inner: Sampler
    resamplings: int = 10
    jump: int = 1

    def __post_init__(self) -> None:
        if self.resamplings < 1 or self.jump < 1:
            raise ValueError("RePaint's resamplings and jump must be at least 1")

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        stretch: list[Tensor] = memory.setdefault("stretch", [])  # times of the stretch behind x_t, which ends at t
        inner: Memory = memory.setdefault("inner", {})
        # A stretch is repeated when the next begins, because only then is it known whether the data come next.
        if len(stretch) == self.jump or (stretch and s == 0):
            for _ in range(self.resamplings - 1):
                inner.clear()  # a multistep method's past lies ahead again
                x_t = go_up(denoiser.process, x_t, t, stretch[0], rng)
                for high, low in itertools.pairwise([*stretch, t]):
                    x_t = self.inner.step(denoiser, x_t, high, low, cond, inner, rng)
            stretch.clear()
        stretch.append(t)
        return self.inner.step(denoiser, x_t, t, s, cond, inner, rng)

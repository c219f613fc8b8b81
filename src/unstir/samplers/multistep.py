"""Multistep solvers: the polynomial goes through the beliefs of the steps before, so that a step asks the denoiser once."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.process import broadcast
from unstir.samplers.exponential import Expansion, advance, node
from unstir.sampling import Cond, Memory, SampleNoise, Sampler


class Multistep(Sampler):
    """A step of the exponential Adams-Bashforth method that ``scheme`` describes. Orders grow from 1 in the first step.

    First order also in steps over an infinite stretch of the expansion's variable (to the data, or from alpha = 0).
    """

    @abstractmethod
    def scheme(self) -> tuple[Expansion, int]:
        """Which belief is a polynomial in what, and through how many places it goes."""

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        expansion, order = self.scheme()
        process = denoiser.process
        here = denoiser(x_t, t, **cond)
        std = expansion.std(process, t, s)
        past = memory.get("past", [])
        x_s = advance(expansion, process, here, t, s, past, std)
        memory["past"] = [node(expansion, process, here, t), *past][: order - 1]
        return x_s + broadcast(std, x_t) * rng.normal_like(x_t) if std > 0 else x_s

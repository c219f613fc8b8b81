"""The one sampling loop, as a generator, and the noise that makes every sample its own.

Everything that samples (the command line, animations, evaluation, distillation) iterates ``trajectory``.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.prediction import Prediction
from unstir.process import Process

Cond = dict[str, Tensor]
"""Conditions by name, (B, ...) each."""
Memory = dict[str, Any]
"""What a multistep sampler remembers of the steps before; fresh for each run."""

_MASK = (1 << 64) - 1


def mix_seed(*parts: int) -> int:
    """Hashes whole numbers into one 64-bit seed, so that nearby inputs give unrelated streams.

    Source:
        splitmix64: Steele, Lea & Flood 2014, https://doi.org/10.1145/2660193.2660195
    """
    state = 0
    for part in parts:
        state = (state + (part & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


class SampleNoise:
    """Random numbers for a batch in which sample i's depend on (seed, i, how many draws came before) alone.

    So sample 7 is the same whether 8 or 64 are drawn, in whatever batches, on however many devices. Drawn on the CPU, which
    gives the same numbers everywhere.

    Args:
        seed: of the run.
        indices: the samples' numbers, one per row of the batch.
        total: how many samples there are in all, where these are one process's share of a batch; by default just these.
    """

    def __init__(self, seed: int, indices: Sequence[int], total: int | None = None) -> None:
        self.seed = seed
        self.indices = list(indices)
        self.total = total or len(self.indices)
        self.draws = 0

    def _streams(self) -> Iterator[np.random.Generator]:
        """A stream for each sample. Philox is a function of (key, counter) with 64 bits for each of seed, sample and draw, so no
        two streams ever meet; PyTorch's generator keeps 32 bits of a seed, which 50,000 samples would share by chance.
        """
        self.draws += 1
        bits = np.random.Philox(key=np.array([self.seed & _MASK, 0], np.uint64))  # a list would go through float64
        generator, state = np.random.Generator(bits), bits.state
        for index in self.indices:  # one generator put in another state: a fourth of the time of a new one
            state["state"]["key"][1] = index
            state["state"]["counter"][:] = (0, 0, 0, self.draws)
            bits.state = state
            yield generator

    def normal(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """(len(indices), *shape) standard normal noise, float32 or float64."""
        kind = np.float64 if dtype == torch.float64 else np.float32
        rows = [stream.standard_normal(tuple(shape), dtype=kind) for stream in self._streams()]
        return torch.from_numpy(np.stack(rows))

    def normal_like(self, x: Tensor) -> Tensor:
        """Standard normal noise in the shape, dtype and on the device of x (B, ...), B = len(indices)."""
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        return self.normal(x.shape[1:], dtype).to(x.device, x.dtype)

    def uniform(self) -> Tensor:
        """(len(indices),) float64 in [0, 1)."""
        return torch.tensor([stream.random() for stream in self._streams()], dtype=torch.float64)


class Sampler(ABC):
    """The third word: a step from x_t to x_s, s < t (or s > t where noise is not drawn). A new sampler is a frozen dataclass and a line in ``SAMPLERS``."""

    @abstractmethod
    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        """x_t (B, ...) at time t -> x_s at time s.

        Args:
            denoiser: the belief; its ``process`` has alpha and sigma.
            t, s: float64 CPU scalars; s = 0 is the data. s < t, or s > t > 0 when a solver of the ODE encodes.
            cond: conditions, passed on to the denoiser.
            memory: for multistep methods, empty at the first step of a run and theirs to fill.
            rng: fresh noise.
        """

    def leave_data(self, denoiser: Denoiser, x_0: Tensor, s: Tensor, cond: Cond) -> Tensor:
        """The data x_0 (B, ...) -> x_s, the first step of encoding.

        The noise is what the denoiser finds at s, not at the data, where it was never trained: this undoes the last step of
        decoding, x_0 = x_0(x_s, s), up to fourth order in sigma_s.

        Equation:
            x_s = alpha_s x_0 + sigma_s eps(alpha_s x_0, s)
        Source:
            Song, Meng & Ermon 2021, section 4.3 (encoding by the reversed ODE), https://arxiv.org/abs/2010.02502
        """
        alpha, sigma = denoiser.process.scales(s, x_0)
        signal = alpha * x_0
        return signal + sigma * denoiser(signal, s, **cond).eps


class Grid(ABC):
    """Where a sampler stops on its way: decreasing times from the process's t_max to 0."""

    @abstractmethod
    def times(self, process: Process, steps: int) -> Tensor:
        """(steps + 1,) float64, from t_max to 0."""


@dataclass(frozen=True)
class Step:
    """What one step of the loop did: x_t at time t became x_s at time s, what the denoiser first said on the way, and how often
    it was asked."""

    index: int
    t: Tensor
    x_t: Tensor
    prediction: Prediction
    s: Tensor
    x_s: Tensor
    evaluations: int = 1


class _Witness(Denoiser):
    """Passes every question on, counts them and keeps the first answer, so that samplers need not hand it over."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser
        self.first: Prediction | None = None
        self.asked = 0

    def forget(self) -> None:
        self.first, self.asked = None, 0

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        prediction = self.denoiser(x_t, t, **cond)
        self.first = self.first or prediction
        self.asked += 1
        return prediction


def trajectory(
    denoiser: Denoiser,
    sampler: Sampler,
    times: Tensor,
    x: Tensor,
    rng: SampleNoise,
    cond: Cond | None = None,
) -> Iterator[Step]:
    """Walks x (B, ...) along the times, yielding every step. The loop of all samplers.

    Args:
        denoiser: with its guidance already around it.
        times: (K + 1,) decreasing, or increasing for a deterministic sampler to walk up (``encode`` does); x is at ``times[0]``.
        x: ``process.prior_sample`` of noise, or data noised to ``times[0]``.
        rng: fresh noise for stochastic samplers.
        cond: conditions by name, (B, ...) each.

    Raises:
        ValueError: unless the times are strictly monotone.
    """
    steps = times.diff()
    if not bool((steps < 0).all() or (steps > 0).all()):
        raise ValueError(f"sampling times must be strictly monotone; got {times.tolist()}")
    cond = cond or {}
    memory: Memory = {}
    witness = _Witness(denoiser)
    for index, (t, s) in enumerate(itertools.pairwise(times)):
        witness.forget()
        with (
            torch.no_grad()
        ):  # around the step only: a generator must not leave the caller in another mode between steps
            x_s = sampler.step(witness, x, t, s, cond, memory, rng)
        assert witness.first is not None
        yield Step(index, t, x, witness.first, s, x_s, witness.asked)
        x = x_s


def sample(
    denoiser: Denoiser,
    sampler: Sampler,
    times: Tensor,
    x: Tensor,
    rng: SampleNoise,
    cond: Cond | None = None,
) -> Tensor:
    """The end of ``trajectory``: x at the last of the times."""
    return end(trajectory(denoiser, sampler, times, x, rng, cond))


def encode(
    denoiser: Denoiser,
    sampler: Sampler,
    times: Tensor,
    x: Tensor,
    rng: SampleNoise,
    cond: Cond | None = None,
) -> Tensor:
    """The latent of data: ``sample`` walked backwards, from the data up to ``times[0]``, where ``sample`` begins again.

    The times are a grid's, decreasing, as for ``sample``. From the data to the last positive one goes ``Sampler.leave_data``;
    from there ``trajectory`` walks up.

    Args:
        denoiser: with its guidance already around it.
        sampler: a deterministic one: ddim with eta = 0, euler and heun without churn, rk45.
        times: (K + 1,) decreasing to the data, or to the time before it.
        x: data (B, ...) in model units.
        rng: is not drawn from.
        cond: conditions by name, (B, ...) each.

    Returns:
        (B, ...) at ``times[0]``.

    Raises:
        ValueError: unless the times decrease strictly, or if the sampler draws noise.
    """
    if not bool((times.diff() < 0).all()):
        raise ValueError(f"the times of the walk to be reversed must decrease strictly; got {times.tolist()}")
    up, draws = times[times > 0].flip(0), rng.draws
    if not len(up):
        raise ValueError("there is no time above the data to encode to")
    with torch.no_grad():
        x = sampler.leave_data(denoiser, x, up[0], cond or {})
    if len(up) > 1:
        x = end(trajectory(denoiser, sampler, up, x, rng, cond))
    if rng.draws != draws:
        raise ValueError(f"{sampler} draws noise; only a deterministic sampler can encode")
    return x


def end(steps: Iterator[Step]) -> Tensor:
    """Walks a trajectory of at least one step to its end."""
    x: Tensor | None = None
    for step in steps:
        x = step.x_s
    assert x is not None
    return x

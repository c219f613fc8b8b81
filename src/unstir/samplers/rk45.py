"""The probability-flow ODE with an adaptive solver: as accurate as asked for, in as many evaluations as that takes.

It is solved in the angle phi = atan2(sigma, alpha), from 0 at the data to at most pi/2 at pure noise, for y = x / sqrt(alpha² + sigma²),
which has unit scale everywhere. There every process is the same unit circle,

    dy/dphi = cos(phi) eps - sin(phi) x_0 = v,

finite and smooth at both ends, so that alpha = 0 and sigma = 0 are points like any other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.integrate import State, dormand_prince
from unstir.process import Process, broadcast
from unstir.samplers.ode import along
from unstir.sampling import Cond, Memory, SampleNoise, Sampler

CLEANEST = 1e-3
"""Noise level sigma / alpha below which nothing is left to solve: the belief there is the data, up to its square."""


def _angle(process: Process, t: Tensor) -> Tensor:
    return torch.atan2(process.sigma(t), process.alpha(t))


def lowest(process: Process) -> Tensor:
    """The time from which one step goes on to the data: the process's t_min, or CLEANEST if that is later."""
    return process.t_at_noise_ratio(torch.tensor(CLEANEST, dtype=torch.float64)).clamp(min=process.t_min)


def flow(denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, cond: Cond, rtol: float, atol: float) -> Tensor:
    """Where the probability-flow ODE carries x (B, ...) from time t to s, up or down, within the tolerances.

    Equation:
        dy/dphi = v = cos(phi) eps - sin(phi) x_0,   y = x / sqrt(alpha² + sigma²),   phi = atan2(sigma, alpha)
    Source:
        Song et al. 2021, eq. 13, https://arxiv.org/abs/2011.13456; Salimans & Ho 2022, appendix D (the angle), https://arxiv.org/abs/2202.00512

    Args:
        t, s: float64 CPU scalars. rtol, atol: of y, at every step.
    """
    process = denoiser.process
    begin, end = _angle(process, t), _angle(process, s)

    def slope(phi: Tensor, state: State) -> State:
        y = state[0]
        time = process.t_at_log_snr(-2 * phi.tan().log())
        time = torch.where(
            phi == begin, t, torch.where(phi == end, s, time)
        )  # there the inverse may have lost the last digits
        norm = broadcast(process.alpha(time).hypot(process.sigma(time)), y)
        belief = denoiser(norm * y, time, **cond)
        return (broadcast(phi.cos(), y) * belief.eps - broadcast(phi.sin(), y) * belief.x_0,)

    norm_t, norm_s = (broadcast(process.alpha(r).hypot(process.sigma(r)), x) for r in (t, s))
    solution = dormand_prince(slope, (x / norm_t,), float(begin), float(end), rtol, atol)
    return norm_s * solution.y[0]


@dataclass(frozen=True)
class RK45(Sampler):
    """The probability-flow ODE by Dormand & Prince's method of order 5(4), whose steps follow the tolerances: the grid only says where
    to stop on the way, and each stop costs some evaluations. Every sample has steps of its own.

    Below the process's t_min, where no network was trained, or a noise level of 1e-3 one step goes on to the data: the belief there.
    Walks up as well (encoding).

    Equation:
        dx = x_0 dalpha + eps dsigma,   solved so that the error of each step is at most atol + rtol |y|
    Source:
        Song et al. 2021, section 4.3 and appendix D.4, https://arxiv.org/abs/2011.13456
    """

    rtol: float = 1e-5
    """Relative tolerance of every step."""
    atol: float = 1e-5
    """Absolute tolerance of every step, in units of sqrt(alpha² + sigma²)."""

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond, memory: Memory, rng: SampleNoise
    ) -> Tensor:
        process, x = denoiser.process, x_t
        low = lowest(process).minimum(t)
        if s >= low:
            return flow(denoiser, x, t, s, cond, self.rtol, self.atol)
        if t > low:
            x = flow(denoiser, x, t, low, cond, self.rtol, self.atol)
        return x + along(process, denoiser(x, low, **cond), low, s)

    def leave_data(self, denoiser: Denoiser, x_0: Tensor, s: Tensor, cond: Cond) -> Tensor:
        first = lowest(denoiser.process).minimum(s)
        x = super().leave_data(denoiser, x_0, first, cond)
        return flow(denoiser, x, first, s, cond, self.rtol, self.atol) if s > first else x

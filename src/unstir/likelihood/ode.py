"""The exact likelihood of the model that draws noise and follows the probability-flow ODE down to the data.

The ODE is walked up, from data to noise, in the coordinates in which it is the same for every process and regular at both ends: x at
unit scale, y = x_t / sqrt(alpha² + sigma²), over log-SNR. There noise and data are two legs of a right angle, and y moves by

    dy / dlambda = -1/2 sin cos (cos eps - sin x_0),   cos² = sigmoid(lambda), sin² = sigmoid(-lambda)

which dies out exponentially towards either end, however steep alpha and sigma are there in the process's own time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.integrate import State, dormand_prince
from unstir.process import Process, broadcast
from unstir.sampling import SampleNoise

FURTHEST = (
    20.0  # log-SNR beyond which networks cannot tell noise levels apart, and the ends of some processes are infinite
)
EXACT = 16  # numbers in a sample up to which the trace is computed instead of estimated


@dataclass(frozen=True)
class OdeLikelihood:
    """What the ODE says of data.

    Args:
        log_prob: (B,) log density in model units, in nats; float64.
        latent: (B, ...) where the data come from, at t_max, in the process's coordinates.
        evaluations: of the denoiser, each for the whole batch.
    """

    log_prob: Tensor
    latent: Tensor
    evaluations: int


def _velocity(denoiser: Denoiser, y: Tensor, log_snr: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
    """dy / dlambda at log-SNR (B,)."""
    process = denoiser.process
    t = process.t_at_log_snr(log_snr).clamp(process.t_min, process.t_max)
    x_t = broadcast(process.alpha(t).hypot(process.sigma(t)), y) * y
    prediction = denoiser(x_t, t, **cond)
    cos, sin = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
    step = -0.5 * sin * cos
    return broadcast(step * cos, y) * prediction.eps - broadcast(step * sin, y) * prediction.x_0


def _trace(velocity: Tensor, y: Tensor, probes: Tensor | None) -> Tensor:
    """(B,) the trace of d velocity / d y: estimated with probes (P, B, ...), or exact without.

    Equation:
        tr J = E[e^T J e] for any e with mean 0 and covariance I
    Source:
        Song et al. 2021, eq. 40, https://arxiv.org/abs/2011.13456; Skilling 1989, Hutchinson 1990
    """
    if probes is not None:
        products = [
            (torch.autograd.grad(velocity, y, probe, retain_graph=True)[0] * probe).flatten(1).sum(1)
            for probe in probes
        ]
        return torch.stack(products).mean(0)
    entries = velocity.flatten(1).unbind(1)
    diagonal = [
        torch.autograd.grad(entry.sum(), y, retain_graph=True)[0].flatten(1)[:, k] for k, entry in enumerate(entries)
    ]
    return torch.stack(diagonal).sum(0)


def ends(process: Process) -> tuple[float, float]:
    """Log-SNR of the data's end and of the noise's end."""
    t = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
    low, high = process.log_snr(t).clamp(-FURTHEST, FURTHEST).tolist()
    return low, high


def draw_probes(rng: SampleNoise, x: Tensor, count: int, kind: str = "rademacher") -> Tensor:
    """(count, B, ...) directions in which the trace is taken: signs, or normal numbers ("gaussian"). Signs vary less."""
    draws = torch.stack([rng.normal_like(x) for _ in range(count)])
    return PROBES[kind](draws)


PROBES: dict[str, Callable[[Tensor], Tensor]] = {
    "rademacher": lambda z: torch.where(z < 0, -torch.ones_like(z), torch.ones_like(z)),
    "gaussian": lambda z: z,
}


def ode_likelihood(
    denoiser: Denoiser,
    x_0: Tensor,
    probes: Tensor | None,
    cond: Mapping[str, Tensor] | None = None,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    noise: float = 0.0,
    prior: Callable[[Tensor], Tensor] | None = None,
) -> OdeLikelihood:
    """The log density of data under the probability-flow ODE, which ends a little above the data, where x_0 is taken to be x_t / alpha.

    Equation:
        log p(x(0)) = log p_T(x(T)) + integral from 0 to T of div f(x(t), t) dt,   f the ODE's velocity
    Source:
        Song et al. 2021, eqs. 13 and 39, https://arxiv.org/abs/2011.13456; Chen et al. 2018, theorem 1, https://arxiv.org/abs/1806.07366

    Args:
        denoiser: what the ODE believes. Clipping may be around it: its flow has corners, but it is still one to one.
        x_0: (B, ...) in model units.
        probes: (P, B, ...) from ``draw_probes``, the same along the whole way; None: the exact trace, at as many times the cost as a
            sample has numbers.
        cond: conditions by name, (B, ...) each.
        rtol, atol: tolerances of the solver, of y and of the log density of each of its numbers.
        noise: noise level sigma / alpha at which the ODE ends; by default, and at least, that of t_min.
        prior: (B, ...) at t_max -> (B,) log density in nats; by default the process's.

    Raises:
        UserError: the solver does not get through.
    """
    process, given = denoiser.process, cond or {}
    start, stop = ends(process)
    start = min(start, -2 * math.log(noise)) if noise else start
    size = x_0[0].numel()

    def slope(log_snr: Tensor, state: State) -> State:
        with torch.enable_grad():
            y = state[0].detach().requires_grad_()
            velocity = _velocity(denoiser, y, log_snr, given)
            trace = _trace(velocity, y, probes)
        return velocity.detach(), trace.detach() / size  # of each number: as large as y's own entries

    cos = torch.sigmoid(torch.tensor(start, dtype=torch.float64)).sqrt()
    y = x_0.detach() * float(cos)
    solution = dormand_prince(slope, (y, torch.zeros_like(y.flatten(1)[:, 0])), start, stop, rtol, atol)
    y_end, gained = solution.y
    t = process.t_at_log_snr(torch.tensor(stop, dtype=torch.float64))
    norm = process.alpha(t).hypot(process.sigma(t))
    latent = y_end * float(norm)
    log_prior = (prior or process.prior_log_prob)(latent.double()).cpu()
    log_prob = log_prior + size * (gained.double().cpu() + norm.log() + cos.log())
    return OdeLikelihood(log_prob, latent, solution.evaluations)

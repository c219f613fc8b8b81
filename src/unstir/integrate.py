"""Adaptive integration of ordinary differential equations, in which every sample keeps its own clock.

Samples that share a batch do not share steps, so that what comes out for one of them does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir.errors import UserError
from unstir.process import broadcast

State = tuple[Tensor, ...]
"""What moves: tensors (B, ...) each."""
Slope = Callable[[Tensor, State], State]
"""(time (B,) float64 on the CPU, state) -> the state's derivative, in the state's shapes."""

NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
"""The last row is the fifth-order solution itself, so that its slope is the first of the next step."""
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""Fifth-order weights minus fourth-order ones."""
SAFETY, SLOWEST, FASTEST = 0.9, 0.2, 10.0
SHORTEST = 1e-12  # step, as a fraction of the way: nothing smooth asks for it


@dataclass(frozen=True)
class Solution:
    """Where an integration ended, and what it cost.

    Args:
        y: the state at the end.
        evaluations: calls of the slope, each for the whole batch.
        steps: (B,) steps that each sample took.
    """

    y: State
    evaluations: int
    steps: Tensor


def dormand_prince(
    f: Slope, y: State, a: float, b: float, rtol: float = 1e-5, atol: float = 1e-5, *, limit: int = 10_000
) -> Solution:
    """Solves dy/dt = f(t, y) from time a to b, in either direction, with steps as long as the tolerances allow.

    The error of a step is estimated for every sample: the root mean square over the entries of each tensor in units of
    atol + rtol |y|, the largest of the state's tensors. Where a slope is not finite the step is tried again, shorter.

    Equation:
        y' = y + h sum_i b_i k_i,   k_i = f(t + c_i h, y + h sum_j a_ij k_j),   error = h sum_i (b_i - b*_i) k_i,   h' = 0.9 h error^(-1/5)
    Source:
        Dormand & Prince 1980, table 2 (RK5(4)7M), https://doi.org/10.1016/0771-050X(80)90013-3; Hairer, Norsett & Wanner 1993, section II.4 (the step)

    Args:
        f: the slope. y: the state at time a, a tuple of tensors (B, ...). a, b: times.
        rtol, atol: relative and absolute tolerance of each step.
        limit: most rounds of steps, taken or tried.

    Raises:
        UserError: it did not arrive.
    """
    end = torch.tensor(float(b), dtype=torch.float64)
    t = torch.full((len(y[0]),), float(a), dtype=torch.float64)
    steps = torch.zeros(len(t), dtype=torch.int64)
    if a == b or not len(t):
        return Solution(y, 0, steps)
    first = f(t, y)
    h, tried = _first_step(f, t, y, first, end, rtol, atol), torch.zeros(len(t), dtype=torch.bool)
    for round_ in range(limit + 1):
        left = end - t
        if bool((left == 0).all()):
            return Solution(y, 2 + round_ * len(STAGES), steps)
        if round_ == limit:
            break
        last = h.abs() >= left.abs()
        h = torch.where(last, left, h)  # 0 for those that have arrived: they stay where they are
        slopes = [first]
        for node, row in zip(NODES, STAGES, strict=True):
            trial = _advance(y, h, row, slopes)
            slopes.append(f(torch.where(last & (node == 1), end, t + node * h), trial))
        error = _norm(_change(h, ERROR, slopes), _scales(rtol, atol, y, trial)).nan_to_num(nan=torch.inf)
        taken = error <= 1
        steps += taken & (left != 0)
        y, first = _choose(taken, trial, y), _choose(taken, slopes[-1], first)
        t = torch.where(taken, torch.where(last, end, t + h), t)
        factor = (SAFETY * error.clamp(min=1e-12) ** -0.2).clamp(SLOWEST, FASTEST)
        h = h * torch.where(taken & ~tried, factor, factor.clamp(max=1))
        tried = ~taken  # the step after one that was too long does not grow
        if bool(((h.abs() < SHORTEST * abs(b - a)) & (t != end)).any()):
            break
    raise UserError(
        f"the adaptive solver did not get from {a:g} to {b:g}: {int((t != end).sum())} of {len(t)} samples are stuck, the first at "
        f"{float(t[t != end][0]):g}.\nThe slope is not finite there, or not smooth enough for rtol {rtol:g} and atol {atol:g}: raise them"
    )


def _change(h: Tensor, weights: tuple[float, ...], slopes: list[State]) -> State:
    """h sum_i weights_i slopes_i."""
    change = tuple(torch.zeros_like(part) for part in slopes[0])
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            change = tuple(total.add(part, alpha=weight) for total, part in zip(change, slope, strict=True))
    return tuple(broadcast(h, total) * total for total in change)


def _advance(y: State, h: Tensor, weights: tuple[float, ...], slopes: list[State]) -> State:
    return tuple(part + change for part, change in zip(y, _change(h, weights, slopes), strict=True))


def _choose(which: Tensor, yes: State, no: State) -> State:
    """Sample by sample."""
    return tuple(
        torch.where(which.to(p.device).reshape(-1, *[1] * (p.ndim - 1)), p, q) for p, q in zip(yes, no, strict=True)
    )


def _scales(rtol: float, atol: float, *states: State) -> State:
    """What an error of 1 is, from the largest of the states."""
    return tuple(
        atol + rtol * torch.stack([part.abs() for part in parts]).amax(0) for parts in zip(*states, strict=True)
    )


def _norm(state: State, scales: State) -> Tensor:
    """(B,) float64 on the CPU: the root mean square of each tensor in units of its scale, the largest of them."""
    ratios = [(part / scale).reshape(len(part), -1) for part, scale in zip(state, scales, strict=True)]
    return torch.stack([ratio.double().square().mean(1).sqrt().cpu() for ratio in ratios]).amax(0)


def _first_step(f: Slope, t: Tensor, y: State, slope: State, end: Tensor, rtol: float, atol: float) -> Tensor:
    """(B,) a first step, with its sign: one evaluation tells how fast the slope changes."""
    way, scales = end - t, _scales(rtol, atol, y)
    size, speed = _norm(y, scales), _norm(slope, scales)
    h = torch.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed).minimum(way.abs())
    ahead = f(t + h * way.sign(), _advance(y, h * way.sign(), (1.0,), [slope]))
    difference = tuple(a - b for a, b in zip(ahead, slope, strict=True))
    bend = _norm(difference, scales) / h
    steepest = speed.maximum(bend)
    smooth = torch.where(steepest <= 1e-15, (h * 1e-3).clamp(min=1e-6), (0.01 / steepest.clamp(min=1e-15)) ** 0.2)
    return (100 * h).minimum(smooth).minimum(way.abs()).nan_to_num(nan=0.0).clamp(min=1e-9) * way.sign()

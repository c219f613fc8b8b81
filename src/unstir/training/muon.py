"""Muon: steps of equal length in all directions of a weight matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(gradient: Tensor, steps: int, dtype: torch.dtype | None = None) -> Tensor:
    """The nearest (semi-)orthogonal matrix, roughly: singular values come out between about 0.7 and 1.2.

    Equation:
        X <- a X + (b X X^T + c (X X^T)²) X,   from X = G / |G|,   (a, b, c) = (3.4445, -4.7750, 2.0315)
    Source:
        Jordan et al. 2024, "Muon: an optimizer for hidden layers", https://kellerjordan.github.io/posts/muon/

    Args:
        gradient: (..., out, in), any number of matrices of one shape.
        steps: of the Newton-Schulz iteration; 5 is the usual number.
        dtype: of the arithmetic, by default the gradient's; bfloat16 is enough, since the result is rough anyway.

    Returns:
        in the shape and dtype of ``gradient``.
    """
    a, b, c = NEWTON_SCHULZ
    tall = gradient.shape[-2] > gradient.shape[-1]
    X: Tensor = (gradient.mT if tall else gradient).to(dtype or gradient.dtype)  # the smaller Gram matrix
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-12)
    for _ in range(steps):
        A = X @ X.mT
        X = a * X + (b * A + c * (A @ A)) @ X
    X = X.to(gradient.dtype)
    return X.mT if tall else X


def _all_rows(matrices: Any) -> Tensor:
    """Sharded matrices, of which each process has some rows, with all rows on every process; others as they are."""
    if not hasattr(matrices, "redistribute"):  # slow to import, and not everyone's, so only where there are shards
        return matrices  # type: ignore[no-any-return]
    from torch.distributed.tensor import Replicate

    return matrices.redistribute(placements=[Replicate()])  # type: ignore[no-any-return]


class Muon(torch.optim.Optimizer):
    """Muon for the matrices inside a network, Adam for everything else.

    Equation:
        m <- mu m + g,   W <- W - lr · 0.2 sqrt(max(out, in)) · orthogonalize(g + mu m)
    Source:
        Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; the scale: Liu et al. 2025, section 2.2, https://arxiv.org/abs/2502.16982

    Args:
        inner: weights (out, in, ...) to be stepped by Muon.
        others: all other parameters, stepped by Adam.
        lr: Adam's learning rate. lr_scale: Muon's, as a multiple of it.
        momentum: mu. steps, dtype: of the Newton-Schulz iteration. betas: Adam's.
    """

    def __init__(
        self,
        inner: Iterable[Tensor],
        others: Iterable[Tensor],
        lr: float,
        *,
        lr_scale: float = 1.5,
        momentum: float = 0.95,
        steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.99),
        dtype: torch.dtype | None = None,
    ) -> None:
        self.dtype = dtype
        groups = [
            {"params": list(inner), "lr_scale": lr_scale, "inner": True},
            {"params": list(others), "inner": False},
        ]
        defaults = {"lr": lr, "lr_scale": 1.0, "momentum": momentum, "steps": steps, "betas": betas, "time": 0}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step along the gradients that are there."""
        assert closure is None
        for group in self.param_groups:
            group["time"] += 1
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients: list[Tensor] = [p.grad for p in parameters]
            (self._muon if group["inner"] else self._adam)(parameters, gradients, group)

    def _moments(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        for p in parameters:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in parameters]

    def _muon(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        means = self._moments(parameters, "mean")
        torch._foreach_mul_(means, group["momentum"])
        torch._foreach_add_(means, gradients)
        ahead = torch._foreach_add(gradients, means, alpha=group["momentum"])
        same: dict[
            torch.Size, list[int]
        ] = {}  # matrices of one shape are worked on together: far fewer, larger products
        for i, p in enumerate(parameters):
            same.setdefault(p.shape, []).append(i)
        for shape, members in same.items():
            matrices = torch.stack([ahead[i].flatten(1) for i in members])
            matrices = _all_rows(matrices)
            length = 0.2 * max(matrices.shape[1:]) ** 0.5
            steps = orthogonalize(matrices, group["steps"], self.dtype).reshape(-1, *shape)
            torch._foreach_add_([parameters[i] for i in members], list(steps), alpha=-group["lr"] * length)

    def _adam(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        (beta_1, beta_2), t = group["betas"], group["time"]
        means, squares = self._moments(parameters, "mean"), self._moments(parameters, "square")
        torch._foreach_lerp_(means, gradients, 1 - beta_1)
        torch._foreach_mul_(squares, beta_2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta_2)
        scales = torch._foreach_sqrt(squares)
        torch._foreach_div_(scales, (1 - beta_2**t) ** 0.5)
        torch._foreach_add_(scales, 1e-8)
        torch._foreach_addcdiv_(parameters, means, scales, -group["lr"] / (1 - beta_1**t))

"""What is left of a sample around a hole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir.conditioning.derived.derived import Derived
from unstir.data.spec import Condition, DataSpec
from unstir.errors import UserError
from unstir.sampling import SampleNoise


def places(grid: Sequence[int]) -> Tensor:
    """(P, rank) float32: the middle of every place of a grid, in units of its longest side."""
    longest = max(grid)
    axes = [(torch.arange(n, dtype=torch.float32) + 0.5) / longest for n in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(grid))


def inside_box(at: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Which places at (P, rank) lie in boxes with the corners low, high (B, rank): (B, P) bool."""
    return ((at >= low.unsqueeze(1)) & (at < high.unsqueeze(1))).all(-1)


def near_strokes(at: Tensor, points: Tensor, radius: Tensor) -> Tensor:
    """Which places at (P, rank) lie no further than radius (B,) from the lines through points (B, V, rank): (B, P) bool."""
    near = torch.zeros(len(points), len(at), dtype=torch.bool)
    for start, end in zip(points[:, :-1].unbind(1), points[:, 1:].unbind(1), strict=True):  # (B, rank) each
        along = (end - start).unsqueeze(1)  # (B, 1, rank)
        from_start = at - start.unsqueeze(1)  # (B, P, rank)
        share = (from_start * along).sum(-1, keepdim=True) / along.square().sum(-1, keepdim=True).clamp(min=1e-12)
        distance = (from_start - share.clamp(0, 1) * along).norm(dim=-1)  # (B, P)
        near |= distance <= radius.unsqueeze(1)
    return near


@dataclass(frozen=True)
class Hole(Derived):
    """The sample around a hole, ``known``, with NaN in the hole. In training the hole is a box or a brush stroke at random.

    Source:
        Nichol et al. 2022, on image inpainting (random regions of training examples are erased), https://arxiv.org/abs/2112.10741
    """

    boxes: float = 0.5
    """Share of the holes that are boxes; the others are brush strokes."""
    smallest: float = 0.25
    """Smallest side of a box, as a share of the sample's side."""
    largest: float = 0.75
    """Largest side of a box."""
    strokes: int = 4
    """Straight pieces of a brush stroke."""
    thickness: float = 0.15
    """Of a brush at its thickest, as a share of the longest side; at its thinnest half of it."""

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest <= 1 or not 0 <= self.boxes <= 1:
            raise UserError(
                "derived: 0 < smallest <= largest <= 1 are shares of a side, and boxes is a share of the holes"
            )
        if self.strokes < 1 or not 0 < self.thickness <= 1:
            raise UserError("derived.strokes must be at least 1, and derived.thickness a share of the longest side")

    def holes(self, grid: Sequence[int], rng: SampleNoise) -> Tensor:
        """(B, 1, *grid) bool: a random hole for each of the rng's samples."""
        rank, sides = len(grid), torch.tensor(grid, dtype=torch.float32) / max(grid)
        count = 2 + 2 * rank + rank * (self.strokes + 1)
        u = torch.special.ndtr(rng.normal((count,), torch.float64)).to(torch.float32)  # (B, count) in [0, 1]
        kind, thick, size, corner, points = u.split((1, 1, rank, rank, rank * (self.strokes + 1)), 1)
        at = places(grid)
        size = (self.smallest + (self.largest - self.smallest) * size) * sides  # (B, rank)
        low = corner * (sides - size)
        box = inside_box(at, low, low + size)  # (B, P)
        radius = self.thickness * (1 + thick[:, 0]) / 4  # (B,)
        stroke = near_strokes(at, points.reshape(len(u), -1, rank) * sides, radius)  # (B, P)
        return torch.where(kind < self.boxes, box, stroke).reshape(-1, 1, *grid)

    def declare(self, spec: DataSpec) -> dict[str, Condition]:
        if spec.rank == 0:
            raise UserError(
                f"{spec.kind} have no place for a hole; --derived hole is for signals, pictures and volumes"
            )
        return {"known": Condition("grid", 0, shape=spec.shape)}

    def training(self, x_0: Tensor, rng: SampleNoise) -> dict[str, Tensor]:
        return {"known": x_0.masked_fill(self.holes(x_0.shape[2:], rng).to(x_0.device), float("nan"))}

    def given(self, picture: Tensor, spec: DataSpec) -> dict[str, Tensor]:
        """The picture itself: whoever asks has put NaN where the hole is."""
        return {"known": picture}

    def like(self, picture: Tensor, spec: DataSpec) -> dict[str, Tensor]:
        """Nothing: around no hole, all would be known."""
        return {}

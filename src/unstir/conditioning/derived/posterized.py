"""A picture in a few flat colours, somewhat like a segmentation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unstir.conditioning.derived.derived import Derived
from unstir.conditioning.derived.filters import blurred
from unstir.data.spec import Condition, DataSpec
from unstir.errors import UserError
from unstir.sampling import SampleNoise


def quantised(x: Tensor, levels: Tensor) -> Tensor:
    """Each number of x (B, ...) in [-1, 1] to the nearest of so many evenly spaced ones, both ends among them.

    Equation:
        y = 2 round(u (L - 1)) / (L - 1) - 1,   u = clip((x + 1) / 2, 0, 1)
    Source:
        Gersho & Gray 1992, "Vector Quantization and Signal Compression" (the uniform quantiser)

    Args:
        levels: (B,) at least 2.
    """
    steps = (levels - 1).to(x).reshape(-1, *[1] * (x.ndim - 1))
    u = ((x + 1) / 2).clamp(0, 1)
    return 2 * ((u * steps + 0.5).floor() / steps) - 1  # halves go up


@dataclass(frozen=True)
class Posterized(Derived):
    """Regions of flat colour, ``regions``: the picture smoothed, then each channel in a few levels."""

    levels: int = 3
    """Levels of each channel."""
    most_levels: int = 0
    """Training draws the number of levels evenly between ``levels`` and this, so that one model takes them all (0: always ``levels``)."""
    blur: float = 1.5
    """Standard deviation, in pixels, of the Gaussian that smooths the picture first; 0: none."""

    def __post_init__(self) -> None:
        if self.levels < 2 or self.blur < 0:
            raise UserError(
                f"derived.levels must be at least 2 and derived.blur at least 0, not {self.levels} and {self.blur:g}"
            )
        if self.most_levels and self.most_levels < self.levels:
            raise UserError(
                f"derived.most_levels {self.most_levels} must be at least derived.levels {self.levels} (or 0)"
            )

    def of(self, x_0: Tensor, levels: Tensor) -> Tensor:
        """Pictures (B, C, *grid) in [-1, 1] -> the same in flat colours, of ``levels`` (B,) for each channel."""
        return quantised(blurred(x_0, self.blur), levels)

    def declare(self, spec: DataSpec) -> dict[str, Condition]:
        if spec.bounds != (-1.0, 1.0) or spec.rank == 0:
            raise UserError(
                f"regions of flat colour are those of pictures of bytes, and these data are {spec.kind} of {spec.dtype}; "
                "choose another --derived"
            )
        return {"regions": Condition("grid", 0, shape=spec.shape)}

    def training(self, x_0: Tensor, rng: SampleNoise) -> dict[str, Tensor]:
        levels = torch.full((len(x_0),), self.levels)
        if self.most_levels:
            levels = levels + (rng.uniform() * (self.most_levels - self.levels + 1)).long()
        return {"regions": self.of(x_0, levels)}

    def given(self, picture: Tensor, spec: DataSpec) -> dict[str, Tensor]:
        return {"regions": self.of(picture, torch.full((len(picture),), self.levels))}

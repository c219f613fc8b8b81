"""Edges: where the lightness changes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unstir.conditioning.derived.derived import Derived
from unstir.conditioning.derived.filters import along, blurred, grey
from unstir.data.spec import Condition, DataSpec
from unstir.errors import UserError
from unstir.sampling import SampleNoise

SMOOTH = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
SLOPE = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64) / 2
TINY = 1e-12  # the root's derivative at a picture without edges would be infinite


def sobel(y: Tensor) -> Tensor:
    """The slope (B, 1, H, W) of a picture (B, 1, H, W), in its own units a pixel.

    Equation:
        |grad y| = sqrt(g_x² + g_y²),   g_x = (1 2 1)^T / 4 * (-1 0 1) / 2 * y
    Source:
        Sobel & Feldman 1968, "A 3x3 isotropic gradient operator for image processing"
    """
    g_x = along(along(y, SMOOTH, 0), SLOPE, 1)  # (B, 1, H, W)
    g_y = along(along(y, SMOOTH, 1), SLOPE, 0)  # (B, 1, H, W)
    return (g_x.square() + g_y.square() + TINY).sqrt()  # (B, 1, H, W)


@dataclass(frozen=True)
class Edges(Derived):
    """The outlines of a picture: one channel ``edges``, 0 where it is smooth, up to 1 where its lightness jumps.

    It can be differentiated, so it is at once a condition to ask for and a measure of how well a sample has it.

    Equation:
        tanh(strength |grad (G * y)|),   y the lightness in [0, 1], G a Gaussian
    Source:
        Canny 1986 (a Gaussian, then the gradient's magnitude; without its thinning and thresholds), https://doi.org/10.1109/TPAMI.1986.4767851
    """

    blur: float = 0.7
    """Standard deviation, in pixels, of the Gaussian that smooths the picture first; 0: none."""
    strength: float = 8.0
    """How soon an edge counts as one: a slope of 1 / strength of the range a pixel gives 0.76."""

    def __post_init__(self) -> None:
        if self.blur < 0 or self.strength <= 0:
            raise UserError(
                f"derived.blur must be at least 0 and derived.strength positive, not {self.blur:g} and {self.strength:g}"
            )

    def of(self, x_0: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] -> their edges (B, 1, H, W) in [0, 1]."""
        y = (grey(x_0) + 1) / 2
        return (self.strength * sobel(blurred(y, self.blur))).tanh()

    def declare(self, spec: DataSpec) -> dict[str, Condition]:
        if spec.kind != "image":
            raise UserError(f"edges are those of pictures, and these data are {spec.kind}; choose another --derived")
        return {"edges": Condition("grid", 0, shape=(1, *spec.shape[1:]))}

    def training(self, x_0: Tensor, rng: SampleNoise) -> dict[str, Tensor]:
        return {"edges": self.of(x_0)}

    def given(self, picture: Tensor, spec: DataSpec) -> dict[str, Tensor]:
        return {"edges": self.of(picture)}

    def of_picture(self, name: str, pixels: Tensor, spec: DataSpec) -> Tensor:
        return pixels  # black where there is no edge, white where there is one

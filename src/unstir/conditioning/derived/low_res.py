"""A smaller copy of the sample, with noise: what the stages of a cascade are conditioned on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unstir.conditioning.derived.derived import Derived
from unstir.data.spec import Condition, DataSpec
from unstir.errors import UserError
from unstir.process import broadcast
from unstir.sampling import SampleNoise

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def small_grid(grid: Sequence[int], factor: int) -> tuple[int, ...]:
    """The sizes of a grid that is so many times smaller, rounded up."""
    return tuple(-(-n // factor) for n in grid)


def shrunk(x: Tensor, factor: int) -> Tensor:
    """(B, C, *grid) -> (B, C, *small_grid): the mean over blocks of ``factor`` in every direction, as the data loader shrinks pictures
    by whole numbers. A block that reaches over the edge is filled by repeating it.

    Equation:
        y_i = mean of x_j over the block f i <= j < f (i + 1)
    Source:
        Ho, Saharia, Chan, Fleet, Norouzi & Salimans 2022 (cascading pipelines), https://arxiv.org/abs/2106.15282
    """
    grid = x.shape[2:]
    missing = [-n % factor for n in grid]
    if any(missing):
        x = F.pad(x, [m for n in reversed(missing) for m in (0, n)], mode="replicate")
    small = small_grid(grid, factor)
    blocks = x.reshape(*x.shape[:2], *[k for n in small for k in (n, factor)])  # (B, C, n_1, f, n_2, f, ...)
    return blocks.mean(tuple(range(3, blocks.ndim, 2)))  # (B, C, *small)


def enlarged(x: Tensor, factor: int, grid: Sequence[int]) -> Tensor:
    """(B, C, *small) -> (B, C, *grid): so many times larger by linear interpolation in every direction, cut to the grid."""
    x = F.interpolate(x, scale_factor=float(factor), mode=LINEAR[x.ndim - 2], align_corners=False)
    for axis, n in enumerate(grid, start=2):
        x = x.narrow(axis, 0, n)
    return x


def augment(low_res: Tensor, level: Tensor, eps: Tensor) -> Tensor:
    """Gaussian noise on a low-resolution condition, so that a stage learns not to trust its details.

    The level is the time of a variance-preserving cosine process: 0 leaves the condition as it is, 1 leaves nothing of it.

    Equation:
        z = cos(pi s / 2) low_res + sin(pi s / 2) eps
    Source:
        Saharia et al. 2022, section 2.4 (noise conditioning augmentation), https://arxiv.org/abs/2205.11487; Ho, Saharia et al. 2022 (Gaussian conditioning augmentation), https://arxiv.org/abs/2106.15282

    Args:
        level: (B,) in [0, 1].
        eps: like low_res (B, ...).
    """
    angle = level.cpu().double() * (math.pi / 2)  # in two steps: MPS has no float64
    return broadcast(angle.cos(), low_res) * low_res + broadcast(angle.sin(), low_res) * eps


@dataclass(frozen=True)
class LowRes(Derived):
    """A copy so many times smaller, enlarged again, with noise: ``low_res``; and the noise's level: ``low_res_level``.

    Source:
        Ho, Saharia, Chan, Fleet, Norouzi & Salimans 2022 (conditioning augmentation), https://arxiv.org/abs/2106.15282
    """

    factor: int = 2
    """How many times smaller the copy is, in every direction."""
    max_level: float = 0.5
    """Training adds noise of a level drawn evenly from 0 to this; 0: none is ever added. Imagen: 1, which is nothing but noise."""
    level: float = 0.1
    """Level of the noise that sampling adds (at most max_level); the more, the less is taken from the smaller picture."""

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise UserError(f"derived.factor must be at least 2, not {self.factor}")
        for name in ("max_level", "level"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"derived.{name} must lie between 0 and 1, not {getattr(self, name):g}")

    def enlarge(self, small: Tensor, spec: DataSpec) -> Tensor:
        """Smaller samples (B, C, *small_grid) -> ``low_res`` (B, *shape), without noise.

        Raises:
            UserError: samples of another size.
        """
        wanted = (spec.shape[0], *small_grid(spec.shape[1:], self.factor))
        if tuple(small.shape[1:]) != wanted:
            raise UserError(
                f"a smaller copy of these data has the shape {'x'.join(map(str, wanted))}, not {'x'.join(map(str, small.shape[1:]))}"
            )
        return enlarged(small, self.factor, spec.shape[1:])

    def declare(self, spec: DataSpec) -> dict[str, Condition]:
        if spec.rank == 0:
            raise UserError(
                f"there is no smaller copy of {spec.kind}; --derived low-res is for signals, pictures and volumes"
            )
        if max(spec.shape[1:]) < 2 * self.factor:
            raise UserError(
                f"samples of {'x'.join(map(str, spec.shape[1:]))} cannot be made {self.factor} times smaller"
            )
        return {
            "low_res": Condition("grid", 0, shape=spec.shape, always=True),
            "low_res_level": Condition("vector", 1, ("level",), always=True),
        }

    def training(self, x_0: Tensor, rng: SampleNoise) -> dict[str, Tensor]:
        clean = enlarged(shrunk(x_0, self.factor), self.factor, x_0.shape[2:])
        level = (self.max_level * rng.uniform()).to(torch.float32)
        return {"low_res": self._noised(clean, level, rng), "low_res_level": level.unsqueeze(1)}

    def given(self, picture: Tensor, spec: DataSpec) -> dict[str, Tensor]:
        return {"low_res": enlarged(shrunk(picture, self.factor), self.factor, picture.shape[2:])}

    def at_sampling(self, cond: dict[str, Tensor], rng: SampleNoise) -> dict[str, Tensor]:
        """Adds noise of the level that is asked for, or else of ``level``.

        Raises:
            UserError: a level that the model was not trained with.
        """
        if "low_res" not in cond:
            return cond
        clean = cond["low_res"]
        level = cond.get("low_res_level", clean.new_full((len(clean), 1), min(self.level, self.max_level)))
        if not bool(((level >= 0) & (level <= self.max_level)).all()):
            raise UserError(
                f"low_res_level must lie between 0 and {self.max_level:g}, up to which this model was trained"
            )
        return {**cond, "low_res": self._noised(clean, level[:, 0], rng), "low_res_level": level}

    def picture_grid(self, name: str, spec: DataSpec) -> tuple[int, ...]:
        return small_grid(spec.shape[1:], self.factor)

    def of_picture(self, name: str, pixels: Tensor, spec: DataSpec) -> Tensor:
        return self.enlarge(2 * pixels - 1, spec)

    def _noised(self, clean: Tensor, level: Tensor, rng: SampleNoise) -> Tensor:
        """The noise is that of the small picture. Enlarging is linear, so it may as well be added to the large one."""
        small = rng.normal((clean.shape[1], *small_grid(clean.shape[2:], self.factor))).to(clean)
        return augment(clean, level, enlarged(small, self.factor, clean.shape[2:]))

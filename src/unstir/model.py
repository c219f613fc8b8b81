"""A trained model, ready to sample: a Denoiser with the recipe it was trained by and the data it was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unstir.data import Condition, DataSpec
from unstir.denoiser import NetDenoiser
from unstir.errors import UserError, did_you_mean
from unstir.recipes import Recipe, SamplingConfig
from unstir.recipes.serial import entry
from unstir.samplers import GRIDS, SAMPLERS
from unstir.sampling import Grid, SampleNoise, Sampler, Step, end, trajectory

SHOWN = {"image": 64, "signal": 32, "volume": 32, "points": 2000}
"""Samples in a picture, by kind of data, where nobody said how many."""
_LABEL_SEED = 0x1ABE1  # keeps the draw of a sample's label apart from the draws of its noise


class Model:
    """A denoiser, what it was trained on and how.

    Args:
        denoiser: with the averaged weights; ``model.denoiser`` is the fourth word of the library, use it anywhere.
        spec: shape, units and conditions of the data.
        recipe: its ``sampling`` section holds the defaults of ``sample``.
    """

    def __init__(self, denoiser: NetDenoiser, spec: DataSpec, recipe: Recipe) -> None:
        self.denoiser = denoiser.eval()
        self.spec = spec
        self.recipe = recipe

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    def to(self, device: torch.device | str) -> Model:
        """Moves the weights."""
        self.denoiser.to(device)
        return self

    # ---- conditions --------------------------------------------------------------------------------------------------

    def condition(self, name: str) -> Condition:
        """What this model can be asked for under this name.

        Raises:
            UserError: nothing of that name, with what there is.
        """
        known = {key: value for key, value in self.spec.conditions.items() if value.kind != "text"}
        if name not in known:
            there = did_you_mean(name, known) if known else "it was trained without conditions"
            raise UserError(f"this model takes no condition '{name}'; {there}")
        return known[name]

    def _rows(self, name: str, value: Any, indices: Sequence[int]) -> Tensor:
        """A condition as the user gave it -> one row for each of these samples.

        One value (a class's name or number, a vector) is for all samples; a list or tensor of several is taken in turn.
        """
        condition = self.condition(name)
        if isinstance(value, str):
            rows = condition.parse(value).unsqueeze(0)
        elif isinstance(value, list | tuple) and any(isinstance(one, str) for one in value):
            rows = torch.stack([condition.parse(str(one)) for one in value])
        else:
            kind = torch.int64 if condition.kind == "class" else torch.float32
            rows = torch.as_tensor(value).to(kind)
            rows = rows if rows.ndim > (condition.kind == "vector") else rows.unsqueeze(0)
        if condition.kind == "class" and (rows.ndim != 1 or bool(((rows < -1) | (rows >= condition.size)).any())):
            raise UserError(f"{name} must lie between 0 and {condition.size - 1} (-1: none); got {rows.tolist()}")
        if condition.kind == "vector" and rows.shape[1:] != (condition.size,):
            raise UserError(f"{name} takes {condition.size} numbers; got {list(rows.shape[1:])}")
        rows = condition.to_model(rows)
        return rows[torch.tensor(indices) % len(rows)]

    def _default_labels(self, condition: Condition, how: str, seed: int, indices: Sequence[int]) -> Tensor:
        if condition.frequencies and how != "none":
            edges = torch.tensor(condition.frequencies, dtype=torch.float64).cumsum(0)
            drawn = torch.searchsorted(edges, SampleNoise(seed ^ _LABEL_SEED, indices).uniform(), right=True)
            return drawn.clamp(max=condition.size - 1)  # the last edge may be a rounding error below 1
        if how == "cycle":
            return torch.tensor(indices) % condition.size
        if how == "uniform":
            return (SampleNoise(seed ^ _LABEL_SEED, indices).uniform() * condition.size).long()
        return torch.full((len(indices),), -1)

    def conditions(
        self, given: Mapping[str, Any], settings: SamplingConfig, seed: int, indices: Sequence[int]
    ) -> dict[str, Tensor]:
        """The conditions of these samples: those given, and labels as the settings say where none is."""
        rows = {name: self._rows(name, value, indices) for name, value in given.items() if value is not None}
        for name, condition in self.spec.conditions.items():
            if condition.kind == "class" and name not in rows:
                rows[name] = self._default_labels(condition, settings.labels, seed, indices)
        return {name: value.to(self.device) for name, value in rows.items()}

    def showcase(self, columns: int = 0) -> tuple[int, dict[str, Tensor]]:
        """(how many samples, their labels) that show what the model can do: some of every class, at most 16 classes.

        Args:
            columns: samples of each class; by default as many as a picture of this kind of data holds well.
        """
        name, classes = next(((name, c.size) for name, c in self.spec.conditions.items() if c.named), ("", 1))
        classes = min(classes, 16)
        columns = columns or (SHOWN[self.spec.kind] if classes == 1 else max(SHOWN[self.spec.kind] // 8, 4))
        n = columns * classes
        return n, {name: torch.arange(n) // columns} if name else {}

    # ---- sampling ----------------------------------------------------------------------------------------------------

    def settings(
        self,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        grid: str | Grid | None = None,
    ) -> SamplingConfig:
        """The recipe's sampling settings with these changed.

        Raises:
            UserError: an unknown sampler or grid, or a number of steps that is not positive.
        """
        changes: dict[str, Any] = {}
        if sampler is not None:
            changes["sampler"] = entry("sampler", SAMPLERS, sampler) if isinstance(sampler, str) else sampler
        if grid is not None:
            changes["grid"] = entry("grid", GRIDS, grid) if isinstance(grid, str) else grid
        if steps is not None:
            if steps < 1:
                raise UserError(f"the number of steps must be positive, not {steps}")
            changes["steps"] = steps
        if guidance_scale is not None:
            changes["guidance_scale"] = guidance_scale
        return dataclasses.replace(self.recipe.sampling, **changes)

    def trajectory(
        self, indices: Sequence[int], settings: SamplingConfig | None = None, *, seed: int = 0, **cond: Any
    ) -> Iterator[Step]:
        """Every step of the way from noise to these samples, in model units; the loop behind ``sample``.

        Args:
            indices: the samples' numbers; sample i depends on (seed, i) alone.
            settings: by default the recipe's.
            cond: as for ``sample``.
        """
        settings = settings or self.recipe.sampling
        conditions = self.conditions(cond, settings, seed, indices)
        process = self.denoiser.process
        times = settings.times(process)
        rng = SampleNoise(seed, indices)
        x = process.prior_sample(rng.normal(self.spec.shape).to(self.device), times[0])
        yield from trajectory(settings.guide(self.denoiser, self.spec), settings.sampler, times, x, rng, conditions)

    def batches(
        self, n: int, settings: SamplingConfig, *, seed: int = 0, batch_size: int = 64, **cond: Any
    ) -> Iterator[Tensor]:
        """Samples 0 .. n - 1 in batches, in model units, (b, *shape) on the CPU."""
        for start in range(0, n, batch_size):
            indices = range(start, min(start + batch_size, n))
            yield end(self.trajectory(indices, settings, seed=seed, **cond)).cpu()

    def sample(
        self,
        n: int,
        *,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        batch_size: int = 64,
        **cond: Any,
    ) -> Tensor:
        """Draws samples.

        Args:
            n: how many.
            sampler: a name in SAMPLERS or a Sampler; like steps and guidance_scale by default what the recipe recommends.
            steps: of the sampler.
            guidance_scale: of classifier-free guidance; 1 is off.
            seed: sample i depends on (seed, i) alone, not on n or batch_size.
            batch_size: how many at a time.
            cond: by name: a class's name or number, a vector, or a list of them to be taken in turn.

        Returns:
            (n, *shape): pictures in [-1, 1], everything else in the data's own units.

        Raises:
            UserError: an unknown sampler, condition or class.
        """
        settings = self.settings(sampler, steps, guidance_scale)
        x = torch.cat(list(self.batches(n, settings, seed=seed, batch_size=batch_size, **cond)))
        return x if self.spec.kind == "image" else self.spec.in_units(x)

"""What all edits share: a model under its guidance, a grid, and every sample's own noise and conditions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.errors import UserError
from unstir.model import Model
from unstir.process import Process
from unstir.recipes import SamplingConfig
from unstir.recipes.sampling import Around
from unstir.sampling import Cond, SampleNoise


def editing_settings(recommended: SamplingConfig) -> SamplingConfig:
    """How an edit samples where nothing else is said: as the recipe recommends, but without a label that nobody asked for."""
    return replace(recommended, labels="none")


@dataclass(frozen=True, eq=False)
class Drawing:
    """One edit's way of drawing samples.

    Args:
        model: to edit with.
        settings: of sampling.
        seed: sample i depends on (seed, i) alone.
        cond: conditions as for ``Model.sample``.
    """

    model: Model
    settings: SamplingConfig
    seed: int
    cond: Mapping[str, Any]

    @classmethod
    def of(cls, model: Model, settings: SamplingConfig | None, seed: int, cond: Mapping[str, Any]) -> Drawing:
        """With the settings for editing where none are given; without the cost of guidance where it has nothing to go by: nothing is asked
        for, or only what is never left out."""
        settings = settings or editing_settings(model.recipe.sampling)
        if settings.labels == "none" and not cond.keys() - model.spec.always:
            settings = replace(settings, guidance_scale=1.0)
        return cls(model, settings, seed, cond)

    @property
    def process(self) -> Process:
        return self.model.denoiser.process

    def times(self) -> Tensor:
        """The grid's times."""
        return self.settings.times(self.process)

    def denoiser(self, around: Around | None = None) -> Denoiser:
        """The model's denoiser in its guidance.

        Args:
            around: what else goes around it, inside of clipping.
        """
        return self.model.guided(self.settings, around)

    def rows(self, indices: Sequence[int]) -> tuple[SampleNoise, Cond]:
        """The noise and the conditions of these samples."""
        rng = self.model.noise(self.seed, indices)
        return rng, self.model.conditions(self.cond, self.settings, self.seed, indices)

    def batches(self, n: int, batch_size: int) -> Iterator[tuple[SampleNoise, Cond]]:
        """Samples 0 .. n - 1, a batch at a time.

        Raises:
            UserError: n or the size of batches is not positive.
        """
        if n < 1 or batch_size < 1:
            raise UserError("the number of samples and the size of batches must be at least 1")
        for start in range(0, n, batch_size):
            yield self.rows(range(start, min(start + batch_size, n)))

    def normal(self, rng: SampleNoise) -> Tensor:
        """Standard normal noise where the denoiser works, (b, *latent_spec.shape), the first draw of ``Model.sample`` as well."""
        return rng.normal(self.model.latent_spec.shape).to(self.model.device)

    def one(self, x: Tensor, what: str = "the sample") -> Tensor:
        """A sample (*shape) or (1, *shape) in model units -> (1, *shape) where the model is.

        Raises:
            UserError: it has another shape than the model's data.
        """
        shape = self.model.spec.shape
        if tuple(x.shape) not in (shape, (1, *shape)):
            raise UserError(f"{what} has the shape {tuple(x.shape)}; this model's data have {shape}")
        return x.reshape(1, *shape).to(self.model.device, torch.float32)


def last_steps(times: Tensor, strength: float) -> Tensor:
    """The last ``strength`` of a grid's steps, rounded to whole ones, at least one unless strength is 0.

    Raises:
        UserError: a strength outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise UserError(f"the strength must lie between 0 and 1, not {strength:g}")
    steps = len(times) - 1
    kept = max(round(strength * steps), 1) if strength > 0 else 0
    return times[steps - kept :]

"""A trained model, ready to sample: a Denoiser with the recipe it was trained by and the data it was trained on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unstir.data import Condition, DataSpec
from unstir.denoiser import Denoiser, NetDenoiser
from unstir.errors import UserError, did_you_mean
from unstir.guidance import LogProb, OnlyKnown
from unstir.noisy_classifier import NoisyClassifier
from unstir.recipes import Guides, Recipe, SamplingConfig
from unstir.recipes.recipe import Around
from unstir.recipes.serial import entry
from unstir.samplers import GRIDS, SAMPLERS
from unstir.sampling import Grid, SampleNoise, Sampler, Step, end, trajectory
from unstir.trained import Fetch, Trained, check_fit, no_runs

SHOWN = {"image": 64, "signal": 32, "volume": 32, "points": 2000}
"""Samples in a picture, by kind of data, where nobody said how many."""
_LABEL_SEED = 0x1ABE1  # keeps the draw of a sample's label apart from the draws of its noise


class Model:
    """A denoiser, what it was trained on and how.

    Args:
        denoiser: with the averaged weights; ``model.denoiser`` is the fourth word of the library, use it anywhere.
        spec: shape, units and conditions of the data.
        recipe: its ``sampling`` section holds the defaults of ``sample``.
        fetch: loads the other runs that sampling settings may name, to be guided by.
    """

    def __init__(self, denoiser: NetDenoiser, spec: DataSpec, recipe: Recipe, fetch: Fetch = no_runs) -> None:
        self.denoiser = denoiser.eval()
        self.spec = spec
        self.recipe = recipe
        self._fetch = fetch
        self._fetched: dict[str, Trained] = {}

    @classmethod
    def of(cls, trained: Trained, fetch: Fetch = no_runs) -> Model:
        """The model of a run that trained a denoiser."""
        assert isinstance(trained.module, NetDenoiser)
        return cls(trained.module, trained.spec, trained.recipe, fetch)

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    def to(self, device: torch.device | str) -> Model:
        """Moves the weights."""
        self.denoiser.to(device)
        self._fetched.clear()
        return self

    # ---- guidance ----------------------------------------------------------------------------------------------------

    def fetched(self, name: str) -> Trained:
        """Another run's, loaded once.

        Raises:
            UserError: no such run, or of data that do not fit this model's.
        """
        if name not in self._fetched:
            trained = self._fetch(name, self.device)
            check_fit(name, trained.spec, self.spec)
            self._fetched[name] = trained
        return self._fetched[name]

    def guided(self, settings: SamplingConfig, around: Around | None = None) -> Denoiser:
        """The denoiser with these settings' guidance around it, in the order that ``SamplingConfig.guide`` tells.

        Args:
            around: puts something more around it, inside of clipping: ``lambda d: FunctionGuidance(d, loss)``.

        Raises:
            UserError: a run to be guided by that does not exist, is of another kind, or does not fit this model.
        """
        bad = self._bad(settings.autoguidance) if settings.autoguidance else None
        log_prob = self._log_prob(settings.classifier) if settings.classifier else None
        return settings.guide(self.denoiser, self.spec, Guides(bad, log_prob, around))

    def _bad(self, name: str) -> Denoiser:
        trained = self.fetched(name)
        if not isinstance(trained.module, NetDenoiser):
            raise UserError(
                f"{name} is not a model that draws samples, so none can be guided away from it; give a run that is"
            )
        return OnlyKnown(trained.module, trained.spec.conditions)

    def _log_prob(self, name: str) -> LogProb:
        return functools.partial(self._classifier(name).log_prob, process=self.denoiser.process)

    def _classifier(self, name: str) -> NoisyClassifier:
        module = self.fetched(name).module
        if not isinstance(module, NoisyClassifier):
            raise UserError(f"{name} is not a classifier; train one: unstir train classifier --data SOURCE")
        return module

    def known(self, settings: SamplingConfig | None = None) -> dict[str, Condition]:
        """What samples can be asked for by: what the model knows, and the class that a classifier guides by."""
        conditions = dict(self.spec.conditions)
        if settings is not None and settings.classifier:
            label = self._classifier(settings.classifier).label
            conditions.setdefault(label, self.fetched(settings.classifier).spec.conditions[label])
        return conditions

    # ---- conditions --------------------------------------------------------------------------------------------------

    def condition(self, name: str, settings: SamplingConfig | None = None) -> Condition:
        """What this model can be asked for under this name, with such settings.

        Raises:
            UserError: nothing of that name, with what there is.
        """
        known = {key: value for key, value in self.known(settings).items() if value.kind != "text"}
        if name not in known:
            there = did_you_mean(name, known) if known else "it was trained without conditions"
            raise UserError(f"this model takes no condition '{name}'; {there}")
        return known[name]

    def _rows(self, name: str, condition: Condition, value: Any, indices: Sequence[int]) -> Tensor:
        """A condition as the user gave it -> one row for each of these samples.

        One value (a class's name or number, a vector) is for all samples; a list or tensor of several is taken in turn.
        """
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
        asked = {name: value for name, value in given.items() if value is not None}
        rows = {name: self._rows(name, self.condition(name, settings), value, indices) for name, value in asked.items()}
        for name, condition in self.known(settings).items():
            if condition.kind == "class" and name not in rows:
                rows[name] = self._default_labels(condition, settings.labels, seed, indices)
        return {name: value.to(self.device) for name, value in rows.items()}

    def showcase(self, columns: int = 0, settings: SamplingConfig | None = None) -> tuple[int, dict[str, Tensor]]:
        """(how many samples, their labels) that show what the model can do: some of every class, at most 16 classes.

        Args:
            columns: samples of each class; by default as many as a picture of this kind of data holds well.
            settings: of sampling; by default the recipe's.
        """
        known = self.known(settings or self.recipe.sampling)
        name, classes = next(((name, c.size) for name, c in known.items() if c.named), ("", 1))
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
        **others: Any,
    ) -> SamplingConfig:
        """The recipe's sampling settings with these changed.

        Args:
            others: any other fields of ``SamplingConfig``.

        Raises:
            UserError: an unknown sampler or grid, or a number of steps that is not positive.
        """
        changes: dict[str, Any] = dict(others)
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
        self,
        indices: Sequence[int],
        settings: SamplingConfig | None = None,
        *,
        seed: int = 0,
        guide: Around | None = None,
        **cond: Any,
    ) -> Iterator[Step]:
        """Every step of the way from noise to these samples, in model units; the loop behind ``sample``.

        Args:
            indices: the samples' numbers; sample i depends on (seed, i) alone.
            settings: by default the recipe's.
            guide, cond: as for ``sample``.
        """
        settings = settings or self.recipe.sampling
        conditions = self.conditions(cond, settings, seed, indices)
        process = self.denoiser.process
        times = settings.times(process)
        rng = SampleNoise(seed, indices)
        x = process.prior_sample(rng.normal(self.spec.shape).to(self.device), times[0])
        yield from trajectory(self.guided(settings, guide), settings.sampler, times, x, rng, conditions)

    def batches(
        self,
        n: int,
        settings: SamplingConfig,
        *,
        seed: int = 0,
        batch_size: int = 64,
        guide: Around | None = None,
        **cond: Any,
    ) -> Iterator[Tensor]:
        """Samples 0 .. n - 1 in batches, in model units, (b, *shape) on the CPU."""
        for start in range(0, n, batch_size):
            indices = range(start, min(start + batch_size, n))
            yield end(self.trajectory(indices, settings, seed=seed, guide=guide, **cond)).cpu()

    def sample(
        self,
        n: int,
        *,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        batch_size: int = 64,
        guide: Around | None = None,
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
            guide: puts guidance of one's own around the denoiser, such as ``lambda d: FunctionGuidance(d, loss)``.
            cond: by name: a class's name or number, a vector, or a list of them to be taken in turn. Any field of
                ``SamplingConfig`` may be given here too: ``classifier="runs/classifier", classifier_scale=3.0``.

        Returns:
            (n, *shape): pictures in [-1, 1], everything else in the data's own units.

        Raises:
            UserError: an unknown sampler, condition or class.
        """
        fields = {field.name for field in dataclasses.fields(SamplingConfig)} - self.spec.conditions.keys()
        others = {name: cond.pop(name) for name in fields & cond.keys()}
        settings = self.settings(sampler, steps, guidance_scale, **others)
        x = torch.cat(list(self.batches(n, settings, seed=seed, batch_size=batch_size, guide=guide, **cond)))
        return x if self.spec.kind == "image" else self.spec.in_units(x)

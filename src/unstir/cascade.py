"""Cascades: a model that enlarges what the stage below draws, which may itself enlarge what another one draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unstir.conditioning.derived import LowRes
from unstir.conditioning.derived.low_res import small_grid
from unstir.data import DataSpec
from unstir.denoiser import NetDenoiser
from unstir.errors import UserError
from unstir.recipes import SamplingConfig
from unstir.sampling import end
from unstir.trained import Trained, check_same_conditions, same_units

if TYPE_CHECKING:
    from unstir.model import Model


def check_below(name: str, below: Trained, ours: DataSpec, factor: int) -> None:
    """Refuses a stage below that draws no samples, or samples that are not smaller ones of this model's data.

    Raises:
        UserError: with the difference.
    """
    theirs = below.spec
    if not isinstance(below.module, NetDenoiser):
        raise UserError(
            f"{name} is not a model that draws samples, so there is nothing of it to enlarge; give a run that is"
        )
    wanted = (ours.shape[0], *small_grid(ours.shape[1:], factor))
    if (theirs.kind, theirs.shape) != (ours.kind, wanted):
        there, here = "x".join(map(str, theirs.shape)), "x".join(map(str, wanted))
        raise UserError(
            f"{name} draws {theirs.kind}s of shape {there}, and this model enlarges {ours.kind}s of shape {here} by {factor}: train "
            "them together (unstir train cascade), or the one with --data.size for the other"
        )
    if not same_units(theirs, ours):
        raise UserError(
            f"{name} was trained on data of another mean or spread than this model's; train both on one data set"
        )
    check_same_conditions(name, _without_derived(below), ours)


def _without_derived(below: Trained) -> DataSpec:
    """The stage's data without what it computes from them: another smaller copy, if it enlarges itself."""
    derived = below.recipe.derived.declare(below.spec)
    conditions = {name: c for name, c in below.spec.conditions.items() if name not in derived}
    return replace(below.spec, conditions=conditions)


def settings_below(below: Model, settings: SamplingConfig) -> SamplingConfig:
    """How the stage below samples: as it recommends, but for what the stage above says of it; the labels as here."""
    own = below.recipe.sampling
    return replace(
        own,
        steps=settings.low_res_steps or own.steps,
        guidance_scale=settings.low_res_guidance_scale or own.guidance_scale,
        labels=settings.labels,
    )


def drawn_below(
    model: Model, given: Mapping[str, Any], settings: SamplingConfig, seed: int, indices: Sequence[int]
) -> Tensor:
    """What a model that enlarges is to enlarge: samples of the stage below with the same numbers, seed, labels and captions, rounded as
    in a file; (B, *shape) enlarged to the model's grid, without noise.

    Raises:
        UserError: no stage below is named, or it does not fit.
    """
    below, derived = model.below(settings), model.recipe.derived
    assert isinstance(derived, LowRes)
    if below is None:
        raise UserError(
            f"this model enlarges smaller {model.spec.kind}s, and none was given: --image FILE makes one of a larger {model.spec.kind}, "
            "--low-res FILE gives one, --low-res-from RUN names the run that draws them"
        )
    theirs = below.spec.conditions.keys() - below.recipe.derived.declare(below.spec).keys()
    asked = {name: value for name, value in given.items() if name in theirs}
    small = below.decode(end(below.trajectory(indices, settings_below(below, settings), seed=seed, **asked)))
    return derived.enlarge(model.spec.to_model(below.spec.to_data(small)), model.spec).to(model.device)

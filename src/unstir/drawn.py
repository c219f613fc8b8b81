"""Conditions that nobody gave, and that another model draws: a stage of a cascade by the stage below, unCLIP's decoder by its prior."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unstir.cascade import drawn_below
from unstir.clip import Clip
from unstir.conditioning.derived import Derived, LowRes
from unstir.conditioning.derived.image_embedding import NAME as IMAGE
from unstir.data import Condition, DataSpec
from unstir.errors import UserError
from unstir.others import cached
from unstir.recipes import Recipe, SamplingConfig
from unstir.trained import Fetch
from unstir.unclip import TEXT, check_same_clip, drawn_by_prior, open_clip, prior_of, reader, understood

if TYPE_CHECKING:
    from unstir.model import Model

Draw = Callable[["Model", Mapping[str, Any], SamplingConfig, int, Sequence[int]], Tensor | None]
"""(model, what was given, settings, seed, the samples' numbers) -> the condition's rows, as the model sees them; None: it stays null."""


def _small(
    model: Model, given: Mapping[str, Any], settings: SamplingConfig, seed: int, indices: Sequence[int]
) -> Tensor | None:
    if not isinstance(model.recipe.derived, LowRes):
        return None
    return drawn_below(model, given, settings, seed, indices)


DRAWN: dict[str, Draw] = {"low_res": _small, IMAGE: drawn_by_prior, TEXT: understood}
"""By the name of the condition: who draws it."""


def completed(
    model: Model,
    rows: Mapping[str, Tensor],
    given: Mapping[str, Any],
    settings: SamplingConfig,
    seed: int,
    indices: Sequence[int],
) -> dict[str, Tensor]:
    """The conditions of some samples with those that other models draw; captions that only these read are left out.

    Raises:
        UserError: captions that nobody reads, since what they would be read for was given.
    """
    found = dict(rows)
    for name, draw in DRAWN.items():
        if name in model.spec.conditions and name not in rows:
            drawn = draw(model, given, settings, seed, indices)
            found |= {} if drawn is None else {name: drawn}
    conditions = model.spec.conditions
    mute = [
        name for name in captions_read_by_others(model, settings) if name not in conditions or not conditions[name].seen
    ]
    if IMAGE in rows and not settings.clip_model:  # a CLIP that guides reads captions too
        for name in mute:
            if given.get(name) is not None:
                raise UserError(
                    f"only the prior reads captions, and with an image nobody asks it: leave one of the two out, {name} or the image"
                )
    return {name: value for name, value in found.items() if name not in mute}


def captions_read_by_others(model: Model, settings: SamplingConfig) -> dict[str, Condition]:
    """The captions that a decoder's prior reads, and a prior's CLIP, by name: samples can be asked for by them, though the model itself may
    read none."""
    if model.recipe.vectors:
        clip = reader(model)
        return {clip.text: clip.caption}
    prior = prior_of(model, settings)
    if prior is None:
        return {}
    return {name: c for name, c in prior.known().items() if c.kind == "text" and c.seen}


def derived_of(recipe: Recipe, spec: DataSpec, fetch: Fetch, device: torch.device) -> Derived:
    """What computes the conditions of a trained run of samples, with its CLIP where it needs one.

    Args:
        recipe, spec, fetch: the run's.

    Raises:
        UserError: the CLIP is gone, or not the one that the run was trained with.
    """

    def clip_of(name: str) -> Clip:
        clip = open_clip(name, fetch, device, spec)
        check_same_clip("this model", clip, spec.conditions[IMAGE].encoder)
        return clip

    return recipe.derived.loaded(clip_of)


def computing(model: Model) -> Derived:
    """What computes a model's conditions of samples, loaded once.

    Raises:
        UserError: as ``derived_of``.
    """
    return cached(model, "derived", lambda: derived_of(model.recipe, model.spec, model.fetch, model.device))

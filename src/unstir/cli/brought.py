"""Stages of a chain that are trained already: unstir train unclip --clip RUN --prior RUN."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch

from unstir.cli.arguments import take
from unstir.data import DataSpec
from unstir.errors import UserError
from unstir.kept import copy_run, is_inside
from unstir.recipes import Recipe
from unstir.recipes.chains import BROUGHT
from unstir.run import fetch, named
from unstir.unclip import NO_PRIOR, TEXT, open_clip


def take_brought(name: str, stages: Mapping[str, Recipe], words: list[str]) -> tuple[dict[str, Recipe], dict[str, str]]:
    """Takes ``--STAGE RUN`` out of the words -> (the stages that are still to be trained, the runs in place of the others by the stages' names).

    A prior brings its CLIP along. Without a prior (``--prior none``) a decoder draws variations of pictures alone.

    Raises:
        UserError: no such run, or a prior of another CLIP than the one that is named.
    """
    given = {stage: take(words, f"--{stage}") for stage in BROUGHT.get(name, ())}
    brought = {stage: run for stage, run in given.items() if run is not None}
    left = {stage: recipe for stage, recipe in stages.items() if stage not in brought}
    if brought.get("prior") == NO_PRIOR:
        del brought["prior"]
        last = left[""]
        left[""] = dataclasses.replace(last, sampling=dataclasses.replace(last.sampling, prior=""))
    if "prior" in brought:
        own = clip_of_prior(brought["prior"])
        brought = {"clip": own, **brought}
        left.pop("clip", None)
        check_one_clip(brought["clip"], brought["prior"])
    elif "clip" in brought:
        open_clip(brought["clip"], fetch, torch.device("cpu"))
    return left, brought


def clip_of_prior(name: str) -> str:
    """The CLIP whose vectors a prior has learned.

    Raises:
        UserError: no such run, or it is no prior.
    """
    run, _ = named(name)
    _, recipe, _ = run.read_recipe()
    if not recipe.vectors:
        raise UserError(f"{name} is not a prior; train one: unstir train prior --clip RUN --data SOURCE")
    return str(run.folder / recipe.vectors) if is_inside(run.folder, recipe.vectors) else recipe.vectors


def check_one_clip(clip: str, prior: str) -> None:
    """Refuses a prior that learned the vectors of another CLIP.

    Raises:
        UserError: with both.
    """
    spec = named(prior)[0].read_recipe()[2]
    if open_clip(clip, fetch, torch.device("cpu")).fingerprint != spec.conditions[TEXT].encoder:
        raise UserError(
            f"{prior} learned the vectors of another CLIP than {clip}: leave --clip out, and it brings its own"
        )


def check_data(brought: Mapping[str, str], spec: DataSpec) -> None:
    """Refuses a CLIP of other data, before anything is written.

    Raises:
        UserError: with the difference.
    """
    if "clip" in brought:
        open_clip(brought["clip"], fetch, torch.device("cpu"), spec)


def bring(folder: Path, brought: Mapping[str, str]) -> None:
    """Copies runs into the folder of the run that is about to begin, under the names of the stages in place of which they are.

    Raises:
        UserError: one that cannot be loaded or copied.
    """
    for stage, name in brought.items():
        copy_run(name, folder / stage, _named_anew)


def _named_anew(recipe: Recipe) -> Recipe:
    """The recipe with the name that its CLIP has in the new folder."""
    return dataclasses.replace(recipe, vectors="../clip") if recipe.vectors else recipe

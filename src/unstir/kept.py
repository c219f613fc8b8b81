"""Other runs that a run cannot do without, and keeps a copy of in its own folder: the CLIP of an unCLIP model, its prior.

A copy is a run folder with nothing but recipe.toml and model.safetensors.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from unstir.codecs import check_way
from unstir.conditioning.derived import ImageEmbedding
from unstir.errors import UserError
from unstir.recipes import Recipe
from unstir.run import Run, is_run, named

CLIP = "clip"
"""The folder in a run's own that holds its CLIP; also the name of the stage that trains it."""
COPIED = ("recipe.toml", "model.safetensors")
"""The files of a copy."""


def clip_named(recipe: Recipe) -> str:
    """The CLIP that a recipe works with; "" where it works with none."""
    return recipe.vectors or (recipe.derived.clip if isinstance(recipe.derived, ImageEmbedding) else "")


def is_inside(folder: Path, name: str) -> bool:
    """Whether a name leads to a run as seen from this run folder."""
    return bool(name) and not Path(name).is_absolute() and is_run(os.path.normpath(folder / name))


def with_clip(recipe: Recipe, name: str) -> Recipe:
    """A recipe that works with the CLIP of that name.

    Raises:
        UserError: it works with none.
    """
    if recipe.vectors:
        return replace(recipe, vectors=name)
    if isinstance(recipe.derived, ImageEmbedding):
        return replace(recipe, derived=replace(recipe.derived, clip=name))
    raise UserError("--clip RUN is for recipes that work with the vectors of a CLIP: unclip and prior")


def keep_clip(folder: Path, recipe: Recipe) -> Recipe:
    """Copies the CLIP of a recipe into the folder of its run, which is about to begin, and names the copy; one that is inside already stays
    where it is.

    Raises:
        UserError: there is none of that name, or it cannot be written.
    """
    name = clip_named(recipe)
    if not name or is_inside(folder, name):
        return recipe
    copy_run(name, folder / CLIP)
    return with_clip(recipe, CLIP)


def copy_run(name: str, into: Path, change: Callable[[Recipe], Recipe] = lambda recipe: recipe) -> None:
    """Makes a copy of what a run has trained.

    Args:
        name: RUN, or RUN@STEP for the weights as they were at that step's checkpoint.
        into: the folder of the copy, which is there as a whole or not at all.
        change: of the recipe that the copy keeps.

    A run that is there already stays as it is, with its checkpoints.

    Raises:
        UserError: no such run, one without weights, something else is in the way, or the copy cannot be written.
    """
    run, step = named(name)
    if step is None and run.folder.resolve() == into.resolve():
        return
    check_way(into, COPIED)
    trained = run.trained("cpu", step)
    recipe_name, recipe, spec = run.read_recipe()
    about = {key: value for key, value in run.data_set().items() if key != "spec"}
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(into, ignore_errors=True)  # of a run that was killed before it began
        building = Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
        Run(building).write_recipe(recipe_name, change(recipe), spec, about)
        Run(building).write_weights(trained.module.state_dict())
        building.chmod(0o755)
        building.rename(into)
    except OSError as error:
        raise UserError(f"cannot copy {name} into {into.parent}: {error.strerror or error}") from None

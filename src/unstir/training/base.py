"""Starting from a trained run: fine-tuning it on other data, giving it more to be asked for by, building a ControlNet around it.

``based`` makes the recipe, before the data are read; ``told_to`` the data, for a base that stays as it is; ``adopt`` (a module beside
this one) brings the weights over. A run that has checkpoints needs its base no more.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from unstir.codecs import findable, kept_name
from unstir.conditioning.derived import Nothing
from unstir.data import Condition, DataConfig, Dataset, DataSpec
from unstir.errors import UserError
from unstir.kept import clip_named, is_inside, with_clip
from unstir.objectives import DistillationObjective
from unstir.recipes import Recipe
from unstir.run import Run, named
from unstir.trained import same_units

CHANNELS: dict[int, Any] = {1: "gray", 3: "rgb", 4: "rgba"}

# ---- the recipe ------------------------------------------------------------------------------------------------------


def check_base(recipe: Recipe) -> None:
    """Refuses to train what is built around another run without one.

    Raises:
        UserError: with the option.
    """
    if recipe.network.needs_base and not recipe.base:
        raise UserError("this recipe is built around a run that you trained before: name it with --base RUN")


def based(recipe: Recipe, name: str) -> Recipe:
    """A recipe that starts from a run.

    Process, network, denoiser, objective and sampling are that run's, and pictures are read at its size; the recipe's own are how it
    trains and what it adds: conditions computed from the samples, a network around the run's.

    Args:
        recipe: to be based.
        name: RUN or RUN@STEP.

    Raises:
        UserError: no such run, or one that this recipe cannot start from: of another kind, or a student.
    """
    run, _ = named(name)
    _, theirs, spec = run.read_recipe()
    if type(theirs.denoiser) is not type(recipe.denoiser):
        raise UserError(
            f"{name} trained another kind of model than this recipe does; 'unstir info {run.folder}' says what it is"
        )
    if isinstance(theirs.objective, DistillationObjective) and theirs.objective.teacher:
        raise UserError(
            f"{name} was distilled: it has learned to sample in {theirs.sampling.steps} steps, not what is in its data; start from the run "
            "that was distilled"
        )
    network = recipe.network.around(theirs.network, spec.conditions)
    if network.needs_base and not theirs.network.needs_base and not isinstance(theirs.derived, Nothing):
        raise UserError(
            f"{name} computes a condition from its samples itself, and what is built around it computes another; choose a base without one"
        )
    std = 1.0 if theirs.autoencoder else spec.std  # of what the network sees
    theirs = from_anywhere(theirs, run)
    return replace(
        theirs,
        about=recipe.about,
        kinds=(spec.kind,),
        base=str(Path(name).expanduser().resolve()),
        autoencoder=theirs.autoencoder or recipe.autoencoder,
        data=_data_like(theirs.data, recipe.data, spec),
        derived=theirs.derived if isinstance(recipe.derived, Nothing) else recipe.derived,
        network=network,
        denoiser=_with(theirs.denoiser, sigma_data=getattr(theirs.denoiser, "sigma_data", 0.0) or std),
        objective=_with_dropout(theirs.objective, recipe.objective),
        training=recipe.training,
    )


def _data_like(theirs: DataConfig, ours: DataConfig, spec: DataSpec) -> DataConfig:
    """Where the recipe says, read as the run's were."""
    data = replace(theirs, source=ours.source, split=ours.split, cache=ours.cache)
    if spec.kind != "image":
        return data
    return replace(data, size=spec.shape[1:], channels=CHANNELS.get(spec.shape[0], "auto"))


def from_anywhere(recipe: Recipe, run: Run) -> Recipe:
    """A run's recipe with names that lead from any folder to what the run keeps in its own: its autoencoder, its CLIP, and the runs that
    draw its conditions."""

    def inside(name: str) -> str:
        return str((run.folder / name).resolve()) if is_inside(run.folder, name) else name

    clip, sampling = clip_named(recipe), recipe.sampling
    recipe = with_clip(recipe, inside(clip)) if clip else recipe
    return replace(
        recipe,
        autoencoder=findable(kept_name(run.folder, recipe.autoencoder)) if recipe.autoencoder else "",
        sampling=replace(sampling, low_res_from=inside(sampling.low_res_from), prior=inside(sampling.prior)),
    )


def _with(value: Any, **changes: Any) -> Any:
    """A dataclass with those of its fields changed that it has."""
    there = {field.name for field in fields(value)}
    return replace(value, **{name: change for name, change in changes.items() if name in there})


def _with_dropout(theirs: Any, ours: Any) -> Any:
    """The run's objective; but what the recipe adds must be dropped now and then, whether or not the run's own conditions were."""
    return _with(theirs, dropout=max(getattr(theirs, "dropout", 0.0), getattr(ours, "dropout", 0.0)))


# ---- the data --------------------------------------------------------------------------------------------------------


def same_meaning(a: Condition, b: Condition) -> bool:
    """Whether a network that knows one condition can be told the other: captions may be longer, tables of numbers have other units."""

    def facts(c: Condition) -> tuple[Any, ...]:
        text = c.kind == "text"
        return c.kind, c.size, c.encoder, c.frequencies, c.shape[1:] if text else c.shape, () if text else c.names

    return facts(a) == facts(b)


def told_to(dataset: Dataset, base: DataSpec, added: Collection[str]) -> tuple[Dataset, list[str]]:
    """The data set as a base that stays as it is can be told of it, and the conditions that it cannot be told.

    The base's conditions stay, in its units and with its names. The data give those that they have in the same sense; their others
    are left out, and what only the base knows is null for all samples.

    Args:
        base: what the base's data were.
        added: conditions that are not the base's, though ``base`` may name them.

    Raises:
        UserError: data of another shape or in other units than the base's.
    """
    there, here = (f"{spec.kind} of shape {'x'.join(map(str, spec.shape))}" for spec in (base, dataset.spec))
    if there != here:
        raise UserError(f"the base was trained on {there}, and {dataset.name} holds {here}; it stays as it is")
    if not same_units(base, dataset.spec):
        raise UserError(
            f"{dataset.name} has another mean or spread than the data of the base, which stays as it is and would see them shifted"
        )
    known = {name: condition for name, condition in base.conditions.items() if name not in added}
    theirs = dataset.spec.conditions
    same = {name for name in known.keys() & theirs.keys() if same_meaning(known[name], theirs[name])}
    left_out = [name for name, condition in theirs.items() if name not in same and condition.seen]
    values = {name: value for name, value in dataset.conditions.items() if name in same}
    return replace(dataset, spec=replace(dataset.spec, conditions=known), conditions=values), left_out

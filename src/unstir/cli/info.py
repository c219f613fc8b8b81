"""unstir info RUN"""

from __future__ import annotations

from typing import Any

from unstir.autoencoder import small_grid
from unstir.cli.advice import askable, condition_lines, continue_command, picture_command, use_command
from unstir.cli.progress import span
from unstir.conditioning.guidance_scale import GUIDANCE_SCALE, scale_range
from unstir.data import DataSpec
from unstir.errors import UserError
from unstir.evaluation.record import last as last_evaluation
from unstir.objectives import DistillationObjective
from unstir.recipes import DenoiserConfig, Recipe
from unstir.recipes.serial import to_dict
from unstir.run import Run
from unstir.stages import read_stages
from unstir.training.accuracy import read_accuracy
from unstir.training.checkpoint import Checkpoints
from unstir.training.reconstruction import read_fidelity
from unstir.training.retrieval import read_retrieval


def main(words: list[str]) -> None:
    """Runs the command."""
    if not words or words[0] in ("-h", "--help"):
        print("usage: unstir info RUN\n\nSays what a run is, how it went, and how to use it.")
        return
    if len(words) > 1:
        raise UserError(f"unstir info takes one run folder, not also '{words[1]}'")
    run = Run.open(words[0])
    name, recipe, spec = run.read_recipe()
    for line in [*what(run, name, recipe, spec), *stages(run), *how_it_went(run), *how_to_use(run, recipe, spec)]:
        print(line)


def _entry(value: Any) -> str:
    fields = to_dict(value)
    name = fields.pop("name")
    inner = ", ".join(f"{key} {item['name'] if isinstance(item, dict) else item}" for key, item in fields.items())
    return f"{name} ({inner})" if inner else name


def what(run: Run, name: str, recipe: Recipe, spec: DataSpec) -> list[str]:
    """What the run is."""
    data, sampling = run.data_set(), recipe.sampling
    lines = [
        f"{run.folder}: recipe {name} on {data.get('source')}",
        f"  data       {data.get('count', 0):,} samples, {spec.kind} {'x'.join(map(str, spec.shape))}, {spec.dtype}",
        f"  process    {_entry(recipe.process)}",
        f"  network    {_entry(recipe.network)}",
        f"  trained    {_entry(recipe.denoiser)}",
        *([f"  derived    {_entry(recipe.derived)}"] if recipe.derived.declare(spec) else []),
        *([f"  vectors    of the CLIP {recipe.vectors}"] if recipe.vectors else []),
        f"  objective  {_entry(recipe.objective)}",
        *([f"  latents    {_latents(recipe, spec, data['latents'])}"] if "latents" in data else []),
        *([f"  began as   {recipe.base}"] if recipe.base else []),
    ]
    if isinstance(recipe.denoiser, DenoiserConfig):
        how = f"{_entry(sampling.sampler)}, {sampling.steps} steps, grid {_entry(sampling.grid)}"
        lines.append(f"  sampling   {how}, {guidance(recipe, spec)}")
    return lines


def guidance(recipe: Recipe, spec: DataSpec) -> str:
    """How much a model that draws samples is guided; of a student, what it has learned of it."""
    if GUIDANCE_SCALE in spec.conditions:
        low, high = scale_range(spec.conditions[GUIDANCE_SCALE])
        return f"guidance scale {recipe.sampling.guidance_scale:g}, learned from {low:g} to {high:g}"
    if isinstance(recipe.objective, DistillationObjective) and recipe.objective.teacher:
        return "the guidance of its teacher learned"
    return f"guidance scale {recipe.sampling.guidance_scale:g}"


def _latents(recipe: Recipe, spec: DataSpec, facts: dict[str, Any]) -> str:
    shape = (len(facts["offset"]), *small_grid(spec.shape[1:], facts["factor"]))
    return f"{'x'.join(map(str, shape))} of the autoencoder {recipe.autoencoder}, by which this run decodes by itself"


def how_it_went(run: Run) -> list[str]:
    """How far training got."""
    rows, saved = run.metrics(), Checkpoints(run.checkpoints, 1).steps()
    lines = [f"  saved      step {saved[-1]:,}" if saved else "  saved      nothing yet"]
    if rows:
        first, last = rows[0], rows[-1]
        lines.append(
            f"  training   {last['step']:,} steps in {span(last['seconds'])}, {last['samples_per_second']:.0f} samples/s, "
            f"loss {first['loss']:.4f} -> {last['loss']:.4f}"
        )
    if (accuracy := read_accuracy(run.accuracy_file)) is not None:
        lines.append(f"  accuracy   {accuracy}")
    if (retrieval := read_retrieval(run.retrieval_file)) is not None:
        lines += [f"  {what:9s}  {text}" for what, text in retrieval.lines()]
    if (fidelity := read_fidelity(run.fidelity_file)) is not None:
        lines.append(f"  fidelity   {fidelity.text()}")
    if (judged := last_evaluation(run.folder)) is not None:
        lines += [f"  evaluated  {judged['date'][:10]}", *(f"    {line}" for line in judged["lines"])]
    return lines


def how_to_use(run: Run, recipe: Recipe, spec: DataSpec) -> list[str]:
    """Conditions, and commands that work."""
    commands = [use_command(run, recipe, spec), picture_command(run, recipe, spec)]
    return [
        *condition_lines(askable(run, recipe, spec)),
        *(f"  {command[0]:9s}  {command[1]}" for command in commands if command is not None),
        f"  go on      {continue_command(run, recipe)}",
    ]


def stages(run: Run) -> list[str]:
    """A line for each stage of a run that was trained in several."""
    found = read_stages(run.folder)
    if found is None:
        return []
    lines = []
    for number, (inner, recipe) in enumerate(found[1].items(), start=1):
        stage = Run(run.folder / inner)
        shape = "x".join(map(str, stage.read_recipe()[2].shape)) if stage.exists() else "not trained yet"
        if isinstance(recipe.objective, DistillationObjective):
            shape += f" in {recipe.sampling.steps} step{'s' if recipe.sampling.steps > 1 else ''}"
        steps = Checkpoints(stage.checkpoints, 1).steps()
        saved = f", step {steps[-1]:,}" if steps else ""
        lines.append(f"  stage {number}    {stage.folder}: {shape}{saved}{'' if inner else ' (this run)'}")
    return lines

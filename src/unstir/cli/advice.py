"""Commands that work, for a run: what the end of training, ``unstir info`` and the help all say."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from unstir.data import Condition, DataSpec
from unstir.recipes import DenoiserConfig, ModuleConfig, NoisyClassifierConfig, Recipe
from unstir.recipes.module import class_of
from unstir.run import Run


def usable(spec: DataSpec) -> dict[str, Condition]:
    """The conditions that samples can be asked for by."""
    return {name: condition for name, condition in spec.conditions.items() if condition.kind != "text"}


def condition_lines(spec: DataSpec) -> Iterator[str]:
    """A line for each condition: its option and what it takes."""
    for name, condition in usable(spec).items():
        names = ", ".join(condition.names[:20]) + (", ..." if len(condition.names) > 20 else "")
        yield f"  --{name:8s} {condition.kind} of {condition.size}{': ' + names if names else ''}"


def _example(name: str, condition: Condition) -> list[str]:
    value = condition.names[0] if condition.kind == "class" and condition.names else ",".join(["0"] * condition.size)
    return [f"--{name}", value if condition.kind == "vector" or condition.names else "0"]


def sample_command(run: Run, spec: DataSpec) -> str:
    """Samples under every condition."""
    asked = {name: condition for name, condition in usable(spec).items() if not condition.frequencies}
    words = [word for name, condition in asked.items() for word in _example(name, condition)]
    return shlex.join(["unstir", "sample", str(run.folder), "-n", "64", *words, "--out", "samples.png"])


def guide_command(run: Run, spec: DataSpec) -> str:
    """Guides another run by this classifier."""
    found = class_of(spec)
    asked = _example(*found) if found else []
    words = ["unstir", "sample", "RUN", "--classifier", str(run.folder), "--classifier-scale", "3", *asked]
    return shlex.join(words)


def use_command(run: Run, recipe: Recipe, spec: DataSpec) -> tuple[str, str]:
    """What the run is good for, and how."""
    what, command = USES[type(recipe.denoiser)]
    return what, command(run, spec)


USES: dict[type[ModuleConfig], tuple[str, Callable[[Run, DataSpec], str]]] = {
    DenoiserConfig: ("sample", sample_command),
    NoisyClassifierConfig: ("guide", guide_command),
}


def _twice(plan: float) -> str:
    return str(2 * plan) if isinstance(plan, int) else f"{2 * plan:g}"


def continue_command(run: Run, recipe: Recipe) -> str:
    """Trains twice as long as planned."""
    training = recipe.training
    plans = (("minutes", training.minutes), ("steps", training.steps), ("images", training.images))
    longer = [word for name, plan in plans if plan for word in (f"--training.{name}", _twice(plan))]
    return shlex.join(["unstir", "train", "--resume", str(run.folder), *longer])

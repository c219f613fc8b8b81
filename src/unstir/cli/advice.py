"""Commands that work, for a run: what the end of training, ``unstir info`` and the help all say."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from unstir.conditioning.derived import Derived, Edges, Hole, ImageEmbedding, LowRes, Posterized
from unstir.conditioning.derived.image_embedding import NAME as IMAGE
from unstir.conditioning.guidance_scale import GUIDANCE_SCALE
from unstir.conditioning.text import evenly
from unstir.data import Condition, DataSpec
from unstir.data.text import shown
from unstir.kept import is_inside
from unstir.recipes import AutoencoderConfig, ClipConfig, DenoiserConfig, ModuleConfig, NoisyClassifierConfig, Recipe
from unstir.recipes.module import caption_of, class_of
from unstir.run import Run, named
from unstir.stages import read_stages
from unstir.unclip import NO_PRIOR


def usable(spec: DataSpec) -> dict[str, Condition]:
    """The conditions that samples can be asked for by. A guidance scale that the network takes is none: --guidance-scale says it for all."""
    return {name: condition for name, condition in spec.conditions.items() if condition.seen and name != GUIDANCE_SCALE}


def askable(run: Run, recipe: Recipe, spec: DataSpec, prior: str | None = None) -> DataSpec:
    """The description of a run's data with the captions that others read for it: a decoder's prior, a prior's CLIP.

    Args:
        prior: in place of the recipe's.

    Raises:
        UserError: there is no such run.
    """
    name = recipe.vectors
    if IMAGE in spec.conditions:
        name = recipe.sampling.prior if prior is None else prior
    if name in ("", NO_PRIOR):
        return spec
    other, _ = named(str(run.folder / name) if is_inside(run.folder, name) else name)
    _, their_recipe, theirs = other.read_recipe()
    found = caption_of(askable(other, their_recipe, theirs))
    if found is None or found[0] in usable(spec):
        return spec
    return replace(spec, conditions={**spec.conditions, found[0]: found[1]})


def condition_lines(spec: DataSpec) -> Iterator[str]:
    """A line for each condition: its option and what it takes."""
    for name, condition in usable(spec).items():
        yield f"  --{name.replace('_', '-'):8s} {KINDS[condition.kind].about(condition)}"


def told(name: str, condition: Condition) -> str:
    """A condition in a few words, for the line with which training begins."""
    if condition.kind == "class":
        return f"{name} ({condition.size} {'classes' if condition.named else 'groups found'})"
    if condition.kind == "text":
        return f"{name} ({condition.encoder or 'captions that nobody reads: --data.text'})"
    return name


def _named(condition: Condition) -> str:
    names = ", ".join(condition.names[:20]) + (", ..." if len(condition.names) > 20 else "")
    return f"{condition.kind} of {condition.size}{': ' + names if names else ''}"


def _vector(condition: Condition) -> str:
    if condition.made:
        return f"the vector of a CLIP, {condition.size} numbers; it comes of --image FILE or a caption"
    return _named(condition)


def _caption(condition: Condition) -> str:
    examples = ", ".join(f'"{name}"' for name in evenly(shown(list(condition.names)), 3))
    return f"a caption, of at most {condition.shape[0]} tokens ({condition.encoder}), such as {examples}"


@dataclass(frozen=True)
class ConditionKind:
    """What a person is told of conditions of a kind.

    Args:
        about: what such a condition takes.
        example: a value that it takes.
    """

    about: Callable[[Condition], str]
    example: Callable[[Condition], str]


KINDS: dict[str, ConditionKind] = {
    "class": ConditionKind(_named, lambda condition: condition.names[0] if condition.names else "0"),
    "vector": ConditionKind(_vector, lambda condition: ",".join(["0"] * condition.size)),
    "text": ConditionKind(_caption, lambda condition: condition.names[0]),
    "grid": ConditionKind(
        lambda condition: (
            f"a picture of it, or a .npy of {'x'.join(map(str, condition.shape))} numbers; --image FILE computes it"
        ),
        lambda condition: "FILE",
    ),
}


def _example(name: str, condition: Condition) -> list[str]:
    return [f"--{name.replace('_', '-')}", KINDS[condition.kind].example(condition)]


def sample_command(run: Run, spec: DataSpec) -> str:
    """Samples under every condition; of a model that knows captions and classes by a caption, since the two might contradict each other."""
    recipe = run.read_recipe()[1]
    spec = askable(run, recipe, spec)
    given = {name: c for name, c in usable(spec).items() if not c.always and c.kind != "grid" and not c.made}
    asked = {name: condition for name, condition in given.items() if not condition.frequencies}
    if any(condition.kind == "text" for condition in asked.values()):
        asked = {name: condition for name, condition in asked.items() if condition.kind != "class"}
    words = [word for name, condition in asked.items() for word in _example(name, condition)]
    alone = spec.always and not recipe.sampling.low_res_from  # nothing to enlarge is drawn
    if alone or (IMAGE in spec.conditions and not recipe.sampling.prior):
        words += ["--image", "FILE"]
    return shlex.join(["unstir", "sample", str(run.folder), "-n", "64", *words, "--out", "samples.png"])


def picture_command(run: Run, recipe: Recipe, spec: DataSpec) -> tuple[str, str] | None:
    """What a run that computes its conditions makes of a picture; None for any other run."""
    found = OF_PICTURES.get(type(recipe.derived))
    if found is None:
        return None
    what, command, words = found
    return what, shlex.join(["unstir", *command.split(), str(run.folder), *words.split()])


OF_PICTURES: dict[type[Derived], tuple[str, str, str]] = {
    LowRes: ("enlarge", "edit upscale", "--image FILE --out large.png"),
    Hole: ("fill", "edit inpaint", "--image FILE --mask FILE --out filled.png"),
    Edges: ("like", "sample", "--image FILE --out samples.png"),
    Posterized: ("like", "sample", "--image FILE --out samples.png"),
    ImageEmbedding: ("vary", "edit variations", "--image FILE -n 8 --out variations.png"),
}
"""(what it is, the command, its options) by what is computed."""


def guide_command(run: Run, spec: DataSpec) -> str:
    """Guides another run by this classifier."""
    found = class_of(spec)
    asked = _example(*found) if found else []
    words = ["unstir", "sample", "RUN", "--classifier", str(run.folder), "--classifier-scale", "3", *asked]
    return shlex.join(words)


def caption_command(run: Run, spec: DataSpec) -> str:
    """Guides another run by the captions that this CLIP reads."""
    found = caption_of(spec)
    asked = _example(*found) if found else []
    return shlex.join(["unstir", "sample", "RUN", "--clip", str(run.folder), "--clip-scale", "3", *asked])


def latent_command(run: Run, spec: DataSpec) -> str:
    """Trains a model in this autoencoder's latents, on the data that it has seen."""
    source = run.data_set().get("source") or "SOURCE"
    return shlex.join(["unstir", "train", "latent", "--data", str(source), "--autoencoder", str(run.folder)])


def use_command(run: Run, recipe: Recipe, spec: DataSpec) -> tuple[str, str]:
    """What the run is good for, and how."""
    what, command = USES[type(recipe.denoiser)]
    return what, command(run, spec)


USES: dict[type[ModuleConfig], tuple[str, Callable[[Run, DataSpec], str]]] = {
    DenoiserConfig: ("sample", sample_command),
    NoisyClassifierConfig: ("guide", guide_command),
    ClipConfig: ("guide", caption_command),
    AutoencoderConfig: ("train", latent_command),
}


def _twice(plan: float) -> str:
    return str(2 * plan) if isinstance(plan, int) else f"{2 * plan:g}"


def continue_command(run: Run, recipe: Recipe) -> str:
    """Trains twice as long as planned; of a run in several stages, all of them."""
    training = recipe.training
    found = read_stages(run.folder)
    every = [stage.training.minutes or 0.0 for stage in found[1].values()] if found and training.minutes else []
    minutes = sum(every) if every else training.minutes
    plans = (("minutes", minutes), ("steps", training.steps), ("images", training.images))
    longer = [word for name, plan in plans if plan for word in (f"--training.{name}", _twice(plan))]
    return shlex.join(["unstir", "train", "--resume", str(run.folder), *longer])

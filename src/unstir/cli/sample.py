"""unstir sample RUN [-n N] [--sampler S] [--steps K] [--guidance-scale W] [--seed I] [--KEY VALUE] [--out FILE]"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from unstir.cli.advice import askable, condition_lines, usable
from unstir.cli.arguments import parse, spelled_out, take, take_all, take_conditions, wants_help
from unstir.conditioning.asked import words_of
from unstir.conditioning.text import text_encoder
from unstir.data import DataSpec
from unstir.data.report import some
from unstir.data.text import shown
from unstir.drawn import derived_of
from unstir.editing.given import conditions_from_files
from unstir.errors import UserError
from unstir.media.strip import check_strip, write_strip
from unstir.media.write import check_path, write
from unstir.model import Model
from unstir.recipes import Recipe, SamplingConfig
from unstir.recipes.module import caption_of, class_of
from unstir.run import Run, named
from unstir.showcase import SHOWN

USAGE = """usage: unstir sample RUN [-n N] [options] [--out FILE.png|.npz|.npy|.csv|.gif|.webp|FOLDER]

Draws samples from a trained model; without options as the recipe recommends, a row per class.
`unstir sample RUN --help` lists the options of that run, `unstir info RUN` the conditions it takes."""

ANIMATIONS = (".gif", ".webp")


@dataclass(frozen=True)
class DrawOptions(SamplingConfig):
    """How to draw, whatever it is for."""

    seed: int = 0
    """Sample i depends on (seed, i) alone."""
    batch_size: int = 64
    """How many at a time; less needs less memory and changes nothing else."""
    device: str = ""
    """cpu, cuda or mps; default: the best there is."""


@dataclass(frozen=True)
class SampleOptions(DrawOptions):
    """What to draw and how. Conditions are given by name, e.g. --label 3 or --text "a red heart"; several of one are taken in turn."""

    n: int = 0
    """How many samples. Default: some of every class (of the first 16), or as many as a picture holds well."""
    out: str = ""
    """A file, whose ending decides the format, or a folder for one file a sample. Default: a picture in the run folder."""
    beliefs: bool = False
    """Show what the model believed the data to be at each step: an animation, or in a .png the first samples from left to right."""


def main(words: list[str]) -> None:
    """Runs the command."""
    if not words or words[0].startswith("-"):
        if words and words[0] not in ("-h", "--help"):
            raise UserError("name the run folder first: unstir sample RUN")
        print(USAGE)
        return
    run = Run.open(words[0])
    rest = spelled_out(words[1:])
    _, recipe, spec = run.read_recipe()
    spec = with_classes(spec, take(list(rest), "--classifier") or recipe.sampling.classifier)
    spec = with_captions(spec, take(list(rest), "--clip-model") or recipe.sampling.clip_model)
    spec = askable(run, recipe, spec, take(list(rest), "--prior"))
    given = take_given(rest, run, recipe, spec)
    if wants_help(rest):
        print("\n".join(condition_lines(spec)))
    recommended = {f.name: getattr(recipe.sampling, f.name) for f in dataclasses.fields(SamplingConfig)}
    options = parse(SampleOptions(**recommended), known_words(rest, spec), f"unstir sample {run.folder}")
    draw(run, options, given)


def take_given(words: list[str], run: Run, recipe: Recipe, spec: DataSpec) -> dict[str, Any]:
    """Takes the conditions out of the words, those that are files as what is in them; and ``--image FILE``, of which a run that computes
    conditions computes them.

    Raises:
        UserError: a flag without a value, or a file that cannot be read.
    """
    computes = "image" not in spec.conditions and bool(recipe.derived.declare(spec))
    images = take_all(words, "--image") if computes else []
    if images:
        derived = derived_of(recipe, spec, run.fetch, torch.device("cpu"))
        recipe = dataclasses.replace(recipe, derived=derived)
    return conditions_from_files(take_conditions(words, usable(spec)), images, recipe, spec, tell)


def tell(note: str) -> None:
    """Prints a line, if it says something."""
    if note:
        print(note)


def with_classes(spec: DataSpec, classifier: str) -> DataSpec:
    """The description of the data, with the class that a classifier guides by."""
    if not classifier:
        return spec
    _, _, other = named(classifier)[0].read_recipe()
    if (found := class_of(other)) is None or found[0] in spec.conditions:
        return spec
    return dataclasses.replace(spec, conditions={**spec.conditions, found[0]: found[1]})


def with_captions(spec: DataSpec, clip: str) -> DataSpec:
    """The description of the data, with the captions that a CLIP guides by, where the model reads none itself."""
    if not clip:
        return spec
    _, _, other = named(clip)[0].read_recipe()
    if (found := caption_of(other)) is None or found[0] in usable(spec):
        return spec
    return dataclasses.replace(spec, conditions={**spec.conditions, found[0]: found[1]})


def known_words(words: list[str], spec: DataSpec) -> list[str]:
    """The words, unless they ask for a condition that other models have and this one has not."""
    known = usable(spec)
    for name in ("label", "vector", "text", "image"):
        if name not in known and any(word == f"--{name}" or word.startswith(f"--{name}=") for word in words):
            flags = ", ".join(f"--{key.replace('_', '-')}" for key in known)
            there = f"it takes {flags}" if known else "it was trained without conditions"
            unread = "; its data have captions, which training reads with --data.text bytes or minilm"
            raise UserError(f"this model takes no --{name}; {there}{unread if name in spec.conditions else ''}")
    return words


def layout(model: Model, options: SampleOptions, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """(how many samples, their conditions): some of every class, or of some captions, where neither was said."""
    columns = 4 if Path(options.out).suffix in ANIMATIONS and model.spec.kind == "image" else 0
    count, labels = model.showcase(columns, options)
    known = model.known(options)
    asked = any(name in known and known[name].kind in ("class", "text") for name in given)
    if options.n or options.labels != "cycle" or asked:
        return options.n or SHOWN[model.spec.kind], given
    return count, {**given, **labels}


def draw(run: Run, options: SampleOptions, given: dict[str, Any]) -> None:
    """Draws the samples and writes them."""
    if options.n < 0 or options.steps < 1 or options.batch_size < 1:
        raise UserError("-n, --steps and --batch-size must be positive")
    model = run.model(named_device(options.device))
    n, cond = layout(model, options, given)
    out = Path(options.out) if options.out else run.samples / f"samples-seed{options.seed}.png"
    check_path(out, model.spec)
    animate = out.suffix in ANIMATIONS
    if options.beliefs and not animate:
        check_strip(out, model.spec)
    states: list[list[np.ndarray[Any, Any]]] = []
    pieces: list[torch.Tensor] = []
    for line in cut_captions(model, options, cond):
        print(line)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"drawing {n} samples", total=n * options.steps)
        for start in range(0, n, options.batch_size):
            indices = range(start, min(start + options.batch_size, n))
            frames = []
            for step in model.trajectory(indices, options, seed=options.seed, **cond):
                progress.advance(task, len(indices))
                x = step.x_s
                if options.beliefs:
                    frames.append(model.spec.to_data(model.decode(step.prediction.x_0)))
                elif animate:
                    frames.append(model.spec.to_data(model.decode(_shown(model, step.x_t, step.t))))
            pieces.append(model.decode(x).cpu())
            states.append(frames)
    x_0 = model.spec.to_data(torch.cat(pieces))
    trajectory = [np.concatenate(parts) for parts in zip(*states, strict=True)] if any(states) else None
    if trajectory and not animate:
        print(f"what was believed of {n} samples: {write_strip([*trajectory, x_0], out, model.spec)}")
        return
    labels, captions = told(model, cond, options, n)
    files = write(x_0, out, model.spec, labels=labels or None, captions=captions or None, trajectory=trajectory)
    print(f"{n} samples: {files[0] if len(files) == 1 else out}")


def told(model: Model, cond: dict[str, Any], options: SampleOptions, n: int) -> tuple[list[int], list[str]]:
    """(the classes, the captions) that the samples were asked for by; empty where by none."""
    starts = range(0, n, options.batch_size)
    batches = [range(start, min(start + options.batch_size, n)) for start in starts]
    labels = [label for indices in batches for label in _classes(model, cond, options, indices)]
    captions = next(iter(model.captions(cond, options, options.seed, range(n)).values()), [])
    by_captions = captions and all(label < 0 for label in labels)
    return [] if by_captions else labels, captions if any(captions) else []


def cut_captions(model: Model, settings: SamplingConfig, given: dict[str, Any]) -> Iterator[str]:
    """A line for each condition whose captions are longer than the model reads."""
    for name, condition in model.known(settings).items():
        if condition.kind == "text" and condition.seen and name in given:
            length = condition.shape[0]
            if long := text_encoder(condition.encoder).too_long(words_of(given[name]), length):
                yield f"longer than the {length} tokens of a caption that this model reads, and cut: {some(shown(long))}"


def _shown(model: Model, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """x_t at the scale of data, so that a picture of it can be seen under every process."""
    alpha, sigma = model.denoiser.process.scales(t, x_t)
    return x_t / (alpha.square() + (sigma / model.denoiser.sigma_data).square()).sqrt()


def _classes(model: Model, cond: dict[str, Any], options: SampleOptions, indices: range) -> list[int]:
    """The class of every sample, where the model has classes."""
    rows = model.asked(cond, options, options.seed, indices)
    classes = (rows[name] for name, c in model.known(options).items() if c.named)
    return next((row.tolist() for row in classes), [])


def named_device(name: str) -> torch.device | None:
    """The device of that name; None for the best there is.

    Raises:
        UserError: no such device.
    """
    try:
        return torch.device(name) if name else None
    except RuntimeError:
        raise UserError(f"unknown device '{name}': cpu, cuda or mps") from None

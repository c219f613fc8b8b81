"""unstir edit inpaint|image-to-image|variations|restyle|interpolate|colorize|upscale RUN --image FILE [options] [--out FILE]"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from unstir.cli.advice import askable, condition_lines, usable
from unstir.cli.arguments import parse, spelled_out, take, take_conditions, wants_help
from unstir.cli.edit_options import (
    ColorizeOptions,
    EditOptions,
    ImageToImageOptions,
    InpaintOptions,
    InterpolateOptions,
    RestyleOptions,
    UpscaleOptions,
    VariationOptions,
)
from unstir.cli.sample import known_words, named_device, tell, with_captions, with_classes
from unstir.conditioning.derived import ImageEmbedding, LowRes
from unstir.data import DataSpec
from unstir.editing import (
    ByModel,
    colorize,
    image_to_image,
    inpaint,
    interpolate,
    restyle,
    upscale,
    variations,
)
from unstir.editing.colorize import grey_of
from unstir.editing.drawing import editing_settings
from unstir.editing.embedding import named, variation_settings
from unstir.editing.files import read_mask, read_sample
from unstir.editing.given import conditions_from_files
from unstir.editing.inpaint import method_for
from unstir.editing.interpolate import DEFAULTS, invertible_settings
from unstir.editing.upscale import read_small, repeated, shrink_error
from unstir.errors import UserError, did_you_mean
from unstir.media.write import check_path, write
from unstir.model import Model
from unstir.recipes import Recipe, SamplingConfig
from unstir.run import Run

USAGE = """usage: unstir edit COMMAND RUN --image FILE [options] [--out FILE.png|.npz|.npy|FOLDER]

{commands}

Works with any model that you trained. Pictures are read like its data: scaled and cut to their size, grey or in colour as they are;
upscale takes them as they are. Results have the data's size; several of them in one .png are shown enlarged, side by side, in a folder each is a file.
`unstir edit COMMAND RUN --help` lists the options."""


@dataclass(frozen=True)
class Edited:
    """What came of it, in model units.

    Args:
        x: (n, *shape) results.
        given: (k, *shape) what was given, for --compare.
        notes: lines to print.
        spec: of the results, where they are not like the model's data.
    """

    x: Tensor
    given: Tensor
    notes: tuple[str, ...] = ()
    spec: DataSpec | None = None


Conditions = Mapping[str, Any]


def _read(model: Model, file: str, flag: str) -> tuple[Tensor, str]:
    if not file:
        raise UserError(f"which picture? name a file with {flag} FILE")
    return read_sample(Path(file), model.spec, model.recipe.data)


def _inpaint(model: Model, options: InpaintOptions, cond: Conditions) -> Edited:
    x_0, note = _read(model, options.image, "--image")
    if not options.mask:
        raise UserError("what to fill? name a picture with --mask FILE, white where to fill")
    fill, mask_note = read_mask(Path(options.mask), model.spec, model.recipe.data)
    draws: dict[str, Any] = {"n": options.n, "seed": options.seed, "batch_size": options.batch_size}
    x = inpaint(model, x_0, fill, method=options.chosen(), settings=options, **draws, **cond)
    holed = torch.where(fill, torch.zeros(()), x_0)
    return Edited(x, torch.stack([x_0, holed]), (note, mask_note))


def _image_to_image(model: Model, options: ImageToImageOptions, cond: Conditions) -> Edited:
    x_0, note = _read(model, options.image, "--image")
    draws: dict[str, Any] = {"n": options.n, "seed": options.seed, "batch_size": options.batch_size}
    x = image_to_image(model, x_0, options.strength, settings=options, **draws, **cond)
    return Edited(x, x_0.unsqueeze(0), (note,))


def _interpolate(model: Model, options: InterpolateOptions, cond: Conditions) -> Edited:
    (a, note_a), (b, note_b) = _read(model, options.image, "--image"), _read(model, options.to, "--to")
    walk: dict[str, Any] = {"method": options.method, "strength": options.strength, "seed": options.seed}
    x = interpolate(model, a, b, n=options.n, settings=options, **walk, **cond)
    ends = torch.stack([a, b])
    error = model.spec.in_units(x[[0, -1]]) - model.spec.in_units(ends)
    units = " of 255" if model.spec.dtype == "uint8" else ""
    come_back = (
        f"the ends come back with an error of {float(error.square().mean().sqrt()):.3g}{units} (root mean square)"
    )
    return Edited(x, ends, (note_a, note_b, come_back))


def _variations(model: Model, options: VariationOptions, cond: Conditions) -> Edited:
    x_0, note = _read(model, options.image, "--image")
    draws: dict[str, Any] = {"n": options.n, "seed": options.seed, "batch_size": options.batch_size}
    x = variations(model, x_0, keep=options.keep, settings=options, **draws, **cond)
    return Edited(x, x_0.unsqueeze(0), (note,))


def _restyle(model: Model, options: RestyleOptions, cond: Conditions) -> Edited:
    x_0, note = _read(model, options.image, "--image")
    before = options.from_text.strip() or named(model, x_0.unsqueeze(0))
    taken = "" if options.from_text.strip() else f'taken for "{before}" (--from-text says otherwise)'
    x = restyle(model, x_0, options.to_text, before, strength=options.strength, n=options.n, settings=options, **cond)
    return Edited(x, x_0.unsqueeze(0), (note, taken))


def _colorize(model: Model, options: ColorizeOptions, cond: Conditions) -> Edited:
    x_0, note = _read(model, options.image, "--image")
    draws: dict[str, Any] = {"n": options.n, "seed": options.seed, "batch_size": options.batch_size}
    x = colorize(model, x_0, method=options.chosen(), settings=options, **draws, **cond)
    grey = torch.cat([grey_of(x_0.unsqueeze(0)).expand(-1, 3, -1, -1), x_0[None, 3:]], 1)
    return Edited(x, grey, (note,))


def _upscale(model: Model, options: UpscaleOptions, cond: Conditions) -> Edited:
    if not options.image:
        raise UserError("which picture? name a file with --image FILE")
    small = read_small(Path(options.image), model.spec, model.recipe.data)
    draws: dict[str, Any] = {"n": options.n, "seed": options.seed, "batch_size": options.batch_size}
    method, factor, derived = options.chosen(), options.factor, model.recipe.derived
    if isinstance(method, ByModel):
        if not isinstance(derived, LowRes):
            raise UserError(
                "this model was not trained to enlarge: leave --method out, or train one (unstir train cascade)"
            )
        factor = derived.factor
    how: dict[str, Any] = {"level": options.level, "method": None if isinstance(method, ByModel) else method}
    x = upscale(model, small, factor=factor, settings=options, **how, **draws, **cond)
    given = repeated(small.unsqueeze(0), factor, x.shape[2:])
    spec = replace(model.spec, shape=tuple(x.shape[1:]))
    units = " of 255" if spec.dtype == "uint8" else ""
    error = shrink_error(x, small, factor, spec)
    note = f"made smaller again, what came out differs by {error:.3g}{units} (root mean square)"
    return Edited(x, given, (note,), spec)


@dataclass(frozen=True)
class Edit:
    """One of the commands.

    Args:
        about: one line.
        flags: what it needs, for the usage.
        options: its dataclass.
        run: does it.
        defaults: the recipe's sampling settings and the words -> settings for this edit.
        presets: further options whose defaults hang on the recipe.
    """

    about: str
    flags: str
    options: type[EditOptions]
    run: Callable[[Model, Any, Conditions], Edited]
    defaults: Callable[[SamplingConfig, list[str]], SamplingConfig]
    presets: Callable[[Recipe], dict[str, Any]] = lambda recipe: {}


def _method_of_inpainting(recipe: Recipe) -> dict[str, Any]:
    return {"method": method_for(recipe)}


def _method_of_projection(recipe: Recipe) -> dict[str, Any]:
    return {"method": "gradient" if recipe.autoencoder else "replacement"}


def _method_of_upscaling(recipe: Recipe) -> dict[str, Any]:
    return {"method": "model"} if isinstance(recipe.derived, LowRes) else _method_of_projection(recipe)


def _defaults(recommended: SamplingConfig, words: list[str]) -> SamplingConfig:
    return editing_settings(recommended)


def _method_of_interpolation(recipe: Recipe) -> dict[str, Any]:
    return {"method": "embedding"} if isinstance(recipe.derived, ImageEmbedding) else {}


def _variation_defaults(recommended: SamplingConfig, words: list[str]) -> SamplingConfig:
    kept = take(list(words), "--keep") or "0"
    return variation_settings(recommended, float(kept.strip("0.") != ""))  # what is no number is refused later


def _restyle_defaults(recommended: SamplingConfig, words: list[str]) -> SamplingConfig:
    return invertible_settings(recommended)


def _interpolation_defaults(recommended: SamplingConfig, words: list[str]) -> SamplingConfig:
    method = take(list(words), "--method") or "ddim"
    return DEFAULTS.get(method, editing_settings)(recommended)  # an unknown one is refused with the other options


EDITS: dict[str, Edit] = {
    "inpaint": Edit(
        about="fill what a mask marks in white",
        flags="--image FILE --mask FILE",
        options=InpaintOptions,
        run=_inpaint,
        defaults=_defaults,
        presets=_method_of_inpainting,
    ),
    "image-to-image": Edit(
        about="new pictures that resemble one",
        flags="--image FILE --strength 0.5",
        options=ImageToImageOptions,
        run=_image_to_image,
        defaults=_defaults,
    ),
    "interpolate": Edit(
        about="from one picture to another",
        flags="--image FILE --to FILE",
        options=InterpolateOptions,
        run=_interpolate,
        defaults=_interpolation_defaults,
        presets=_method_of_interpolation,
    ),
    "variations": Edit(
        about="others that show the same",
        flags="--image FILE -n 8",
        options=VariationOptions,
        run=_variations,
        defaults=_variation_defaults,
    ),
    "restyle": Edit(
        about="towards another caption",
        flags='--image FILE --to-text "a dog"',
        options=RestyleOptions,
        run=_restyle,
        defaults=_restyle_defaults,
    ),
    "colorize": Edit(
        about="colours for a grey picture",
        flags="--image FILE",
        options=ColorizeOptions,
        run=_colorize,
        defaults=_defaults,
        presets=_method_of_projection,
    ),
    "upscale": Edit(
        about="make a picture larger",
        flags="--image FILE",
        options=UpscaleOptions,
        run=_upscale,
        defaults=_defaults,
        presets=_method_of_upscaling,
    ),
}


def usage() -> str:
    """What ``unstir edit`` prints."""
    lines = [f"  {name:15s}{edit.about:34s}unstir edit {name} RUN {edit.flags}" for name, edit in EDITS.items()]
    return USAGE.format(commands="\n".join(lines))


def main(words: list[str]) -> None:
    """Runs the command."""
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return
    name, *rest = words
    if name not in EDITS:
        raise UserError(f"unknown 'unstir edit {name}'; {did_you_mean(name, EDITS)}")
    edit = EDITS[name]
    if not rest or rest[0] in ("-h", "--help"):
        print(f"usage: unstir edit {name} RUN {edit.flags} [options] [--out FILE]\n\n{edit.options.__doc__}")
        return
    if rest[0].startswith("-"):
        raise UserError(f"name the run folder first: unstir edit {name} RUN {edit.flags}")
    run = Run.open(rest[0])
    _, recipe, spec = run.read_recipe()
    rest = spelled_out(rest[1:])
    spec = with_classes(spec, take(list(rest), "--classifier") or recipe.sampling.classifier)
    spec = with_captions(spec, take(list(rest), "--clip-model") or recipe.sampling.clip_model)
    spec = askable(run, recipe, spec, take(list(rest), "--prior"))
    given = conditions_from_files(take_conditions(rest, usable(spec)), [], recipe, spec, tell)
    if wants_help(rest):
        print("\n".join(condition_lines(spec)))
    known_words([word for word in rest if word.partition("=")[0] != "--image"], spec)  # a file, elsewhere a condition
    settings = edit.defaults(recipe.sampling, rest)
    fields = {field.name: getattr(settings, field.name) for field in dataclasses.fields(SamplingConfig)}
    options = parse(edit.options(**fields, **edit.presets(recipe)), rest, f"unstir edit {name} {run.folder}")
    _edit(run, name, options, given)


def _edit(run: Run, name: str, options: EditOptions, cond: Conditions) -> None:
    """Draws the results and writes them."""
    if options.n < 1 or options.steps < 1 or options.batch_size < 1:
        raise UserError("-n, --steps and --batch-size must be at least 1")
    model = run.model(named_device(options.device))
    out = Path(options.out) if options.out else run.samples / f"{name}-seed{options.seed}.png"
    check_path(out, model.spec)
    with counting(model, name):
        edited = EDITS[name].run(model, options, cond)
    frames = [model.spec.to_data(x.unsqueeze(0)) for x in edited.x] if name == "interpolate" else None
    if out.suffix in (".gif", ".webp") and frames:
        files = write(frames[-1], out, model.spec, trajectory=frames)
    else:
        x = torch.cat([edited.given, edited.x]) if options.compare else edited.x
        spec = edited.spec or model.spec
        files = write(spec.to_data(x), out, spec)
    for note in edited.notes:
        tell(note)
    print(f"{len(edited.x)} result{'s' if len(edited.x) > 1 else ''}: {files[0] if len(files) == 1 else out}")


@contextlib.contextmanager
def counting(model: Model, what: str) -> Iterator[None]:
    """Shows how often the model has been asked; how often it will be depends on the method."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)

        def count(*_: Any) -> None:
            progress.advance(task)
            progress.update(task, description=f"{what}: {progress.tasks[0].completed:.0f} evaluations")

        hook = model.denoiser.register_forward_hook(count)
        try:
            yield
        finally:
            hook.remove()

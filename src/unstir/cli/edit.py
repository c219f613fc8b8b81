"""unstir edit inpaint|image-to-image|interpolate|colorize|upscale RUN --image FILE [options] [--out FILE]"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from unstir.cli.advice import condition_lines, usable
from unstir.cli.arguments import parse, spelled_out, take, take_conditions, wants_help
from unstir.cli.sample import DrawOptions, known_words, named_device, tell, with_captions, with_classes
from unstir.conditioning.derived import LowRes
from unstir.data import DataSpec
from unstir.editing import (
    ByBelief,
    ByGradient,
    ByModel,
    ByReplacement,
    ByResampling,
    Method,
    colorize,
    image_to_image,
    inpaint,
    interpolate,
    upscale,
)
from unstir.editing.colorize import grey_of
from unstir.editing.drawing import editing_settings
from unstir.editing.files import read_mask, read_sample
from unstir.editing.given import conditions_from_files
from unstir.editing.inpaint import method_for
from unstir.editing.interpolate import DEFAULTS
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
class EditOptions(DrawOptions):
    """What to edit and how. Conditions are given by name, e.g. --label 3; without one there is no label."""

    image: str = ""
    """The picture to edit. For other data than pictures: a .npy of one sample, in the data's units."""
    n: int = 1
    """How many results."""
    out: str = ""
    """A file, whose ending decides the format, or a folder for one file a result. Default: a picture in the run folder."""
    compare: bool = False
    """Put what was given before the results."""


@dataclass(frozen=True)
class ConditionalOptions(EditOptions):
    """How to make the rest agree with what is known."""

    method: Literal["model", "repaint", "replacement", "gradient", "belief"] = "repaint"
    """repaint: every step several times, until all agrees; replacement: once, fast; gradient: through the network, slow; belief: in what
    is believed at every step, for consistency models."""
    resamplings: int = 10
    """Of repaint: how often to walk every stretch of the way."""
    jump: int = 1
    """Of repaint: how many steps make a stretch."""
    gradient_scale: float = 4.0
    """Of gradient: how hard to pull."""

    def chosen(self) -> Method:
        """The method with its own options.

        Raises:
            UserError: a number of repetitions or steps that is not positive.
        """
        if self.resamplings < 1 or self.jump < 1:
            raise UserError("--resamplings and --jump must be at least 1")
        return _METHODS[self.method](self)


_METHODS: dict[str, Callable[[ConditionalOptions], Method]] = {
    "repaint": lambda options: ByResampling(options.resamplings, options.jump),
    "replacement": lambda options: ByReplacement(),
    "gradient": lambda options: ByGradient(options.gradient_scale),
    "model": lambda options: ByModel(),
    "belief": lambda options: ByBelief(),
}


@dataclass(frozen=True)
class InpaintOptions(ConditionalOptions):
    """Fill a part of a picture so that it fits the rest, which is kept exactly."""

    method: Literal["model", "repaint", "replacement", "gradient", "belief"] = "repaint"
    """model: as it was trained to (the default, where it was: unstir train glide-inpaint); belief: in what is believed at every step (the
    default of consistency models); else repaint: every step several times, until all agrees; replacement: once, fast; gradient: through the
    network, slow."""
    mask: str = ""
    """A picture, white where to fill; or a .npy, not 0 where to fill."""


@dataclass(frozen=True)
class ImageToImageOptions(EditOptions):
    """Make new pictures that resemble a given one, which may be as crude as a few strokes."""

    strength: float = 0.5
    """0: the picture itself, 1: one that has nothing to do with it."""


@dataclass(frozen=True)
class InterpolateOptions(EditOptions):
    """Walk from one picture to another. With --out FILE.gif it is an animation."""

    to: str = ""
    """The other picture."""
    n: int = 9
    """How many pictures, both ends among them."""
    method: Literal["ddim", "ddpm"] = "ddim"
    """ddim: between the latents that the model gives them; ddpm: between the two under the same noise."""
    strength: float = 0.5
    """Of ddpm: how much noise; more leaves the middle more freedom, and changes the ends."""


@dataclass(frozen=True)
class ColorizeOptions(ConditionalOptions):
    """Give a grey picture colours. Of a picture in colours only the grey is used."""

    method: Literal["repaint", "replacement", "gradient", "belief"] = "replacement"
    """replacement: once, fast; repaint: every step several times; gradient: through the network; belief: for consistency models."""


@dataclass(frozen=True)
class UpscaleOptions(ConditionalOptions):
    """Make a picture larger. A run that was trained to enlarge (unstir train cascade) does so with pictures of any size if its network is a
    U-Net; any other draws one of its own size whose smaller copy is the given picture, exactly."""

    method: Literal["model", "replacement", "repaint", "gradient", "belief"] = "replacement"
    """model: as it was trained to (the default, where it was); else replacement: held to the picture at every step; repaint: every step
    several times; gradient: through the network; belief: for consistency models."""
    level: float = 0.0
    """Of model: noise on the picture that is given, 0 to 1: the more, the more freedom."""
    factor: int = 2
    """Of the other methods: how many times larger."""


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


def _method_of_upscaling(recipe: Recipe) -> dict[str, Any]:
    return {"method": "model" if isinstance(recipe.derived, LowRes) else "replacement"}


def _defaults(recommended: SamplingConfig, words: list[str]) -> SamplingConfig:
    return editing_settings(recommended)


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
    ),
    "colorize": Edit(
        about="colours for a grey picture",
        flags="--image FILE",
        options=ColorizeOptions,
        run=_colorize,
        defaults=_defaults,
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

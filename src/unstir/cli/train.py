"""unstir train RECIPE --data SOURCE [--out RUN] [--section.key VALUE ...] [--config FILE] | unstir train --resume RUN"""

from __future__ import annotations

import dataclasses
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any

from rich.console import Console

from unstir.cli.advice import continue_command, told, use_command
from unstir.cli.arguments import parse, take
from unstir.cli.progress import TrainingDisplay, decoding_progress
from unstir.errors import UserError

USAGE = """usage: unstir train RECIPE --data SOURCE [--out RUN] [--section.key VALUE ...] [--config FILE]
       unstir train --resume RUN [--section.key VALUE ...]

Trains a model and ends with a run folder: samples, weights, and all that is needed to go on.

  RECIPE          one of: {recipes}  (unstir recipes)
  --data SOURCE   a built-in name, a folder of pictures, a .npy/.npz/.csv file, hf:NAME, or shards (*.tar)
  --out RUN       the run folder (default: runs/RECIPE-DATA)
  --base RUN      start from the weights of this run, with its process and network (RUN@STEP: as it was at that checkpoint)
  --autoencoder AE  work in the latents of this autoencoder (a run, a folder of diffusers', taef2:FOLDER, haar:2); --train-autoencoder
                  trains one first
  --clip CLIP     work with the vectors of this CLIP (of unclip and prior); unclip trains one first, and takes a --prior RUN too
  --config FILE   a TOML file of settings, such as another run's recipe.toml
  --resume RUN    go on with a run that was stopped or killed; more --training.steps or --training.minutes make it longer

Every setting can be given, e.g. --training.minutes 10 --network.channels 96; `unstir train RECIPE --help` lists them."""


def main(words: list[str]) -> None:
    """Runs the command."""
    words = list(words)
    resume = take(words, "--resume")
    if resume is not None:
        if words and not words[0].startswith("--"):
            words.pop(0)  # `unstir train RECIPE --resume RUN`: the run knows its recipe
        return _resume(resume, words)
    if not words or words[0] in ("-h", "--help"):
        from unstir.recipes import RECIPES

        print(USAGE.format(recipes=", ".join(RECIPES)))
        return
    _start(words)


def _settings(recipe: Any, words: list[str], program: str) -> Any:
    """The recipe with a --config file's settings, then the flags'."""
    from unstir.recipes.serial import override

    config = take(words, "--config")
    source = take(words, "--data")
    if config is not None:
        recipe = override(recipe, read_config(Path(config)))
    if source is not None:
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, source=source))
    return parse(recipe, words, program)


def read_config(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            settings = tomllib.load(file)
    except OSError as error:
        raise UserError(f"cannot read --config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path} is not valid TOML: {error}") from error
    return {key: value for key, value in settings.items() if key not in ("format", "unstir", "recipe", "data_set")}


def _start(words: list[str]) -> None:
    from unstir.kept import clip_named, with_clip
    from unstir.recipes import recipe as recipe_named
    from unstir.recipes.chains import CHAINS, with_autoencoder

    name, *words = words
    if name.startswith("-"):
        raise UserError("name a recipe first: unstir train RECIPE --data SOURCE (unstir recipes lists them)")
    recipe = recipe_named(name)
    first, words = "--train-autoencoder" in words, [word for word in words if word != "--train-autoencoder"]
    if first:
        _check_trains_autoencoder(name, recipe, words)
    if first or name in CHAINS:
        from unstir.cli.chain import start

        return start(name, words, with_autoencoder(recipe) if first else None)
    out, base, clip = take(words, "--out"), take(words, "--base"), take(words, "--clip")
    if base is not None:
        from unstir.training.base import based

        recipe = based(recipe, base)
    recipe = _settings(recipe if clip is None else with_clip(recipe, clip), words, f"unstir train {name}")
    if recipe.network.needs_base and not recipe.base:
        raise UserError(
            f"{name} is built around a run that you trained before: unstir train {name} --base RUN --data SOURCE"
        )
    if not recipe.data.source:
        raise UserError(
            f"what to train on? unstir train {name} --data SOURCE (a folder of pictures, or a name such as emoji)"
        )
    recipe.training.fraction(0, 0.0)  # a run without a length is refused before the data are read

    from unstir.codecs import check_named, findable
    from unstir.run import Run
    from unstir.training.vectors import check_vectors

    check_named(recipe.autoencoder)
    check_vectors(recipe)
    recipe = dataclasses.replace(recipe, autoencoder=findable(recipe.autoencoder))

    run = Run(out or default_folder(name, recipe.data.source))
    if run.exists():
        raise UserError(
            f"{run.folder} is a run already. Go on with it: unstir train --resume {run.folder}   Or choose another --out."
        )
    recipe = dataclasses.replace(recipe, data=findable_data(recipe.data), sampling=findable_runs(recipe.sampling))
    if clip_named(recipe):
        recipe = with_clip(recipe, str(Path(clip_named(recipe)).expanduser().resolve()))
    _train(run, name, recipe, resume=False)


def _check_trains_autoencoder(name: str, recipe: Any, words: list[str]) -> None:
    """Refuses --train-autoencoder where it makes no sense."""
    from unstir.recipes import DenoiserConfig
    from unstir.recipes.chains import CHAINS

    if name in CHAINS or recipe.network.needs_base or not isinstance(recipe.denoiser, DenoiserConfig):
        raise UserError(
            f"--train-autoencoder is for recipes of one model that draws samples, such as latent, not for {name}"
        )
    if take(list(words), "--autoencoder") is not None:
        raise UserError(
            "--autoencoder names an autoencoder, and --train-autoencoder trains another one: leave one of the two out"
        )


def findable_data(data: Any) -> Any:
    """The data section with paths that lead to the data, and to the text encoder, from any folder, so that a run can go on from
    anywhere."""
    from unstir.conditioning.text import TEXT_ENCODERS
    from unstir.data import BUILTIN

    path, encoder = Path(data.source).expanduser(), Path(data.text).expanduser()
    if data.source not in BUILTIN and path.exists():
        data = dataclasses.replace(data, source=str(path.resolve()))
    if data.text and data.text not in TEXT_ENCODERS and encoder.is_dir():
        data = dataclasses.replace(data, text=str(encoder.resolve()))
    return data


def findable_runs(sampling: Any) -> Any:
    """The sampling section with paths of other runs that lead to them from any folder."""

    from unstir.run import is_run

    def findable(name: str) -> str:
        return str(Path(name).expanduser().resolve()) if name else name

    def beside(name: str) -> str:  # a stage of a chain is named as seen from the run's own folder
        return findable(name) if name and is_run(str(Path(name).expanduser())) else name

    return dataclasses.replace(
        sampling,
        classifier=findable(sampling.classifier),
        clip_model=findable(sampling.clip_model),
        autoguidance=findable(sampling.autoguidance),
        low_res_from=beside(sampling.low_res_from),
        prior=beside(sampling.prior),
    )


def _resume(folder: str, words: list[str]) -> None:
    from unstir.run import Run
    from unstir.stages import read_stages

    if read_stages(folder) is not None:
        from unstir.cli.chain import resume

        return resume(folder, words)
    run = Run.open(folder)
    if take(list(words), "--base") is not None:
        raise UserError(f"--base starts a new run, and {run.folder} is to go on: leave it out")
    name, recipe, _ = run.read_recipe()
    _train(run, name, _settings(recipe, words, f"unstir train --resume {folder}"), resume=True)


def default_folder(name: str, source: str) -> Path:
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(source).stem).strip("-") or "data"
    base = Path("runs") / f"{name}-{stem}"
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder


def _stop_politely(session: Any) -> None:
    """Ctrl-C, or a scheduler's SIGTERM, ends the run after the step in progress; a second Ctrl-C ends it at once."""

    def stop(number: int, frame: object) -> None:
        session.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _train(run: Any, name: str, recipe: Any, *, resume: bool) -> None:
    from unstir.training.devices import disband, engine

    accelerator = engine()
    status = train_with(accelerator, run, name, recipe, resume=resume)
    disband(accelerator, status)
    if status:
        sys.exit(status)


def train_with(accelerator: Any, run: Any, name: str, recipe: Any, *, resume: bool) -> int:
    """The exit status: 0 at the end, or 130 if it was stopped."""
    from unstir.data import load
    from unstir.training.session import Session
    from unstir.training.vectors import as_vectors

    console = Console(quiet=not accelerator.is_main_process, highlight=False)
    # The first process decodes and caches the pictures, the others find it done.
    with accelerator.main_process_first(), decoding_progress(console) as progress:
        dataset = load(recipe.data, progress)
    for line in dataset.report.problems():
        console.print(f"data: {line}", markup=False, soft_wrap=True)
    with decoding_progress(console, "embedding samples") as progress:
        dataset = as_vectors(dataset, run, recipe, accelerator, progress)
    if resume:
        _check_same_data(run, dataset)
    with decoding_progress(console, "encoding samples") as progress:
        session = Session(run, name, recipe, dataset, accelerator, progress)
    if resume:
        session.resume()
        for warning in session.warnings:
            console.print(f"checkpoints: {warning}", markup=False, soft_wrap=True)
    session.start(name)
    if session.main and (tensorboard := _tensorboard(run.folder)) is not None:
        session.track_with(tensorboard)
    _say_what(console, session, run)
    display = TrainingDisplay(console, recipe.training)
    _stop_politely(session)
    with display:
        for step in session:
            display.update(step)
    if session.stopping:
        console.print(
            f"Stopped at step {session.state.step:,}, and saved. Go on:  unstir train --resume {run.folder}",
            soft_wrap=True,
        )
        return 130
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with console.status("looking at what was learnt"):
        shown = session.show(final=True)
    _say_end(console, session, run, shown)
    return 0


def _check_same_data(run: Any, dataset: Any) -> None:
    before = run.data_set().get("fingerprint")
    if before and before != dataset.fingerprint:
        raise UserError(
            f"the data are not what {run.folder} was trained on (their content or options changed), so it cannot go on exactly.\n"
            f"Bring the old data back, or start anew from its settings: unstir train RECIPE --config {run.recipe_file} --out NEW"
        )


def _tensorboard(folder: Path) -> Any:
    """A tracker that writes TensorBoard files, where tensorboardX is installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    writer = SummaryWriter(str(folder / "tensorboard"))

    def track(row: dict[str, Any]) -> None:
        for key, value in row.items():
            if key != "step":
                writer.add_scalar(key, value, row["step"])

    return track


def _say_what(console: Console, session: Any, run: Any) -> None:
    spec, data = session.spec, session.dataset
    shape = "x".join(map(str, spec.shape))
    weights = sum(p.numel() for p in session.module.parameters())
    conditions = ", ".join(told(n, c) for n, c in spec.conditions.items())
    console.print(
        f"{data.name}: {len(data):,} samples {shape}{_latents(session)}{', ' + conditions if conditions else ''}; "
        f"{weights / 1e6:.2f} M weights{_frozen(session.module)} on {session.accelerator.device.type}"
        f"{f' x {session.accelerator.num_processes}' if session.accelerator.num_processes > 1 else ''}; run folder {run.folder}",
        soft_wrap=True,
    )
    for note in session.notes:
        console.print(f"base: {note}", markup=False, soft_wrap=True)


def _latents(session: Any) -> str:
    if not session.codec.latent:
        return ""
    return f" (as latents {'x'.join(map(str, session.codec.latent_spec(session.spec).shape))})"


def _frozen(module: Any) -> str:
    frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    return f" ({frozen / 1e6:.2f} M of them frozen)" if frozen else ""


def _say_end(console: Console, session: Any, run: Any, shown: Any) -> None:
    console.print(f"Trained {session.state.step:,} steps in {session.state.seconds / 60:.1f} minutes.")
    what, command = use_command(run, session.recipe, session.spec)
    for name, text in (
        *shown.lines,
        ("run folder", run.folder),
        (what, command),
        ("go on", continue_command(run, session.recipe)),
    ):
        console.print(f"  {name:11s}  {text}", markup=False, soft_wrap=True)

"""unstir train cascade|imagen|unclip, unstir train latent --train-autoencoder: recipes of several stages, each of which is trained by
``unstir train`` when the one before is done."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from unstir.cli.arguments import parse, take, wants_help
from unstir.cli.progress import decoding_progress
from unstir.errors import UserError
from unstir.recipes import Recipe
from unstir.run import Run
from unstir.stages import forget_stages, read_stages, stage_name, write_stages

HELP = """This recipe trains {count} models, one after the other: {names}. An option is for all of them that are of one kind; with the name of a
stage before it, for that stage alone, as in --{first}.network.channels 96. --training.minutes is shared out over them.
"""


AT_ITS_OWN = (
    "--data.text",
    "--data.groups",
    "--training.learning-rate",
    "--training.optimizer",
    "--training.decay",
    "--training.warmup",
    "--training.average",
    "--training.evaluate",
)
"""Options of data and training that are not meant for a stage of another kind than the last one: an autoencoder, a CLIP, a prior."""

OF_ENLARGING = ("--derived", "--denoiser.given", "--sampling.low-res")
"""Options that are not meant for a stage that enlarges nothing."""


def start(name: str, words: list[str], stages: Mapping[str, Recipe] | None = None) -> None:
    """``unstir train NAME --data SOURCE``.

    Args:
        stages: of the chain; by default those that ``CHAINS`` says.
    """
    from unstir.cli.brought import bring, check_data, take_brought
    from unstir.cli.train import default_folder, findable_data, findable_runs
    from unstir.codecs import INSIDE, check_named, findable
    from unstir.data import load
    from unstir.recipes.chains import stages_of, with_sizes
    from unstir.training.devices import engine
    from unstir.training.session import fit_recipe

    stages = stages or stages_of(name)
    if wants_help(words):
        names = ", ".join(folder or "and the one that the run is" for folder in stages)
        print(HELP.format(count=len(stages), names=names, first=next(iter(stages))))
    if take(list(words), "--base") is not None:
        raise UserError(f"{name} trains its stages itself, and starts from no other run: leave --base out")
    out = take(words, "--out")
    stages, brought = take_brought(name, stages, words)
    stages = settled(stages, words, f"unstir train {name}")
    source = stages[""].data.source
    if not source:
        raise UserError(
            f"what to train on? unstir train {name} --data SOURCE (a folder of pictures, or a name such as emoji)"
        )
    trains_own = INSIDE in stages
    for recipe in stages.values():
        if not trains_own:
            check_named(recipe.autoencoder)
    folder = Path(out) if out else default_folder(name, source)
    if Run(folder).exists() or read_stages(folder) is not None:
        raise UserError(
            f"{folder} is a run already. Go on with it: unstir train --resume {folder}   Or choose another --out."
        )
    accelerator = engine()
    console = Console(quiet=not accelerator.is_main_process, highlight=False)
    with accelerator.main_process_first(), decoding_progress(console) as progress:
        dataset = load(stages[""].data.plain(), progress)  # only for its kind and size
    fit_recipe(stages[""], dataset, name)
    stages[""].derived.check(dataset.spec)
    check_stages(stages, dataset)
    check_data(brought, dataset.spec)
    sized = with_sizes(stages, dataset.spec.shape[1:]) if dataset.spec.kind == "image" else stages
    stages = {
        inner: dataclasses.replace(
            r,
            autoencoder=r.autoencoder if trains_own else findable(r.autoencoder),
            data=findable_data(r.data),
            sampling=dataclasses.replace(
                findable_runs(r.sampling), low_res_from=r.sampling.low_res_from, prior=r.sampling.prior
            ),
        )
        for inner, r in sized.items()
    }
    if accelerator.is_main_process:
        bring(folder, brought)
    accelerator.wait_for_everyone()
    train_stages(accelerator, folder, name, stages)


def check_stages(stages: Mapping[str, Recipe], dataset: Any) -> None:
    """Refuses data that one of the stages cannot learn from, before any is trained.

    Raises:
        UserError: with the reason.
    """
    from unstir.training.vectors import check_captions

    for recipe in stages.values():
        if recipe.vectors:
            check_captions(dataset)
        recipe.denoiser.rows(dataset)
        if recipe.autoencoder not in stages:
            _check_given(recipe, dataset.spec)


def _check_given(recipe: Recipe, spec: Any) -> None:
    """Refuses a condition that a denoiser is to correct and that has not the shape of what it works on."""
    import torch

    from unstir.codec import IDENTITY, Codec, LatentCodec
    from unstir.codecs import open_autoencoder
    from unstir.recipes import DenoiserConfig
    from unstir.run import fetch

    if not isinstance(recipe.denoiser, DenoiserConfig) or not recipe.denoiser.given:
        return
    codec: Codec = IDENTITY
    if recipe.autoencoder:
        autoencoder = open_autoencoder(recipe.autoencoder, spec, fetch, torch.device("cpu"))
        channels = autoencoder.latent_channels
        codec = LatentCodec(autoencoder, (0.0,) * channels, (1.0,) * channels)
    recipe.denoiser.linear(recipe.process, codec.latent_spec(recipe.derived.described(spec)))


def resume(folder: str, words: list[str]) -> None:
    """``unstir train --resume RUN`` of a run in several stages: from where it stopped, in whichever."""
    from unstir.training.devices import engine

    found = read_stages(folder)
    assert found is not None
    name, planned = found
    begun = {inner: Run(Path(folder) / inner) for inner in planned}
    stages = {inner: run.read_recipe()[1] if run.exists() else planned[inner] for inner, run in begun.items()}
    train_stages(engine(), Path(folder), name, settled(stages, words, f"unstir train --resume {folder}"))


def train_stages(accelerator: Any, folder: Path, name: str, stages: Mapping[str, Recipe]) -> None:
    """Trains the stages that are not done yet; the last one in any case, so that the end is told. A single one is a run as any other."""
    from unstir.cli.train import train_with
    from unstir.training.devices import disband

    console = Console(quiet=not accelerator.is_main_process, highlight=False)
    fresh = accelerator.is_main_process and len(stages) > 1 and read_stages(folder) is None
    if accelerator.is_main_process and len(stages) > 1:
        write_stages(folder, name, stages)
    accelerator.wait_for_everyone()
    status = 0
    for number, (inner, recipe) in enumerate(stages.items(), start=1):
        run = Run(folder / inner)
        if inner and (worked_in(inner, stages, folder) or done(run, recipe)):
            continue
        if len(stages) > 1:
            console.print(f"stage {number} of {len(stages)}: {recipe.about or stage_name(name, inner)}", soft_wrap=True)
        try:
            status = train_with(accelerator, run, stage_name(name, inner), recipe, resume=run.exists())
        except UserError:
            if fresh and number == 1 and not run.exists():  # it never began: the folder is free for another try
                forget_stages(folder)
            raise
        accelerator.free_memory()  # it holds on to all that it ever prepared: every stage's network, and its teacher's
        if status and len(stages) > 1:
            console.print(f"All stages go on with:  unstir train --resume {folder}", soft_wrap=True)
        if status:
            break
    disband(accelerator, status)
    if status:
        sys.exit(status)


def worked_in(inner: str, stages: Mapping[str, Recipe], folder: Path) -> bool:
    """Whether a later stage has begun in the latents of this one, or with its vectors. It then stays as it is: trained on, they would be
    others."""
    from unstir.kept import clip_named

    def works_in(later: str, recipe: Recipe) -> bool:
        clip = clip_named(recipe)
        return recipe.autoencoder == inner or bool(
            clip and (folder / later / clip).resolve() == (folder / inner).resolve()
        )

    return any(works_in(later, recipe) and Run(folder / later).exists() for later, recipe in stages.items())


def done(run: Run, recipe: Recipe) -> bool:
    """Whether a run is as long as planned."""
    from unstir.training.checkpoint import Checkpoints

    checkpoints = Checkpoints(run.checkpoints, 1)
    if not run.exists() or not run.weights_file.is_file() or not checkpoints.steps():
        return False
    state, _ = checkpoints.load()
    return recipe.training.fraction(state["step"], state["seconds"]) >= 1


# ---- settings --------------------------------------------------------------------------------------------------------


def settled(stages: Mapping[str, Recipe], words: list[str], program: str) -> dict[str, Recipe]:
    """The stages with the settings of a --config file and of the flags.

    Raises:
        UserError: an option that no stage has, or a value that does not fit.
    """
    from unstir.cli.train import read_config
    from unstir.recipes.serial import override

    words = list(words)
    config, source = take(words, "--config"), take(words, "--data")
    minutes = take(words, "--training.minutes")
    settings = {} if config is None else read_config(Path(config))
    settled_: dict[str, Recipe] = {}
    for folder, recipe in shared_out(stages, minutes).items():
        recipe = override(recipe, _meant_for(folder, stages, settings))
        if source is not None:
            recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, source=source))
        recipe = parse(recipe, words_of(folder, stages, words), program)
        recipe.training.fraction(0, 0.0)  # a stage without a length is refused before any is trained
        settled_[folder] = recipe
    return settled_


def shared_out(stages: Mapping[str, Recipe], minutes: str | None) -> dict[str, Recipe]:
    """The stages with so many minutes between them, in proportion to what they have now.

    Raises:
        UserError: no number of minutes.
    """
    if minutes is None:
        return dict(stages)
    try:
        total = float(minutes)
    except ValueError:
        raise UserError(f"--training.minutes takes a number, not '{minutes}'") from None
    now = {folder: recipe.training.minutes or 1.0 for folder, recipe in stages.items()}
    return {
        folder: dataclasses.replace(
            recipe, training=dataclasses.replace(recipe.training, minutes=total * now[folder] / sum(now.values()))
        )
        for folder, recipe in stages.items()
    }


def words_of(folder: str, stages: Mapping[str, Recipe], words: Iterable[str]) -> list[str]:
    """The options of one stage: those for all, and those with its name before them, which win. A stage before the last that enlarges nothing
    leaves out what is said of enlarging, an autoencoder all that is said of another model."""
    common: dict[str, list[str]] = {}
    own: dict[str, list[str]] = {}
    for option in _options(words):
        head, dot, rest = option[0].removeprefix("--").partition(".")
        if dot and head and head in stages:
            if head == folder:
                own[_flag(f"--{rest}")] = [f"--{rest}", *option[1:]]
        elif _is_for(folder, stages, _flag(option[0])):
            common[_flag(option[0])] = option
    return [word for option in (common | own).values() for word in option]


def _options(words: Iterable[str]) -> list[list[str]]:
    """The words in pieces that begin with a flag."""
    pieces: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not pieces:
            pieces.append([word])
        else:
            pieces[-1].append(word)
    return pieces


def _flag(word: str) -> str:
    return word.partition("=")[0].replace("_", "-")


def _enlarges(recipe: Recipe) -> bool:
    from unstir.conditioning.derived import LowRes

    return isinstance(recipe.derived, LowRes)


def _is_other(folder: str, stages: Mapping[str, Recipe]) -> bool:
    """Whether a stage trains another kind of model than the last one, or a model of other things."""
    one, last = stages[folder], stages[""]
    return type(one.denoiser) is not type(last.denoiser) or one.vectors != last.vectors


def _is_for(folder: str, stages: Mapping[str, Recipe], flag: str) -> bool:
    """Whether an option that names no stage is for this one."""
    if _is_other(folder, stages):
        return flag.startswith(("--data", "--training")) and not flag.startswith(AT_ITS_OWN)
    return not folder or _enlarges(stages[folder]) or not flag.startswith(OF_ENLARGING)


def _meant_for(folder: str, stages: Mapping[str, Recipe], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a --config file says of one stage."""
    flags = {f"--{section}.{key}".replace("_", "-"): (section, key) for section, key in _places(settings)}
    meant: dict[str, Any] = {}
    for flag, (section, key) in flags.items():
        if _is_for(folder, stages, flag):
            if key:
                meant.setdefault(section, {})[key] = settings[section][key]
            else:
                meant[section] = settings[section]
    return meant


def _places(settings: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """(section, key) of all settings; the key is "" of one that is no table."""
    for section, value in settings.items():
        yield from ((section, key) for key in value) if isinstance(value, Mapping) else [(section, "")]

"""unstir distill RUN --method progressive [--steps K] [--out RUN] [--guidance-scale W | LOW HIGH] [--section.key VALUE ...]"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unstir.cli.arguments import take, wants_help
from unstir.errors import UserError

USAGE = """usage: unstir distill RUN --method METHOD [--steps K] [--out RUN] [--guidance-scale W | LOW HIGH] [--section.key VALUE ...]

Trains a student that samples in a few steps what RUN samples in many, from RUN's weights and on its data. Go on with a student that was
stopped or killed by unstir train --resume.

  RUN                      the teacher (RUN@STEP: as it was at that checkpoint), as plain `unstir sample RUN` would sample it
  --method METHOD          {methods}
  --steps K                in how many steps the student is to sample
  --start N                progressive: about so many steps of the teacher stand for it (64)
  --first N                progressive: about so many steps has the first student, from which they are halved (16)
  --base RUN               matching: a student that samples in a step or two already, to begin with (default: one is trained)
  --out RUN                the student's run folder (default: beside RUN)
  --guidance-scale W       learn the teacher guided by this scale, for good (default: as it recommends)
  --guidance-scale LOW HIGH  learn all scales between, from at most 1 up: unstir sample --guidance-scale W is then free to choose
  --data SOURCE            other data than the teacher's, of the same shape and units

A method of several stages trains one student after the other: an option is for all of them; with the name of a stage before it, for that
stage alone, as in --steps-8.training.minutes 10. --training.minutes is shared out over them.
"""


def main(words: list[str]) -> None:
    """Runs the command."""
    from unstir.recipes.methods import METHODS

    if not words or words[0].startswith("-"):
        if words and words[0] not in ("-h", "--help"):
            raise UserError("name the run to be distilled first: unstir distill RUN --method progressive")
        width = "\n" + " " * 27
        print(USAGE.format(methods=width.join(f"{name}: {method.about}" for name, method in METHODS.items())))
        return
    from unstir.cli.chain import settled, train_stages
    from unstir.cli.train import findable_data
    from unstir.recipes.distillation import Aim
    from unstir.training.devices import engine
    from unstir.training.teacher import original

    name, *words = words
    teacher = original(name)
    method = take(words, "--method")
    base = take(words, "--base")
    out, scales = take(words, "--out"), take_numbers(words, "--guidance-scale")
    if len(scales) > 2:
        raise UserError(f"--guidance-scale takes one scale, or a lowest and a highest one, not {len(scales)}")
    aim = Aim(
        take_count(words, "--steps"),
        take_count(words, "--start"),
        take_count(words, "--first"),
        None if base is None else original(base).name,
        scales[0] if len(scales) == 1 else None,
        tuple(scales) if len(scales) == 2 else (),
    )
    stages = method_named(method).stages(teacher, aim)
    if wants_help(words):
        print(USAGE.format(methods=method) + "\nThe options of the last stage:\n")
    stages = settled(stages, words, f"unstir distill {name} --method {method}")
    stages = {folder: dataclasses.replace(recipe, data=findable_data(recipe.data)) for folder, recipe in stages.items()}
    folder = Path(out) if out else default_folder(name, str(method), stages)
    refuse_used(folder)
    train_stages(engine(), folder, str(method), stages)


def method_named(name: str | None) -> Any:
    """A method of METHODS.

    Raises:
        UserError: none is named, or one that there is not.
    """
    from unstir.errors import did_you_mean
    from unstir.recipes.methods import METHODS

    if name is None:
        raise UserError(f"how? --method {' or '.join(METHODS)} (unstir distill --help says what they are)")
    if name not in METHODS:
        raise UserError(f"unknown method '{name}'; {did_you_mean(name, METHODS)}")
    return METHODS[name]


def refuse_used(folder: Path) -> None:
    """Refuses to write into a run.

    Raises:
        UserError: there is one, or the beginning of one.
    """
    from unstir.run import Run
    from unstir.stages import read_stages

    if Run(folder).exists() or read_stages(folder) is not None:
        raise UserError(
            f"{folder} is a run already. Go on with it: unstir train --resume {folder}   Or choose another --out."
        )


def default_folder(name: str, method: str, stages: Mapping[str, Any]) -> Path:
    """Beside the teacher: demo-progressive-4, and with a number after it where that is taken."""
    from unstir.run import named

    teacher = named(name)[0].folder
    if teacher.name in ("", ".."):  # named from inside, so that only the whole path says what it is called
        teacher = teacher.resolve()
    base = teacher.with_name(f"{teacher.name}-{method}-{stages[''].sampling.steps}")
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder


def take_count(words: list[str], flag: str) -> int | None:
    """Removes a flag with a whole number from the words.

    Raises:
        UserError: something else, or nothing, behind it.
    """
    value = take(words, flag)
    if value is None:
        return None
    if not value.isdecimal() or int(value) < 1:
        raise UserError(f"{flag} takes a positive whole number, not '{value}'")
    return int(value)


def take_numbers(words: list[str], flag: str) -> list[float]:
    """Removes a flag and all numbers behind it from the words.

    Raises:
        UserError: no number behind it.
    """
    first = take(words[:], flag)
    if first is None:
        return []
    at = next(i for i, word in enumerate(words) if word.partition("=")[0] == flag)
    given = [first, *words[at + (1 if "=" in words[at] else 2) :]]
    count = next((i for i, word in enumerate(given) if word.startswith("--")), len(given))
    if not count:
        raise UserError(f"{flag} needs a number")
    del words[at : at + count + (0 if "=" in words[at] else 1)]
    try:
        return [float(word) for word in given[:count]]
    except ValueError:
        raise UserError(f"{flag} takes numbers, not '{' '.join(given[:count])}'") from None

"""The stages of a run that was trained in several: chain.toml in its folder, written before the first of them begins.

Every stage is a run of its own in a folder inside; the last one is the run itself.
"""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Mapping
from pathlib import Path

import tomli_w

from unstir.errors import UserError
from unstir.recipes import Recipe
from unstir.recipes.serial import override, to_dict
from unstir.training.checkpoint import write_atomically

FORMAT = 1
FILE = "chain.toml"


def write_stages(folder: Path, name: str, stages: Mapping[str, Recipe]) -> None:
    """Writes chain.toml.

    Args:
        folder: of the run.
        name: of the recipe.
        stages: with their final settings, the first to be trained first, by their folders in the run's; "" is the run itself.

    Raises:
        UserError: it cannot be written.
    """
    tables = [{"folder": inner, "recipe": to_dict(recipe)} for inner, recipe in stages.items()]
    contents = {"format": FORMAT, "recipe": name, "stages": tables}
    write_atomically(folder / FILE, lambda file: tomli_w.dump(contents, file))


def forget_stages(folder: Path) -> None:
    """Takes back ``write_stages``, where nothing came of it; a folder that is empty then goes as well."""
    (folder / FILE).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def read_stages(folder: str | Path) -> tuple[str, dict[str, Recipe]] | None:
    """(the recipe's name, its stages) of a run that was planned in several; None of any other folder.

    Raises:
        UserError: a damaged file, or one of a newer version.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    try:
        contents = tomllib.loads(path.read_text("utf-8"))
        if contents["format"] > FORMAT:
            raise UserError(f"{path} was written by a newer unstir than this one: upgrade unstir")
        return contents["recipe"], {s["folder"]: override(Recipe(), s["recipe"]) for s in contents["stages"]}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def stage_name(name: str, folder: str) -> str:
    """What the recipe of a stage is called."""
    return f"{name}-{folder}" if folder else name

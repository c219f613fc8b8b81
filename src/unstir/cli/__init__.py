"""The command line. Commands are imported when they are called, so that ``unstir --help`` answers at once."""

from __future__ import annotations

import importlib
import os
import sys

from unstir.errors import UserError, did_you_mean

COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("unstir.cli.train", "train a model on a data source, or go on with a run"),
    "distill": ("unstir.cli.distill", "train a student of a run that samples in a few steps"),
    "sample": ("unstir.cli.sample", "draw samples from a run into a picture, an animation, arrays or a folder"),
    "edit": ("unstir.cli.edit", "fill, vary, blend or colour pictures with a run"),
    "evaluate": ("unstir.cli.evaluate", "judge a run's samples, or any others, by their distance to data"),
    "compress": ("unstir.cli.compress", "a picture into a file of a few bytes, by a run's model"),
    "decompress": ("unstir.cli.decompress", "the picture that such a file holds"),
    "data": ("unstir.cli.data", "data check SOURCE: what is in there, what is broken, which options to use"),
    "info": ("unstir.cli.info", "what a run is, how it went, how to use it"),
    "recipes": ("unstir.cli.recipes", "the list of recipes, or one recipe's full configuration"),
    "formulas": ("unstir.cli.formulas", "find an equation of the literature in the code"),
}

HELP = """unstir: train, sample and evaluate diffusion models on your own data.

usage: unstir COMMAND ...

{commands}

Start with:  unstir train quick --data emoji --out runs/demo
             unstir sample runs/demo --out emoji.png
Help on one: unstir COMMAND --help"""


def help_text() -> str:
    """What ``unstir --help`` prints."""
    lines = [f"  {name:12s}{about}" for name, (_, about) in COMMANDS.items()]
    return HELP.format(commands="\n".join(lines))


def run(arguments: list[str]) -> None:
    """Runs a command.

    Raises:
        UserError: whatever the user can mend.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return
    name, *rest = arguments
    if name == "--version":
        import unstir

        print(f"unstir {unstir.__version__}")
        return
    if name not in COMMANDS:
        raise UserError(f"unknown command '{name}'; {did_you_mean(name, COMMANDS)} (unstir --help lists them)")
    importlib.import_module(COMMANDS[name][0]).main(rest)


def main() -> None:
    """The program: exit code 0, or 2 with one or two lines on standard error, or 130 after Ctrl-C."""
    try:
        run(sys.argv[1:])
    except UserError as error:
        print(f"unstir: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nunstir: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output, `head` say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

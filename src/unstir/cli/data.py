"""unstir data check SOURCE"""

from __future__ import annotations

import dataclasses

from rich.console import Console

from unstir.cli.arguments import parse
from unstir.cli.progress import decoding_progress
from unstir.data import BUILTIN, DataConfig, check
from unstir.errors import UserError, did_you_mean

USAGE = """usage: unstir data check SOURCE [--size H W] [...]

Says what is in a data source, what is broken (every file by name), and which options to use.
SOURCE: a built-in name ({builtin}),
        a folder of pictures, a .npy/.npz/.csv file, hf:NAME, or shards (*.tar)."""


def main(words: list[str]) -> None:
    """Runs the command."""
    if not words or words[0] in ("-h", "--help"):
        print(USAGE.format(builtin=", ".join(BUILTIN)))
        return
    if words[0] != "check":
        raise UserError(f"unknown 'unstir data {words[0]}'; {did_you_mean(words[0], ['check'])}")
    if len(words) < 2:
        raise UserError("check what? unstir data check SOURCE")
    default = DataConfig()
    if not words[1].startswith("-"):
        default = dataclasses.replace(default, source=words[1])
    config = parse(default, words[2:] if default.source else words[1:], "unstir data check SOURCE")
    with decoding_progress(Console(stderr=True)) as progress:
        report = check(config, progress)
    print("\n".join(report.lines()))

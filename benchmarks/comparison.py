"""What the comparisons of contenders have in common: their options, and who is measured in which setting."""

from __future__ import annotations

import argparse
from typing import Any

from contenders import CONTENDERS, SETTINGS
from pictures import source_at_hand
from rounds import Job


def comparison_parser(about: str, rounds: int) -> argparse.ArgumentParser:
    """The options that all comparisons of contenders have; ``about`` is the script's docstring."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--size", type=int, default=32, help="pictures are padded to it")
    parser.add_argument("--data", default=source_at_hand())
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--json")
    parser.add_argument("--plot", help="a PNG")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


def comparison_jobs(options: argparse.Namespace, **more: Any) -> list[Job]:
    """A job for every setting of every contender."""
    return [
        {"contender": name, "setting": setting, "size": options.size, "data": options.data, **more}
        for setting in options.settings
        for name in options.only
    ]

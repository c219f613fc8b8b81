"""Words on the command line -> dataclasses, by tyro, with three things added: an entry of a table is exchanged by its name
(``--sampler heun``, ``--process cosine``), ``--data SOURCE`` is short for ``--data.source SOURCE``, and mistakes are told in one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import tyro

from unstir.errors import UserError, did_you_mean
from unstir.recipes.serial import entries_of, entry

T = TypeVar("T")
_BOX = "╭╮╰╯│─"


def _sections(value: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """(flag, holder, field) of every nested dataclass."""
    for field in dataclasses.fields(value):
        child = getattr(value, field.name)
        if dataclasses.is_dataclass(child):
            flag = f"{prefix}{field.name.replace('_', '-')}"
            yield flag, value, field.name
            yield from _sections(child, flag + ".")


def _flags(value: Any, prefix: str = "--") -> Iterator[str]:
    """Every option that a dataclass has."""
    for field in dataclasses.fields(value):
        child, flag = getattr(value, field.name), f"{prefix}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(child):
            yield from [flag] if entries_of(child) is not None else []
            yield from _flags(child, flag + ".")
        else:
            yield flag


def _optional(value: Any, prefix: str = "--") -> Iterator[str]:
    """The options that may be nothing."""
    hints = typing.get_type_hints(type(value))
    for field in dataclasses.fields(value):
        child, flag = getattr(value, field.name), f"{prefix}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(child):
            yield from _optional(child, flag + ".")
        elif type(None) in typing.get_args(hints[field.name]):
            yield flag


def _with_nothing(value: Any, words: list[str]) -> list[str]:
    """The words with "none", as recipe.toml has it, in the way that tyro writes it."""
    optional = set(_optional(value))
    result = []
    for before, word in zip(["", *words], words, strict=False):
        flag, equals, given = word.partition("=")
        if equals and flag.replace("_", "-") in optional and given == "none":
            word = f"{flag}=None"
        result.append("None" if word == "none" and before.replace("_", "-") in optional else word)
    return result


def _replace(value: Any, path: list[str], new: Any) -> Any:
    if not path:
        return new
    return dataclasses.replace(value, **{path[0]: _replace(getattr(value, path[0]), path[1:], new)})


def exchange_entries(value: T, words: Sequence[str]) -> tuple[T, list[str]]:
    """Takes ``--section NAME`` out of the words and puts a fresh entry of that name into the section.

    Raises:
        UserError: a name that is not in the section's table.
    """
    rest: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        flag, equals, name = word.partition("=")
        target = next((item for item in _sections(value) if f"--{item[0]}" == flag.replace("_", "-")), None)
        table = entries_of(getattr(target[1], target[2])) if target else None
        if target is None or table is None:
            rest.append(word)
            continue
        if not equals:
            if not queue or queue[0].startswith("--"):
                raise UserError(f"{flag} needs a name: one of {', '.join(table)}")
            name = queue.pop(0)
        path = [part.replace("-", "_") for part in target[0].split(".")]
        value = _replace(value, path, entry(target[0], table, name))
    return value, rest


def parse(default: T, words: Sequence[str], program: str) -> T:
    """The dataclass ``default`` with the fields changed that the words name (``--section.key VALUE``).

    Prints help and exits for ``--help``.

    Raises:
        UserError: an unknown option (with the nearest ones) or a value that does not fit.
    """
    value, rest = exchange_entries(default, words)
    flags = list(_flags(value))
    for word in rest:
        flag = word.partition("=")[0].replace("_", "-")
        known = {*flags, "--help", *(re.sub(r"([^.-][^.]*)$", r"no-\1", f) for f in flags)}
        if word.startswith("--") and flag not in known:
            raise UserError(f"unknown option {word.partition('=')[0]}; {did_you_mean(flag, flags)}")
    if wants_help(rest):
        print("\n".join(_exchangeable(value)) + "\n")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(type(value), default=value, args=_with_nothing(value, rest), prog=program)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_one_line(errors.getvalue())) from None


def _exchangeable(value: Any) -> Iterator[str]:
    """The part of the help that tyro does not know: entries that are exchanged by name."""
    yield "by name (their own options, below, are then those of the new one):"
    for flag, holder, field in _sections(value):
        if (table := entries_of(getattr(holder, field))) is not None:
            now = next(name for name, kind in table.items() if kind is type(getattr(holder, field)))
            yield f"  --{flag} {'|'.join(table)}  (default: {now})"


def _one_line(box: str) -> str:
    """The first paragraph of tyro's boxed message."""
    lines = [line.strip(_BOX + " ") for line in box.splitlines()[1:]]
    paragraph: list[str] = []
    for line in lines:
        if not line:
            break
        paragraph.append(line)
    text = " ".join(paragraph).replace(" .", ".")
    text = re.sub(
        r"^Error parsing (--\S+): no type matching (?:\{None\}\|)?(.*) could be instantiated from \['(.*)'\]\.",
        r"\1 takes \2, not '\3'",
        text,
    )
    text = re.sub(
        r"^Error parsing (--\S+): invalid literal for int.*: '(.*)'", r"\1 takes a whole number, not '\2'", text
    )
    text = re.sub(
        r"^Error parsing (--\S+): could not convert string to float: '(.*)'", r"\1 takes a number, not '\2'", text
    )
    return re.sub(r"^Error parsing (?!--)\S+: ", "", text)  # what a section itself refuses is a message of ours already


def take(words: list[str], flag: str) -> str | None:
    """Removes ``flag VALUE`` (or flag=VALUE) from the words, and returns the value.

    Raises:
        UserError: the flag without a value.
    """
    for i, word in enumerate(words):
        if word == flag:
            if i + 1 == len(words):
                raise UserError(f"{flag} needs a value")
            value = words[i + 1]
            del words[i : i + 2]
            return value
        if word.startswith(flag + "="):
            del words[i]
            return word.partition("=")[2]
    return None


def take_all(words: list[str], flag: str) -> list[str]:
    """The same for a flag that may come several times.

    Raises:
        UserError: the flag without a value.
    """
    values = []
    while (value := take(words, flag)) is not None:
        values.append(value)
    return values


def take_conditions(words: list[str], names: Iterable[str]) -> dict[str, Any]:
    """Removes ``--NAME VALUE`` for these conditions from the words; what comes several times is a list, to be taken in turn.

    Raises:
        UserError: a flag without a value.
    """
    found = {name: take_all(words, f"--{name}") for name in names}
    for name in found:  # low_res is typed as --low-res, like every option
        found[name] += take_all(words, f"--{name.replace('_', '-')}")
    return {name: values[0] if len(values) == 1 else values for name, values in found.items() if values}


def spelled_out(words: Sequence[str]) -> list[str]:
    """The words without abbreviations: ``-n N``, and ``--clip RUN`` for ``--clip-model RUN`` (``--clip`` alone is a switch)."""
    long: list[str] = []
    for word, after in zip(words, [*words[1:], "-"]):
        with_value = word.startswith("--clip=") or (word == "--clip" and not after.startswith("-"))
        long.append("--n" if word == "-n" else word.replace("--clip", "--clip-model", 1) if with_value else word)
    return long


def wants_help(words: Sequence[str]) -> bool:
    return "--help" in words or "-h" in words

"""Recipes to and from plain values: TOML files, and words on the command line.

A field whose type is one of the words (a Process, a Sampler, ...) is written as a table with the ``name`` it has in its table
of entries, so a file or a flag can exchange it for another: ``process = {name = "cosine", steps = 500}``.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from unstir.conditioning.derived import DERIVED, Derived
from unstir.errors import UserError, did_you_mean
from unstir.networks import BOTTLENECKS, NETWORKS, BottleneckConfig, NetworkConfig
from unstir.objectives import OBJECTIVES, PAIRS, TIMES, WEIGHTS, Objective, Pairs, Times, Weight
from unstir.process import Process
from unstir.processes import PROCESSES
from unstir.recipes.module import MODULES, ModuleConfig
from unstir.samplers import GRIDS, SAMPLERS
from unstir.sampling import Grid, Sampler
from unstir.training.config import DECAYS, OPTIMIZERS, Decay, OptimizerConfig
from unstir.training.ema import AVERAGES, Average

ENTRIES: dict[type, Mapping[str, type]] = {
    Derived: DERIVED,
    Process: PROCESSES,
    NetworkConfig: NETWORKS,
    BottleneckConfig: BOTTLENECKS,
    ModuleConfig: MODULES,
    Objective: OBJECTIVES,
    Weight: WEIGHTS,
    Times: TIMES,
    Pairs: PAIRS,
    Sampler: SAMPLERS,
    Grid: GRIDS,
    OptimizerConfig: OPTIMIZERS,
    Decay: DECAYS,
    Average: AVERAGES,
}
"""The words that are exchanged by name, and their tables."""

T = TypeVar("T")


def entries_of(value: object) -> Mapping[str, type] | None:
    """The table that this object is an entry of, if it is one."""
    return next((table for base, table in ENTRIES.items() if isinstance(value, base)), None)


def entry(what: str, table: Mapping[str, type], name: str) -> Any:
    """A fresh entry of a table by its name, with its defaults.

    Raises:
        UserError: no such name, with the nearest ones.
    """
    if name not in table:
        raise UserError(f"unknown {what} '{name}'; {did_you_mean(name, table)}")
    return table[name]()


def to_dict(value: Any) -> Any:
    """A dataclass as plain values that TOML can hold (which has no null: None is written as "none")."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: to_dict(getattr(value, field.name)) for field in dataclasses.fields(value)}
        table = entries_of(value)
        if table is None:
            return fields
        return {"name": next(name for name, kind in table.items() if kind is type(value)), **fields}
    if isinstance(value, tuple):
        return [to_dict(item) for item in value]
    return "none" if value is None else value


def override(value: T, changes: Mapping[str, Any], where: str = "") -> T:
    """A copy of a dataclass with the fields in ``changes`` (as from a TOML file) changed, nested ones too.

    Raises:
        UserError: a field that does not exist, or a value that does not fit it, with its place.
    """
    changes = dict(changes)
    if (table := entries_of(value)) is not None and "name" in changes:
        name = changes.pop("name")
        if table.get(name) is not type(value):
            value = entry(where or "entry", table, name)
    hints = typing.get_type_hints(type(value))
    fields = {field.name for field in dataclasses.fields(value)}  # type: ignore[arg-type]
    new: dict[str, Any] = {}
    for raw_key, change in changes.items():
        key = raw_key.replace("-", "_")
        place = f"{where}.{key}" if where else key
        if key not in fields:
            raise UserError(f"unknown field '{place}'; {did_you_mean(key, fields)}")
        old = getattr(value, key)
        if dataclasses.is_dataclass(old):
            change = {"name": change} if isinstance(change, str) else change  # process = "cosine" for short
            if not isinstance(change, Mapping):
                raise UserError(f"{place} must be a table, not {change!r}")
            new[key] = override(old, change, place)
        else:
            new[key] = _fit(change, hints[key], place)
    return dataclasses.replace(value, **new)  # type: ignore[type-var]


def _fit(value: Any, hint: Any, place: str) -> Any:
    """A plain value as the type that a field declares."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None or (value == "none" and type(None) in arguments):
            return None
        return _fit(value, next(a for a in arguments if a is not type(None)), place)
    if origin is typing.Literal:
        if value not in arguments:
            raise UserError(f"{place} = {value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        values = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_fit(item, arguments[0], place) for item in values)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UserError(f"{place} = {value!r} should be {hint.__name__}")
    return value

"""What every source is read into, before units are chosen: the one form between the readers and the Dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from unstir.data.report import Report
from unstir.data.spec import Condition, Kind

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int], None]  # (done, in all)


@dataclass
class Column:
    """A condition and its values: int64 (N,) for a class (-1: not known), float32 (N, size) for a vector (NaN: not
    known), N strings for text."""

    condition: Condition
    values: Array | list[str]


@dataclass
class Contents:
    """A data source as it was found.

    Args:
        name: short, for titles and file names.
        x: (N, ...) in the data's own units and axis order; may be a read-only memory map.
        kind: what x is.
        content: hash of the data, the same wherever and whenever it is read.
        report: what was found, filled further by whoever knows more.
        channels_last, channel_axis, channels: as in DataSpec.
        columns: the conditions.
    """

    name: str
    x: Array
    kind: Kind
    content: str
    report: Report
    channels_last: bool = False
    channel_axis: bool = True
    channels: tuple[str, ...] = ()
    columns: dict[str, Column] = field(default_factory=dict)


def class_column(of_each: Sequence[str] | npt.NDArray[np.str_], names: Sequence[str] | None = None) -> Column:
    """Classes from the name of each sample's; an empty one is not known (-1).

    Args:
        of_each: N names.
        names: all classes in order. Default: those that occur, sorted; by value where all are whole numbers (2 before
            10).
    """
    of_each = [str(name) for name in of_each]
    if names is None:
        occurring = set(of_each) - {""}
        names = sorted(occurring, key=int if all(name.isdecimal() for name in occurring) else None)
    number = {name: i for i, name in enumerate(names)}
    values = np.array([number.get(name, -1) for name in of_each], dtype=np.int64)
    return Column(Condition("class", len(names), tuple(names)), values)

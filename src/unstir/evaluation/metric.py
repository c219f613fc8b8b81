"""What every metric takes and gives. A new metric is a frozen dataclass with ``compute`` and a line in ``METRICS``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import add
from typing import ClassVar

import torch
from torch import Tensor

from unstir.errors import UserError
from unstir.evaluation.moments import FLUSH, Moments, Stream


@dataclass(frozen=True)
class Embedded:
    """Samples or data in a feature space.

    Args:
        blocks: moments of disjoint, equally large parts (sample i is in part i modulo their number), for error bars.
        vectors: (N, D) float32 in the samples' order, where a metric needs them.
        probabilities: (N, K) class probabilities, where the space is a classifier.
    """

    blocks: tuple[Moments, ...]
    vectors: Tensor | None = None
    probabilities: Tensor | None = None

    @classmethod
    def of(cls, vectors: Tensor, probabilities: Tensor | None = None, blocks: int = 1) -> Embedded:
        """From vectors that are all there."""
        streams = [Stream() for _ in range(blocks)]
        for k, stream in enumerate(streams):
            for piece in torch.split(vectors[k::blocks], FLUSH):
                stream.add(piece)
        return cls(tuple(stream.result(vectors.shape[1]) for stream in streams), vectors, probabilities)

    @cached_property
    def moments(self) -> Moments:
        """Of all of them."""
        return reduce(add, self.blocks)

    @property
    def count(self) -> int:
        return sum(block.count for block in self.blocks)

    @property
    def dimension(self) -> int:
        return len(self.blocks[0].mean)

    def all_vectors(self) -> Tensor:
        """(N, D) float64, on the CPU."""
        assert self.vectors is not None, "the metric must say needs_vectors"
        return self.vectors.to("cpu").double()


@dataclass(frozen=True)
class Value:
    """What a metric found.

    Args:
        value: its number.
        error: standard error of the value, where there is one.
        extra: further numbers by name, plain values.
    """

    value: float
    error: float | None = None
    extra: Mapping[str, float | int] = field(default_factory=dict)


class Metric(ABC):
    """How far samples are from a reference, or how good they are, in a feature space."""

    needs_vectors: ClassVar[bool] = True
    """Whether moments are not enough."""
    needs_probabilities: ClassVar[bool] = False
    """Whether only a classifier's space will do."""
    has_floor: ClassVar[bool] = True
    """Whether the same number for real samples says what the best possible is."""

    @abstractmethod
    def compute(self, samples: Embedded, reference: Embedded) -> Value:
        """The number, with its error.

        Raises:
            UserError: too few samples.
        """

    @abstractmethod
    def rows(self, value: Value) -> list[Row]:
        """Lines of the report."""


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Args:
        name: of the number.
        value, error: as in Value.
        about: settings that belong to the name, such as "k=3".
        unit: how the number is printed: a format specification.
    """

    name: str
    value: float
    error: float | None = None
    about: str = ""
    unit: str = ".4g"


def enough(what: str, samples: Embedded, reference: Embedded, least: int = 2) -> None:
    """Refuses sets that are too small for a metric.

    Raises:
        UserError: with the numbers.
    """
    for whose, count in (("samples", samples.count), ("reference samples", reference.count)):
        if count < least:
            raise UserError(f"{what} needs at least {least} {whose}, and there are {count}")

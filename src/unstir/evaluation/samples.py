"""Where samples come from: a run, or anything that data can come from. One interface: samples by their numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from unstir.data import Dataset, DataSpec
from unstir.data.spec import Condition
from unstir.errors import UserError
from unstir.evaluation.embed import Array
from unstir.likeness import computed_like
from unstir.media.render import as_bytes
from unstir.media.write import data_array
from unstir.model import Model
from unstir.recipes import SamplingConfig
from unstir.sampling import end

ORDER_SEED = 0x0DE2  # of the one random order in which a data set is read


def as_files_hold(x: Array, spec: DataSpec) -> Array:
    """(N, ...) in the data's axis order -> what files hold: pictures (N, H, W, C) uint8, rounded; all else as it is."""
    return as_bytes(x, spec) if spec.kind == "image" else data_array(x, spec)


def order(count: int) -> np.ndarray[Any, Any]:
    """The fixed random order of a data set of so many samples: every subset that is called random is a piece of it."""
    return np.random.Generator(np.random.PCG64([ORDER_SEED, count])).permutation(count)


class SampleSource(ABC):
    """Samples to judge.

    Args:
        name: for reports.
        spec: what they are.
        count: how many there are; None: as many as one likes.
        settings: how they are made, plain values for the record.
    """

    def __init__(self, name: str, spec: DataSpec, count: int | None, settings: Mapping[str, Any]) -> None:
        self.name = name
        self.spec = spec
        self.count = count
        self.settings = settings

    @abstractmethod
    def draw(self, numbers: Sequence[int]) -> Array:
        """These samples, as files hold them; the same for the same numbers, whatever else is drawn."""

    @abstractmethod
    def captions(self, numbers: Sequence[int]) -> list[str]:
        """What these samples are said to show, "" where nothing is said."""


class RunSource(SampleSource):
    """Samples of a model. They are rounded and clipped exactly as ``unstir sample`` writes them to files.

    Args:
        settings: of the sampler.
        seed: sample i depends on (seed, i) alone.
        like: the data whose captions, classes and other conditions the samples are asked for, in the data's own proportions;
            without it these are as the settings say.
        other: these are other data than those that the model was trained on: only their captions mean the same.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        settings: SamplingConfig,
        seed: int,
        like: Dataset | None = None,
        other: bool = False,
    ) -> None:
        from unstir.recipes.serial import to_dict

        described = {"seed": seed, **to_dict(SamplingConfig(**{f: getattr(settings, f) for f in _FIELDS}))}
        super().__init__(name, model.spec, None, described)
        self.model = model
        self._sampling = settings
        self._seed = seed
        known = {name: c for name, c in model.known(settings).items() if not other or c.kind == "text"}
        self._conditions: dict[str, Any] = {} if like is None else dict(conditions_like(like, known))
        if like is not None and not other:
            rows = order(len(like))
            self._conditions |= computed_like(model, settings, like, lambda number: int(rows[number % len(rows)]))

    def draw(self, numbers: Sequence[int]) -> Array:
        steps = self.model.trajectory(numbers, self._sampling, seed=self._seed, **self._conditions)
        return as_files_hold(self.spec.to_data(self.model.decode(end(steps))), self.spec)

    def captions(self, numbers: Sequence[int]) -> list[str]:
        asked = self.model.captions(self._conditions, self._sampling, self._seed, numbers)
        return next(iter(asked.values()), [""] * len(numbers))


_FIELDS = tuple(SamplingConfig.__dataclass_fields__)


def conditions_like(dataset: Dataset, conditions: Mapping[str, Condition]) -> dict[str, torch.Tensor | list[str]]:
    """The conditions of a data set in its random order: sample i of a model is asked for what row i % N of these says.

    Captions stay words: the model's own encoder reads those of a batch at a time.
    """
    rows = order(len(dataset))
    values = {name: dataset.conditions.get(name) for name, condition in conditions.items() if condition.kind != "text"}
    found: dict[str, torch.Tensor | list[str]] = {
        name: torch.from_numpy(array[rows]) for name, array in values.items() if isinstance(array, np.ndarray)
    }
    texts = [name for name, condition in conditions.items() if condition.kind == "text" and condition.seen]
    if dataset.captions:
        found |= {name: [dataset.captions[row] for row in rows] for name in texts}
    return found


class DataSource(SampleSource):
    """Samples that are there already: a folder of pictures, an array, a built-in data set. They are taken in random order."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset.report.source or dataset.name, dataset.spec, len(dataset), {})
        self.dataset = dataset
        self._rows = order(len(dataset))

    def row(self, number: int) -> int:
        """Where sample ``number`` stands in the data set."""
        return int(self._rows[number])

    def draw(self, numbers: Sequence[int]) -> Array:
        return rows_of(self.dataset, self._rows[list(numbers)])

    def captions(self, numbers: Sequence[int]) -> list[str]:
        said = self.dataset.captions
        return [said[self.row(number)] for number in numbers] if said else [""] * len(numbers)


def rows_of(dataset: Dataset, rows: np.ndarray[Any, Any]) -> Array:
    """Samples of a data set, as files hold them."""
    return as_files_hold(np.asarray(dataset.x[rows]), dataset.spec)


def check_alike(samples: DataSpec, reference: DataSpec, names: tuple[str, str]) -> None:
    """Refuses to compare what is not of one kind, shape and type. Nothing is resized behind anyone's back.

    Raises:
        UserError: with both.
    """
    described = [_described(spec) for spec in (samples, reference)]
    if described[0] != described[1]:
        raise UserError(
            f"{names[0]} holds {described[0]}, and {names[1]} {described[1]}: these cannot be compared.\n"
            "Give data of the same kind and size (--data.size and --data.channels change how the reference is read)"
        )


def _described(spec: DataSpec) -> str:
    empty = np.zeros((1, *_file_shape(spec)), spec.dtype)
    held = as_files_hold(empty, spec)
    dtype = held.dtype.name if held.dtype.kind != "f" else "floats"
    return f"{spec.kind} of shape {'x'.join(map(str, held.shape[1:]))}, {dtype}"


def _file_shape(spec: DataSpec) -> tuple[int, ...]:
    if not spec.channel_axis:
        return spec.shape[1:]
    return (*spec.shape[1:], spec.shape[0]) if spec.channels_last else spec.shape

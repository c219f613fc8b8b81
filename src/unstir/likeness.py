"""Asking a model that is conditioned on something computed from samples for samples like given data: where it is shown or judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from unstir.conditioning.text import tidy
from unstir.data import Dataset
from unstir.drawn import computing
from unstir.model import Model
from unstir.recipes import SamplingConfig
from unstir.unclip import prior_of

RowsOf = Callable[[Sequence[int]], Tensor]
"""Samples' numbers -> a condition's row for each of them."""


def computed_like(
    model: Model, settings: SamplingConfig, dataset: Dataset, row_of: Callable[[int], int]
) -> dict[str, RowsOf]:
    """The conditions that such a model computes from samples, of a data set's samples; nothing for any other model, nor for a stage of a
    cascade whose stage below draws what it enlarges, or a decoder whose prior draws its embeddings.

    They are functions, which read a batch's samples when it is drawn: maps of all samples might not fit into memory.

    Args:
        row_of: a sample's number -> the number in the data set of what it is to be like.
    """
    if not model.recipe.derived.declare(model.spec) or model.below(settings) or prior_of(model, settings):
        return {}
    derived = computing(model)

    def computed(numbers: Sequence[int]) -> dict[str, Tensor]:
        rows = np.array([row_of(number) for number in numbers])
        return derived.like(model.spec.to_model(np.asarray(dataset.x[rows])), model.spec)

    def of(name: str) -> RowsOf:
        return lambda numbers: computed(numbers)[name]

    return {name: of(name) for name in computed([0])}


def rows_showing(dataset: Dataset, asked: Mapping[str, Any], count: int) -> list[int]:
    """Samples of a data set, ``count`` of them, of the classes or with the captions that are asked for (one row or word each), each a
    different one as far as there are several; evenly spread ones where nothing is asked for.

    Args:
        asked: as ``Model.showcase`` gives it.
    """
    if not asked:
        return [round(i * (len(dataset) - 1) / max(count - 1, 1)) for i in range(count)]
    name, wanted = next(iter(asked.items()))
    values = dataset.conditions.get(name)
    captions = [tidy(caption) for caption in dataset.captions] or [""] * len(dataset)  # as the run keeps them
    found = values if isinstance(values, np.ndarray) else np.array(captions)
    shown: list[int] = []
    places: dict[Any, list[int]] = {}
    for value in wanted.tolist():
        if not places.get(value):
            places[value] = np.flatnonzero(found == value).tolist() or list(range(len(dataset)))
        shown.append(places[value].pop(0))
    return shown

"""What somebody asks samples for -> one row for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unstir.data.spec import Condition
from unstir.errors import UserError
from unstir.sampling import SampleNoise

_AXES = {"class": 0, "vector": 1}
"""Axes of one sample's value, where they do not follow from its shape."""
_LABEL_SEED = 0x1ABE1  # keeps the draw of a sample's label apart from the draws of its noise


def default_labels(condition: Condition, how: str, seed: int, indices: Sequence[int]) -> Tensor:
    """(B,) the classes of samples that nobody asked a class for; -1 for none.

    Args:
        how: "cycle", "uniform" or "none". Groups that were found in the data are drawn in their own proportions.
    """
    if condition.frequencies and how != "none":
        edges = torch.tensor(condition.frequencies, dtype=torch.float64).cumsum(0)
        drawn = torch.searchsorted(edges, SampleNoise(seed ^ _LABEL_SEED, indices).uniform(), right=True)
        return drawn.clamp(max=condition.size - 1)  # the last edge may be a rounding error below 1
    if how == "cycle":
        return torch.tensor(indices) % condition.size
    if how == "uniform":
        return (SampleNoise(seed ^ _LABEL_SEED, indices).uniform() * condition.size).long()
    return torch.full((len(indices),), -1)


def default_captions(condition: Condition, how: str, seed: int, indices: Sequence[int]) -> list[str]:
    """The captions of samples that nobody asked one for: of those that the condition keeps of its data; "" for none."""
    how = how if condition.names else "none"
    numbers = default_labels(Condition("class", len(condition.names)), how, seed, indices).tolist()
    return ["" if number < 0 else condition.names[number] for number in numbers]


def words_of(value: Any) -> list[str]:
    """The words that a value is, one or several; none where it is numbers."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        value = value.tolist()
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple) and any(isinstance(one, str) for one in value):
        return [str(one) for one in value]
    return []


def in_turn(value: Any, indices: Sequence[int]) -> list[str]:
    """The words that each of these samples is asked for by: one for all, or several taken in turn. Empty where they are numbers."""
    words = words_of(value)
    return [words[i % len(words)] for i in indices] if words else []


def rows_asked(name: str, condition: Condition, value: Any, indices: Sequence[int]) -> Tensor:
    """A condition as somebody gave it -> (B, ...) as models see it, a row for each of these samples.

    Args:
        name: of the condition, for errors.
        condition: what the data declare.
        value: a class's name or number, a vector, a caption, a grid of numbers, for all samples alike; or several of them (a list, or
            a tensor with one axis more), which are taken in turn; or a function of the samples' numbers that gives a row for each.
        indices: the samples' numbers.

    Raises:
        UserError: an unknown class, or another number or shape than the condition has.
    """
    if callable(value):
        return condition.to_model(_numbers(name, condition, value(indices)))
    words = in_turn(value, indices)
    if words:
        return condition.to_model(_typed(condition, words))
    rows = _numbers(name, condition, value)
    return condition.to_model(rows[torch.tensor(indices) % len(rows)])


def _typed(condition: Condition, words: list[str]) -> Tensor:
    """(B, ...) what these words mean; each is read once."""
    different = list(dict.fromkeys(words))
    if condition.kind == "text" and condition.encoder:
        from unstir.conditioning.text import text_encoder  # which may load a language model

        values = text_encoder(condition.encoder).encode(different, condition.shape[0])
    else:
        values = torch.stack([condition.parse(word) for word in different])
    number = {word: i for i, word in enumerate(different)}
    return values[[number[word] for word in words]]


def _numbers(name: str, condition: Condition, value: Any) -> Tensor:
    """(k, ...) one or several values given as numbers, checked."""
    whole = condition.kind == "class" or (condition.kind == "text" and bool(condition.size))
    rows = torch.as_tensor(value).to(torch.int64 if whole else torch.float32)
    rows = rows if rows.ndim > _AXES.get(condition.kind, len(condition.shape)) else rows.unsqueeze(0)
    if len(rows) == 0:
        raise UserError(f"{name} was given as an empty list; leave it out, or give at least one value")
    if condition.kind == "class" and (rows.ndim != 1 or bool(((rows < -1) | (rows >= condition.size)).any())):
        raise UserError(f"{name} must lie between 0 and {condition.size - 1} (-1: none); got {rows.tolist()}")
    if condition.kind == "vector" and rows.shape[1:] != (condition.size,):
        raise UserError(f"{name} takes {condition.size} numbers; got {list(rows.shape[1:])}")
    if condition.kind in ("text", "grid") and rows.shape[1:] != condition.shape:
        shape, given = ("x".join(map(str, sizes)) for sizes in (condition.shape, rows.shape[1:]))
        what = "captions, or what the encoder makes of them: an array" if condition.kind == "text" else "an array"
        raise UserError(f"{name} takes {what} of shape {shape} for each sample; got {given}")
    return rows

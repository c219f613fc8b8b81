"""What somebody asks for -> a row for each sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unstir.conditioning.asked import in_turn, rows_asked, words_of
from unstir.data import Condition
from unstir.errors import UserError

TEXT = Condition("text", 256, shape=(3,), encoder="bytes")
GRID = Condition("grid", 0, shape=(1, 2, 2))


def test_one_is_for_all_and_several_are_taken_in_turn() -> None:
    a, b = [97, -1, -1], [98, 98, -1]
    assert rows_asked("text", TEXT, "a", [0, 1]).tolist() == [a, a]
    assert rows_asked("text", TEXT, ["a", "bb"], [3, 4, 5]).tolist() == [b, a, b]
    assert rows_asked("text", TEXT, np.array(["a", "bb"]), [1]).tolist() == [b]
    assert rows_asked("text", TEXT, ["a", ""], [1]).tolist() == [[-1, -1, -1]]
    numbers = torch.tensor([a, b])
    assert rows_asked("text", TEXT, numbers, [1, 2]).tolist() == [b, a]
    assert rows_asked("text", TEXT, numbers[0], [7]).tolist() == [a]
    assert words_of("x") == ["x"]
    assert words_of(3) == words_of(np.zeros(3)) == in_turn(torch.zeros(2), [0]) == []


def test_grids_are_given_as_numbers() -> None:
    one = torch.arange(4.0).reshape(1, 2, 2)
    assert torch.equal(rows_asked("edges", GRID, one, [5, 6]), torch.stack([one, one]))
    both = torch.stack([one, -one])
    assert torch.equal(rows_asked("edges", GRID, both.numpy(), [1, 2, 3]), both[[1, 0, 1]])
    with pytest.raises(UserError, match="edges takes an array of shape 1x2x2 for each sample; got 1x3x3"):
        rows_asked("edges", GRID, torch.zeros(1, 3, 3), [0])
    with pytest.raises(UserError, match="comes from a file"):
        rows_asked("edges", GRID, "photo.png", [0])


def test_classes_and_vectors_as_ever() -> None:
    label, size = Condition("class", 3, ("a", "b", "c")), Condition("vector", 2, offset=(1.0, 0.0), scale=(2.0, 1.0))
    assert rows_asked("label", label, "b", [0, 1]).tolist() == [1, 1]
    assert rows_asked("label", label, ["c", 0], [0, 1, 2]).tolist() == [2, 0, 2]
    assert rows_asked("label", label, torch.tensor([2, 1]), [1, 0]).tolist() == [1, 2]
    assert rows_asked("size", size, "3,4", [0]).tolist() == [[1.0, 4.0]]
    assert rows_asked("size", size, [[3.0, 4.0], [1.0, 0.0]], [1]).tolist() == [[0.0, 0.0]]
    for condition, value, message in (
        (label, 3, "label must lie between 0 and 2"),
        (label, [], "label was given as an empty list"),
        (size, [1.0], "takes 2 numbers; got"),
        (TEXT, torch.zeros(1, 4), "shape 3 for each sample; got 4"),
    ):
        with pytest.raises(UserError, match=message):
            rows_asked("size" if condition is size else "label", condition, value, [0])

"""A line of metrics: means over the steps since the last one."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from unstir.training.loop import Progress
from unstir.training.window import Window


def step(number: int, loss: float, **parts: float) -> Progress:
    named = {name: torch.tensor(value) for name, value in parts.items()}
    return Progress(number, number / 10, torch.tensor(loss), named, torch.tensor(1.0), 1e-3, 1.0)


def test_a_part_that_begins_in_between_is_averaged_over_its_own_steps() -> None:
    window = Window()
    window.add(step(1, 1.0, reconstruction=1.0))
    window.add(step(2, 2.0, reconstruction=3.0))
    window.add(step(3, 6.0, reconstruction=5.0, adversarial=0.5))
    found = window.means(Accelerator(cpu=True))
    assert found == pytest.approx({"loss": 3.0, "reconstruction": 3.0, "adversarial": 0.5})

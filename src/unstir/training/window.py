"""What is said of some steps of training in one line of metrics."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from unstir.training.loop import Progress


class Window:
    """What the steps since the last line of metrics cost."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.parts: dict[str, torch.Tensor] = {}

    def add(self, progress: Progress) -> None:
        self.losses.append(float(progress.loss))
        for name, part in progress.parts.items():
            self.parts[name] = self.parts.get(name, torch.zeros_like(part)) + part

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Loss and named parts, over these steps and over all processes."""
        steps = len(self.losses)
        means = {"loss": sum(self.losses) / steps}
        means |= {name: float(part) / steps for name, part in self.parts.items() if name != "loss"}
        values = torch.tensor(list(means.values()), device=accelerator.device)
        return dict(zip(means, accelerator.reduce(values, reduction="mean").tolist(), strict=True))

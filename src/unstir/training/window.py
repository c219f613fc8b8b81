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
        self.counts: dict[str, int] = {}

    def add(self, progress: Progress) -> None:
        self.losses.append(float(progress.loss))
        for name, part in progress.parts.items():
            self.parts[name] = self.parts.get(name, torch.zeros_like(part)) + part
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Loss and named parts over all processes and the steps in which they occur: some begin, as a discriminator does, in between."""
        means = {"loss": sum(self.losses) / len(self.losses)}
        means |= {name: float(part) / self.counts[name] for name, part in self.parts.items() if name != "loss"}
        values = torch.tensor(list(means.values()), device=accelerator.device)
        return dict(zip(means, accelerator.reduce(values, reduction="mean").tolist(), strict=True))

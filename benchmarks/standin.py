"""Until ``unstir.evaluation.features`` is there: a small classifier of the same kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstir.data import Dataset


@dataclass(frozen=True)
class Features:
    vectors: Tensor


class Space:
    name, fingerprint = "stand-in", "standin"

    def __init__(self, net: nn.Sequential) -> None:
        self.net = net.eval()

    @torch.no_grad()
    def __call__(self, x: np.ndarray[Any, Any]) -> Features:
        return Features(self.net[:-1](torch.tensor(x).movedim(3, 1).float() / 127.5 - 1))


def feature_space(name: str, dataset: Dataset, device: torch.device, cache: Path) -> Space:
    torch.manual_seed(0)
    channels, classes = dataset.spec.shape[0], dataset.spec.conditions["label"].size
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2 if inputs > channels else 1, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
    net = nn.Sequential(
        *layers, nn.Conv2d(128, 128, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes)
    )
    path = cache / "standin.pt"
    if not path.is_file():
        optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
        for step in range(steps := 800):
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * (1 - step / steps)
            x, cond = dataset.batch(torch.randint(len(dataset), (128,)))
            loss = F.cross_entropy(net(x), cond["label"])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        torch.save(net.state_dict(), path)
    net.load_state_dict(torch.load(path))
    return Space(net)

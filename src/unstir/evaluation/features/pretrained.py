"""Networks with published weights as feature spaces: one way to load them, one way to run them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from unstir.data import Dataset
from unstir.data.contents import Array
from unstir.errors import UserError
from unstir.evaluation.features.resize import as_rgb, check_channels
from unstir.evaluation.features.space import Features, FeatureSpace

Prepare = Callable[[Tensor], Tensor]
"""(B, 3, H, W) from 0 to 255 -> what the network takes."""

PIECE = 16
"""Pictures at once on a CPU: with more, what a layer hands the next no longer fits its caches (a third slower with 64)."""


class PretrainedSpace(FeatureSpace):
    """Pictures through a network that is no longer trained.

    Args:
        name, fingerprint, frechet_name: see FeatureSpace.
        network: (B, 3, h, w) -> vectors (B, D), and the logits (B, K) of classes or None.
        prepare: from bytes to the network's input.
        device: where it runs.
    """

    def __init__(
        self,
        name: str,
        fingerprint: str,
        network: nn.Module,
        prepare: Prepare,
        device: torch.device,
        frechet_name: str = "FD",
    ) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.frechet_name = frechet_name
        self.prepare = prepare
        self.device = device
        self.network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, x: Array) -> Features:
        size = PIECE if self.device.type == "cpu" else len(x)
        with torch.no_grad(), exactly(self.device):
            parts = [self._piece(as_rgb(x[start : start + size])) for start in range(0, len(x), size)]
            vectors = torch.cat([v for v, _ in parts])  # (B, D)
            logits = [k for _, k in parts if k is not None]
            return Features(vectors, torch.cat(logits).softmax(1) if logits else None)

    def _piece(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x = self.prepare(x.to(self.device)).contiguous(memory_format=torch.channels_last)  # (b, 3, h, w)
        vectors, logits = self.network(x)  # (b, D), (b, K)
        return vectors, logits


@contextmanager
def exactly(device: torch.device) -> Iterator[None]:
    """float32 as written, whatever training has set: no autocast, no TF32, no bfloat16 products. Else the same samples would get
    other distances on other hardware."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def check_pictures(name: str, dataset: Dataset) -> None:
    """Refuses data that a network for photographs cannot see.

    Raises:
        UserError: no pictures, or pictures of five channels and more.
    """
    if dataset.spec.kind != "image":
        from unstir.evaluation.features import DEFAULTS

        kind = dataset.spec.kind
        raise UserError(
            f"--features {name} is for pictures, and {dataset.name} holds {kind}; use --features {DEFAULTS[kind]}"
        )
    check_channels(dataset.spec.shape[0])


def sha256(file: Path) -> str:
    """The checksum that publishers give."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()

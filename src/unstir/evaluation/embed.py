"""Samples -> features, shared out over processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from unstir.evaluation.metric import Embedded
from unstir.evaluation.moments import Stream

if TYPE_CHECKING:
    from unstir.evaluation.features import FeatureSpace

Array = np.ndarray[Any, Any]
Draw = Callable[[Sequence[int]], Array]
"""Numbers of samples -> these samples, as a file would hold them."""
Progress = Callable[[str, int, int], None]
"""(what, done, in all)."""


@dataclass(frozen=True)
class Embedder:
    """Puts samples into a feature space; process p of P takes samples p, p + P, p + 2 P, ...

    Nothing waits for another process before the end, and all have equally much to do.

    Args:
        space: the features.
        accelerator: one process or many.
        batch_size: of each process.
        progress: called on the main process.
    """

    space: FeatureSpace
    accelerator: Accelerator
    batch_size: int = 64
    progress: Progress | None = None

    def __call__(self, draw: Draw, n: int, what: str, *, blocks: int = 1, keep: bool = True) -> Embedded:
        """Samples 0 ... n - 1 in the feature space; the same on all processes.

        Args:
            draw: makes or reads samples by their numbers.
            n: how many, at least 2.
            what: for the progress.
            blocks: equally large parts whose moments are kept apart.
            keep: the vectors and probabilities too, not the moments alone.
        """
        processes = self.accelerator.num_processes
        share = range(self.accelerator.process_index, n, processes)
        streams = [Stream() for _ in range(blocks)]
        vectors: list[Tensor] = []
        probabilities: list[Tensor] = []
        dimension = 0
        for start in range(0, len(share), self.batch_size):
            numbers = share[start : start + self.batch_size]
            features = self.space(draw(numbers))
            found = features.vectors.detach().to("cpu", torch.float32)
            dimension = found.shape[1]
            of_block = torch.tensor(numbers) % blocks
            for k, stream in enumerate(streams):
                stream.add(found[of_block == k])
            if keep:
                vectors.append(found)
                if features.probabilities is not None:
                    probabilities.append(features.probabilities.detach().to("cpu", torch.float32))
            if self.progress is not None and self.accelerator.is_main_process:
                self.progress(what, min((start + len(numbers)) * processes, n), n)
        dimension = self._largest(dimension)
        moments = tuple(stream.result(dimension).over_processes(self.accelerator) for stream in streams)
        if not keep:
            return Embedded(moments)
        classes = self._largest(probabilities[0].shape[1] if probabilities else 0)
        return Embedded(
            moments,
            self._everyones(vectors, n, dimension),
            self._everyones(probabilities, n, classes) if classes else None,
        )

    def _largest(self, number: int) -> int:
        """A process without samples knows no dimension."""
        if self.accelerator.num_processes == 1:
            return number
        mine = torch.tensor([number], device=self.accelerator.device)
        return int(self.accelerator.gather(mine).max())

    def _everyones(self, parts: list[Tensor], n: int, width: int) -> Tensor:
        """(n, width) rows of all processes in the samples' order."""
        mine = torch.cat([*parts, torch.zeros(0, width)])
        processes = self.accelerator.num_processes
        if processes == 1:
            return mine
        padded = torch.zeros(-(-n // processes), width)
        padded[: len(mine)] = mine
        gathered: Tensor = self.accelerator.gather(padded.to(self.accelerator.device)).cpu()
        # sample i is row i // P of process i % P
        rows: Tensor = gathered.reshape(processes, -1, width).transpose(0, 1).reshape(-1, width)
        return rows[:n]

"""Judges samples: draws them, puts them and the reference into a feature space, computes the metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from unstir.data import Dataset
from unstir.errors import UserError
from unstir.evaluation.embed import Embedder
from unstir.evaluation.metric import Embedded, Metric, Value
from unstir.evaluation.neighbours import Neighbours
from unstir.evaluation.reference import LIMIT, Reference, reference, subset
from unstir.evaluation.report import Report
from unstir.evaluation.samples import SampleSource, check_alike

BLOCKS = 10
"""Parts of the samples that the jackknife leaves out in turn: its error is then known to within some 25 %."""


@dataclass(frozen=True)
class Evaluation:
    """What to judge by.

    Args:
        metrics: by name.
        data: the reference.
        cache: folder for the reference's features.
        training: what the memorisation check compares with, where it is not ``data``; ``data`` is then held out.
        reference_samples: most samples of the reference, a fixed random subset.
    """

    metrics: Mapping[str, Metric]
    data: Dataset
    cache: Path
    training: Dataset | None = None
    reference_samples: int = LIMIT

    def __call__(self, source: SampleSource, n: int, embedder: Embedder) -> Report:
        """Judges samples 0 ... n - 1 of the source. Call it on every process; all get the report.

        Raises:
            UserError: too few samples, samples of another shape than the data, or a metric that the features cannot serve.
        """
        begun = time.perf_counter()
        self._check(source, n)
        real = reference(self.data, n, embedder, self.cache, self.reference_samples)
        self._check_probabilities(real, embedder.space.name)
        keep = any(metric.needs_vectors or metric.needs_probabilities for metric in self.metrics.values())
        blocks = min(BLOCKS, n)
        what = f"judging {source.name}"
        samples = embedder(source.draw, n, what, blocks=blocks, keep=keep)
        values = self._values(samples, real, embedder)
        floors = {
            key: m.compute(real.real, real.rest) for key, m in self.metrics.items() if m.has_floor and _enough(real)
        }
        return Report(
            samples=source.name,
            reference=self.data.report.source or self.data.name,
            space=embedder.space.name,
            fid=embedder.space.frechet_name == "FID",
            n=n,
            reference_n=real.count,
            metrics=self.metrics,
            values=values,
            floors=floors,
            floor_n=real.real.count,
            rest_n=real.rest.count,
            dimension=samples.dimension,
            about={
                "settings": dict(source.settings),
                "seconds": round(time.perf_counter() - begun, 1),
                "hardware": hardware(embedder.accelerator),
            },
        )

    def _check(self, source: SampleSource, n: int) -> None:
        if n < 2:
            raise UserError(
                f"a distribution cannot be judged by {n} sample{'s' * (n != 1)}; give -n 2 or more, best thousands"
            )
        if source.count is not None and n > source.count:
            raise UserError(f"{source.name} holds {source.count:,} samples, fewer than -n {n:,}")
        check_alike(source.spec, self.data.spec, (source.name, self.data.report.source or self.data.name))

    def _check_probabilities(self, real: Reference, space: str) -> None:
        wanting = [key for key, metric in self.metrics.items() if metric.needs_probabilities]
        if wanting and real.features.probabilities is None:
            raise UserError(
                f"the metric '{wanting[0]}' needs a classifier's probabilities, which the features '{space}' do not have; "
                "take --features own or efficientnet-lite0"
            )

    def _values(self, samples: Embedded, real: Reference, embedder: Embedder) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for key, metric in self.metrics.items():
            if isinstance(metric, Neighbours) and self.training is not None:
                training = subset(self.training, embedder, self.cache, self.reference_samples)
                values[key] = metric.compute(samples, training, held_out=real.features)
            else:
                values[key] = metric.compute(samples, real.features)
        return values


def _enough(real: Reference) -> bool:
    """Whether the data suffice to hold some against the rest under every metric."""
    return min(real.real.count, real.rest.count) >= 20


def hardware(accelerator: Accelerator) -> str:
    """What computed it: 'cpu x 2' for two processes, a GPU by its name."""
    device, processes = accelerator.device, accelerator.num_processes
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return name if processes == 1 else f"{name} x {processes}"

"""Evaluation while a model trains: the Fréchet distance of a few samples now and then, with no surprise in time."""

from __future__ import annotations

import time
from pathlib import Path

from accelerate import Accelerator

from unstir.data import Dataset
from unstir.evaluation.embed import Embedder
from unstir.evaluation.frechet import frechet_to
from unstir.evaluation.reference import subset
from unstir.evaluation.samples import RunSource
from unstir.model import Model

TRIAL = 64  # samples that the announced time is measured on


class DuringTraining:
    """Judges a model in training, on all processes.

    It draws no random numbers but those of its own samples, each a function of (seed, number), so that training goes on as if it
    had not been there.

    Args:
        dataset: the reference, and whose conditions the samples get.
        samples: how many to judge.
        seed: of the samples: the same at every evaluation.
        accelerator: one process or many; each draws its share.
        cache: folder for the reference's features.

    Raises:
        UserError: no feature space for this kind of data, or too little data.
    """

    def __init__(self, dataset: Dataset, samples: int, seed: int, accelerator: Accelerator, cache: Path) -> None:
        from unstir.evaluation.features import feature_space

        self.dataset = dataset
        self.samples = samples
        self.seed = seed
        with accelerator.main_process_first():  # a space that must be trained first is trained once
            space = feature_space(None, dataset, accelerator.device, cache)
        self._embedder = Embedder(space, accelerator)
        # Distances of different lengths of training are compared with each other, so the reference is the same for all.
        self._distance = frechet_to(subset(dataset, self._embedder, cache).moments)
        self.name = f"{space.frechet_name.lower()}[{space.name}, n={samples}]"

    def _source(self, model: Model) -> RunSource:
        return RunSource("the model in training", model, model.recipe.sampling, self.seed, self.dataset)

    def seconds(self, model: Model) -> float:
        """How long one evaluation will take, measured on a few samples."""
        trial: int = min(TRIAL * self._embedder.accelerator.num_processes, self.samples)
        begun = time.perf_counter()
        embedded = self._embedder(self._source(model).draw, trial, "", keep=False)
        each = (time.perf_counter() - begun) / trial
        begun = time.perf_counter()
        self._distance(embedded.moments)
        return each * self.samples + time.perf_counter() - begun

    def __call__(self, model: Model) -> dict[str, float]:
        """The distance of the model as it is, and the seconds it took: entries for a line of metrics."""
        begun = time.perf_counter()
        embedded = self._embedder(self._source(model).draw, self.samples, "", keep=False)
        return {
            self.name: self._distance(embedded.moments),
            "evaluation_seconds": round(time.perf_counter() - begun, 3),
        }

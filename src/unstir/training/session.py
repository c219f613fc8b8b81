"""From a recipe to a run folder: data, model, loop, checkpoints, metrics, samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator

from unstir.data import Dataset
from unstir.data.order import indices
from unstir.denoiser import NetDenoiser
from unstir.errors import UserError
from unstir.media.write import write
from unstir.model import Model
from unstir.objectives import Batch
from unstir.recipes import Recipe
from unstir.run import Run
from unstir.sampling import SampleNoise, end, mix_seed
from unstir.training.checkpoint import Checkpoints
from unstir.training.devices import autocast_dtype, keep_freed_memory
from unstir.training.layout import layout_of
from unstir.training.loop import Loop, Progress, TrainingState

if TYPE_CHECKING:
    from unstir.evaluation.during import DuringTraining

Tracker = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Draw:
    """Batches of a data set: which samples make step k, mirrored or not, is a function of (seed, k, position) alone."""

    dataset: Dataset
    batch_size: int
    seed: int
    flip: bool

    def __call__(self, step: int, positions: list[int], rng: SampleNoise) -> Batch:
        rows = indices(len(self.dataset), self.batch_size, step, self.seed)[positions]
        flip = rng.uniform() < 0.5 if self.flip else None
        return Batch(*self.dataset.batch(rows, flip))


def fit_recipe(recipe: Recipe, dataset: Dataset, name: str) -> Recipe:
    """Checks that a recipe can train on such data.

    Raises:
        UserError: data of another kind, with the recipe that takes it.
    """
    from unstir.recipes import RECIPES

    kind = dataset.spec.kind
    if recipe.data.flip and kind != "image":
        raise UserError(f"data.flip mirrors pictures, and {dataset.name} holds {kind}; leave it out")
    if kind in recipe.kinds:
        return recipe
    others = [other for other, candidate in RECIPES.items() if kind in candidate.kinds]
    raise UserError(
        f"recipe '{name}' trains on data of kind {' or '.join(recipe.kinds)}, and {dataset.name} holds {kind}; "
        f"try the recipe {' or '.join(others)}"
    )


MEASURED = (10_000, 2**26)
"""Samples, and numbers in them, from which the data's moments are taken."""


def some_samples(dataset: Dataset) -> torch.Tensor:
    """As many samples as tell the data's moments, evenly spread, (n, *shape) in model units."""
    most = min(MEASURED[0], max(2, MEASURED[1] // dataset.spec.dimensions), len(dataset))
    return dataset.batch(torch.linspace(0, len(dataset) - 1, most, dtype=torch.float64).round().long())[0]


class Session:
    """A training run in progress. Iterate ``session`` to train; it yields the loop's Progress.

    Args:
        run: the folder, new or to be resumed.
        name: of the recipe.
        recipe: with its final settings.
        dataset: to train on.
        accelerator: one process or many.

    Raises:
        UserError: data of the wrong kind, a checkpoint that cannot be read, or shards of one process.
    """

    def __init__(self, run: Run, name: str, recipe: Recipe, dataset: Dataset, accelerator: Accelerator) -> None:
        self.run = run
        self.recipe = fit_recipe(recipe, dataset, name)
        self.dataset = dataset
        self.accelerator = accelerator
        self.warnings: list[str] = []
        config = recipe.training
        layout = layout_of(config.shard, accelerator)
        if accelerator.device.type == "cpu":
            keep_freed_memory()
        torch.manual_seed(mix_seed(config.seed) >> 1)
        self.denoiser = recipe.denoiser.build(recipe.network, recipe.process, dataset.spec)
        self.denoiser.fit(some_samples(dataset))
        self.denoiser.autocast = autocast_dtype(config.precision, accelerator.device)
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":  # BatchNorm over the whole batch
            self.denoiser.network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(self.denoiser.network)  # type: ignore[no-untyped-call]
        self.state = TrainingState(self.denoiser, config, layout)
        self.saved_step = -1
        self.stopping = False
        self._checkpoints = Checkpoints(run.checkpoints, config.keep)
        self._trackers: list[Tracker] = [run.log]
        self._evaluation: DuringTraining | None = None
        if config.compile:
            self.denoiser.network.compile()

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return bool(self.accelerator.is_main_process)

    def start(self, name: str) -> None:
        """Makes the run folder.

        Raises:
            UserError: if it cannot be written.
        """
        if self.main:
            about = {
                "source": self.recipe.data.source,
                "name": self.dataset.name,
                "count": len(self.dataset),
                "fingerprint": self.dataset.fingerprint,
            }
            self.run.write_recipe(name, self.recipe, self.dataset.spec, about)

    def resume(self) -> None:
        """Goes back to the newest checkpoint that can be read.

        A run that was killed before its first one starts anew.

        Raises:
            UserError: none can be read, or it is of another network.
        """
        if not self._checkpoints.steps():
            self.warnings.append("none was written yet; starting from step 0")
            return
        state, broken = self._checkpoints.load()
        if broken:
            self.warnings.append(f"damaged and left out: {', '.join(broken)}; going on from step {state['step']}")
        try:
            self.state.load_state_dict(state)
        except (RuntimeError, KeyError, ValueError) as error:
            raise UserError(
                f"the checkpoint in {self.run.checkpoints} does not fit this recipe's network: {str(error).splitlines()[0]}"
            ) from error
        self.saved_step = self.state.step
        if self.main:
            self.run.forget_metrics_after(self.state.step)

    def track_with(self, tracker: Tracker) -> None:
        """Also sends every line of metrics there."""
        self._trackers.append(tracker)

    def __iter__(self) -> Iterator[Progress]:
        config = self.recipe.training
        draw = Draw(self.dataset, config.batch_size, config.seed, self.recipe.data.flip)
        loop = Loop(self.state, self.recipe.objective, draw, config, self.accelerator)
        window: list[float] = []
        progress: Progress | None = None
        self._prepare_evaluation()
        for progress in loop:
            window.append(float(progress.loss))
            found = self._evaluate(loop)
            if found or (config.log_every and progress.step % config.log_every == 0):
                self._log(progress, window, found)
                window = []
            if config.checkpoint_every and progress.step % config.checkpoint_every == 0:
                self.save()
            if config.sample_every and progress.step % config.sample_every == 0:
                self.write_samples()
            yield progress
            if self._should_stop():
                break
        if progress is not None and window:
            self._log(progress, window)
        self.save()

    def stop(self) -> None:
        """Asks for an end after the step in progress, saved; never in the middle of one, which could not be resumed exactly."""
        self.stopping = True

    def _should_stop(self) -> bool:
        """Whether any process was asked to stop; several ask each other every ten steps, so that all stop at the same one."""
        if self.accelerator.num_processes == 1:
            return self.stopping
        if self.state.step % 10:
            return False
        asked = torch.tensor(float(self.stopping), device=self.accelerator.device)
        self.stopping = bool(self.accelerator.reduce(asked, reduction="sum") > 0)
        return self.stopping

    def _prepare_evaluation(self) -> None:
        """Gets the reference ready, and says before the first step what an evaluation will cost."""
        config = self.recipe.training
        if not config.evaluate_every or self._evaluation is not None:
            return
        from unstir.evaluation.during import DuringTraining  # above this package: only where it is wanted

        cache = self.recipe.data.cache_folder()
        self._evaluation = DuringTraining(self.dataset, config.evaluate_samples, config.seed, self.accelerator, cache)
        seconds = self._evaluation.seconds(self.model())
        if self.main:
            print(
                f"evaluation: {self._evaluation.name} every {config.evaluate_every} steps, about {seconds:.0f} s each "
                "(not counted in training.minutes)"
            )

    def _evaluate(self, loop: Loop) -> dict[str, float]:
        """What there is to log of an evaluation at this step; the training clock stands still meanwhile."""
        every, step = self.recipe.training.evaluate_every, self.state.step
        if self._evaluation is None or step % every:
            return {}
        begun = time.perf_counter()
        found = self._evaluation(self.model())
        seconds = time.perf_counter() - begun
        if self.main and not loop.paused and self.state.seconds > 0:
            share = seconds / (self.state.seconds / step * every)
            print(f"evaluation: took {seconds:.1f} s, {share:.0%} of the time of {every} training steps")
        loop.paused += seconds
        return found

    def _log(self, progress: Progress, window: list[float], found: dict[str, float] | None = None) -> None:
        """A line of metrics: means over the steps since the last one, and over all processes; and what an evaluation found."""
        loss = torch.tensor(sum(window) / len(window), device=self.accelerator.device)
        loss = self.accelerator.reduce(loss, reduction="mean")
        if not self.main:
            return
        row = {
            "step": progress.step,
            "seconds": round(progress.seconds, 3),
            "loss": float(loss),
            "gradient_norm": float(progress.gradient_norm),
            "learning_rate": progress.learning_rate,
            "samples_per_second": round(progress.samples_per_second, 1),
            **(found or {}),
        }
        for tracker in self._trackers:
            tracker(row)

    def save(self) -> None:
        """Writes a checkpoint and the weights for sampling, once per step.

        Raises:
            UserError: if they cannot be written; the last checkpoint is still good.
        """
        if self.saved_step == self.state.step:
            return
        state = self.state.state_dict()
        if self.main:
            self._checkpoints.save(self.state.step, state)
            self.run.write_weights(state["averaged"])
        self.saved_step = self.state.step
        self.accelerator.wait_for_everyone()

    def model(self) -> Model:
        """The model as it is now, with its averaged weights. To be called on all processes, which may share the weights."""
        module = self.state.layout.whole(self.state.averaged.module)
        assert isinstance(module, NetDenoiser)
        module.autocast = self.denoiser.autocast
        return Model(module, self.dataset.spec, self.recipe)

    def write_samples(self) -> Path | None:
        """Draws some samples of every class and writes their picture; every process draws its share."""
        model, processes = self.model(), self.accelerator.num_processes
        count, cond = model.showcase()
        padded = range(-(-count // processes) * processes)
        share = list(padded)[self.accelerator.process_index :: processes]
        mine: dict[str, Any] = {name: labels[[i % count for i in share]] for name, labels in cond.items()}
        x = end(model.trajectory(share, seed=self.recipe.training.seed, **mine))
        if processes > 1:  # process p's k-th sample is number k * processes + p
            x = self.accelerator.gather(x).unflatten(0, (processes, -1)).transpose(0, 1).flatten(0, 1)
        if not self.main:
            return None
        path = self.run.samples / f"step-{self.state.step:07d}.png"
        labels = next((row.tolist() for row in cond.values()), None)
        write(self.dataset.spec.to_data(x[:count]), path, self.dataset.spec, labels=labels)
        return path

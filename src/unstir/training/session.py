"""From a recipe to a run folder: data, model, loop, checkpoints, metrics, samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator

from unstir.conditioning.derived import Derived, Nothing
from unstir.data import Dataset, DataSpec
from unstir.data.order import indices
from unstir.denoiser import NetDenoiser
from unstir.errors import UserError
from unstir.model import Model
from unstir.objectives import Batch
from unstir.recipes import Recipe
from unstir.run import Run
from unstir.sampling import SampleNoise, mix_seed
from unstir.trainable import Trainable
from unstir.trained import Trained
from unstir.training.adopt import adopt
from unstir.training.base import check_base, told_to
from unstir.training.checkpoint import Checkpoints
from unstir.training.devices import autocast_dtype, keep_freed_memory
from unstir.training.layout import layout_of
from unstir.training.loop import Loop, Progress, TrainingState
from unstir.training.show import SHOWS, Shown
from unstir.training.teacher import teacher_of
from unstir.training.window import Window

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
    rows: npt.NDArray[np.int64] | None = None
    """Where only some of the samples are to be drawn: which."""
    derived: Derived = field(default_factory=Nothing)
    """Conditions that are computed from the samples."""
    always: frozenset[str] = frozenset()
    """Conditions that drop-out leaves alone."""

    def __call__(self, step: int, positions: list[int], rng: SampleNoise) -> Batch:
        count = len(self.dataset) if self.rows is None else len(self.rows)
        rows = indices(count, self.batch_size, step, self.seed)[positions]
        rows = rows if self.rows is None else self.rows[rows]
        flip = rng.uniform() < 0.5 if self.flip else None
        x, cond = self.dataset.batch(rows, flip)
        return Batch(x, {**cond, **self.derived.training(x, rng)}, self.always)


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
    alike = {other: one for other, one in RECIPES.items() if isinstance(one.denoiser, type(recipe.denoiser))}
    others = [other for other, candidate in alike.items() if kind in candidate.kinds]
    raise UserError(
        f"recipe '{name}' trains on data of kind {' or '.join(recipe.kinds)}, and {dataset.name} holds {kind}; "
        f"try the recipe {' or '.join(others)}"
    )


def _check_trainable(recipe: Recipe, module: Trainable) -> None:
    """Refuses an objective or an evaluation that is for another kind of module."""
    from unstir.recipes.serial import to_dict

    if not isinstance(module, recipe.objective.trains):
        objective, what = to_dict(recipe.objective)["name"], to_dict(recipe.denoiser)["name"]
        raise UserError(
            f"the objective {objective} does not train a {what}: choose --objective and --denoiser that belong together"
        )
    if recipe.training.evaluate_every and not isinstance(module, NetDenoiser):
        raise UserError("training.evaluate_every judges samples, and what this recipe trains draws none; leave it out")


MEASURED = (10_000, 2**26)
"""Samples, and numbers in them, from which the data's moments are taken."""


def some_samples(dataset: Dataset) -> torch.Tensor:
    """As many samples as tell the data's moments, evenly spread, (n, *shape) in model units."""
    most = min(MEASURED[0], max(2, MEASURED[1] // dataset.spec.dimensions), len(dataset))
    return dataset.samples(torch.linspace(0, len(dataset) - 1, most, dtype=torch.float64).round().long())


HELD_OUT_SEED = 0x0E1D


def held_out(
    rows: npt.NDArray[np.int64], share: float, kin: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(rows to train on, rows held out): a random share, at least one, the same for the same data.

    Args:
        rows: increasing.
        kin: a number from 0 up for each row: those of one number stay together, and the share is one of the numbers.
    """
    if share == 0:
        return rows, rows[:0]
    kin = np.arange(len(rows)) if kin is None else kin
    families = int(kin.max()) + 1
    count = min(max(round(share * families), 1), families - 1)
    order = np.random.Generator(np.random.PCG64([HELD_OUT_SEED, families])).permutation(families)
    away = np.isin(kin, order[:count])
    return rows[~away], rows[away]


class Session:
    """A training run in progress. Iterate ``session`` to train; it yields the loop's Progress.

    Args:
        run: the folder, new or to be resumed.
        name: of the recipe.
        recipe: with its final settings.
        dataset: to train on.
        accelerator: one process or many.

    Raises:
        UserError: data of the wrong kind, an objective for something else, a checkpoint that cannot be read, or shards of one process.
    """

    def __init__(self, run: Run, name: str, recipe: Recipe, dataset: Dataset, accelerator: Accelerator) -> None:
        self.run = run
        recipe = fit_recipe(recipe, dataset, name)
        self._checkpoints = Checkpoints(run.checkpoints, recipe.training.keep)
        self.notes: list[str] = []  # what there is to say of the base
        base = self._base(recipe)
        if recipe.network.needs_base:
            known = run.read_recipe()[2] if base is None else base.spec
            dataset = self._told_to(known, recipe, dataset)
        samples = some_samples(dataset)
        self.recipe = recipe = replace(
            recipe, process=recipe.process.fitted(samples), objective=recipe.objective.fitted(dataset.spec)
        )
        self.spec = recipe.objective.described(recipe.derived.described(dataset.spec))
        self.dataset = dataset
        self.accelerator = accelerator
        self.warnings: list[str] = []
        config = recipe.training
        layout = layout_of(config.shard, accelerator)
        if accelerator.device.type == "cpu":
            keep_freed_memory()
        torch.manual_seed(mix_seed(config.seed) >> 1)
        rows = recipe.denoiser.rows(dataset)
        self.rows, self.held_out = held_out(rows, config.held_out, recipe.denoiser.kin(dataset, rows))
        self.module = recipe.denoiser.build(recipe.network, recipe.process, self.spec)
        _check_trainable(recipe, self.module)
        rng = SampleNoise(config.seed, range(len(samples)))
        self.module.fit(samples, **(recipe.derived.training(samples, rng) if self.module.fits_to else {}))
        if base is not None:
            self.notes.insert(0, f"{recipe.base}: {adopt(self.module, base, self.spec)}")
        self.module.autocast = autocast_dtype(config.precision, accelerator.device)
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":  # BatchNorm over the whole batch
            self.module.network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(self.module.network)  # type: ignore[no-untyped-call]
        teacher = teacher_of(recipe.objective, run, self.spec, recipe.process, accelerator.device)
        self.state = TrainingState(self.module, config, layout, recipe.objective.companion(recipe.process, teacher))
        self.saved_step = -1
        self.stopping = False
        self._trackers: list[Tracker] = [run.log]
        self._evaluation: DuringTraining | None = None
        if config.compile:
            self.module.network.compile()

    def _base(self, recipe: Recipe) -> Trained | None:
        """The run to start from; None where there is none, or where this run has gone on from it already."""
        check_base(recipe)
        if not recipe.base or self._checkpoints.steps():
            return None
        return self.run.fetch(recipe.base, torch.device("cpu"))

    def _told_to(self, base: DataSpec, recipe: Recipe, dataset: Dataset) -> Dataset:
        """The data set as a base that stays as it is can be told of it."""
        dataset, left_out = told_to(dataset, base, recipe.derived.declare(dataset.spec))
        if left_out:
            self.notes.append(
                f"{', '.join(left_out)} of {dataset.name} mean something else to it or nothing, and are left out"
            )
        return dataset

    @property
    def denoiser(self) -> NetDenoiser:
        """The module, of a recipe that trains a denoiser."""
        assert isinstance(self.module, NetDenoiser)
        return self.module

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
            self.run.write_recipe(name, self.recipe, self.spec, about)

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
        derived, always = self.recipe.derived, self.spec.always
        draw = Draw(self.dataset, config.batch_size, config.seed, self.recipe.data.flip, self.rows, derived, always)
        loop = Loop(self.state, self.recipe.objective, draw, config, self.accelerator)
        window = Window()
        progress: Progress | None = None
        self._prepare_evaluation()
        for progress in loop:
            window.add(progress)
            found = {**self._evaluate(loop), **self._show()}
            if found or (config.log_every and progress.step % config.log_every == 0):
                self._log(progress, window, found)
                window = Window()
            if config.checkpoint_every and progress.step % config.checkpoint_every == 0:
                self.save()
            yield progress
            if self._should_stop():
                break
        if progress is not None and window.losses:
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

    def _log(self, progress: Progress, window: Window, found: Mapping[str, float] | None = None) -> None:
        """A line of metrics: means over the steps since the last one, and over all processes; and what an evaluation found."""
        means = window.means(self.accelerator)
        if not self.main:
            return
        row = {
            "step": progress.step,
            "seconds": round(progress.seconds, 3),
            **means,
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

    def trained(self) -> Trained:
        """What is trained, as it is now, with its averaged weights. To be called on all processes, which may share the weights."""
        module = self.state.layout.whole(self.state.averaged.module)
        assert isinstance(module, Trainable)
        module.autocast = self.module.autocast
        return Trained(module.eval(), self.spec, self.recipe, self.run.fetch)

    def model(self) -> Model:
        """The model as it is now, of a recipe that trains a denoiser. To be called on all processes."""
        return Model.of(self.trained())

    def show(self, *, final: bool = False) -> Shown:
        """What has been learnt so far: a denoiser's samples as a picture in the run folder, a classifier's accuracy, ... To be called
        on all processes."""
        return SHOWS[type(self.recipe.denoiser)](self, final)

    def _show(self) -> Mapping[str, float]:
        """What there is to log of what is shown at this step."""
        every = self.recipe.training.sample_every
        if not every or self.state.step % every:
            return {}
        shown = self.show()
        if self.main and shown.numbers:
            print(f"step {self.state.step:,}: {'; '.join(text for _, text in shown.lines)}")
        return shown.numbers

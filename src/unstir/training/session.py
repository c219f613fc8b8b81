"""From a recipe to a run folder: data, model, loop, checkpoints, metrics, samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator

from unstir.codec import LatentCodec
from unstir.codecs import keep
from unstir.data import Dataset, DataSpec
from unstir.data.contents import Progress as Encoding
from unstir.denoiser import NetDenoiser
from unstir.errors import UserError
from unstir.kept import keep_clip
from unstir.model import Model
from unstir.recipes import Recipe
from unstir.run import Run
from unstir.sampling import SampleNoise, mix_seed
from unstir.trainable import Trainable
from unstir.trained import Trained
from unstir.training.adopt import adopt
from unstir.training.base import check_base, told_to
from unstir.training.checkpoint import Checkpoints
from unstir.training.devices import autocast_dtype, keep_freed_memory
from unstir.training.draw import Draw, held_out, some_samples, telling_rows
from unstir.training.latents import seen_by_the_module
from unstir.training.layout import layout_of
from unstir.training.loop import Loop, Progress, TrainingState
from unstir.training.show import SHOWS, Shown
from unstir.training.teacher import teacher_of
from unstir.training.vectors import derived_over
from unstir.training.window import Window

if TYPE_CHECKING:
    from unstir.evaluation.during import DuringTraining

Tracker = Callable[[dict[str, Any]], None]


def fit_recipe(recipe: Recipe, dataset: Dataset, name: str) -> Recipe:
    """Checks that a recipe can train on such data.

    Raises:
        UserError: data of another kind, with the recipe that takes it.
    """
    from unstir.recipes import RECIPES

    kind = dataset.spec.kind
    if recipe.data.flip and kind != "image" and not recipe.vectors:
        raise UserError(f"data.flip mirrors pictures, and {dataset.name} holds {kind}; leave it out")
    if kind in recipe.kinds:
        return recipe
    alike = {other: one for other, one in RECIPES.items() if isinstance(one.denoiser, type(recipe.denoiser))}
    others = [other for other, candidate in alike.items() if kind in candidate.kinds and not candidate.vectors]
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


class Session:
    """A training run in progress. Iterate ``session`` to train; it yields the loop's Progress.

    Args:
        run: the folder, new or to be resumed.
        name: of the recipe.
        recipe: with its final settings.
        dataset: to train on.
        accelerator: one process or many.
        encoding: called with (done, in all) while the samples are encoded, of a recipe in latents or with a CLIP.

    Raises:
        UserError: data of the wrong kind, an objective for something else, a checkpoint that cannot be read, or shards of one process.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        recipe: Recipe,
        dataset: Dataset,
        accelerator: Accelerator,
        encoding: Encoding | None = None,
    ) -> None:
        self.run = run
        recipe = fit_recipe(recipe, dataset, name)
        self._checkpoints = Checkpoints(run.checkpoints, recipe.training.keep)
        self.notes: list[str] = []  # what there is to say of the base
        base = self._base(recipe)
        if recipe.network.needs_base:
            known = run.read_recipe()[2] if base is None else base.spec
            dataset = self._told_to(known, recipe, dataset)
        self.codec, self.seen = seen_by_the_module(run, recipe, dataset, base, accelerator, encoding)
        samples = some_samples(self.seen)
        self.recipe = recipe = replace(
            recipe, process=recipe.process.fitted(samples), objective=recipe.objective.fitted(self.seen.spec)
        )
        self.derived = derived_over(run, recipe, dataset, accelerator, encoding)
        self.spec = recipe.objective.described(self.derived.described(dataset.spec))
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
        self.module = recipe.denoiser.build(recipe.network, recipe.process, self.codec.latent_spec(self.spec))
        _check_trainable(recipe, self.module)
        self._fit(samples)
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

    def _fit(self, samples: torch.Tensor) -> None:
        """Lets the module see samples, and the conditions computed from them where it asks for those."""
        if not self.module.fits_to:
            self.module.fit(samples)
            return
        rows = telling_rows(self.dataset)
        rng = SampleNoise(self.recipe.training.seed, range(len(rows)))
        computed = self.derived.training(self.dataset.samples(rows), rng)
        self.module.fit(self.seen.samples(rows), **self.codec.told(computed, self.spec))

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
                **({"latents": self.codec.facts()} if self.codec.latent else {}),
            }
            if isinstance(self.codec, LatentCodec):
                keep(self.run.folder, self.recipe.autoencoder, self.codec.autoencoder)
            self.recipe = keep_clip(self.run.folder, self.recipe)
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
        derived, always = self.derived, self.spec.always
        behind = (self.dataset, self.codec) if self.codec.latent else ()
        flip = self.recipe.data.flip
        draw = Draw(self.seen, config.batch_size, config.seed, flip, self.rows, derived, always, *behind)
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
        return Trained(module.eval(), self.spec, self.recipe, self.run.fetch, self.codec)

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

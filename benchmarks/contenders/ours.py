"""unstir through its own Session: the steps that ``unstir train`` takes, without its command line.

What a user gets by installing it has more than the peers': ``unstir train`` sets the allocator itself and chooses bf16 where the
processor has it. So "installed" is that; "allocator" is fp32, and "bf16" is bf16, whatever the processor has.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import weakref
from abc import abstractmethod

import torch
from torch import Tensor, nn

from contenders.contender import SETTINGS, Contender, Pictures
from unstir.data import DataConfig
from unstir.data.contents import Contents
from unstir.data.dataset import Dataset, finish
from unstir.data.report import Report
from unstir.networks import UNetConfig
from unstir.recipes import RECIPES, DenoiserConfig, Recipe
from unstir.run import Run
from unstir.training.config import AdamW, Precision
from unstir.training.devices import engine
from unstir.training.session import Session

PRECISION: dict[str, Precision] = {"installed": "auto", "allocator": "fp32", "bf16": "bf16"}
EQUAL = UNetConfig(channels=32, multipliers=(1, 3, 4), blocks=(1,), middle=4, attention=(1, 2), patch=1)
"""Within 5 % of both peers, in parameters and in FLOPs, on 32 x 32 pictures of one channel; a test asserts it."""


def as_dataset(pictures: Pictures) -> Dataset:
    """Pictures in memory as a data set without labels."""
    report = Report("benchmark", len(pictures))
    return finish(Contents("benchmark", pictures, "image", "benchmark", report, channels_last=True), DataConfig())


class Unstir(Contender):
    """A recipe on pictures without labels. It keeps its own schedule of the learning rate, so ``fraction`` means nothing to it."""

    sampler = "DPM-Solver++(2M)"

    @abstractmethod
    def recipe(self) -> Recipe:
        """What to train; the benchmark sets batch, rate, seed and precision."""

    def build(self, seed: int) -> None:
        recipe, dataset = self.recipe(), as_dataset(self.pictures)
        precision = PRECISION[next(name for name, setting in SETTINGS.items() if setting == self.setting)]
        training = dataclasses.replace(
            recipe.training,
            minutes=None,
            images=None,
            steps=10**6,
            batch_size=self.tuning.batch_size,
            learning_rate=self.tuning.learning_rate,
            precision=precision,
            seed=seed,
        )
        recipe = dataclasses.replace(recipe, training=training)
        self.seed, self.spec = seed, dataset.spec
        folder = tempfile.mkdtemp()  # its own lines of metrics go there, as for everybody
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.session = Session(Run(folder), "quick", recipe, dataset, engine())
        self.steps = iter(self.session)

    def network(self) -> nn.Module:
        return self.session.denoiser

    def forward(self, x: Tensor) -> object:
        return self.session.denoiser(x, torch.ones((), dtype=torch.float64))

    def train_step(self, fraction: float = 0.5) -> float:
        return float(next(self.steps).loss)

    def sample(self, n: int, steps: int) -> Pictures:
        model = self.session.model()
        x = model.sample(n, sampler="dpmpp_2m", steps=steps, guidance_scale=1.0, seed=self.seed)
        return self.spec.to_data(x)


class EqualUnstir(Unstir):
    """A network of the peers' size, their optimiser and batch, plain EDM preconditioning."""

    def recipe(self) -> Recipe:
        return dataclasses.replace(
            RECIPES["quick"],
            network=EQUAL,
            denoiser=DenoiserConfig(parameterization="edm"),
            training=dataclasses.replace(RECIPES["quick"].training, optimizer=AdamW()),
        )


class QuickUnstir(Unstir):
    """The recipe `quick` as it is: its own network, optimiser and preconditioning. Not an equal architecture."""

    def recipe(self) -> Recipe:
        return RECIPES["quick"]

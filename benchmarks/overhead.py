"""What unstir costs beside the network: a training step against the bare forward and backward passes, and sampling against the
forward passes that it asks for.

    python benchmarks/overhead.py [--steps 12] [--json FILE]

Interleaved, medians; the recipe is `quick` on the built-in emoji. Everything in one process, so the ratios hold where times drift.
Sampling is also taken apart from within: the time inside the network is measured call by call, and all the rest is overhead.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from report import heading, table, write_json
from unstir.data import DataConfig, load
from unstir.denoiser import NetDenoiser
from unstir.model import Model
from unstir.objectives import Batch
from unstir.recipes import RECIPES, SamplingConfig
from unstir.run import Run
from unstir.samplers import SAMPLERS
from unstir.sampling import SampleNoise
from unstir.training.devices import engine
from unstir.training.draw import Draw
from unstir.training.loop import Loop
from unstir.training.session import Session

Work = dict[str, Callable[[], object]]
WARM_UP = 2


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(work: Work, count: int) -> dict[str, list[float]]:
    """Seconds of each, ``count`` times, in turns."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for index in range(count + WARM_UP):
        for name, one in work.items():
            taken = seconds(one)
            if index >= WARM_UP:
                times[name].append(taken)
    return times


def build(folder: str) -> Session:
    """A session of `quick` that never ends."""
    recipe = dataclasses.replace(RECIPES["quick"], data=DataConfig(source="emoji"))
    training = dataclasses.replace(recipe.training, minutes=None, steps=10**6)
    recipe = dataclasses.replace(recipe, training=training)
    return Session(Run(folder), "quick", recipe, load(recipe.data), engine())


class Bare:
    """The network alone, on one batch, as training and sampling call it."""

    def __init__(self, denoiser: NetDenoiser, batch: Batch) -> None:
        self.denoiser = denoiser
        self.t = torch.ones(len(batch.x), dtype=torch.float64)
        self.cond = batch.cond
        self.calls: list[tuple[tuple[Tensor, ...], dict[str, Tensor]]] = []
        # What the network is given is the denoiser's business: ask it once and listen.
        handle = denoiser.network.register_forward_pre_hook(self._listen, with_kwargs=True)
        with torch.no_grad():
            denoiser(batch.x, self.t, **batch.cond)
        handle.remove()

    def _listen(self, _: object, positional: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        self.calls.append((positional, named))

    def __call__(self) -> Tensor:
        positional, named = self.calls[0]
        kind = self.denoiser.autocast
        with torch.autocast(positional[0].device.type, kind, enabled=kind is not None):
            F: Tensor = self.denoiser.network(*positional, **named).float()
        return F

    def forward_backward(self) -> None:
        """As in training."""
        self.denoiser.train()
        self().square().mean().backward()  # type: ignore[no-untyped-call]
        self.denoiser.zero_grad(set_to_none=True)

    @torch.no_grad()
    def forward(self) -> None:
        """As in sampling."""
        self.denoiser.eval()
        self()


def training_work(session: Session, bare: Bare, draw: Draw, positions: list[int]) -> Work:
    """A step, its network, and its other parts."""
    loop = iter(Loop(session.state, session.recipe.objective, draw, session.recipe.training, session.accelerator))
    batch = draw(0, positions, SampleNoise(0, positions))

    def batch_and_noise() -> None:
        rng = SampleNoise(0, positions)
        draw(1, positions, rng)
        rng.normal_like(batch.x)

    return {
        "network forward + backward": bare.forward_backward,
        "training step": lambda: next(loop),
        "network forward": bare.forward,
        "optimiser": session.state.optimizer.step,
        "average of the weights": lambda: session.state.averaged.update(session.denoiser, 100),
        "batch and noise": batch_and_noise,
    }


@contextmanager
def watched(model: Model) -> Iterator[list[float]]:
    """The seconds of every call of the model's network."""
    spent: list[float] = []
    started: list[float] = []

    def begin(*_: object) -> None:
        started.append(time.perf_counter())

    def end(_: nn.Module, __: object, F: Tensor) -> None:
        if F.is_cuda:
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - started.pop())

    network = model.denoiser.network
    handles = network.register_forward_pre_hook(begin), network.register_forward_hook(end)
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def sampling_overhead(
    model: Model, settings: SamplingConfig, batch: int, count: int
) -> tuple[float, float, list[float]]:
    """(median milliseconds of a call of the network, median milliseconds beside the network for each call, shares)."""
    inside, beside, shares = [], [], []
    with watched(model) as spent:
        for index in range(count + WARM_UP):
            spent.clear()
            taken = seconds(lambda: [None for _ in model.trajectory(range(batch), settings)])
            if index >= WARM_UP:
                rest = taken - sum(spent)
                inside.append(sum(spent) / len(spent))
                beside.append(rest / len(spent))
                shares.append(rest / sum(spent))
    return 1e3 * statistics.median(inside), 1e3 * statistics.median(beside), shares


def sampling_rows(model: Model, count: int) -> list[list[object]]:
    """Of the table of sampling: plain samplers, and the recipe's own with its guidance."""
    own = model.recipe.sampling
    plain = dataclasses.replace(own, guidance_scale=1.0)
    kinds = {
        "DDIM": dataclasses.replace(plain, sampler=SAMPLERS["ddim"]()),
        "DPM-Solver++(2M)": dataclasses.replace(plain, sampler=SAMPLERS["dpmpp_2m"]()),
        "Heun": dataclasses.replace(plain, sampler=SAMPLERS["heun"]()),
        "as the recipe recommends": own,
    }
    rows: list[list[object]] = []
    for batch in (1, 64):
        for name, settings in kinds.items():
            network, beside, shares = sampling_overhead(
                model, settings, batch, max(2, count if batch == 1 else count // 4)
            )
            spread = f"{100 * min(shares):.1f} to {100 * max(shares):.1f}"
            rows.append(
                [name, batch, f"{network:.2f}", f"{beside:.3f}", f"{100 * statistics.median(shares):.1f} %", spread]
            )
    return rows


def main() -> None:
    """Measures and prints."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--steps", type=int, default=12)
    arguments.add_argument("--json")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        session = build(folder)
        size = session.recipe.training.batch_size
        positions = list(range(size))
        draw = Draw(session.dataset, size, 0, False)
        bare = Bare(session.denoiser, draw(0, positions, SampleNoise(0, positions)))
        times = interleaved(training_work(session, bare, draw, positions), options.steps)
        sampling = sampling_rows(session.model(), options.steps)
    median = {name: statistics.median(values) for name, values in times.items()}
    print(heading(f"Overhead of training, batch {size}", "emoji"))
    rows = [
        [name, f"{1e3 * value:.2f}", f"{100 * (max(times[name]) - min(times[name])) / value:.0f} %"]
        for name, value in median.items()
    ]
    print(table(["part", "ms", "spread"], rows))
    print(f"\ntraining step / forward + backward: {median['training step'] / median['network forward + backward']:.2f}")
    print(heading("Overhead of sampling", "emoji"))
    header = ["sampler", "batch", "network, ms a call", "beside it, ms a call", "overhead", "range, %"]
    print(table(header, sampling))
    write_json(options.json, {"training": times, "sampling": sampling})


if __name__ == "__main__":
    main()

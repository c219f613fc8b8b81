"""What unstir costs beside the network: a training step and a sampling step against the bare forward and backward passes.

    python benchmarks/overhead.py [--steps 12]

Interleaved, medians; the recipe is `quick` on the built-in emoji. Everything in one process, so the ratios hold where times drift.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
from accelerate import Accelerator

from unstir.data import DataConfig, load
from unstir.recipes import RECIPES
from unstir.run import Run
from unstir.sampling import SampleNoise
from unstir.training.loop import Loop
from unstir.training.session import Draw, Session


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measures and prints."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--steps", type=int, default=12)
    count = arguments.parse_args().steps
    recipe = dataclasses.replace(RECIPES["quick"], data=DataConfig(source="emoji"))
    training = dataclasses.replace(recipe.training, minutes=None, steps=10**6)
    recipe = dataclasses.replace(recipe, training=training)
    dataset = load(recipe.data)
    session = Session(Run(tempfile.mkdtemp()), "quick", recipe, dataset, Accelerator())
    draw = Draw(dataset, training.batch_size, 0, False)
    loop = iter(Loop(session.state, recipe.objective, draw, training, session.accelerator))
    denoiser, positions = session.denoiser, list(range(training.batch_size))
    batch = draw(0, positions, SampleNoise(0, positions))
    label = batch.cond["label"]
    c_noise = torch.zeros(len(batch.x))

    def network() -> torch.Tensor:
        with torch.autocast(batch.x.device.type, denoiser.autocast, enabled=denoiser.autocast is not None):
            return denoiser.network(batch.x, c_noise, label=label).float()

    def forward_backward() -> None:
        denoiser.train()
        network().square().mean().backward()
        denoiser.zero_grad(set_to_none=True)

    @torch.no_grad()
    def forward() -> None:
        denoiser.eval()
        network()

    steps = recipe.sampling.steps
    settings = dataclasses.replace(recipe.sampling, sampler=type(recipe.sampling.sampler)(), guidance_scale=1.0)
    model = session.model()

    def sample() -> None:
        for _ in model.trajectory(positions, settings):
            pass

    work: dict[str, Callable[[], object]] = {
        "network forward + backward": forward_backward,
        "training step": lambda: next(loop),
        "network forward": forward,
        "sampling, per evaluation": sample,
        "optimiser": session.state.optimizer.step,
        "average of the weights": lambda: session.state.averaged.update(denoiser, 100),
        "batch and noise": lambda: draw(1, positions, (rng := SampleNoise(0, positions))) and rng.normal_like(batch.x),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for index in range(count + 2):
        for name, one in work.items():
            taken = seconds(one)
            if index >= 2:  # warm-up
                times[name].append(taken)
    median = {name: statistics.median(values) for name, values in times.items()}
    median["sampling, per evaluation"] /= 2 * steps - 1  # Heun asks twice a step, once in the last
    print(f"batch {training.batch_size}, {torch.get_num_threads()} threads, median of {count}\n")
    for name, value in median.items():
        spread = (max(times[name]) - min(times[name])) / statistics.median(times[name])
        print(f"{name:30s} {1e3 * value:9.2f} ms   spread {100 * spread:3.0f} %")
    print(
        f"\ntraining step / forward + backward   {median['training step'] / median['network forward + backward']:.2f}"
    )
    print(f"sampling evaluation / forward        {median['sampling, per evaluation'] / median['network forward']:.2f}")


if __name__ == "__main__":
    main()

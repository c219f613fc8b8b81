"""What feeding the network costs: the share of a training step that goes into its batch, and how soon a folder of pictures is ready.

    python benchmarks/data_path.py [--pictures 50000] [--steps 100] [--json FILE]

The step is that of `quick`; its batch is timed inside the very steps. The folders hold generated PNGs and lie in a temporary place;
each loading is a process of its own (its start not counted), with the cache empty, then filled. The files were just written, so the
kernel still holds them: a cold disk comes on top.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pictures import source_at_hand
from report import heading, table, write_json
from rounds import Job, Result, serve, worker
from unstir.data import DataConfig, load
from unstir.objectives import Batch
from unstir.recipes import RECIPES
from unstir.run import Run
from unstir.sampling import SampleNoise
from unstir.training.devices import engine
from unstir.training.draw import Draw
from unstir.training.loop import DrawBatch, Loop
from unstir.training.session import Session

FOLDERS: dict[str, tuple[int, ...]] = {"28 x 28 gray": (28, 28), "64 x 64 RGB": (64, 64, 3)}
WARM_UP = 3


# ---- within a step -----------------------------------------------------------------------------------------------------


def timed(draw: DrawBatch, spent: list[float]) -> DrawBatch:
    """The same batches; notes how long each takes."""

    def timed_draw(step: int, positions: list[int], rng: SampleNoise) -> Batch:
        start = time.perf_counter()
        batch = draw(step, positions, rng)
        if batch.x.is_cuda:
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
        return batch

    return timed_draw


def feeding(source: str, steps: int) -> list[object]:
    """A row: milliseconds of a step, of its batch, and the share, medians over steps."""
    recipe = dataclasses.replace(RECIPES["quick"], data=DataConfig(source=source))
    training = dataclasses.replace(recipe.training, minutes=None, steps=10**6)
    recipe = dataclasses.replace(recipe, training=training)
    dataset = load(recipe.data)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Run(folder), "quick", recipe, dataset, engine())
        spent: list[float] = []
        whole: list[float] = []
        draw = timed(Draw(dataset, training.batch_size, 0, recipe.data.flip), spent)
        loop = iter(Loop(session.state, recipe.objective, draw, training, session.accelerator))
        for _ in range(steps + WARM_UP):
            start = time.perf_counter()
            float(next(loop).loss)
            whole.append(time.perf_counter() - start)
    shares = [100 * part / of for part, of in zip(spent[WARM_UP:], whole[WARM_UP:], strict=True)]
    step, batch = (1e3 * statistics.median(values[WARM_UP:]) for values in (whole, spent))
    return [
        f"{source}, batch {training.batch_size}",
        f"{step:.1f}",
        f"{batch:.2f}",
        f"{statistics.median(shares):.2f} %",
    ]


# ---- folders -----------------------------------------------------------------------------------------------------------


def make_folder(folder: Path, count: int, shape: tuple[int, ...]) -> None:
    """Smooth random pictures with some noise: neither as small nor as large as a PNG can be."""

    def make(index: int) -> None:
        rng = np.random.default_rng(index)
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, *shape[2:]), np.uint8))
        smooth = np.asarray(coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC), np.int16)
        noisy = (smooth + rng.integers(-4, 5, shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{index % 10}" / f"{index:06d}.png")

    for label in range(10):
        (folder / f"{label}").mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(make, range(count), chunksize=100))


def work(job: Job) -> None:
    """In the worker: loads the folder and takes a first batch."""

    def measure() -> Result:
        start = time.perf_counter()
        dataset = load(DataConfig(source=job["folder"], cache=job["cache"]))
        x, _ = dataset.batch(np.arange(min(64, len(dataset))))
        return {"seconds": time.perf_counter() - start, "pictures": len(dataset), "shape": list(x.shape[1:])}

    serve(measure, {})


def ready(job: Job) -> Result:
    """One loading, in a process of its own."""
    with worker(__file__, job) as process:
        process.answer()
        return process.measure()


def folder_row(name: str, shape: tuple[int, ...], count: int) -> list[object]:
    """Seconds until ready at first use and at the second."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        make_folder(folder, count, shape)
        megabytes = sum(file.stat().st_size for file in folder.rglob("*.png")) / 1e6
        job = {"folder": str(folder), "cache": str(Path(temporary) / "cache")}
        first, second = ready(job), ready(job)
    assert first["pictures"] == second["pictures"] == count
    return [f"{count:,} PNGs, {name}", f"{megabytes:.0f}", f"{first['seconds']:.2f}", f"{second['seconds']:.2f}"]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--data", default=source_at_hand(), help="of the training step")
    parser.add_argument("--json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(json.loads(options.worker))
    step = [feeding(options.data, options.steps)]
    print(heading("Feeding the network", options.data))
    print(table(["data", "step, ms", "its batch, ms", "share"], step))

    folders = [folder_row(name, shape, options.pictures) for name, shape in FOLDERS.items()]
    print(heading("A folder of pictures until ready"))
    print(table(["folder", "MB", "first use, s", "second, s"], folders))
    write_json(options.json, {"feeding": step, "folders": folders})


if __name__ == "__main__":
    main()

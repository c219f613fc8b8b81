"""One trained model, every sampler, few and many steps: the Fréchet distance of the samples, and what they look like.

    unstir train improved-ddpm --data fashion-mnist --training.minutes 12 --training.batch-size 32 --training.learning-rate 2e-3 \\
        --training.optimizer muon --training.decay linear --training.average power --out runs/samplers
    python benchmarks/sampler_quality.py runs/samplers [--only ddpm ddim ...] [--steps 5 10 20 50 100] [-n 500] [--grid uniform] [--out FILE.jsonl]

All start from the same noise (sample i depends on the seed and i alone), on the same grid, class after class without guidance, and are judged as in
time_to_quality.py. Steps are the sampler's; the table says how often each asked the network. Every finished line of --out is kept.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import unstir
from judge import Judge
from report import heading, table
from unstir.media.grid import picture_grid
from unstir.model import Model
from unstir.samplers import SAMPLERS

BATCH = 100


def draw(model: Model, name: str, steps: int, grid: str, n: int) -> dict[str, Any]:
    """n samples as bytes, with the seconds and the network's evaluations that they took."""
    settings = model.settings(name, steps, 1.0, grid, labels="cycle")
    pieces, asked, start = [], 0, time.perf_counter()
    for first in range(0, n, BATCH):
        for step in model.trajectory(range(first, min(first + BATCH, n)), settings):
            asked += step.evaluations if first == 0 else 0
        pieces.append(step.x_s.cpu())
    seconds = time.perf_counter() - start
    return {"x": model.spec.to_data(torch.cat(pieces)), "evaluations": asked, "seconds": round(seconds, 1)}


def finish(model: Model, judge: Judge, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A line for every sampler and number of steps: found in --out, or drawn and judged."""
    path = Path(options.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    known = {(row["sampler"], row["steps"], row["grid"], row["n"]): row for row in rows}
    result = []
    for name in options.only:
        for steps in options.steps:
            key = (name, steps, options.grid, options.n)
            if key not in known:
                found = draw(model, name, steps, options.grid, options.n)
                x = found.pop("x")
                np.save(path.with_name(f"{path.stem}-{name}-{options.grid}-{steps}.npy"), x[: options.shown])
                distance = judge.distances(x)
                known[key] = {**dict(zip(("sampler", "steps", "grid", "n"), key)), **found, "distance": distance}
                with path.open("a") as file:
                    file.write(json.dumps(known[key]) + "\n")
            result.append(known[key])
    return result


def show(rows: list[dict[str, Any]], judge: Judge, options: argparse.Namespace) -> None:
    """A line for each sampler, a column for each number of steps."""
    reference = next(iter(judge.known))
    cells = {(row["sampler"], row["steps"]): row for row in rows}
    lines = [
        [name, *(f"{cells[name, steps]['distance'][reference]:.3g} ({cells[name, steps]['evaluations']})" for steps in options.steps)]
        for name in options.only
    ]  # fmt: skip
    title = f"{judge.name} to {reference}, n = {options.n} (evaluations); {options.n} real pictures get {judge.floor(options.n)[reference]:.2g}"
    print(heading(title, judge.source))
    print(table(["sampler", *(f"{steps} steps" for steps in options.steps)], lines))
    if options.picture:
        path = Path(options.out)
        files = [
            path.with_name(f"{path.stem}-{n}-{options.grid}-{steps}.npy")
            for n in options.only
            for steps in options.steps
        ]
        x = np.concatenate([np.load(file)[: options.shown] for file in files])
        grid = picture_grid(x, columns=options.shown * len(options.steps), scale=1, row_labels=options.only)
        grid.save(options.picture)


def main() -> None:
    """Reads the options; draws what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--only", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20, 50, 100])
    parser.add_argument("--grid", default="uniform")
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--shown", type=int, default=4, help="samples of each in the picture")
    parser.add_argument("--out", default="runs/benchmarks/sampler_quality.jsonl")
    parser.add_argument("--picture", help="a PNG: a row for each sampler")
    options = parser.parse_args()
    model = unstir.load(options.run)
    judge = Judge(options.data, Path(options.out).parent)
    show(finish(model, judge, options), judge, options)


if __name__ == "__main__":
    main()

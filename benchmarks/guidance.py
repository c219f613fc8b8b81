"""What guidance buys and what it costs: how often samples show the class that was asked for, and how varied they still are.

    python benchmarks/guidance.py RUN [--classifier RUN] [--data SOURCE] [--scales 0 1 1.5 2 3 5 8] [-n 1000] [--out FILE.jsonl] [--picture FILE.png]

For every scale n samples are drawn, each class in turn, by the same noise, guided at all noise levels. The classifier that judges is the
one of time_to_quality.py: trained on the data's labels and clean pictures, it neither guides nor is guided by. Diversity is the mean
distance in its features of two samples of a class, over the same of real pictures: 1 is as varied as the data. With --classifier the
model is also guided by that noisy classifier alone, without being told the class (guidance scale 0). Every finished line of --out is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import unstir
from contenders.contender import Pictures
from judge import Judge
from report import heading, table
from unstir.media.grid import picture_grid
from unstir.model import Model
from unstir.recipes import SamplingConfig
from unstir.recipes.module import class_of
from unstir.samplers import SAMPLERS

BATCH = 100
WAYS = {
    "classifier-free": lambda scale, options: {"guidance_scale": scale},
    "classifier": lambda scale, options: {
        "guidance_scale": 0.0,
        "classifier": options.classifier,
        "classifier_scale": scale,
    },
}


def spread(vectors: Tensor, labels: Tensor) -> float:
    """The mean distance of two samples of a class, (N, D) and (N,) -> a number; the mean over classes."""
    means = []
    for label in sorted(set(labels.tolist())):
        own = vectors[labels == label].double()
        means.append(float(torch.pdist(own).mean()))
    return sum(means) / len(means)


class Examiner:
    """Tells how right and how varied pictures of known classes are."""

    def __init__(self, judge: Judge, n: int) -> None:
        self.judge = judge
        reference = next(iter(judge.references.values()))
        (self.name, self.condition) = class_of(reference.spec)  # type: ignore[misc]
        labels = torch.from_numpy(np.asarray(reference.conditions[self.name]))[:n]
        self.real = np.asarray(reference.x[:n]), labels
        self.real_spread = spread(judge.vectors(self.real[0]), labels)

    def __call__(self, x: Pictures, labels: Tensor) -> dict[str, Any]:
        probabilities = []
        for start in range(0, len(x), 500):
            found = self.judge.space(x[start : start + 500]).probabilities
            assert found is not None
            probabilities.append(found.cpu())
        right = torch.cat(probabilities).argmax(1) == labels
        diversity = spread(self.judge.vectors(x), labels) / self.real_spread
        return {
            "accuracy": round(float(right.float().mean()), 4),
            "diversity": round(diversity, 3),
            "distance": self.judge.distances(x),
        }


def draw(model: Model, settings: SamplingConfig, n: int) -> tuple[Pictures, float]:
    """n samples as bytes, and the seconds that they took."""
    start = time.perf_counter()
    x = torch.cat(list(model.batches(n, settings, batch_size=BATCH)))
    return model.spec.to_data(x), time.perf_counter() - start


def finish(model: Model, examiner: Examiner, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A line for every way and scale: found in --out, or drawn and judged."""
    path = Path(options.out)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    known = {(row["way"], row["scale"], row["n"]): row for row in rows}
    result = []
    for way in ["classifier-free", *(["classifier"] if options.classifier else [])]:
        for scale in options.scales:
            key = (way, scale, options.n)
            if key not in known:
                more = {"guidance_from": 0.0, "guidance_to": math.inf, **WAYS[way](scale, options)}
                settings = model.settings(options.sampler, options.steps, **more, labels="cycle")
                x, seconds = draw(model, settings, options.n)
                np.save(path.with_name(f"{path.stem}-{way}-{scale:g}.npy"), x[: options.shown])
                labels = torch.arange(options.n) % examiner.condition.size
                found = {"seconds": round(seconds, 1), **examiner(x, labels)}
                known[key] = {**dict(zip(("way", "scale", "n"), key)), **found}
                with path.open("a") as file:
                    file.write(json.dumps(known[key]) + "\n")
            result.append(known[key])
    return result


def show(rows: list[dict[str, Any]], examiner: Examiner, options: argparse.Namespace) -> None:
    """A line for each way and scale, and one for real pictures."""
    judge, reference = examiner.judge, next(iter(examiner.judge.known))
    lines: list[list[object]] = [
        [f"{r['way']}, scale {r['scale']:g}", r["accuracy"], r["diversity"], f"{r['distance'][reference]:.3g}", r["seconds"]]
        for r in rows
    ]  # fmt: skip
    real = examiner(*examiner.real)
    lines.append(["real pictures", real["accuracy"], real["diversity"], f"{judge.floor(options.n)[reference]:.2g}", ""])
    title = f"{options.sampler}, {options.steps} steps, n = {options.n}; {judge.name} to {reference}"
    print(heading(title, judge.source))
    print(table(["guidance", "accuracy", "diversity", "distance", "seconds"], lines))
    if options.picture:
        path = Path(options.out)
        files = [path.with_name(f"{path.stem}-{r['way']}-{r['scale']:g}.npy") for r in rows]
        x = np.concatenate([np.load(file)[: options.shown] for file in files])
        names = [f"{r['way']} {r['scale']:g}" for r in rows]
        picture_grid(x, columns=options.shown, scale=2, row_labels=names).save(options.picture)


def main() -> None:
    """Reads the options; draws what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--classifier", default="")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--scales", type=float, nargs="+", default=[0, 1, 1.5, 2, 3, 5, 8])
    parser.add_argument("--sampler", choices=list(SAMPLERS), default="dpmpp_2m")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--shown", type=int, default=20, help="samples of each in the picture")
    parser.add_argument("--out", default="runs/benchmarks/guidance.jsonl")
    parser.add_argument("--picture", help="a PNG: a row for each scale")
    options = parser.parse_args()
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    examiner = Examiner(Judge(options.data, Path(options.out).parent), options.n)
    show(finish(unstir.load(options.run), examiner, options), examiner, options)


if __name__ == "__main__":
    main()

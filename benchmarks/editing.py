"""How well the ways of inpainting fit a hole's filling to its surroundings, and how much of a picture DDIM inversion loses.

    python benchmarks/editing.py RUN [--data SOURCE] [-n 24] [--sampler dpmpp_2m] [--steps 16]

The hole is the middle of the picture, half as wide and as high. The seam is the mean step between pixels on the two sides of its
border, which real pictures have too: a filling fits where it is no larger than theirs. The filling need not be the original, so its
distance from that is a measure of likeness, not of quality.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import numpy as np
import torch
from torch import Tensor

import unstir
from report import heading, table
from unstir.data import DataConfig, load
from unstir.editing import ByGradient, ByReplacement, ByResampling, Method, decode, invert
from unstir.editing.conditional import complete
from unstir.editing.drawing import Drawing
from unstir.editing.inpaint import outside
from unstir.model import Model
from unstir.recipes import SamplingConfig
from unstir.run import Run
from unstir.samplers import DDIM, Heun

WAYS: dict[str, Method] = {
    "replacement": ByReplacement(),
    "repaint, U = 5": ByResampling(5),
    "repaint, U = 10": ByResampling(10),
    "repaint, U = 20": ByResampling(20),
    "repaint, U = 10, j = 4": ByResampling(10, 4),
    "gradient, scale 1": ByGradient(1.0),
    "gradient, scale 2": ByGradient(2.0),
    "gradient, scale 4": ByGradient(4.0),
    "gradient, scale 8": ByGradient(8.0),
}


def hole(height: int, width: int) -> Tensor:
    """(1, H, W), true in the middle."""
    fill = torch.zeros(1, height, width, dtype=torch.bool)
    fill[:, height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return fill


def seam(x: Tensor, fill: Tensor) -> float:
    """The mean difference of neighbours of which one lies in the hole."""
    steps = []
    for axis in (-2, -1):
        border = fill.diff(dim=axis)[0]  # of bools: whether they differ
        steps.append(x.diff(dim=axis).abs()[..., border].flatten())
    return float(torch.cat(steps).mean())


def fillings(model: Model, x_0: Tensor, settings: SamplingConfig) -> list[list[str]]:
    fill = hole(*model.spec.shape[1:])
    drawing = Drawing.of(model, settings, 0, {})
    rows = [["the pictures themselves", f"{seam(x_0, fill):.3f}", "", ""]]
    for name, method in WAYS.items():
        start = time.perf_counter()
        x = complete(drawing, outside(fill, x_0), method, len(x_0), len(x_0))
        seconds = time.perf_counter() - start
        distance = float((x - x_0)[..., fill[0]].square().mean().sqrt())
        rows.append([name, f"{seam(x, fill):.3f}", f"{distance:.3f}", f"{seconds / len(x_0):.2f}"])
    return rows


def round_trips(model: Model, x_0: Tensor, settings: SamplingConfig) -> list[list[str]]:
    rows = []
    for steps in (25, 50, 100, 200):
        row = [str(steps)]
        for sampler in (DDIM(), Heun()):
            there = dataclasses.replace(settings, sampler=sampler, steps=steps)
            back = decode(model, invert(model, x_0, settings=there), settings=there)
            row.append(f"{127.5 * float((back - x_0).square().mean().sqrt()):.2f}")
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--data", default="")
    parser.add_argument("-n", type=int, default=24)
    parser.add_argument("--sampler", default="dpmpp_2m")
    parser.add_argument("--steps", type=int, default=16)
    words = parser.parse_args()
    model, run = unstir.load(words.run, device="cpu"), Run.open(words.run)
    data = load(DataConfig(source=words.data) if words.data else model.recipe.data)
    x_0, _ = data.batch(np.random.default_rng(0).permutation(len(data))[: words.n])
    settings = dataclasses.replace(model.settings(words.sampler, words.steps), labels="none", guidance_scale=1.0)
    print(heading(f"{run.folder}: {len(x_0)} pictures of {data.name}"))
    print(table(["way", "seam", "distance from the original", "seconds a picture"], fillings(model, x_0, settings)))
    print()
    print(table(["steps", "DDIM, levels of 255", "Heun, levels of 255"], round_trips(model, x_0, settings)))


if __name__ == "__main__":
    main()

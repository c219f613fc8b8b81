"""Autoencoders side by side: how well they give back pictures that they were not trained on, in how many numbers, and how fast.

    unstir train autoencoder --data tiny_imagenet10_64.npz --training.minutes 8 --out runs/kl
    unstir train autoencoder --data tiny_imagenet10_64.npz --training.minutes 8 --denoiser.bottleneck vq --out runs/vq
    python benchmarks/autoencoders.py runs/kl runs/vq taef2:FOLDER --data tiny_imagenet10_64.npz [--held-out 0.1] [--picture FILE.png]

The pictures are those that a run with ``--training.held-out`` of that size keeps back. Beside the autoencoders stands what shrinking by 4 and
enlarging again leaves. Distances are Fréchet distances between what came back and the same pictures, in the features by whose depths the
perceptual term is measured, and in those of a classifier that was trained on the data's labels (--own), which no autoencoder has seen.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from judge import Judge
from report import heading, table
from unstir.autoencoder import Autoencoder
from unstir.codecs import open_autoencoder
from unstir.conditioning.derived.low_res import enlarged, shrunk
from unstir.data import DataConfig, Dataset, load
from unstir.evaluation.features import FeatureSpace, feature_space
from unstir.evaluation.frechet import frechet_distance
from unstir.evaluation.moments import Moments
from unstir.evaluation.reconstruction import part_of
from unstir.media.grid import picture_grid
from unstir.run import fetch
from unstir.training.devices import best_device
from unstir.training.reconstruction import noise_ratios

Back = Callable[[Tensor], Tensor]
"""(B, C, H, W) in model units -> what came back."""
AT_ONCE = 50


def shrunk_and_enlarged(x: Tensor) -> Tensor:
    return enlarged(shrunk(x, 4), 4, x.shape[2:])


def through(autoencoder: Autoencoder) -> Back:
    return lambda x: autoencoder.decode(autoencoder.encode(x), x.shape[2:])


def latents(autoencoder: Autoencoder, x: Tensor) -> tuple[float, float]:
    """(numbers in a sample for each latent, the latents' standard deviation)."""
    z = torch.cat([autoencoder.encode(part) for part in torch.split(x, AT_ONCE)])
    return x[0].numel() / z[0].numel(), float(z.std())


def bytes_of(x: Tensor, dataset: Dataset) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(dataset.spec.to_data(x.clamp(-1, 1)))


def distance(space: FeatureSpace, one: np.ndarray, other: np.ndarray) -> float:
    def moments(pictures: np.ndarray) -> Moments:
        found = [space(pictures[start : start + AT_ONCE]).vectors.cpu() for start in range(0, len(pictures), AT_ONCE)]
        return Moments.of(torch.cat(found))

    return float(frechet_distance(moments(one), moments(other)))


@torch.no_grad()
def main() -> None:
    """Reads the options, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("autoencoders", nargs="+", help="as --autoencoder takes them")
    parser.add_argument("--data", required=True)
    parser.add_argument("--held-out", type=float, default=0.1)
    parser.add_argument(
        "--own", action="store_true", help="also the distance in the features of a classifier of these data"
    )
    parser.add_argument("--shown", type=int, default=10)
    parser.add_argument("--picture", help="a PNG: the pictures, and below them what each made of them")
    parser.add_argument("--out", default="runs/benchmarks", help="folder that keeps the classifier")
    options = parser.parse_args()
    dataset = part_of(load(DataConfig(source=options.data)), options.held_out)
    x = dataset.samples(np.arange(len(dataset)))
    spaces = [feature_space("efficientnet-lite0", dataset, best_device(), Path(options.out))]
    spaces += [Judge(options.data, Path(options.out)).space] if options.own else []
    opened = {name: open_autoencoder(name, dataset.spec, fetch, torch.device("cpu")) for name in options.autoencoders}
    ways: dict[str, Back] = {
        "shrunk by 4, enlarged": shrunk_and_enlarged,
        **{name: through(a) for name, a in opened.items()},
    }
    truth, lines, shown = bytes_of(x, dataset), [], [bytes_of(x[: options.shown], dataset)]
    for name, back in ways.items():
        start = time.perf_counter()
        y = torch.cat([back(part) for part in torch.split(x, AT_ONCE)]).clamp(-1, 1)
        seconds = time.perf_counter() - start
        ratio, std = latents(opened[name], x) if name in opened else (16.0, math.nan)
        psnr = float(noise_ratios(x, y, dataset.spec).mean())
        far = [f"{distance(space, bytes_of(y, dataset), truth):.4g}" for space in spaces]
        lines.append([name, f"{ratio:.3g}", f"{std:.3g}", f"{psnr:.2f}", *far, f"{len(x) / seconds:.0f}"])
        shown.append(bytes_of(y[: options.shown], dataset))
    print(heading(f"{len(x)} pictures held out", options.data))
    names = [f"{space.frechet_name}[{space.name}]" for space in spaces]
    print(
        table(
            ["autoencoder", "numbers for each latent", "latents' std", "PSNR", *names, "pictures/s there and back"],
            lines,
        )
    )
    if options.picture:
        rows = ["pictures", *ways]
        picture_grid(np.concatenate(shown), columns=options.shown, scale=2, row_labels=rows).save(options.picture)


if __name__ == "__main__":
    main()

"""How well an autoencoder gives back what it was given, and how much of its latents it uses."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor

from unstir.autoencoder import Autoencoder
from unstir.data import Dataset, DataSpec
from unstir.networks.autoencoder import GridCoder
from unstir.networks.quantize import Codebook
from unstir.training.checkpoint import write_atomically

SAMPLES = 1000
"""Most samples on which it is measured."""
AT_ONCE = 50


@dataclass(frozen=True)
class Fidelity:
    """What was found on some samples.

    Args:
        of: what they are: "held-out" or "training".
        samples: how many.
        psnr: peak signal-to-noise ratio in dB, the mean over the samples; of data without bounds the signal-to-noise ratio.
        bounded: whether the data have bounds.
        latent_std: standard deviation of the latents over all of them.
        codes, perplexity: size of the codebook, and how many of its codes are used, as if evenly; 0 without one.
    """

    of: str
    samples: int
    psnr: float
    bounded: bool
    latent_std: float
    codes: int = 0
    perplexity: float = 0.0

    @property
    def ratio(self) -> str:
        """What the ratio is called."""
        return "psnr" if self.bounded else "snr"

    def text(self) -> str:
        """For a person."""
        codes = f", {self.perplexity:.0f} of {self.codes} codes in use (perplexity)" if self.codes else ""
        return f"{self.psnr:.2f} dB {self.ratio.upper()} on {self.samples:,} {self.of} samples; latents' std {self.latent_std:.3g}{codes}"

    def numbers(self) -> dict[str, float]:
        """For metrics.jsonl."""
        of = self.of.replace("-", "_")
        found = {f"{of}_{self.ratio}": self.psnr, f"{of}_latent_std": self.latent_std}
        return found | ({f"{of}_perplexity": self.perplexity} if self.codes else {})


def noise_ratios(x: Tensor, y: Tensor, spec: DataSpec) -> Tensor:
    """(B, *shape) data and reconstructions in model units -> (B,) signal-to-noise ratios in dB.

    Equation:
        10 log10(peak² / mean((x - y)²)),   peak the width of the data's range, or their standard deviation where they have no bounds
    """
    peak = spec.bounds[1] - spec.bounds[0] if spec.bounds else spec.std
    return 10 * (peak**2 / (x - y).double().square().flatten(1).mean(1)).log10()


def pairs(
    autoencoder: Autoencoder, dataset: Dataset, rows: npt.NDArray[np.int64], device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(data, latents, reconstructions) of these rows, in batches, in model units; reconstructions within the data's bounds."""
    spec = dataset.spec
    for start in range(0, len(rows), AT_ONCE):
        x = dataset.samples(rows[start : start + AT_ONCE]).to(device)  # (B, *shape)
        z = autoencoder.encode(x)  # (B, c, ...)
        y = autoencoder.decode(z, x.shape[2:])  # (B, *shape)
        yield x, z, y.clamp(*spec.bounds) if spec.bounds else y


@torch.no_grad()
def measure(
    autoencoder: Autoencoder, dataset: Dataset, rows: npt.NDArray[np.int64], of: str, accelerator: Accelerator
) -> Fidelity:
    """Fidelity on at most SAMPLES of the rows; every process looks at its share."""
    if len(rows) > SAMPLES:
        rows = rows[np.linspace(0, len(rows) - 1, SAMPLES).round().astype(np.int64)]
    bottleneck = autoencoder.network.bottleneck if isinstance(autoencoder.network, GridCoder) else None
    codes = len(bottleneck.codes) if isinstance(bottleneck, Codebook) else 0
    sums = torch.zeros(4 + codes, dtype=torch.float64)  # on the CPU: MPS has no float64
    mine = rows[accelerator.process_index :: accelerator.num_processes]
    for x, z, y in pairs(autoencoder, dataset, mine, accelerator.device):
        ratios, wide = noise_ratios(x.cpu(), y.cpu(), dataset.spec), z.cpu().double()
        sums[:4] += torch.stack(
            [ratios.sum(), wide.sum(), wide.square().sum(), torch.tensor(float(z.numel())).double()]
        )
        if isinstance(bottleneck, Codebook):
            sums[4:] += torch.bincount(bottleneck.numbers(z).flatten().cpu(), minlength=codes)
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums.to(accelerator.device), reduction="sum").cpu()
    mean, square = (sums[1:3] / sums[3]).tolist()
    used = sums[4:] / sums[4:].sum()
    return Fidelity(
        of=of,
        samples=len(rows),
        psnr=float(sums[0]) / len(rows),
        bounded=bool(dataset.spec.bounds),
        latent_std=math.sqrt(max(square - mean**2, 0.0)),
        codes=codes,
        perplexity=float(torch.special.entr(used).sum().exp()) if codes else 0.0,
    )


def write_fidelity(path: Path, found: Fidelity, step: int) -> None:
    """Writes fidelity.json."""
    contents = {"step": step, **vars(found)}
    write_atomically(path, lambda file: file.write((json.dumps(contents, indent=2) + "\n").encode()))


def read_fidelity(path: Path) -> Fidelity | None:
    """What fidelity.json says; None where there is none."""
    try:
        values: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
        return Fidelity(**{name: value for name, value in values.items() if name != "step"})
    except (OSError, ValueError, TypeError, AttributeError):
        return None

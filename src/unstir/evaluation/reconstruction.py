"""Reconstructions as samples to judge: what an autoencoder makes of data that it was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from unstir.autoencoder import Autoencoder
from unstir.data import Dataset
from unstir.errors import UserError
from unstir.evaluation.embed import Array
from unstir.evaluation.samples import DataSource, as_files_hold, order
from unstir.trained import Trained
from unstir.training import reconstruction
from unstir.training.draw import held_out
from unstir.training.reconstruction import Fidelity


def part_of(dataset: Dataset, share: float) -> Dataset:
    """The samples of a data set that a run has held out, as a data set; all of them where it has held out none."""
    _, rows = held_out(np.arange(len(dataset)), share)
    if not len(rows):
        return dataset
    conditions: dict[str, Any] = {
        name: [values[row] for row in rows] if isinstance(values, list) else values[rows]
        for name, values in dataset.conditions.items()
    }
    captions = [dataset.captions[row] for row in rows] if dataset.captions else []
    name, fingerprint = f"{dataset.name} (held out)", f"{dataset.fingerprint}-held-out-{share}"
    return replace(
        dataset, name=name, x=dataset.x[rows], conditions=conditions, captions=captions, fingerprint=fingerprint
    )


class ReconstructionSource(DataSource):
    """The samples of a data set, in a random order, as an autoencoder gives them back: rounded and clipped as files hold them.

    Args:
        name: of the run.
        trained: its autoencoder, in whose units it sees the data.
        dataset: to be reconstructed.
        device: where.
        seen: whether it was trained on these samples.

    Raises:
        UserError: the run holds no autoencoder, or one of other channels.
    """

    def __init__(self, name: str, trained: Trained, dataset: Dataset, device: torch.device, seen: bool) -> None:
        super().__init__(dataset)
        self.name = f"reconstructions by {name}"
        module, theirs = trained.module, trained.spec
        if not isinstance(module, Autoencoder):
            raise UserError(f"{name} holds no autoencoder")
        if theirs.kind != dataset.spec.kind:
            raise UserError(f"{name} was trained on {theirs.kind}, and {dataset.name} holds {dataset.spec.kind}")
        module.check(dataset.spec.shape, name)
        self.autoencoder, self.device, self.seen = module, device, seen
        units: dict[str, Any] = {name: getattr(theirs, name) for name in ("offset", "scale", "std", "bounds")}
        self.dataset = replace(dataset, spec=replace(dataset.spec, **units))

    def draw(self, numbers: Sequence[int]) -> Array:
        rows = np.array([self.row(number) for number in numbers], np.int64)
        with torch.no_grad():
            found = [y for _, _, y in reconstruction.pairs(self.autoencoder, self.dataset, rows, self.device)]
        spec = self.dataset.spec
        return as_files_hold(spec.to_data(torch.cat(found)), spec)

    def fidelity(self, n: int, accelerator: Accelerator) -> Reconstructed:
        """How well they are given back: of as many as were judged, as far as that is known in reasonable time."""
        rows = order(len(self.dataset))[:n]
        return Reconstructed(reconstruction.measure(self.autoencoder, self.dataset, rows, "", accelerator), self.seen)


@dataclass(frozen=True)
class Reconstructed:
    """An autoencoder's fidelity, as part of a report.

    Args:
        seen: whether it was trained on these samples.
    """

    found: Fidelity
    seen: bool

    def rows(self) -> list[tuple[str, str]]:
        """(a number's name, the number), for each."""
        found = self.found
        lines = [
            (f"{found.ratio.upper()}[n={found.samples}]", f"{found.psnr:.2f} dB"),
            ("latents' standard deviation", f"{found.latent_std:.3g}"),
        ]
        return lines + (
            [("codes in use (perplexity)", f"{found.perplexity:.0f} of {found.codes}")] if found.codes else []
        )

    def warnings(self) -> list[str]:
        """What makes the numbers less than they seem."""
        if not self.seen:
            return []
        return [
            "the autoencoder was trained on these samples: --data or --split names others, --training.held-out keeps some back"
        ]

    def to_json(self) -> dict[str, float | int]:
        """Plain values."""
        found = self.found
        numbers: dict[str, float | int] = {"value": found.psnr, "n": found.samples, "latent_std": found.latent_std}
        return numbers | ({"perplexity": found.perplexity, "codes": found.codes} if found.codes else {})

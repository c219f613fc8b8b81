"""The part of ``unstir evaluate`` that judges a run's reconstructions, where it trained an autoencoder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from unstir.data import DataConfig
from unstir.recipes import AutoencoderConfig

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from unstir.data import Dataset
    from unstir.evaluation.reconstruction import ReconstructionSource
    from unstir.evaluation.report import Report
    from unstir.evaluation.samples import SampleSource
    from unstir.run import Run


def is_autoencoder(run: Run) -> bool:
    """Whether the run trained an autoencoder."""
    return isinstance(run.read_recipe()[1].denoiser, AutoencoderConfig)


def _its_own(run: Run, config: DataConfig) -> bool:
    """Whether these are the data that the run was trained on."""
    from unstir.cli.train import findable_data

    own = run.read_recipe()[1].data
    return (findable_data(config).source, config.split) == (own.source, own.split)


def kept_from(run: Run | None, config: DataConfig, data: Dataset) -> Dataset:
    """The samples that an autoencoder is judged by: of its own data those that it never saw, where some were held out; all of any other."""
    from unstir.evaluation.reconstruction import part_of

    if run is None or not is_autoencoder(run) or not _its_own(run, config):
        return data
    return part_of(data, run.read_recipe()[1].training.held_out)


def reconstructions(run: Run, config: DataConfig, data: Dataset, device: torch.device) -> ReconstructionSource:
    """What the run's autoencoder makes of these data.

    Raises:
        UserError: data of another kind or other channels.
    """
    from unstir.evaluation.reconstruction import ReconstructionSource

    seen = _its_own(run, config) and not run.read_recipe()[1].training.held_out
    return ReconstructionSource(str(run.folder), run.trained(device), data, device, seen)


def with_fidelity(report: Report, source: SampleSource, n: int, accelerator: Accelerator) -> Report:
    """The report, with how well samples are given back, where it is of reconstructions."""
    from unstir.evaluation.reconstruction import ReconstructionSource

    if not isinstance(source, ReconstructionSource):
        return report
    return replace(report, reconstruction=source.fidelity(n, accelerator))

"""The part of ``unstir evaluate`` that asks for a likelihood: --metrics nll."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from unstir.data import DataConfig
from unstir.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from unstir.data import Dataset
    from unstir.evaluation.nll import NLL, NegativeLogLikelihood
    from unstir.model import Model
    from unstir.run import Run


@dataclass(frozen=True)
class NllOptions:
    """How the likelihood of data under the model is found (--metrics nll)."""

    nll_method: Literal["ode", "variational"] = "ode"
    """The probability-flow ODE, or the variational bound of the reverse chain."""
    nll_tolerance: float = 1e-4
    """ode: relative and absolute tolerance of the solver."""
    nll_probes: int = 1
    """ode: directions in which the trace is estimated, where a sample has more than 16 numbers."""
    nll_dequantization: Literal["uniform", "gaussian"] = "uniform"
    """ode: how whole numbers become real ones. uniform: evenly over their bins, as in most papers; gaussian: by the model's own lowest
    noise and back by a decoder, which costs fewer bits."""
    nll_steps: int = 0
    """variational: steps of the chain. 0: those of a process in whole steps, 1,000 of any other."""
    nll_terms: int = 100
    """variational: how many of the steps to look at for each sample, at random. 0: all, which gives the rate-distortion curve too."""
    nll_noise: Literal["auto", "posterior", "large", "learned"] = "auto"
    """variational: standard deviation of the reverse steps; auto: learned where the model learned it, else the posterior's."""
    nll_repeats: int = 1
    """Draws of noise for each sample, which are averaged."""


def check_nll(options: Any, what: str) -> None:
    """Refuses numbers that mean nothing, and a likelihood that a run has not.

    Args:
        options: of the command. what: the run's folder.

    Raises:
        UserError: with the option.
    """
    from unstir.evaluation.nll import NOT_IN_LATENTS
    from unstir.run import Run

    if "nll" in options.metrics and Run(what).read_recipe()[1].autoencoder:
        raise UserError(NOT_IN_LATENTS)
    if options.nll_tolerance <= 0:
        raise UserError(f"--nll-tolerance must be positive, not {options.nll_tolerance:g}")
    for name, least in (("nll_probes", 1), ("nll_repeats", 1), ("nll_steps", 0), ("nll_terms", 0)):
        if getattr(options, name) < least:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} must be at least {least}, not {getattr(options, name)}")


def judge(options: Any) -> NegativeLogLikelihood:
    """What the options ask for: those of a run, with the fields above."""
    from unstir.evaluation.nll import METHODS, NatsMethod, NegativeLogLikelihood

    fields: dict[str, dict[str, Any]] = {
        "ode": {
            "tolerance": options.nll_tolerance,
            "probes": options.nll_probes,
            "dequantization": options.nll_dequantization,
            "clip": options.clip,
        },
        "variational": {
            "steps": options.nll_steps,
            "terms": options.nll_terms,
            "noise": options.nll_noise,
            "clip": options.clip,
        },
    }
    method: NatsMethod = METHODS[options.nll_method](**fields[options.nll_method])
    matched = options.match_conditions
    return NegativeLogLikelihood(options.nll_method, method, options.nll_repeats, options.seed, matched)


def data_to_judge(config: DataConfig, asked: bool) -> DataConfig:
    """The data whose likelihood is asked for: the test split where there is one and no other was asked for."""
    from unstir.evaluation.nll import has_test_split

    if asked or config.split != DataConfig.split or not has_test_split(config.source):
        return config
    return dataclasses.replace(config, split="test")


def likelihood(
    model: Model,
    run: Run,
    options: Any,
    config: DataConfig,
    load: Callable[[DataConfig], Dataset],
    accelerator: Accelerator,
    progress: Callable[[str, int, int], None],
) -> NLL:
    """The likelihood of data under a run's model.

    Args:
        model: of the run.
        options: of the command. config: the data to judge by, read by ``load``.
    """
    from unstir.recipes.distillation import check_mean

    _, recipe, _ = run.read_recipe()
    check_mean(recipe, str(run.folder))
    own = (config.source, config.split) == (recipe.data.source, recipe.data.split)
    nll = judge(options)
    if config.source != recipe.data.source:  # classes of other data mean something else
        nll = dataclasses.replace(nll, match_conditions=False)
    found = nll(model, load(config), options.n, accelerator, options.batch_size, progress)
    return dataclasses.replace(found, held_out=not own)

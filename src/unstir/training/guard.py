"""Stopping at the first number that is not finite, and saying where it began."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unstir.errors import UserError
from unstir.objectives import Batch, Companion, Loss, Objective
from unstir.objectives.objective import loss_of
from unstir.sampling import SampleNoise


class NonFiniteError(UserError):
    """The loss or the gradient is no longer a number; says at which step, noise level and layer."""


def _finite(value: object) -> bool:
    if isinstance(value, Tensor):
        return bool(torch.isfinite(value).all())
    if isinstance(value, (tuple, list)):
        return all(_finite(part) for part in value)
    return True


@contextmanager
def _watch(module: nn.Module) -> Iterator[list[str]]:
    """Collects the names of layers whose output is not finite though their input is, in order of the forward pass."""
    found: list[str] = []

    def hook_for(name: str):  # type: ignore[no-untyped-def]
        def hook(layer: nn.Module, inputs: object, output: object) -> None:
            if _finite(inputs) and not _finite(output):
                found.append(f"{name} ({type(layer).__name__})")

        return hook

    handles = [
        layer.register_forward_hook(hook_for(name))
        for name, layer in module.named_modules()
        if not any(layer.children())
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _noise_levels(loss: Loss) -> str:
    if loss.log_snr is None:
        return ""
    ratio = (-loss.log_snr / 2).exp()
    bad = ratio[~torch.isfinite(loss.total.detach().cpu())]
    shown = bad if len(bad) else ratio
    which = "noise levels sigma/alpha" if len(bad) else "batch's noise levels sigma/alpha"
    return f"{which} {float(shown.min()):.3g} to {float(shown.max()):.3g}"


def diagnose(
    module: nn.Module,
    objective: Objective,
    batch: Batch,
    rng: SampleNoise,
    step: int,
    companion: Companion | None = None,
) -> tuple[NonFiniteError, bool]:
    """Works through the batch once more; -> what is wrong with it, and whether anything is (it may be another's share).

    Args:
        module: with the weights it had when the loss or gradient was found not to be finite.
        rng: fresh, as it was at the start of the step.
        companion: the objective's, where it has one.
    """
    found = True
    broken = [name for name, parameter in module.named_parameters() if not _finite(parameter)]
    if not _finite(batch.x):
        where = "the data of this batch are not finite"
    elif broken:
        where = f"weights are not finite, first in {broken[0]}"
    else:
        module.zero_grad(set_to_none=True)
        with _watch(module) as layers:
            loss = loss_of(objective, module, batch, rng, companion)
        levels = _noise_levels(loss)
        loss.total.mean().backward()  # type: ignore[no-untyped-call]
        gradients = [
            name
            for name, parameter in module.named_parameters()
            if parameter.grad is not None and not _finite(parameter.grad)
        ]
        if layers:
            where = f"it began in the layer {layers[0]}; {levels}"
        elif gradients:
            where = (
                f"the loss is finite but not the gradient of {gradients[-1]}; {levels}"  # backward goes last to first
            )
        elif not _finite(loss.total):
            where = f"the layers are finite, the loss is not; {levels}"
        else:
            where, found = "this process's share of the batch is finite, another's is not", False
    error = NonFiniteError(
        f"training stopped at step {step}: the loss or gradient is no longer finite. {where[0].upper()}{where[1:]}.\n"
        "The last good checkpoint is kept. Try a lower --training.learning-rate, a longer --training.warmup, or "
        "--training.precision fp32."
    )
    return error, found

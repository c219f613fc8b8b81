"""Learning from another run: what all objectives that have a teacher share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from unstir.conditioning.guidance_scale import GUIDANCE_SCALE, as_told, scale_condition
from unstir.data.spec import DataSpec
from unstir.denoiser import Denoiser
from unstir.errors import UserError
from unstir.objectives.denoising import told_or_not
from unstir.objectives.objective import Batch, Companion, Objective
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.sampling import Cond, SampleNoise


def fingerprint(module: nn.Module) -> Tensor:
    """(4,) int64: the SHA-256 of all weights and buffers, with their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return torch.from_numpy(np.frombuffer(digest.digest(), np.int64).copy())


class Teacher(Companion):
    """A companion that holds a trained denoiser, with all that guides it around it.

    Its weights are not in the checkpoints, only their fingerprint: a run goes on with the teacher it began with, or not at all.

    Args:
        denoiser: the teacher, which is frozen. None: there is none, as where a consistency model learns from the data alone.
        name: of its run, for errors.
    """

    fingerprint: Tensor

    def __init__(self, denoiser: Denoiser | None, name: str = "the teacher") -> None:
        super().__init__()
        # Not a submodule: nothing of it is trained or saved.
        self.apart: tuple[Denoiser, ...] = () if denoiser is None else (denoiser.requires_grad_(False).eval(),)
        self.name = name
        self.register_buffer("fingerprint", fingerprint(denoiser or nn.Identity()))

    @property
    def denoiser(self) -> Denoiser:
        """The teacher itself."""
        assert self.apart, "there is no teacher"
        return self.apart[0]

    @torch.no_grad()
    def believe(self, x_t: Tensor, t: Tensor, cond: Cond) -> Prediction:
        """What the guided teacher believes of x_t (B, ...) at times t (B,).

        Args:
            cond: the conditions as ``DistillationObjective.told`` gives them for the teacher: with a guidance scale for each sample where
                the student is to learn it as an input.
        """
        return self.denoiser(x_t, t, **cond)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As any module, once it is clear that the state is that of a run with this teacher.

        Raises:
            UserError: it was another one.
        """
        before = state_dict.get("fingerprint")
        if before is not None and not torch.equal(before.cpu(), self.fingerprint.cpu()):
            raise UserError(
                f"{self.name} is not the teacher that this run began with (it was trained on, or is another run): bring that one back, "
                "or start anew"
            )
        return super().load_state_dict(state_dict, *args, **kwargs)


@dataclass(frozen=True)
class DistillationObjective(Objective):
    """What objectives with a teacher have in common: who it is, and how it is guided."""

    trains: ClassVar[type[nn.Module]] = Denoiser

    teacher: str = ""
    """Run folder of the teacher, as seen from this run's folder or from where you are. RUN@STEP: as it was at that step's checkpoint."""
    guidance_scale: float | None = None
    """Guidance scale of the teacher, learned for good. Default: what it recommends."""
    guidance_range: tuple[float, ...] = ()
    """Lowest and highest guidance scale of the teacher: the student learns all between, and is told which it is to use."""
    dropout: float = 0.0
    """Fraction of samples whose conditions are dropped, so that the student can be asked for anything as well."""

    def __post_init__(self) -> None:
        wanted = self.guidance_range
        if wanted and (len(wanted) != 2 or not 0 <= wanted[0] <= 1 < wanted[1]):
            raise UserError(
                "a range of guidance scales is a lowest one, at most 1, which is off, and a highest one, such as 1 4; "
                f"not {' '.join(f'{scale:g}' for scale in wanted)}"
            )
        if wanted and self.guidance_scale is not None:
            raise UserError("the guidance scale is either one for good or an input with a range, not both")

    def described(self, spec: DataSpec) -> DataSpec:
        """With the guidance scale, where the student is told it.

        Raises:
            UserError: data that have nothing to be guided by, or a condition of that name.
        """
        if not self.guidance_range:
            return spec
        if GUIDANCE_SCALE in spec.conditions:
            raise UserError(f"the data have a condition '{GUIDANCE_SCALE}' of their own; rename it")
        if not any(condition.seen and not condition.always for condition in spec.conditions.values()):
            raise UserError("there is nothing to guide by without conditions: leave the range of guidance scales out")
        return replace(spec, conditions={**spec.conditions, GUIDANCE_SCALE: scale_condition(*self.guidance_range)})

    def told(self, batch: Batch, rng: SampleNoise) -> tuple[Cond, Cond]:
        """The conditions of a batch, some dropped out: (as the student is told them, as the teacher is).

        Where the scale is an input, every sample draws its own: the teacher is guided by it, the student sees it.

        Equation:
            w ~ Uniform[w_min, w_max]
        Source:
            Meng et al. 2023, section 3.1, https://arxiv.org/abs/2210.03142
        """
        cond = told_or_not(batch, rng, self.dropout)
        if not self.guidance_range:
            return cond, cond
        low, high = self.guidance_range
        scale = low + (high - low) * rng.uniform()  # (B,)
        shown = as_told(scale_condition(low, high), scale, batch.x)
        return {**cond, GUIDANCE_SCALE: shown}, {**cond, GUIDANCE_SCALE: scale}

    def companion(self, process: Process, teacher: Denoiser | None = None) -> Companion | None:
        """The teacher, held.

        Raises:
            UserError: no run is named to learn from.
        """
        if teacher is None:
            raise UserError("this objective learns from a run: unstir distill RUN, or --objective.teacher RUN")
        return Teacher(teacher, self.teacher or "the teacher")

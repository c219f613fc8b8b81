"""The run that another one learns from: found, loaded, and guided as it is sampled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from unstir.conditioning.guidance_scale import GUIDANCE_SCALE, scale_range
from unstir.data import DataSpec
from unstir.denoiser import ChangeProcess, Denoiser, NetDenoiser
from unstir.errors import UserError
from unstir.guidance import OnlyKnown
from unstir.model import Model
from unstir.objectives import DistillationObjective, Objective
from unstir.process import Process
from unstir.recipes import DenoiserConfig, SamplingConfig
from unstir.recipes.distillation import Original
from unstir.run import Run, named
from unstir.trained import Trained, check_fit
from unstir.training.base import from_anywhere


def original(name: str) -> Original:
    """The run of that name, to be distilled.

    Args:
        name: RUN or RUN@STEP.

    Raises:
        UserError: no such run, or one that draws no samples.
    """
    run, _ = named(name)
    _, recipe, spec = run.read_recipe()
    if not isinstance(recipe.denoiser, DenoiserConfig):
        raise UserError(
            f"{name} holds no model that draws samples, so there is nothing to distil; 'unstir info {run.folder}' says what it is"
        )
    if recipe.network.needs_base:
        raise UserError(
            f"most of {name} stays as its base is, and so cannot learn to sample in fewer steps: distil the base instead ({recipe.base})"
        )
    return Original(str(Path(name).expanduser().resolve()), from_anywhere(recipe, run), spec)


def teacher_of(
    objective: Objective, run: Run, spec: DataSpec, process: Process, device: torch.device
) -> Denoiser | None:
    """The denoiser that an objective learns from, with all that guides it around it; None for an objective without a teacher.

    Args:
        run: that learns, from whose folder the teacher's may be named.
        spec: of the student's data.
        process: of the student; a teacher of another one is asked at the same log-SNR.

    Raises:
        UserError: no such run, one that draws no samples, or one of other data.
    """
    if not isinstance(objective, DistillationObjective) or not objective.teacher:
        return None
    trained = _fetched(objective.teacher, run, device)
    if not isinstance(trained.module, NetDenoiser):
        raise UserError(f"{objective.teacher} is not a model that draws samples, so nobody learns from it how to")
    check_fit(objective.teacher, trained.spec, spec)
    model = Model.of(trained)
    settings = _settings(objective, trained)
    denoiser = OnlyKnown(model.guided(settings), [*model.known(settings), GUIDANCE_SCALE])
    return denoiser if denoiser.process == process else ChangeProcess(denoiser, process)


def _fetched(name: str, run: Run, device: torch.device) -> Trained:
    try:
        return run.fetch(name, device)
    except UserError as error:
        raise UserError(
            f"this run learns from {name}, which cannot be loaded: {error}\n"
            "Bring it back, or say where it is now: --objective.teacher RUN"
        ) from error


def _settings(objective: DistillationObjective, trained: Trained) -> SamplingConfig:
    """How the teacher samples, and so how it is guided: as it recommends, but for what the objective says of it.

    Raises:
        UserError: guidance that a student cannot learn.
    """
    settings, told = trained.recipe.sampling, trained.spec.conditions.get(GUIDANCE_SCALE)
    if settings.clip_model:
        raise UserError(
            f"{objective.teacher} recommends to be guided by a CLIP, whose captions a student is not told: distil a run without"
        )
    if objective.guidance_scale is not None:
        return replace(settings, guidance_scale=objective.guidance_scale)
    if not objective.guidance_range:
        return settings
    low, high = objective.guidance_range
    if told is not None and not scale_range(told)[0] - 1e-6 <= low < high <= scale_range(told)[1] + 1e-6:
        there = " to ".join(f"{scale:g}" for scale in scale_range(told))
        raise UserError(f"{objective.teacher} has learned guidance scales from {there} itself: ask for none beyond")
    # The scale that every sample brings along counts; this one only says that there is guidance at all.
    return replace(settings, guidance_scale=high)

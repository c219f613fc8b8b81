"""How to sample: sampler, grid, steps, and all that guides."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch

from unstir.conditioning.guidance_scale import GUIDANCE_SCALE
from unstir.data import DataSpec
from unstir.denoiser import Denoiser
from unstir.errors import UserError
from unstir.guidance import (
    AutoGuidance,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    ClipX0,
    ControlStrength,
    DynamicThreshold,
    LogProb,
    OnlyKnown,
    ScaleInput,
    SimilarityGuidance,
)
from unstir.process import Process
from unstir.samplers import Heun
from unstir.samplers.grids import Karras
from unstir.sampling import Grid, Sampler

Around = Callable[[Denoiser], Denoiser]
"""A denoiser -> the same with something around it."""


@dataclass(frozen=True)
class Guides:
    """What guides a denoiser and is not part of it, loaded.

    Args:
        bad: a worse model, for autoguidance.
        classifier: log probability of the class that is asked for, given x_t under the denoiser's process.
        clip: how well x_t goes with the caption that is asked for, ``Clip.log_prob``.
        around: anything else to put around the denoiser, such as ``lambda d: FunctionGuidance(d, loss)``.
    """

    bad: Denoiser | None = None
    classifier: LogProb | None = None
    clip: LogProb | None = None
    around: Around | None = None


@dataclass(frozen=True)
class SamplingConfig:
    """The recommended way to sample; the run folder keeps it and ``unstir sample`` uses it."""

    sampler: Sampler = field(default_factory=Heun)
    """How to step."""
    grid: Grid = field(default_factory=Karras)
    """Where to stop on the way."""
    steps: int = 18
    """How many steps."""
    guidance_scale: float = 1.0
    """Classifier-free guidance: 1 is off; more gives clearer, less varied samples of what was asked for. A student that was distilled with
    its scale as an input is told it instead, and needs one evaluation."""
    guidance_from: float = 0.0
    """Lowest noise level (sigma / alpha) at which to guide, by whatever guides."""
    guidance_to: float = math.inf
    """Highest noise level at which to guide."""
    guidance_rescale: float = 0.0
    """Take back so much of the contrast that guidance adds, 0 to 1; 0.7 against overexposed pictures."""
    classifier: str = ""
    """Run folder of a noisy classifier to guide by (unstir train classifier)."""
    classifier_scale: float = 1.0
    """How much the classifier guides: 0 is off, 1 as much as it believes, more gives clearer, less varied samples."""
    clip_model: str = ""
    """Run folder of a CLIP to guide by, towards the captions asked for (unstir train clip); unstir sample RUN --clip THAT is short for it."""
    clip_scale: float = 1.0
    """How much the CLIP guides: 0 is off, 1 as much as it believes, more shows the caption more clearly, at the cost of all else."""
    control_strength: float = 1.0
    """How much the control of a ControlNet counts: 0 not at all (the base), 1 as in training, more insists (unstir train controlnet)."""
    autoguidance: str = ""
    """Run folder of a worse model to be guided away from: a smaller or a shorter-trained one. RUN@STEP: the checkpoint of that step."""
    autoguidance_scale: float = 2.0
    """How far away from the worse model: 1 is off."""
    clip: bool = True
    """Keep the believed data in the range of pictures (data without a range are never clipped)."""
    dynamic_threshold: float = 0.0
    """Shrink a believed picture into the range by this percentile of its pixels instead of clipping it, such as 99.5; for large
    guidance scales (0: don't)."""
    low_res_from: str = ""
    """Run folder of the stage below, which draws the smaller samples that this one enlarges; as seen from this run's folder or from
    where you are."""
    low_res_steps: int = 0
    """Steps of the stage below (0: as it recommends)."""
    low_res_guidance_scale: float = 0.0
    """Guidance scale of the stage below (0: as it recommends)."""
    prior: str = ""
    """Run folder of the prior that draws the image embeddings of captions (unCLIP); as seen from this run's folder or from where you are."""
    prior_steps: int = 0
    """Steps of the prior (0: as it recommends)."""
    prior_guidance_scale: float = 0.0
    """Guidance scale of the prior (0: as it recommends)."""
    prior_candidates: int = 2
    """How many embeddings the prior draws of a caption; the one nearest to the caption's own is taken."""
    labels: Literal["cycle", "uniform", "none"] = "cycle"
    """Labels or captions of samples that were asked for without one: each class (each caption that the run keeps of its data) in turn, at
    random, or none."""

    def __post_init__(self) -> None:
        for name in ("low_res_steps", "prior_steps"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must be positive (0: as it recommends), not {getattr(self, name)}")
        if not 0 <= self.guidance_rescale <= 1:
            raise UserError(f"guidance_rescale must lie between 0 and 1, not {self.guidance_rescale}")
        if self.dynamic_threshold and not 50 <= self.dynamic_threshold <= 100:
            raise UserError(
                f"dynamic_threshold is a percentile between 50 and 100, such as 99.5 (0: off), not {self.dynamic_threshold}"
            )

    def guide(self, denoiser: Denoiser, spec: DataSpec, guides: Guides | None = None) -> Denoiser:
        """The denoiser with this guidance around it, from the inside to the outside:

        0. what is told to the network and guidance knows nothing of: the strength of a ControlNet's control, the scale of a student that
           has learned to be guided (for which there is no 2);
        1. autoguidance, which mends the belief itself, with and without a condition;
        2. classifier-free guidance, which asks for both;
        3. the gradients of the classifier and of the CLIP, and whatever else is to be put around: once, on what is believed by then;
        4. clipping or dynamic thresholding: whatever guided, data stay in their range.

        Args:
            denoiser: the model.
            spec: of its data: conditions that it does not name do not reach the model.
            guides: what these settings name by run folder, loaded (``Model.guided`` does it).

        Raises:
            ValueError: a run folder is named and was not loaded.
            UserError: a guidance scale that a student has not learned.
        """
        guides = guides or Guides()
        interval = (self.guidance_from, self.guidance_to)
        if self.control_strength != 1:
            denoiser = ControlStrength(denoiser, self.control_strength)
        learned = spec.conditions.get(GUIDANCE_SCALE)
        if learned is not None:
            denoiser = ScaleInput(denoiser, learned, self.guidance_scale)
        foreign = guides.classifier is not None or guides.clip is not None
        known = [name for name, condition in spec.conditions.items() if condition.seen]
        if foreign:  # what they guide by may be news to the model
            denoiser = OnlyKnown(denoiser, known)
        if self.autoguidance:
            if guides.bad is None:
                raise ValueError(f"the worse model {self.autoguidance} was not loaded; use Model.guided")
            scale, rescale = self.autoguidance_scale, self.guidance_rescale
            denoiser = AutoGuidance(denoiser, guides.bad, scale, interval, rescale=rescale)
        if self.guidance_scale != 1 and learned is None and (known or not foreign):
            denoiser = ClassifierFreeGuidance(
                denoiser, self.guidance_scale, interval, rescale=self.guidance_rescale, always=spec.always
            )
        if self.classifier:
            if guides.classifier is None:
                raise ValueError(f"the classifier {self.classifier} was not loaded; use Model.guided")
            denoiser = ClassifierGuidance(denoiser, guides.classifier, self.classifier_scale, interval)
        if self.clip_model:
            if guides.clip is None:
                raise ValueError(f"the CLIP {self.clip_model} was not loaded; use Model.guided")
            denoiser = SimilarityGuidance(denoiser, guides.clip, self.clip_scale, interval)
        if guides.around is not None:
            denoiser = guides.around(denoiser)
        return self._threshold(denoiser, spec)

    def _threshold(self, denoiser: Denoiser, spec: DataSpec) -> Denoiser:
        if not self.clip or not spec.bounds:
            return denoiser
        if self.dynamic_threshold:
            return DynamicThreshold(denoiser, self.dynamic_threshold, *spec.bounds)
        return ClipX0(denoiser, *spec.bounds)

    def times(self, process: Process) -> torch.Tensor:
        """The grid's times: ``steps`` + 1 of them, fewer where the process has fewer steps."""
        return self.grid.times(process, self.steps)

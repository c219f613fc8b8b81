"""Learning to say a sample in fewer numbers: an autoencoder's distance to the data, as numbers, as a network sees it, and as a discriminator
does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstir.autoencoder import Autoencoder
from unstir.data.spec import DataSpec
from unstir.denoiser import Denoiser
from unstir.errors import UserError
from unstir.networks.autoencoder import GridCoder
from unstir.networks.discriminator import PatchDiscriminator
from unstir.networks.layers import crop
from unstir.objectives.objective import Batch, Companion, Loss, Objective
from unstir.objectives.perceptual import PerceptualDistance, why_not
from unstir.process import Process
from unstir.sampling import SampleNoise

SMALLEST, LARGEST = 1e-4, 1e4
"""Added to the adversarial gradient's length, and the adaptive weight's bound, as in the paper's code."""


def hinge(real: Tensor, made: Tensor) -> Tensor:
    """The discriminator's loss, from what it says of the patches of data and of reconstructions, (B, patches) each -> (B,).

    Equation:
        L_D = 1/2 E[max(0, 1 - D(x))] + 1/2 E[max(0, 1 + D(y))]
    Source:
        Lim & Ye 2017, https://arxiv.org/abs/1705.02894; halved as in the code of Esser, Rombach & Ommer 2021
    """
    return (F.relu(1 - real).mean(1) + F.relu(1 + made).mean(1)) / 2


def adaptive_weight(likeness: Tensor, adversarial: Tensor) -> Tensor:
    """How much the adversarial loss is to count for its gradient to be as long as that of the rest.

    Equation:
        λ = |grad_G L_rec| / (|grad_G L_adv| + 1e-4),   G the weights of the decoder's last layer
    Source:
        Esser, Rombach & Ommer 2021, eq. 7, https://arxiv.org/abs/2012.09841

    Args:
        likeness, adversarial: the two gradients.
    """
    weight: Tensor = likeness.norm() / (adversarial.norm() + SMALLEST)
    return weight.clamp(max=LARGEST)


class Critics(Companion):
    """The discriminator, which learns beside the autoencoder; the network that sees, which does not (and is in no checkpoint); and the one
    who tells the bottleneck that a step is done.

    Args:
        discriminator: None where nothing is to be deceived.
        perceptual: None where nobody is to look.
    """

    def __init__(self, discriminator: PatchDiscriminator | None, perceptual: PerceptualDistance | None) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.perceptual = perceptual
        self.done = 0.0

    def at(self, fraction: float) -> None:
        self.done = fraction

    def follow(self, module: nn.Module, step: int) -> None:
        assert isinstance(module, Autoencoder)
        assert isinstance(module.network, GridCoder)
        module.network.bottleneck.follow()

    def deceived(self, y: Tensor) -> Tensor:
        """(B,) how badly reconstructions pass for data. The gradient reaches y, not the discriminator.

        Equation:
            L_adv = -E[D(y)]
        Source:
            Lim & Ye 2017, https://arxiv.org/abs/1705.02894
        """
        assert self.discriminator is not None
        frozen = {name: value.detach() for name, value in self.discriminator.state_dict(keep_vars=True).items()}
        verdict: Tensor = torch.func.functional_call(self.discriminator, frozen, (y,))  # (B, patches)
        return -verdict.mean(1)

    def judged(self, x: Tensor, y: Tensor) -> Tensor:
        """(B,) the discriminator's own loss. Its gradient reaches nothing else."""
        assert self.discriminator is not None
        return hinge(self.discriminator(x.detach()), self.discriminator(y.detach()))


@dataclass(frozen=True)
class ReconstructionObjective(Objective):
    """The distance between data and reconstruction; how different the two look; what the bottleneck costs; and, in the later part of
    training, a discriminator that tells them apart, and is to be deceived.

    Each piece of a batch (of an accumulated one, or of one that processes share) weighs its adversarial term by its own gradients; in all
    else pieces do together what the whole batch would.

    Equation:
        L = |x - y|_1 + w_p d(x, y) + w_b penalty + w_a λ L_adv(y),   y = D(E(x)),   means over the data's numbers
    Source:
        Rombach et al. 2022, section 3.1 and appendix G, https://arxiv.org/abs/2112.10752; Esser, Rombach & Ommer 2021, eq. 4 to 7, https://arxiv.org/abs/2012.09841
    """

    trains: ClassVar[type[nn.Module]] = Autoencoder

    perceptual: float = 1.0
    """Weight of the difference that EfficientNet-lite0 sees between pictures. 0 for data that are none, and where its package is missing."""
    adversarial: float = 0.0
    """Weight of the adversarial term, beside the adaptive one (0: no discriminator; the paper's is 0.5)."""
    adversarial_start: float = 0.5
    """Fraction of training after which the discriminator learns and is to be deceived."""
    discriminator_channels: int = 32
    """Channels of the discriminator's first layer."""
    discriminator_layers: int = 2
    """How often the discriminator halves the grid."""
    shape: tuple[int, ...] = ()
    """Of one sample; taken from the data."""

    def __post_init__(self) -> None:
        if min(self.perceptual, self.adversarial) < 0 or not 0 <= self.adversarial_start <= 1:
            raise UserError(
                "objective: perceptual and adversarial must be at least 0, adversarial_start must lie in [0, 1]"
            )
        if min(self.discriminator_channels, self.discriminator_layers) < 1:
            raise UserError("objective: discriminator_channels and discriminator_layers must be at least 1")

    def fitted(self, spec: DataSpec) -> ReconstructionObjective:
        reason = why_not(spec) if self.perceptual else ""
        if reason:
            print(f"objective.perceptual is set to 0: {reason}", flush=True)
        return replace(self, shape=spec.shape, perceptual=0.0 if reason else self.perceptual)

    def companion(self, process: Process, teacher: Denoiser | None = None) -> Critics:
        assert self.shape, "fitted() comes first"
        channels, *grid = self.shape
        sizes = (self.discriminator_channels, self.discriminator_layers)
        discriminator = PatchDiscriminator(len(grid), channels, *sizes) if self.adversarial else None
        return Critics(discriminator, PerceptualDistance() if self.perceptual else None)

    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise, companion: Companion | None = None) -> Loss:
        assert isinstance(module, Autoencoder)
        assert isinstance(module.network, GridCoder)
        assert isinstance(companion, Critics)
        x, network = batch.x, module.network
        noise = rng.normal((network.latent_channels, *module.small(x.shape[2:]))).to(x.device, x.dtype)
        passed = module(x, noise)
        y = crop(passed.x, x.shape[2:])  # (B, C, ...)
        likeness = (x - y).abs().flatten(1).mean(1)  # (B,)
        parts = {"reconstruction": likeness, network.bottleneck.called: passed.penalty}
        if network.bottleneck.counts:
            parts["perplexity"] = passed.perplexity.expand(len(x))
        if companion.perceptual is not None:
            parts["perceptual"] = companion.perceptual(x, y)
            likeness = likeness + self.perceptual * parts["perceptual"]
        total = likeness + network.bottleneck.weight * passed.penalty
        if companion.discriminator is not None and companion.done >= self.adversarial_start:
            deceived, judged = companion.deceived(y), companion.judged(x, y)
            gradients = [
                torch.autograd.grad(part.mean(), passed.x, retain_graph=True)[0] for part in (likeness, deceived)
            ]
            weight = adaptive_weight(*network.last_gradients(passed.features.detach(), *gradients))
            total = total + self.adversarial * weight * deceived + judged
            parts |= {"adversarial": deceived, "discriminator": judged, "adaptive_weight": weight.expand(len(x))}
        return Loss(total, parts)

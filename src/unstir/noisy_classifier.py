"""A classifier of noisy data, by whose gradient a denoiser can be guided."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unstir.denoiser import ask, at_same_snr, c_in, c_noise
from unstir.process import Process
from unstir.trainable import Trainable


class NoisyClassifier(Trainable):
    """A network that tells the class of x_t at any noise level. Like a denoiser's it is shown x_t at unit scale and told the noise
    level, not the clock.

    Equation:
        log p(y | x_t) = log softmax(F)_y,   F = network(c_in x_t, c_noise)
    Source:
        Dhariwal & Nichol 2021, section 4, https://arxiv.org/abs/2105.05233; Song et al. 2021, section 5, https://arxiv.org/abs/2011.13456

    Args:
        network: ``(x, c_noise) -> F``; x (B, C, ...), c_noise (B,), F (B, classes).
        process: under which x_t is noisy.
        label: name of the condition that is the class.
        sigma_data: standard deviation of the data.
    """

    def __init__(self, network: nn.Module, process: Process, label: str = "label", *, sigma_data: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.process = process
        self.label = label
        self.sigma_data = sigma_data
        self.autocast = None

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """(B, ...) at times () or (B,) -> (B, classes) logits."""
        alpha, sigma = self.process.scales(t, x_t)
        inputs = c_in(alpha, sigma, self.sigma_data) * x_t
        return ask(self.network, inputs, c_noise(self.process, t), {}, self.autocast)

    def log_prob(self, x_t: Tensor, t: Tensor, cond: Mapping[str, Tensor], process: Process | None = None) -> Tensor:
        """(B,) log p(label | x_t) of the labels in ``cond``; 0 for a sample without one, which it thereby leaves unguided.

        Args:
            process: under which x_t is noisy, where it is another: the classifier is asked at the same log-SNR.
        """
        if self.label not in cond:
            return x_t.new_zeros(len(x_t))
        if process is not None and process != self.process:
            x_t, t, _ = at_same_snr(x_t, t, process, self.process)
        label = cond[self.label].unsqueeze(1)
        found = self(x_t, t).log_softmax(1).gather(1, label.clamp(min=0)).squeeze(1)
        return torch.where(label.squeeze(1) < 0, torch.zeros_like(found), found)

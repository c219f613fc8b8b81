"""A small CLIP: pictures, at any noise level, and captions in one space. Their similarity guides a denoiser, and judges samples."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstir.conditioning.null import is_null
from unstir.data.spec import Condition
from unstir.denoiser import ask, at_same_snr, c_in, c_noise
from unstir.fingerprint import fingerprint
from unstir.networks.text import without_padding
from unstir.process import Process
from unstir.trainable import Trainable

WANTED = "wanted caption"
"""The condition under which guidance finds the vectors of captions. (With a space: no data set's own can be called so on a command line.)"""
MAX_SCALE = 100.0
"""What the logits are never scaled by more than (Radford et al. 2021, section 2.5)."""
AT_ONCE = 256  # captions, or pictures, that are encoded together


class PictureTower(nn.Module):
    """x at unit scale (B, C, ...) and its noise level c_noise (B,) -> a unit vector (B, width).

    The networks of this library start at F = 0, which has no direction: ``origin`` is where all pictures point to before training.
    """

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network = network
        self.origin = nn.Parameter(F.normalize(torch.randn(width), dim=0))

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        features = self.network(x, c_noise)  # (B, width)
        return F.normalize(features.to(self.origin.dtype) + self.origin, dim=1)  # (B, width)


class CaptionTower(nn.Module):
    """A caption -> a unit vector (B, width): the mean of its tokens' states, through a linear layer.

    Args:
        tokens: a caption -> ``Tokens``, as ``networks.text.TextTokens`` does.
        states: width of their states.
        width: of the vector.
    """

    def __init__(self, tokens: nn.Module, states: int, width: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.out = nn.Linear(states, width)

    def forward(self, text: Tensor) -> Tensor:
        mean = self.tokens(text).mean()  # (B, states)
        return F.normalize(self.out(mean).to(self.out.weight.dtype), dim=1)  # (B, width)


class Towers(nn.Module):
    """Both towers and the temperature: all the weights of a ``Clip``.

    Equation:
        (I_e, exp(t) T_e),   I_e = l2_normalize(image encoder),   T_e = l2_normalize(text encoder),   exp(t) <= 100
    Source:
        Radford et al. 2021, figure 3 and section 2.5, https://arxiv.org/abs/2103.00020

    Args:
        temperature: 1 / exp(t) at the start.
    """

    def __init__(self, pictures: PictureTower, captions: CaptionTower, temperature: float = 0.07) -> None:
        super().__init__()
        self.pictures = pictures
        self.captions = captions
        self.log_scale = nn.Parameter(
            torch.tensor([-math.log(temperature)])
        )  # a row, since scalars cannot be shared out

    def scale(self) -> Tensor:
        """(1,) what cosines are multiplied by."""
        return self.log_scale.clamp(max=math.log(MAX_SCALE)).exp()

    def forward(self, x: Tensor, c_noise: Tensor, /, text: Tensor) -> Tensor:
        pictures = self.pictures(x, c_noise)  # (B, width)
        captions = self.scale() * self.captions(text)  # (B, width)
        return torch.cat([pictures, captions], 1)  # (B, 2 width)


class Clip(Trainable):
    """Tells how well pictures at any noise level and captions go together.

    Like every network here the picture tower is shown x_t at unit scale and told the noise level, not the clock, so that it may be asked
    under any process.

    Equation:
        s(x_t, c) = exp(t) f(x_t) · g(c),   unit vectors f = picture tower(c_in x_t, c_noise), g = caption tower(c)
    Source:
        Radford et al. 2021, section 2.3, https://arxiv.org/abs/2103.00020; on noised pictures: Nichol et al. 2022, on noised CLIP models, https://arxiv.org/abs/2112.10741

    Args:
        network: both towers.
        process: under which x_t is noisy.
        caption: what its captions are: by which encoder, how long.
        text: name of that condition in the data.
        sigma_data: standard deviation of the data.
    """

    network: Towers

    def __init__(
        self, network: Towers, process: Process, caption: Condition, text: str = "text", *, sigma_data: float = 1.0
    ) -> None:
        super().__init__()
        self.network = network
        self.process = process
        self.caption = caption
        self.text = text
        self.sigma_data = sigma_data
        self.autocast = None

    @property
    def width(self) -> int:
        """Length of the vectors."""
        return len(self.network.pictures.origin)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of a CLIP that is trained no more: what tells its vectors from those of any other."""
        return fingerprint(self.network, "clip", self.sigma_data, self.caption.encoder, self.caption.shape)

    def _inputs(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.process.scales(t, x_t)
        return c_in(alpha, sigma, self.sigma_data) * x_t

    def forward(self, x_t: Tensor, t: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """For training: the pictures' unit vectors and the captions' scaled ones, (B, width) each; their products are the logits.

        As in the paper the learned scale is clipped to at most 100 between the steps.
        """
        if self.training:
            with torch.no_grad():
                self.network.log_scale.clamp_(max=math.log(MAX_SCALE))
        cond = {"text": without_padding(text)}
        found = ask(self.network, self._inputs(x_t, t), c_noise(self.process, t), cond, self.autocast)
        pictures, captions = found.chunk(2, 1)
        return pictures, captions

    def pictures(self, x_t: Tensor, t: Tensor, process: Process | None = None) -> Tensor:
        """(B, ...) at times () or (B,) -> (B, width) unit vectors.

        Args:
            process: under which x_t is noisy, where it is another: it is asked at the same log-SNR.
        """
        if process is not None and process != self.process:
            x_t, t, _ = at_same_snr(x_t, t, process, self.process)
        return ask(self.network.pictures, self._inputs(x_t, t), c_noise(self.process, t), {}, self.autocast)

    @torch.no_grad()
    def embedding(self, x_0: Tensor) -> Tensor:
        """(B, *shape) samples in model units, without noise, on any device -> (B, width) unit vectors where the CLIP is: what unCLIP calls z_i."""
        x_0 = x_0.to(self.network.log_scale.device, self.network.log_scale.dtype)
        return torch.cat([self.pictures(x, torch.zeros((), dtype=torch.float64)) for x in torch.split(x_0, AT_ONCE)])

    def captions(self, text: Tensor) -> Tensor:
        """Encoded captions (B, L, ...) -> (B, width) unit vectors; NaN, the null of numbers, for those that are null."""
        device = self.network.log_scale.device
        with torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
            found: Tensor = self.network.captions(without_padding(text).to(device))
        return found.masked_fill(is_null(text.to(device)).unsqueeze(1), torch.nan)

    @torch.no_grad()
    def understood(self, captions: Sequence[str]) -> Tensor:
        """Captions as people write them -> (N, width) unit vectors; NaN for an empty one."""
        from unstir.conditioning.text import text_encoder  # language models are loaded only where they are needed

        encoder, different = text_encoder(self.caption.encoder), list(dict.fromkeys(captions))
        length = self.caption.shape[0]
        vectors = [
            self.captions(encoder.encode(different[start : start + AT_ONCE], length))
            for start in range(0, len(different), AT_ONCE)
        ]
        place = {caption: i for i, caption in enumerate(different)}
        return torch.cat(vectors)[[place[caption] for caption in captions]]

    def log_prob(self, x_t: Tensor, t: Tensor, cond: Mapping[str, Tensor], process: Process | None = None) -> Tensor:
        """(B,) the similarity of x_t to the captions' vectors ``cond[WANTED]`` (B, width), 0 where they are null.

        The contrast is least where it is log p(c | x_t) / p(c) and a constant, so its gradient is the one of a classifier of captions.

        Equation:
            exp(t) f(x_t) · g(c) = log p(c | x_t) - log p(c) + constant, at the optimum
        Source:
            van den Oord, Li & Vinyals 2018, section 2.3, https://arxiv.org/abs/1807.03748
        """
        if WANTED not in cond:
            return x_t.new_zeros(len(x_t))
        wanted = cond[WANTED].to(x_t).nan_to_num(nan=0.0)
        cosine = (self.pictures(x_t, t, process) * wanted).sum(1)
        return self.network.scale().to(x_t) * cosine

"""A codebook of latents, which follows the encoder by moving averages; codes that nobody uses start anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from unstir.errors import UserError
from unstir.networks.bottleneck import Bottleneck, BottleneckConfig, Squeezed

AT_ONCE = 2**24
"""Most distances that are computed at once."""
LEAST = 1e-20
"""Uses below which a code stays where it is: their mean would be a quotient of rounding errors."""


@dataclass(frozen=True)
class VQ(BottleneckConfig):
    """Each position's latents are the nearest of the codes in a codebook."""

    codes: int = 512
    """Size of the codebook."""
    commitment: float = 0.25
    """Weight of the distance between the encoder's latents and their codes."""
    decay: float = 0.99
    """Memory of the moving averages that the codes are."""
    restart: float = 0.03
    """A code that is used less often than this fraction of an even share starts anew at a random latent of the batch (0: never)."""

    def __post_init__(self) -> None:
        if self.codes < 2 or self.commitment < 0 or not 0 <= self.decay < 1 or not 0 <= self.restart < 1:
            raise UserError(
                "a codebook has at least 2 codes, a commitment of at least 0, a decay and a restart in [0, 1)"
            )

    def build(self, latent_channels: int) -> Codebook:
        return Codebook(latent_channels, self)


class Seen(NamedTuple):
    """What the pieces of a batch showed since the last step.

    Args:
        counts: (K,) how often each code was the nearest.
        sums: (K, c) of the latents that it was nearest to.
        scores: (n,) random numbers of some latents, the highest of all there were. candidates: (n, c) these.
    """

    counts: Tensor
    sums: Tensor
    scores: Tensor
    candidates: Tensor


class Codebook(Bottleneck):
    """The nearest code, with the gradient handed straight through.

    Equation:
        q(z) = e_k,   k = argmin_j |z - e_j|²;   gradient of q(z) := of z;   penalty = |z - sg[e_k]|² / c
    Source:
        van den Oord, Vinyals & Kavukcuoglu 2017, eq. 1 to 3, https://arxiv.org/abs/1711.00937

    Args:
        channels: c, of a code.
    """

    called = "commitment"
    counts = True
    codes: Tensor
    uses: Tensor
    sums: Tensor

    def __init__(self, channels: int, config: VQ) -> None:
        super().__init__()
        self.inputs = channels
        self.weight = config.commitment
        self.decay = config.decay
        self.restart = config.restart
        # Buffers: checkpoints hold them, and the averaged model copies them as they are. They are averages themselves; averaging them
        # again would leave restarted codes half-way between two places.
        self.register_buffer("codes", torch.randn(config.codes, channels))
        self.register_buffer("uses", torch.zeros(config.codes))
        self.register_buffer("sums", torch.zeros(config.codes, channels))
        self._seen: Seen | None = None

    def nearest(self, z: Tensor) -> Tensor:
        """(N, c) -> (N,) the number of the nearest code."""
        lengths = self.codes.square().sum(1)  # (K,)
        parts = torch.split(z, max(1, AT_ONCE // len(self.codes)))
        return torch.cat([(lengths - 2 * part @ self.codes.mT).argmin(1) for part in parts])  # (N,)

    def numbers(self, z: Tensor) -> Tensor:
        """(B, c, ...) -> (B, ...) the number of each position's nearest code."""
        flat = z.to(self.codes.dtype).movedim(1, -1)  # (B, ..., c)
        return self.nearest(flat.flatten(0, -2)).reshape(flat.shape[:-1])  # (B, ...)

    def forward(self, h: Tensor, noise: Tensor, numbers: int) -> Squeezed:
        with torch.autocast(h.device.type, enabled=False):  # which code is nearest is a matter of digits
            z = h.to(self.codes.dtype)  # (B, c, ...)
            found = self.numbers(z.detach())  # (B, ...)
            code = F.embedding(found, self.codes).movedim(-1, 1)  # (B, c, ...)
            penalty = (z - code).square().flatten(1).mean(1)  # (B,)
            if self.training:
                self._look(z.detach().movedim(1, -1).flatten(0, -2), found.flatten(), noise[:, 0].flatten())
            share = torch.bincount(found.flatten(), minlength=len(self.codes)) / found.numel()  # (K,)
            perplexity = torch.xlogy(share, share).sum().neg().exp()
            return Squeezed(z + (code - z).detach(), penalty, perplexity)

    def encode(self, h: Tensor) -> Tensor:
        return self.decode(h)  # (B, c, ...)

    def decode(self, z: Tensor) -> Tensor:
        """The nearest codes: what a diffusion model says about where they are need not be exact."""
        return F.embedding(self.numbers(z), self.codes).movedim(-1, 1).to(z.dtype)  # (B, c, ...)

    @torch.no_grad()
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _look(self, z: Tensor, found: Tensor, scores: Tensor) -> None:
        """Keeps what ``follow`` will need of these latents (N, c)."""
        counts, sums = torch.zeros_like(self.uses), torch.zeros_like(self.sums)
        rows = max(1, AT_ONCE // len(counts))
        for part, number in zip(torch.split(z, rows), torch.split(found, rows), strict=True):
            chosen = F.one_hot(number, len(counts)).to(
                z.dtype
            )  # a product of matrices sums in the same order every time
            counts += chosen.sum(0)
            sums += chosen.mT @ part
        if self._seen is not None:
            counts, sums = counts + self._seen.counts, sums + self._seen.sums
            scores, z = torch.cat([self._seen.scores, scores]), torch.cat([self._seen.candidates, z])
        self._seen = Seen(counts, sums, *_highest(scores, z, len(counts)))

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the codes to the (decaying) means of the latents that they were nearest to, over all pieces of the batch and all processes.

        Averages start at 0, so a code is exactly the weighted mean of all latents it ever stood for, the older ones with less weight.

        Equation:
            N_i <- γ N_i + (1 - γ) n_i,   m_i <- γ m_i + (1 - γ) sum_j z_ij,   e_i = m_i / N_i
        Source:
            van den Oord, Vinyals & Kavukcuoglu 2017, appendix A.1, https://arxiv.org/abs/1711.00937
        """
        if self._seen is None:
            return
        seen, self._seen = self._seen, None
        self.uses.lerp_(_everyones_sum(seen.counts), 1 - self.decay)
        self.sums.lerp_(_everyones_sum(seen.sums), 1 - self.decay)
        alive = self.uses > LEAST
        means = self.sums / self.uses.clamp(min=LEAST)[:, None]
        self.codes.copy_(torch.where(alive[:, None], means, self.codes))
        self._restart(seen)

    def _restart(self, seen: Seen) -> None:
        """Dead codes take the place of random latents of this batch, with an even share of uses to begin with.

        Every latent drew a random number, a function of its sample and the step alone: those with the highest are taken, so that it does
        not matter how the batch was shared out.

        Source:
            Dhariwal et al. 2020 (Jukebox), section 3, https://arxiv.org/abs/2005.00341; Zeghidour et al. 2021 (SoundStream), section III.C, https://arxiv.org/abs/2107.03312
        """
        even = self.uses.mean()
        dead = (self.uses < self.restart * even).nonzero().squeeze(1)
        if not len(dead):  # on all processes, whose averages are the same
            return
        scores, candidates = _everyones(seen.scores), _everyones(seen.candidates)
        _, new = _highest(scores, candidates, len(dead))
        dead = dead[: len(new)]
        self.codes[dead] = new
        self.uses[dead] = even
        self.sums[dead] = even * new


def _highest(scores: Tensor, rows: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The rows with the highest scores, the highest first, and these scores."""
    scores, order = scores.topk(min(most, len(scores)))
    return scores, rows[order]


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _everyones_sum(values: Tensor) -> Tensor:
    if _several():
        dist.all_reduce(values)
    return values


def _everyones(rows: Tensor) -> Tensor:
    """The rows of all processes, which have the same number of them each."""
    if not _several():
        return rows
    gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)

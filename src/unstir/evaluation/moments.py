"""Count, mean and scatter of vectors, in float64, in one pass, over any batches and any number of processes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor

FLUSH = 1024  # vectors that wait for each other: a merge costs D², however few vectors it takes in


@dataclass(frozen=True)
class Moments:
    """The first two moments of some vectors.

    Args:
        count: of vectors.
        mean: (D,) float64.
        scatter: (D, D) float64, the sum of the outer products of deviations from the mean.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def empty(cls, dimension: int) -> Moments:
        """Of no vectors."""
        return cls(
            0, torch.zeros(dimension, dtype=torch.float64), torch.zeros(dimension, dimension, dtype=torch.float64)
        )

    @classmethod
    def of(cls, vectors: Tensor) -> Moments:
        """Of (B, D) vectors; the mean is taken off first, so a large one costs no digits."""
        x = vectors.detach().to("cpu", torch.float64)
        if len(x) == 0:
            return cls.empty(x.shape[1])
        mean = x.mean(0)
        deviations = x - mean
        return cls(len(x), mean, deviations.mT @ deviations)

    def __add__(self, other: Moments) -> Moments:
        """Of both together.

        Equation:
            n = n_a + n_b,   d = m_b - m_a,   m = m_a + d n_b / n,   S = S_a + S_b + d dᵀ n_a n_b / n
        Source:
            Chan, Golub & LeVeque 1983, https://doi.org/10.1080/00031305.1983.10483115; for covariances: Schubert & Gertz 2018,
            https://doi.org/10.1145/3221269.3223036
        """
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        d = other.mean - self.mean
        scatter = torch.addr(self.scatter + other.scatter, d, d, alpha=self.count * other.count / count)
        return Moments(count, self.mean + d * (other.count / count), scatter)

    @property
    def covariance(self) -> Tensor:
        """(D, D), the unbiased estimate.

        Raises:
            ValueError: fewer than two vectors.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 vectors, not {self.count}")
        return self.scatter / (self.count - 1)

    def over_processes(self, accelerator: Accelerator) -> Moments:
        """Of the vectors of all processes; the same on each. The rule of ``__add__`` for any number of parts at once."""
        if accelerator.num_processes == 1:
            return self

        def total(value: Tensor) -> Tensor:
            reduced: Tensor = accelerator.reduce(value.to(accelerator.device), reduction="sum")
            return reduced.cpu()

        count = int(total(torch.tensor(self.count)))
        if not count:
            return self
        mean = total(self.mean * (self.count / count))
        d = self.mean - mean
        return Moments(count, mean, total(torch.addr(self.scatter, d, d, alpha=self.count)))


@dataclass
class Stream:
    """Moments of vectors that come in batches of any size.

    Args:
        moments: of what was taken in so far and is not waiting.
    """

    moments: Moments | None = None
    _waiting: list[Tensor] = field(default_factory=list)

    def add(self, vectors: Tensor) -> None:
        """Takes in (B, D) vectors."""
        self._waiting.append(vectors.detach().cpu())
        if sum(map(len, self._waiting)) >= FLUSH:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            new = Moments.of(torch.cat(self._waiting))
            self.moments = new if self.moments is None else self.moments + new
            self._waiting = []

    def result(self, dimension: int) -> Moments:
        """The moments of all that was taken in; of no (D,) vectors where nothing was."""
        self._flush()
        return self.moments or Moments.empty(dimension)

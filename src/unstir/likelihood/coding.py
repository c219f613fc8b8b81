"""Lossy compression by a diffusion model: the rate-distortion curve that it promises, and a coder that writes bits and reads them back.

The coder walks down the reverse chain. In each step both sides hold x_t and the same random codebook of noise; the encoder, who also
holds x_0, names noise that leads where the posterior would, and both sides take that step. The noise is named by a path through a
trellis: of its N bits each window of W names a codeword, which is the noise of some of the entries; neighbouring windows share all bits
but one, so that a path costs one bit for each further codeword, and the best of all 2^N paths is found by dynamic programming. N random
bits carry the noise as far towards the data as a posterior does that diverges by so many nats from the reverse step (``told_by``): nearly
N log 2. So the encoder goes down to the time whose step diverges by that much.

Nothing is entropy-coded under probabilities of the model, so a decoder that rounds differently than the encoder did (another machine,
another number of threads) reads the same path and ends with almost the same picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.likelihood.variational import Bound, bits_per_dim
from unstir.prediction import Prediction
from unstir.process import broadcast
from unstir.samplers.ancestral import mean_toward
from unstir.sampling import SampleNoise, mix_seed

CODEBOOK = 0xC0DE  # seed of the shared noise; this and the next are part of the format
QUANTUM = 8  # the lengths of paths are a window and a multiple of this
ROWS = 1024  # of the codebook that are looked at together
FITTED = 96  # bits over which the growth of a path is measured


def rate_distortion(bound: Bound, dimensions: int, unit: float = 127.5) -> tuple[Tensor, Tensor]:
    """(K,) bits/dim that have been told before each step of the chain, and (K,) the root-mean-square error of what is believed of x_0 by
    then, both over all samples.

    Equation:
        R(t) = L_T + sum of L_s over s >= t,   D(t) = sqrt(E|x_0 - x_0(x_t)|² / D)
    Source:
        Ho, Jain & Abbeel 2020, section 4.3 and figure 5, https://arxiv.org/abs/2006.11239

    Args:
        bound: of every step of the chain.
        dimensions: of a sample.
        unit: of the data, in model units: 127.5 for bytes in [-1, 1].
    """
    return bits_per_dim(bound.rates.mean(1), dimensions), unit * bound.squared_errors.mean(1).sqrt()


@lru_cache(maxsize=32)
def _heights(window: int) -> tuple[float, tuple[float, ...]]:
    """What the best path adds up to when each bit's share of the entries has a normal number for every window: (growth for each bit of a
    long path, heights of one window and of the next bits)."""
    generator, states = torch.Generator().manual_seed(0), 2 ** (window - 1)
    tries = max(8, 2**14 // states)
    metric = math.sqrt(window) * torch.randn(tries, 2**window, generator=generator)
    heights = []
    for _ in range(FITTED):
        metric = metric.reshape(tries, 2, states).amax(1)
        heights.append(float(metric.amax(1).mean()))
        metric = metric.repeat_interleave(2, 1) + torch.randn(tries, 2**window, generator=generator)
    growth = (heights[-1] - heights[FITTED // 4]) / (FITTED - 1 - FITTED // 4)
    return growth, tuple(heights)


def told_by(count: int, window: int) -> float:
    """Nats by which the best path of ``count`` bits tells the posterior from the reverse step, where all entries have an equal part in it.

    Equation:
        (E[max over paths of the sum of normal numbers])² / (2 N),   which for one long window and for long memory comes near N log 2
    Source:
        Viterbi & Omura 1974 (trellis source coding), IEEE Transactions on Information Theory 20; the mean is measured once, on random numbers
    """
    growth, heights = _heights(window)
    further = count - window
    height = heights[further] if further < len(heights) else heights[-1] + growth * (further - len(heights) + 1)
    return height**2 / (2 * count)


@dataclass(frozen=True)
class Told:
    """One step that was told.

    Args:
        jump: how many stops of the grid it goes down.
        path: bits, "0110...", at least a window of them.
    """

    jump: int
    path: str


@dataclass(frozen=True)
class Code:
    """A sample as the steps that lead to it.

    Args:
        steps: in order.
        window: bits of the path that name a codeword.
        stops: of the grid, K.
    """

    steps: tuple[Told, ...]
    window: int
    stops: int

    @property
    def length(self) -> int:
        """In bits."""
        return len(self.to_bits())

    def to_bits(self) -> str:
        """As "0110...": jumps and lengths of paths as differences from what is expected, paths as they are."""
        parts, expected = [_gamma(len(self.steps) + 1)], _first(self.window, self.stops)
        for step in self.steps:
            parts += [_head(expected, step.jump, len(step.path)), step.path]
            expected = _after(step)
        return "".join(parts)

    @classmethod
    def from_bits(cls, text: str, window: int, stops: int) -> Code:
        """The inverse; what follows is ignored.

        Raises:
            ValueError: it ends too early, or is no code.
        """
        stream = iter(text)
        steps: list[Told] = []
        expected = _first(window, stops)
        for _ in range(_read_gamma(stream) - 1):
            jump = expected[0] + _signed(_read_gamma(stream))
            count = expected[1] + QUANTUM * _signed(_read_gamma(stream))
            if jump < 1 or count < window:
                raise ValueError("not a code")
            steps.append(Told(jump, _take(stream, count)))
            expected = _after(steps[-1])
        return cls(tuple(steps), window, stops)


Expected = tuple[int, int]
"""The jump and the length of the path that the next step is expected to have: differences from these are told."""


def _first(window: int, stops: int) -> Expected:
    return max(stops // 4, 1), window  # the first quarter of the grid is mostly noise


def _after(told: Told) -> Expected:
    return min(told.jump, 3), len(told.path)  # only the way out of the noise is a long jump


def _head(expected: Expected, jump: int, count: int) -> str:
    return _gamma(_unsigned(jump - expected[0])) + _gamma(_unsigned((count - expected[1]) // QUANTUM))


def _cost(expected: Expected, jump: int, count: int) -> int:
    """Bits of a step."""
    return len(_head(expected, jump, count)) + count


def _gamma(number: int) -> str:
    """Elias's gamma code of a number from 1 (Elias 1975, https://doi.org/10.1109/TIT.1975.1055349)."""
    binary = format(number, "b")
    return "0" * (len(binary) - 1) + binary


def _take(stream: Iterator[str], count: int) -> str:
    taken = [next(stream, "") for _ in range(count)]
    if not all(taken):
        raise ValueError("the code ends too early")
    return "".join(taken)


def _read_gamma(stream: Iterator[str]) -> int:
    zeros = 0
    while _take(stream, 1) == "0":
        zeros += 1
    return int("1" + _take(stream, zeros), 2)


def _unsigned(difference: int) -> int:
    """0, 1, -1, 2, -2, ... -> 1, 2, 3, 4, 5, ..."""
    return 2 * difference if difference > 0 else 1 - 2 * difference


def _signed(number: int) -> int:
    return number // 2 if number % 2 == 0 else -(number // 2)


@dataclass(frozen=True)
class Reached:
    """Where a walk has led.

    Args:
        x_t: (1, ...) at the time t, a stop of the grid.
        prediction: what is believed there; its x_0 is the best guess of the data.
        index: of the stop.
    """

    x_t: Tensor
    t: Tensor
    prediction: Prediction
    index: int


@dataclass(frozen=True)
class Coder:
    """Compresses one sample at a time.

    Equation:
        x_s = mu(x_t) + std z,   z = the path's noise with the largest <z, d>,   d = sqrt(snr_s - snr_t) (x_0 - x_0(x_t))
        |d|² / 2 = KL(q(x_s | x_t, x_0) || p(x_s | x_t)) = as many nats as the path tells
    Source:
        Ho, Jain & Abbeel 2020, section 4.3, algorithms 3 and 4, https://arxiv.org/abs/2006.11239; Theis et al. 2022, https://arxiv.org/abs/2206.08889;
        codebooks of noise: Havasi, Peharz & Hernandez-Lobato 2019, https://arxiv.org/abs/1810.00440, Ohayon et al. 2025, https://arxiv.org/abs/2502.01189

    Args:
        denoiser: what both sides believe. The same weights on both, and the same clipping.
        times: (K + 1,) float64, decreasing from t_max to 0.
        window: bits of the path that name a codeword. One more comes a little nearer to the bound, and takes twice the time.
        cond: conditions by name, (1, ...) each, that both sides know.
    """

    denoiser: Denoiser
    times: Tensor
    window: int = 12
    cond: Mapping[str, Tensor] | None = None

    @property
    def stops(self) -> int:
        """K, of the grid."""
        return len(self.times) - 1

    def _snr(self, index: int) -> float:
        return float(self.denoiser.process.log_snr(self.times[index]).exp())

    def _arrive(self, x_t: Tensor, index: int) -> Reached:
        t = self.times[index]
        return Reached(x_t, t, self.denoiser(x_t, t, **(self.cond or {})), index)

    def _begin(self, like: Tensor) -> Reached:
        noise = SampleNoise(mix_seed(CODEBOOK), [0]).normal(like.shape[1:]).to(like)
        return self._arrive(self.denoiser.process.prior_sample(noise, self.times[0]), 0)

    def _codewords(self, at: Reached, rows: Sequence[int]) -> Tensor:
        """(len(rows), D) rows of the codebook of the step that begins here."""
        return SampleNoise(mix_seed(CODEBOOK, 1 + at.index), rows).normal((at.x_t[0].numel(),))

    def _shares(self, at: Reached, count: int) -> Tensor:
        """(D,) which of ``count`` shares each entry belongs to, at random: one share for each bit of the path."""
        size = at.x_t[0].numel()
        shuffled = np.random.Generator(np.random.PCG64([CODEBOOK, at.index])).permutation(size)
        return torch.from_numpy(shuffled % count)

    def _follow(self, at: Reached, told: Told) -> Reached:
        """Takes the step that was told."""
        process, s = self.denoiser.process, self.times[at.index + told.jump]
        windows = [int(told.path[k : k + self.window], 2) for k in range(len(told.path) - self.window + 1)]
        named = sorted(set(windows))
        rows = self._codewords(at, named)
        row_of = torch.tensor([named.index(window) for window in windows])
        part = (self._shares(at, len(told.path)) - self.window + 1).clamp(
            min=0
        )  # the first window has W shares, the others one
        noise = rows[row_of[part], torch.arange(rows.shape[1])]
        std = process.posterior_std(at.t, s)
        mean = mean_toward(process, at.prediction, s, std)
        x_s = mean + broadcast(std, mean) * noise.reshape(mean.shape).to(mean)
        return self._arrive(x_s, at.index + told.jump)

    def _scores(self, at: Reached, direction: Tensor, count: int) -> Tensor:
        """(2^W, windows) <z, d> of each window's entries for each codeword."""
        order = torch.argsort(self._shares(at, count), stable=True)
        ends = torch.bincount(self._shares(at, count), minlength=count).cumsum(0)
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), ends[self.window - 1 :]])
        blocks = []
        for start in range(0, 2**self.window, ROWS):
            rows = range(start, min(start + ROWS, 2**self.window))
            sums = (self._codewords(at, rows) * direction)[:, order].double().cumsum(1)
            sums = torch.cat([torch.zeros(len(rows), 1, dtype=torch.float64), sums], 1)[:, ends]
            blocks.append(sums.diff(dim=1).float())
        return torch.cat(blocks)

    def _choose(self, at: Reached, direction: Tensor, count: int) -> str:
        """The path of ``count`` bits whose noise leads furthest in the direction d (D,), by dynamic programming over the last W - 1 bits."""
        scores, states = self._scores(at, direction, count), 2 ** (self.window - 1)
        metric, first = scores[:, 0].reshape(2, states).max(0)
        oldest = [first]  # the bit that leaves the window, on the best way to each state
        for k in range(1, scores.shape[1]):
            metric, bit = (metric.repeat_interleave(2) + scores[:, k]).reshape(2, states).max(0)
            oldest.append(bit)
        state, bits = int(metric.argmax()), ""
        for bit in reversed(oldest):
            window = int(bit[state]) * states + state
            state, bits = window >> 1, str(window & 1) + bits
        return format(window, f"0{self.window}b") + bits[1:]

    def _count(self, nats: float, size: int) -> int:
        """The length of a path that tells so many nats; 0 if even the shortest tells more."""
        count = 0
        for candidate in range(self.window, max(self.window, size) + 1, QUANTUM):
            if told_by(candidate, self.window) > nats:
                break
            count = candidate
        return count

    def _next(self, at: Reached, x_0: Tensor) -> tuple[int, Tensor, int]:
        """(jump, direction d (D,), bits) of the next step to tell; no bits where too little is left to tell."""
        wrong = (x_0 - at.prediction.x_0).flatten().float().cpu()
        half, here = float(wrong.double().square().sum()) / 2, self._snr(at.index)
        least = told_by(self.window, self.window)  # longer stretches would cost more than longer paths save
        last = self.stops - 1
        for index in range(at.index + 1, last + 1):
            gain = self._snr(index) - here
            if half * gain >= least or index == last:
                return index - at.index, math.sqrt(gain) * wrong, self._count(half * gain, len(wrong))
        return 0, wrong, 0

    def walk(self, x_0: Tensor, most_bits: float = math.inf) -> Iterator[tuple[Told | None, Reached]]:
        """Tells a sample (1, ...) in model units step by step, until a code of ``most_bits`` is full or nothing is left to tell: yields where
        both sides stand, and the step that was told to get there (None at the beginning)."""
        at, expected, steps, spent = self._begin(x_0), _first(self.window, self.stops), 0, 0
        yield None, at
        while True:
            jump, direction, count = self._next(at, x_0)
            most = most_bits - spent - len(_gamma(steps + 2))
            while count >= self.window and _cost(expected, jump, count) > most:
                count -= QUANTUM
            if count < self.window:
                return
            told = Told(jump, self._choose(at, direction, count))
            at = self._follow(at, told)
            yield told, at
            steps, spent, expected = steps + 1, spent + _cost(expected, jump, count), _after(told)

    @torch.no_grad()
    def encode(self, x_0: Tensor, most_bits: float = math.inf, error: float = 0.0) -> tuple[Code, Reached]:
        """The code of a sample (1, ...) in model units, and where its decoding ends.

        Args:
            most_bits: longest code. error: stop when the mean squared error of the best guess, in model units, is no larger.
        """
        steps: list[Told] = []
        for told, at in self.walk(x_0, most_bits):
            if told is not None:
                steps.append(told)
            if float((at.prediction.x_0 - x_0).square().mean()) <= error:
                break
        return Code(tuple(steps), self.window, self.stops), at

    @torch.no_grad()
    def decode(self, code: Code, like: Tensor) -> Reached:
        """Where a code leads.

        Args:
            like: (1, ...) a tensor in the sample's shape, type and place.

        Raises:
            ValueError: the code is not one of this grid.
        """
        same = (code.window, code.stops) == (self.window, self.stops)
        if not same or sum(step.jump for step in code.steps) >= self.stops:
            raise ValueError("not a code of this grid")
        at = self._begin(like)
        for told in code.steps:
            at = self._follow(at, told)
        return at

"""The negative log-likelihood of data under a run's model: by the variational bound, or by the probability-flow ODE."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from unstir.conditioning.text import text_encoder
from unstir.data import Condition, Dataset, DataSpec
from unstir.denoiser import Denoiser, NetDenoiser
from unstir.drawn import computing
from unstir.errors import UserError
from unstir.evaluation.embed import Progress
from unstir.evaluation.samples import check_alike, order
from unstir.guidance import ClipX0
from unstir.likelihood.coding import rate_distortion
from unstir.likelihood.decoder import decoder_of, dequantize, dequantized_noise, is_discrete, log_volume
from unstir.likelihood.ode import EXACT, draw_probes, ends, ode_likelihood
from unstir.likelihood.variational import Bound, Chain, Noise, bits_per_dim, chain_times, variational_bound
from unstir.model import Model
from unstir.sampling import SampleNoise

N = 256
"""Samples, where nobody said how many: pictures. Of points that are cheap there are eight times as many."""
NOT_IN_LATENTS = (
    "nll: this run works in the latents of an autoencoder, whose likelihood is not that of the data: an autoencoder loses what no density "
    "can give back. Judge it by --metrics fd kd pr"
)
_COMPUTED_SEED = 0xC0417  # keeps the noise on conditions apart from all else that is drawn for a sample
CURVE = 41  # points of a rate-distortion curve that are written down


class NatsMethod(ABC):
    """A way to the likelihood. A new one is a frozen dataclass and a line in ``METHODS``."""

    @abstractmethod
    def __call__(
        self, denoiser: NetDenoiser, spec: DataSpec, x: Tensor, rng: SampleNoise, cond: dict[str, Tensor]
    ) -> Tensor:
        """(B, *shape) in model units -> (B, 1 + more) float64: nats of each sample in the data's own units, and what else ``finish``
        makes something of."""

    def finish(self, rows: Tensor, spec: DataSpec) -> dict[str, Any]:
        """Plain values to report beside the likelihood, from the rows of all samples."""
        return {}


@dataclass(frozen=True)
class Ode(NatsMethod):
    """The probability-flow ODE. Whole numbers are made real ones first, so that its density bounds their probability."""

    tolerance: float = 1e-4
    """Relative and absolute tolerance of the solver."""
    probes: int = 1
    """Directions in which the trace is estimated, where a sample has more than 16 numbers."""
    dequantization: str = "uniform"
    """A name in DEQUANTIZATIONS: how."""
    clip: bool = True
    """Keep the believed data in the range of pictures, as sampling does."""

    def __call__(
        self, denoiser: NetDenoiser, spec: DataSpec, x: Tensor, rng: SampleNoise, cond: dict[str, Tensor]
    ) -> Tensor:
        w, noise, gained = x, 0.0, torch.full((len(x),), -log_volume(spec), dtype=torch.float64)
        belief = _belief(denoiser, spec, self.clip)
        if is_discrete(spec):
            w, noise, gained = DEQUANTIZATIONS[self.dequantization](belief, spec, x, rng, cond)
        probes = draw_probes(rng, x, self.probes) if spec.dimensions > EXACT else None
        found = ode_likelihood(belief, w, probes, cond, rtol=self.tolerance, atol=self.tolerance, noise=noise)
        return -(found.log_prob + gained.cpu()).unsqueeze(1)


def _belief(denoiser: Denoiser, spec: DataSpec, clip: bool) -> Denoiser:
    return ClipX0(denoiser, *spec.bounds) if clip and spec.bounds else denoiser


Dequantized = tuple[Tensor, float, Tensor]
"""(real numbers w (B, ...) in model units, the noise level at which their density is to be asked for, (B,) what there is to add to the
logarithm of that density so that it bounds that of the probability)."""


def _uniform(denoiser: Denoiser, spec: DataSpec, x: Tensor, rng: SampleNoise, cond: dict[str, Tensor]) -> Dequantized:
    """Evenly over the bins, as in most papers: comparable with all of them."""
    w = dequantize(x, spec, torch.special.ndtr(rng.normal_like(x)))
    return w, dequantized_noise(spec), torch.full((len(x),), -log_volume(spec), dtype=torch.float64)


@torch.no_grad()
def _gaussian(denoiser: Denoiser, spec: DataSpec, x: Tensor, rng: SampleNoise, cond: dict[str, Tensor]) -> Dequantized:
    """By the noise that the model was trained with, at its lowest level, and back by the decoder of the variational bound.

    Equation:
        log P(x) >= E_q[log p(w) + log P(x | w) - log q(w | x)],   w = x + sigma / alpha eps at t_min
    Source:
        Ho et al. 2019, eq. 12 (variational dequantisation), https://arxiv.org/abs/1902.00275; with a decoder as in Ho, Jain & Abbeel 2020, eq. 13, https://arxiv.org/abs/2006.11239
    """
    process = denoiser.process
    t = process.t_at_log_snr(torch.tensor(ends(process)[0], dtype=torch.float64)).clamp(min=process.t_min)
    alpha, sigma = process.alpha(t), process.sigma(t)
    eps, noise = rng.normal_like(x), float(sigma / alpha)
    w = x + noise * eps
    decoder, mean = decoder_of(spec), denoiser(float(alpha) * w, t, **cond).x_0
    std = decoder.std(torch.zeros_like(t), sigma / alpha.hypot(sigma)).to(x)
    log_q = -0.5 * eps.double().square() - math.log(noise) - 0.5 * math.log(2 * math.pi)
    return w, noise, (decoder.log_prob(x, mean, std) - log_q).flatten(1).sum(1)


DEQUANTIZATIONS: dict[str, Callable[[Denoiser, DataSpec, Tensor, SampleNoise, dict[str, Tensor]], Dequantized]] = {
    "uniform": _uniform,
    "gaussian": _gaussian,
}


@dataclass(frozen=True)
class Variational(NatsMethod):
    """The variational bound of the reverse chain, with whole numbers decoded as such."""

    steps: int = 0
    """Steps of the chain; 0: those of a process in whole steps, 1,000 of any other."""
    terms: int = 100
    """How many of them to look at for each sample, at random; 0: all, which also gives the rate-distortion curve."""
    noise: Literal["auto", "posterior", "large", "learned"] = "auto"
    """Standard deviation of the reverse steps; auto: learned where the network learns it, else the posterior's."""
    clip: bool = True
    """Keep the believed data in the range of pictures, as sampling does."""

    def __call__(
        self, denoiser: NetDenoiser, spec: DataSpec, x: Tensor, rng: SampleNoise, cond: dict[str, Tensor]
    ) -> Tensor:
        noise: Noise = ("learned" if denoiser.learn_variance else "posterior") if self.noise == "auto" else self.noise
        chain = Chain(denoiser.process, chain_times(denoiser.process, self.steps), noise, decoder_of(spec))
        bound = variational_bound(_belief(denoiser, spec, self.clip), chain, x, rng, cond, terms=self.terms)
        nats = bound.total if is_discrete(spec) else bound.total + log_volume(spec)
        if len(bound.steps) < len(chain):
            return nats.unsqueeze(1)
        return torch.cat([nats.unsqueeze(1), bound.prior.unsqueeze(1), bound.steps.T, bound.squared_errors.T], 1)

    def finish(self, rows: Tensor, spec: DataSpec) -> dict[str, Any]:
        if rows.shape[1] == 1:
            return {}
        K = (rows.shape[1] - 2) // 2
        bound = Bound(rows[:, 1], rows[:, 2 : 2 + K].T, rows[:, 2 + K :].T)
        rate, error = rate_distortion(bound, spec.dimensions, spec.scale[0])
        shown = torch.linspace(0, K - 1, min(CURVE, K)).round().long()
        units = 0.0 if is_discrete(spec) else log_volume(spec)
        terms = {"prior": bound.prior, "steps": bound.steps[:-1].sum(0), "data": bound.steps[-1] + units}
        return {
            "terms": {name: float(bits_per_dim(nats, spec.dimensions).mean()) for name, nats in terms.items()},
            "rate_distortion": [[round(float(rate[i]), 5), round(float(error[i]), 5)] for i in shown],
        }


METHODS: dict[str, type[NatsMethod]] = {"ode": Ode, "variational": Variational}


@dataclass(frozen=True)
class NLL:
    """What was found.

    Args:
        bits_per_dim: mean over the samples.
        nats: of a sample, in the data's own units.
        error: standard error of bits_per_dim.
        method: a name in METHODS.
        n, data: how many samples, of what.
        given: conditions that the model was told of each sample.
        settings: of the method.
        extra: further plain values.
        seconds: it took.
        held_out: whether the model did not see these data in training.
    """

    bits_per_dim: float
    nats: float
    error: float
    method: str
    n: int
    data: str
    given: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    held_out: bool = True

    def row(self) -> tuple[str, str]:
        """A line of the report: name and value."""
        given = f" given {', '.join(self.given)}" if self.given else ""
        name = f"nll[{self.method}, {self.data}{given}, n={self.n}]"
        error = f" ± {self.error:.1g}" if math.isfinite(self.error) else ""
        return name, f"{self.bits_per_dim:.4f}{error} bits/dim, {self.nats:.5g} nats a sample"

    def warnings(self) -> list[str]:
        """What makes the number less than it seems."""
        if self.held_out:
            return []
        return ["nll on the data that the model was trained on: --data or --split names others that it has not seen"]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "bits_per_dim": self.bits_per_dim,
            "nats": self.nats,
            "method": self.method,
            "error": self.error,
            "n": self.n,
            "data": self.data,
            "given": list(self.given),
            "held_out": self.held_out,
            "settings": dict(self.settings),
            **self.extra,
        }


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """How to judge a model by its likelihood.

    Args:
        method: a name in METHODS.
        how: the method.
        repeats: draws of noise (and of dequantisation) for each sample, which are averaged.
        seed: what is drawn for sample i depends on (seed, i) alone.
        match_conditions: tell the model each sample's conditions; else none.
    """

    method: str
    how: NatsMethod
    repeats: int = 1
    seed: int = 0
    match_conditions: bool = True

    def __call__(
        self,
        model: Model,
        data: Dataset,
        n: int,
        accelerator: Accelerator,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> NLL:
        """The likelihood of n samples of the data, a fixed random subset. Call it on every process; all get the answer.

        Raises:
            UserError: data of another kind or shape, fewer samples than n, or a model that works in latents.
        """
        begun, name = time.perf_counter(), data.report.source or data.name
        if model.codec.latent:
            raise UserError(NOT_IN_LATENTS)
        check_alike(model.spec, data.spec, ("the model", name))
        n = n or min(len(data), N if model.spec.dimensions > EXACT else 8 * N)
        if n > len(data):
            raise UserError(f"{name} holds {len(data):,} samples, fewer than -n {n:,}")
        chosen = order(len(data))[:n]
        processes, share = accelerator.num_processes, range(accelerator.process_index, n, accelerator.num_processes)
        rows, given = [], conditions_of(data, model.spec) if self.match_conditions else {}
        precision, model.denoiser.autocast = model.denoiser.autocast, None  # derivatives need all the digits there are
        try:
            for start in range(0, len(share), batch_size):
                numbers = share[start : start + batch_size]
                rows.append(self._batch(model, data, chosen[list(numbers)], numbers, given))
                if progress is not None and accelerator.is_main_process:
                    progress("likelihood", min((start + len(numbers)) * processes, n), n)
        finally:
            model.denoiser.autocast = precision
        everyone = _everyones(rows, n, accelerator)
        bits = bits_per_dim(everyone[:, 0], model.spec.dimensions)
        return NLL(
            bits_per_dim=float(bits.mean()),
            nats=float(everyone[:, 0].mean()),
            error=float(bits.std() / math.sqrt(n)) if n > 1 else math.nan,
            method=self.method,
            n=n,
            data=name,
            given=(*given, *self._computed(model, model.spec.to_model(np.asarray(data.x[chosen[:1]])), [0])),
            settings={**asdict(self.how), "repeats": self.repeats, "seed": self.seed},  # type: ignore[call-overload]
            extra=self.how.finish(everyone, model.spec),
            seconds=time.perf_counter() - begun,
        )

    def _computed(self, model: Model, x: Tensor, numbers: Sequence[int]) -> dict[str, Tensor]:
        """The conditions that a model computes from samples, of these; it may not do without some of them."""
        derived, conditions = computing(model), model.spec.conditions
        like = {name: conditions[name].to_model(value) for name, value in derived.like(x, model.spec).items()}
        found = derived.at_sampling(like, SampleNoise(self.seed ^ _COMPUTED_SEED, numbers))
        return {name: value for name, value in found.items() if self.match_conditions or name in model.spec.always}

    def _batch(
        self,
        model: Model,
        data: Dataset,
        chosen: np.ndarray[Any, Any],
        numbers: Sequence[int],
        given: Mapping[str, Tensor | CaptionRows],
    ) -> Tensor:
        x = model.spec.to_model(np.asarray(data.x[chosen])).to(model.device)
        cond = {name: values[torch.from_numpy(chosen)].to(model.device) for name, values in given.items()}
        cond |= self._computed(model, x, numbers)
        rng = SampleNoise(self.seed, numbers)
        found = [self.how(model.denoiser, model.spec, x, rng, cond) for _ in range(self.repeats)]
        return torch.stack(found).mean(0)


class CaptionRows:
    """The captions of all samples as a model sees them, encoded when they are asked for."""

    def __init__(self, captions: list[str], condition: Condition) -> None:
        self.captions = captions
        self.condition = condition

    def __getitem__(self, rows: Tensor) -> Tensor:
        asked = [self.captions[row] for row in rows.tolist()]
        return text_encoder(self.condition.encoder).encode(asked, self.condition.shape[0])


def conditions_of(data: Dataset, spec: DataSpec) -> dict[str, Tensor | CaptionRows]:
    """The conditions of all samples that a model of such data knows, as it sees them. Groups that were found in the training data are
    nobody's condition.

    Raises:
        UserError: more classes than the model knows.
    """
    found: dict[str, Tensor | CaptionRows] = {}
    for name, condition in spec.conditions.items():
        if condition.kind == "text" and condition.seen and data.captions:
            found[name] = CaptionRows(data.captions, condition)
        values = data.conditions.get(name)
        if condition.frequencies or condition.kind == "text" or not isinstance(values, np.ndarray):
            continue
        if condition.kind == "class" and int(values.max()) >= condition.size:
            raise UserError(
                f"{data.name} has classes that the model does not know; --no-match-conditions leaves them out"
            )
        found[name] = condition.to_model(torch.from_numpy(values))
    return found


def _everyones(rows: list[Tensor], n: int, accelerator: Accelerator) -> Tensor:
    """(n, W) rows of all processes in the samples' order; process p of P has samples p, p + P, ..."""
    processes = accelerator.num_processes
    if processes == 1:
        return torch.cat(rows)
    width = int(accelerator.gather(torch.tensor([rows[0].shape[1] if rows else 0], device=accelerator.device)).max())
    padded = torch.zeros(-(-n // processes), width, dtype=torch.float64)
    mine = torch.cat([*rows, torch.zeros(0, width, dtype=torch.float64)])
    padded[: len(mine)] = mine
    gathered: Tensor = accelerator.gather(padded.to(accelerator.device)).cpu()
    return gathered.reshape(processes, -1, width).transpose(0, 1).reshape(-1, width)[:n]


def has_test_split(source: str) -> bool:
    """Whether a built-in data set has a test split."""
    from unstir.data.builtin import SPLITS

    return "test" in SPLITS.get(source, ())

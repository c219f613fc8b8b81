"""The coder: what is written is read back, how near its rates are to Shannon's, and that rounding does not lead it astray."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from unstir.denoiser import Denoiser, GaussianDenoiser
from unstir.likelihood import Chain, Code, Coder, rate_distortion, variational_bound
from unstir.likelihood.coding import QUANTUM, Told, told_by
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import EDM, PROCESSES, VP
from unstir.samplers.ancestral import mean_toward
from unstir.samplers.grids import LogSNR
from unstir.sampling import SampleNoise

SHAPE = (1, 16, 16)
SIZE = 256


def coder(process: Process | None = None, window: int = 8, steps: int = 96, std: float = 1.0) -> Coder:
    process = process or VP()
    mean = torch.linspace(-0.5, 0.5, SIZE).reshape(SHAPE)
    return Coder(GaussianDenoiser(process, mean, torch.tensor(std)), LogSNR().times(process, steps), window)


def draw(seed: int, std: float = 1.0) -> Tensor:
    return torch.linspace(-0.5, 0.5, SIZE).reshape(1, *SHAPE) + std * SampleNoise(seed, [0]).normal(SHAPE)


def mse(a: Tensor, b: Tensor) -> float:
    return float((a - b).double().square().mean())


def test_a_code_as_bits_and_back() -> None:
    rng = random.Random(0)
    for window in (2, 7, 12):
        for count in (0, 1, 2, 40):
            lengths = [window + QUANTUM * rng.randrange(30) for _ in range(count)]
            steps = tuple(
                Told(rng.randint(1, 9), "".join(rng.choice("01") for _ in range(length))) for length in lengths
            )
            code = Code(steps, window, 96)
            text = code.to_bits()
            assert set(text) <= {"0", "1"}
            assert len(text) == code.length
            assert Code.from_bits(text + "0000000", window, 96) == code
            if text != "1":
                with pytest.raises(ValueError, match="too early"):
                    Code.from_bits(text[:-1], window, 96)
    with pytest.raises(ValueError, match="not a code"):
        Code.from_bits("010" + "011" + "1" + "00", 2, 4)  # one step, that goes nowhere


def test_what_a_path_tells() -> None:
    # one window: the largest of 2^W normal numbers
    draws = torch.randn(20_000, 256, generator=torch.Generator().manual_seed(0)).amax(1).mean()
    assert told_by(8, 8) == pytest.approx(float(draws) ** 2 / 2, rel=0.02)
    # never more than a bit for a bit; nearer to it with a longer memory, and for longer paths
    shares = [told_by(400, window) / (400 * math.log(2)) for window in (2, 4, 8, 12)]
    assert shares == sorted(shares)
    assert shares[0] > 0.3
    assert 0.89 < shares[3] < 0.94
    for count in (12, 20, 60, 300):
        assert told_by(count, 12) < count * math.log(2)
    told = [told_by(count, 10) for count in range(10, 700, 8)]
    assert told == sorted(told)


def test_the_path_is_the_best_of_all() -> None:
    """Against every path that there is, by force."""
    both = coder(window=3, steps=20)
    at, x_0 = both._begin(draw(0)), draw(0)
    direction = 0.1 * (x_0 - at.prediction.x_0).flatten()
    scores = both._scores(at, direction, 9)
    assert scores.shape == (8, 7)

    def score(path: str) -> float:
        return sum(float(scores[int(path[k : k + 3], 2), k]) for k in range(7))

    best = max((format(number, "09b") for number in range(512)), key=score)
    found = both._choose(at, direction, 9)
    assert found == best
    # and its score is what the noise that it names, as the decoder makes it, has along the direction
    reached = both._follow(at, Told(1, found))
    s = both.times[1]
    mean = mean_toward(both.denoiser.process, at.prediction, s, both.denoiser.process.posterior_std(at.t, s))
    noise = (reached.x_t - mean) / both.denoiser.process.posterior_std(at.t, s)
    assert float(noise.flatten() @ direction) == pytest.approx(score(found), rel=1e-3)


@pytest.mark.parametrize("name", ["vp", "linear", "edm", "rectified-flow", "ve", "sub-vp"])
def test_decoding_ends_where_encoding_did(name: str) -> None:
    both = coder(PROCESSES[name](), window=6, steps=40)
    x_0 = draw(1)
    code, at = both.encode(x_0, most_bits=300)
    assert 250 < code.length <= 300
    found = both.decode(Code.from_bits(code.to_bits(), 6, both.stops), torch.zeros_like(x_0))
    assert torch.equal(found.x_t, at.x_t)
    assert torch.equal(found.prediction.x_0, at.prediction.x_0)
    assert float(found.t) == float(at.t)
    nothing = mse(both.denoiser.means[0], x_0)  # type: ignore[operator, arg-type, index]
    assert mse(found.prediction.x_0, x_0) < 0.65 * nothing


@pytest.mark.parametrize(("rate", "most"), [(0.5, 1.75), (1.5, 1.65), (3.0, 1.6)])
def test_rates_against_shannon_s(rate: float, most: float) -> None:
    """Independent Gaussian entries of variance 1: an error of D cannot cost less than log2(1 / D) / 2 bits each."""
    both, rates, errors = coder(window=10), [], []
    for seed in range(3):
        x_0 = draw(seed)
        code, at = both.encode(x_0, rate * SIZE)
        rates.append(code.length / SIZE)
        errors.append(mse(at.prediction.x_0, x_0))
    assert rate - 0.1 < sum(rates) / 3 <= rate
    shannon = 0.5 * math.log2(3 / sum(errors))
    assert 1 < sum(rates) / 3 / shannon < most


def test_a_longer_memory_comes_nearer_to_the_bound() -> None:
    x_0, errors = draw(5), []
    for window in (2, 6, 11):
        code, at = coder(window=window).encode(x_0, 1.0 * SIZE)
        assert code.length <= SIZE
        errors.append(mse(at.prediction.x_0, x_0))
    assert errors[0] > errors[1] > errors[2]


def test_the_model_s_own_curve_is_that_of_the_gaussian() -> None:
    """At the error that is left when so much is told; a little above Shannon's, because the chain's steps are finite."""
    process, n = VP(), 64
    exact = coder(std=0.6).denoiser
    x_0 = torch.cat([draw(seed, 0.6) for seed in range(n)])
    chain = Chain(process, LogSNR().times(process, 200))
    rate, error = rate_distortion(variational_bound(exact, chain, x_0, SampleNoise(0, range(n))), SIZE, unit=10.0)
    t = chain.times[:-1]
    left = 10 * (0.36 * process.sigma(t) ** 2 / (0.36 * process.alpha(t) ** 2 + process.sigma(t) ** 2)).sqrt()
    torch.testing.assert_close(error, left, rtol=0.02, atol=1e-3)
    shannon = (6.0 / left).log2()
    middle = (rate > 0.3) & (rate < 4)
    assert int(middle.sum()) > 20
    assert ((rate - shannon)[middle] > 0).all()
    assert ((rate / shannon)[middle] < 1.1).all()


def test_it_stops_at_an_error() -> None:
    both, x_0 = coder(window=6), draw(3)
    code, at = both.encode(x_0, error=0.2)
    assert 0.15 < mse(at.prediction.x_0, x_0) <= 0.2
    assert code.length < both.encode(x_0, error=0.05)[0].length
    empty, start = both.encode(x_0, error=100.0)
    assert (empty.steps, start.index) == ((), 0)
    assert both.encode(x_0, most_bits=10)[0].steps == ()


class Rounding(Denoiser):
    """The same beliefs, rounded otherwise, as another machine might."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.process)
        self.inner = inner

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        prediction = self.inner(x_t, t, **cond)
        return prediction.with_x_0(prediction.x_0 * (1 + 1e-5 * torch.sign(torch.sin(1e4 * x_t))))


def test_another_machine_s_rounding_changes_little() -> None:
    both, x_0 = coder(window=8), draw(4)
    code, at = both.encode(x_0, 1.0 * SIZE)
    other = Coder(Rounding(both.denoiser), both.times, both.window).decode(code, x_0)
    assert 0 < mse(other.prediction.x_0, at.prediction.x_0) < 1e-6 * mse(at.prediction.x_0, x_0)


def test_codes_of_another_grid_are_refused() -> None:
    both, path = coder(window=4, steps=10), "0110"
    for code in (
        Code((Told(10, path),), 4, 10),
        Code((Told(5, path), Told(5, path)), 4, 10),
        Code((), 5, 10),
        Code((), 4, 11),
    ):
        with pytest.raises(ValueError, match="not a code of this grid"):
            both.decode(code, draw(0))


def test_data_that_are_no_pictures() -> None:
    """Two numbers: no path is longer than one window."""
    exact = GaussianDenoiser(EDM(), torch.zeros(2), torch.ones(2))
    both = Coder(exact, LogSNR().times(EDM(), 60), 4)
    x_0 = torch.tensor([[0.7, -1.3]])
    code, at = both.encode(x_0, error=1e-3)
    assert all(len(step.path) == 4 for step in code.steps)
    found = both.decode(Code.from_bits(code.to_bits(), 4, both.stops), x_0).prediction.x_0
    assert torch.equal(found, at.prediction.x_0)
    assert mse(found, x_0) < 0.01

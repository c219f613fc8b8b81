"""What the last step says: probabilities that add up to 1, right far into the tails, and the units of everything."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numeric import f64
from torch import Tensor

from unstir.data.spec import DataSpec
from unstir.likelihood.decoder import (
    DiscretizedDecoder,
    GaussianDecoder,
    decoder_of,
    dequantize,
    is_discrete,
    log_volume,
)


def values(levels: int) -> Tensor:
    return torch.linspace(-1, 1, levels, dtype=torch.float64)


@pytest.mark.parametrize("levels", [2, 4, 256, 4096])
def test_the_probabilities_of_all_values_add_up_to_one(levels: int) -> None:
    decoder = DiscretizedDecoder(f64(2 / (levels - 1)))
    for mean in (-3.0, -1.0, -0.1234, 0.0, 0.999, 1.7):
        for std in (1e-4, 3e-3, 0.1, 2.0):
            log_prob = decoder.log_prob(values(levels), f64(mean), f64(std))
            assert float(log_prob.exp().sum()) == pytest.approx(1, abs=1e-12)


def test_it_is_the_integral_over_the_bin() -> None:
    decoder, x, mean, std = DiscretizedDecoder(f64(2 / 255)), values(256), f64(0.31)[0], f64(0.05)[0]
    cdf = torch.distributions.Normal(mean, std).cdf
    wanted = cdf(x + 1 / 255) - cdf(x - 1 / 255)
    wanted[0], wanted[-1] = cdf(x[0] + 1 / 255), 1 - cdf(x[-1] - 1 / 255)
    torch.testing.assert_close(decoder.log_prob(x, mean, std).exp(), wanted, rtol=1e-9, atol=1e-15)


def test_without_bounds_no_bin_is_open() -> None:
    decoder = DiscretizedDecoder(f64(0.5), ())
    x = torch.arange(-40, 41, dtype=torch.float64) / 2
    log_prob = decoder.log_prob(x, f64(0.2), f64(1.3))
    assert float(log_prob.exp().sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("side", [-1, 1])
def test_far_into_the_tails_it_is_the_density_times_the_width(side: int) -> None:
    """Forty standard deviations out, where the probability is far below the smallest float64, the slope within the bin known."""
    width, std, distance = 1e-6, 0.01, 0.4
    decoder = DiscretizedDecoder(f64(width), ())
    got = float(decoder.log_prob(f64(side * distance), f64(0.0), f64(std)))
    slope = distance / std**2 * width  # of the log density over the bin
    density = -0.5 * (distance / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)
    assert got == pytest.approx(density + math.log(width) + math.log(math.sinh(slope / 2) / (slope / 2)), rel=1e-7)


def test_gradients_are_finite_and_right() -> None:
    decoder = DiscretizedDecoder(f64(2 / 255))
    mean = torch.tensor([-5.0, -1.0, 0.3, 1.0, 8.0], dtype=torch.float64).repeat(4).requires_grad_()
    log_std = f64(-9.0, -5.0, -2.0, 1.0).repeat_interleave(5).requires_grad_()
    x = f64(-1.0, -1.0, 0.3019607843137255, 1.0, 0.2).repeat(4)
    total = decoder.log_prob(x, mean, log_std.exp()).sum()
    for gradient, parameter in zip(torch.autograd.grad(total, (mean, log_std)), (mean, log_std), strict=True):
        assert gradient.isfinite().all()
        for k in range(5, 20):  # at the smallest std, differences say nothing
            shift = torch.zeros(20, dtype=torch.float64)
            shift[k] = 1e-6
            high, low = (
                decoder.log_prob(x, mean + sign * shift * (parameter is mean), (log_std + sign * shift * (parameter is log_std)).exp())
                for sign in (1, -1)
            )  # fmt: skip
            assert float(gradient[k]) == pytest.approx(float((high - low).sum().detach()) / 2e-6, rel=1e-3, abs=1e-5)


def test_gaussian() -> None:
    x, mean, std = torch.randn(4, 3), torch.randn(4, 3), torch.rand(4, 3) + 0.1
    wanted = torch.distributions.Normal(mean.double(), std.double()).log_prob(x.double())
    torch.testing.assert_close(GaussianDecoder().log_prob(x, mean, std), wanted)


# ---- units -------------------------------------------------------------------------------------------------------------------

BYTES = DataSpec("image", (3, 4, 5), "uint8", (127.5,) * 3, (127.5,) * 3, channels_last=True, bounds=(-1.0, 1.0))
TWELVE_BITS = DataSpec("image", (1, 2, 2), "uint16", (2047.5,), (2047.5,), channels_last=True, bounds=(-1.0, 1.0))
WHOLE = DataSpec("points", (2,), "int32", (10.0, -300.0), (4.0, 50.0))
REAL = DataSpec("signal", (2, 6), "float32", (1.0, 2.0), (0.5, 10.0))


def test_whole_numbers_are_decoded_as_such() -> None:
    assert [is_discrete(spec) for spec in (BYTES, TWELVE_BITS, WHOLE, REAL)] == [True, True, True, False]
    assert isinstance(decoder_of(REAL), GaussianDecoder)
    for spec, width in ((BYTES, 2 / 255), (TWELVE_BITS, 2 / 4095)):
        decoder = decoder_of(spec)
        assert isinstance(decoder, DiscretizedDecoder)
        torch.testing.assert_close(decoder.width.flatten()[0], f64(width)[0])
        assert decoder.bounds == (-1.0, 1.0)
    points = decoder_of(WHOLE)
    assert isinstance(points, DiscretizedDecoder)
    torch.testing.assert_close(points.width, f64(1 / 4, 1 / 50))
    # and over all whole numbers in the data's units they are probabilities
    data = np.stack(np.meshgrid(np.arange(-40, 60), np.arange(-800, 200), indexing="ij"), -1).reshape(-1, 2)
    x = WHOLE.to_model(data.astype(np.int32)).double()
    log_prob = points.log_prob(x, f64(0.3, -0.1), f64(0.8, 1.1)).sum(1)
    assert float(log_prob.exp().sum()) == pytest.approx(1, abs=1e-4)  # model units are float32


def test_log_volume() -> None:
    assert log_volume(REAL) == pytest.approx(6 * math.log(0.5) + 6 * math.log(10))
    assert log_volume(BYTES) == pytest.approx(60 * math.log(127.5))
    assert log_volume(WHOLE) == pytest.approx(math.log(4 * 50))


@pytest.mark.parametrize("spec", [BYTES, TWELVE_BITS, WHOLE])
def test_dequantization_fills_each_number_s_own_bin_evenly(spec: DataSpec) -> None:
    data = np.full((2000, *spec.shape[1:], spec.shape[0]) if spec.kind == "image" else (2000, 2), 17, spec.dtype)
    x = spec.to_model(data)
    u = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    spread = spec.in_units(dequantize(x, spec, u)).double() - 17
    assert float(spread.min()) >= -0.501
    assert float(spread.max()) <= 0.501
    torch.testing.assert_close(spread, (u - 0.5).double(), rtol=0, atol=2e-3)  # float32 numbers of up to 4095


def test_the_dequantized_density_bounds_a_known_probability() -> None:
    """Two bits, probabilities 0.1, 0.2, 0.3, 0.4: with the density that is flat in each bin the bound is equality, with any other of the
    same mass it is below, by the divergence from flat."""
    spec = DataSpec("points", (1,), "uint8", (1.5,), (1.5,), bounds=(-1.0, 1.0))
    p = f64(0.1, 0.2, 0.3, 0.4)
    x = spec.to_model(np.arange(4, dtype=np.uint8)[:, None]).double()
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000

    def bound(density) -> Tensor:  # of the data's own units
        y = spec.in_units(dequantize(x.repeat_interleave(len(u), 0), spec, u.repeat(4)[:, None]))
        return density(y).log().reshape(4, -1).mean(1)

    flat = bound(lambda y: p[y.flatten().round().long().clamp(0, 3)])
    torch.testing.assert_close(flat, p.log())
    tilted = bound(
        lambda y: p[y.flatten().round().long().clamp(0, 3)] * (1 + 0.9 * 2 * (y.flatten() - y.flatten().round()))
    )
    loss = (1 + 0.9 * (2 * u - 1)).log().mean()
    torch.testing.assert_close(tilted, p.log() + loss, rtol=0, atol=1e-6)
    assert float(loss) < -0.1

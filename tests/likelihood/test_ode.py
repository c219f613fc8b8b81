"""The likelihood by the probability-flow ODE: exact densities under every process, any network's density integrates to 1, unbiased traces."""

from __future__ import annotations

import math

import pytest
import torch
from numeric import f64
from torch import Tensor, nn

from unstir.denoiser import Denoiser, GaussianDenoiser, MixtureDenoiser, NetDenoiser
from unstir.guidance import ClipX0
from unstir.likelihood import draw_probes, ode_likelihood
from unstir.likelihood.ode import PROBES, ends
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import EDM, PROCESSES, VP, LinearVP, RectifiedFlow
from unstir.sampling import SampleNoise

X_0 = torch.tensor([[0.3, -0.9], [1.1, 0.2], [-0.6, 0.5], [2.5, -2.0]], dtype=torch.float64)
BITS = math.log(2) * 2  # nats of two numbers of one bit each
TIGHT = {"rtol": 1e-7, "atol": 1e-7}


def mixture(process: Process) -> MixtureDenoiser:
    means = torch.stack([f64(0.8, -0.2), f64(-0.5, 0.4), f64(0.1, -1.0)])
    return MixtureDenoiser(process, means, f64(0.3, 0.5, 0.4).reshape(3, 1))


def drawn(exact: MixtureDenoiser, n: int) -> Tensor:
    """Data of the mixture."""
    rng = SampleNoise(9, range(n))
    component = (rng.uniform() * len(exact.means)).long()
    return exact.means[component] + exact.stds[component] * rng.normal((2,), torch.float64)


ORACLES = {"gaussian": lambda process: GaussianDenoiser(process, f64(0.5, -0.3), f64(0.4, 1.1)), "mixture": mixture}


@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize("name", PROCESSES)
def test_the_exact_density_under_every_process(name: str, oracle: str) -> None:
    """Within 0.01 bits/dim of the data's density; and, begun with the true marginal at one end, exactly the marginal's at the other."""
    process = PROCESSES[name]()
    exact: MixtureDenoiser = ORACLES[oracle](process)
    t, T = (process.t_at_log_snr(f64(end)[0]) for end in ends(process))
    sharp = ode_likelihood(exact, X_0, None, prior=lambda x: exact.log_prob(x, T), **TIGHT)
    alpha = process.alpha(t)
    torch.testing.assert_close(sharp.log_prob, exact.log_prob(alpha * X_0, t) + 2 * alpha.log(), rtol=0, atol=2e-5)
    if name == "betas":  # four of 0.5 leave a quarter of the data in x_T: noise is no prior for them
        return
    x_0 = drawn(exact, 100)
    found, wanted = ode_likelihood(exact, x_0, None).log_prob, exact.log_prob(x_0, f64(0.0)[0])
    assert abs(float((found - wanted).mean())) < 0.01 * BITS


@pytest.mark.parametrize("name", PROCESSES)
def test_the_latent_is_where_the_flow_leads(name: str) -> None:
    process = PROCESSES[name]()
    exact = ORACLES["gaussian"](process)
    found = ode_likelihood(exact, X_0, None, **TIGHT)
    t, T = (process.t_at_log_snr(f64(end)[0]) for end in ends(process))
    wanted = exact.flow_map(process.alpha(t) * X_0, t, T)
    torch.testing.assert_close(found.latent, wanted, rtol=1e-5, atol=1e-5)


class Bumpy(nn.Module):
    """A network that has learnt nothing: smooth, of no symmetry, and at most ``slope`` x far out."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        c = c_noise.reshape(-1, 1)
        return self.slope * x + torch.sigmoid(-8 * c) * torch.sin(2 * x + 1 + c) * torch.exp(-0.1 * x**2)


@pytest.mark.parametrize(
    ("process", "parameterization", "slope"),
    [
        (VP(), "eps", 1.0),  # all noise, but for what is added
        (RectifiedFlow(), "v", 0.3),
        (EDM(sigma_max=6.0), "edm", -0.2),
        (LinearVP(steps=50, beta_end=0.3), "v", 0.1),
    ],
)
@pytest.mark.parametrize("clip", [False, True])
def test_any_network_s_density_integrates_to_one(
    process: Process, parameterization: str, slope: float, clip: bool
) -> None:
    """With no oracle: a wrong sign, unit or end would show here. Nor does it need a belief without corners."""
    denoiser: Denoiser = NetDenoiser(Bumpy(slope), process, parameterization, sigma_data=0.7)
    denoiser = ClipX0(denoiser, -1.5, 2.0) if clip else denoiser
    x = torch.linspace(-40, 40, 4001, dtype=torch.float64).unsqueeze(1)
    # Clipped data gather at the limits: seen with some noise, so that a grid is fine enough.
    found = ode_likelihood(denoiser, x, None, rtol=1e-4, atol=1e-5, noise=0.1 if clip else 0.0)
    assert float(torch.trapezoid(found.log_prob.exp(), x[:, 0])) == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("kind", PROBES)
def test_probes_are_right_on_average(kind: str) -> None:
    n = 300
    exact = mixture(VP())
    x_0 = X_0[:1].expand(n, 2).contiguous()
    wanted = float(ode_likelihood(exact, X_0[:1], None).log_prob)
    one = ode_likelihood(exact, x_0, draw_probes(SampleNoise(1, range(n)), x_0, 1, kind)).log_prob
    four = ode_likelihood(exact, x_0, draw_probes(SampleNoise(2, range(n)), x_0, 4, kind)).log_prob
    assert float(one.std()) > 0.01
    assert float(four.std()) == pytest.approx(float(one.std()) / 2, rel=0.25)
    for found in (one, four):
        assert abs(float(found.mean()) - wanted) < 4 * float(found.std()) / math.sqrt(n)


def test_signs_need_no_luck_where_the_derivative_is_diagonal() -> None:
    exact = ORACLES["gaussian"](VP())
    probes = draw_probes(SampleNoise(0, range(4)), X_0, 1)
    assert set(probes.unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(ode_likelihood(exact, X_0, probes).log_prob, ode_likelihood(exact, X_0, None).log_prob)


class Counting(Denoiser):
    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.process)
        self.inner, self.calls = inner, 0

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        self.calls += 1
        return self.inner(x_t, t, **cond)


def test_tolerance_evaluations_and_neighbours() -> None:
    exact, errors, evaluations = mixture(EDM()), [], []
    best = ode_likelihood(exact, X_0, None, rtol=1e-10, atol=1e-10).log_prob
    for tolerance in (1e-3, 1e-5, 1e-7):
        counting = Counting(exact)
        found = ode_likelihood(counting, X_0, None, rtol=tolerance, atol=tolerance)
        assert found.evaluations == counting.calls
        errors.append(float((found.log_prob - best).abs().max()))
        evaluations.append(found.evaluations)
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5
    assert evaluations[0] < evaluations[1] < evaluations[2] < 1500
    alone = ode_likelihood(exact, X_0[2:3], None)
    torch.testing.assert_close(alone.log_prob, ode_likelihood(exact, X_0, None).log_prob[2:3], rtol=0, atol=1e-12)


def test_conditions_reach_the_denoiser_and_gradients_stay_inside() -> None:
    exact = mixture(VP())
    with torch.no_grad():
        found = ode_likelihood(exact, X_0, None, {"label": torch.tensor([0, 1, 2, 0])})
    assert not found.log_prob.requires_grad
    for i, label in enumerate((0, 1, 2, 0)):
        one = GaussianDenoiser(VP(), exact.means[label], exact.stds[label])
        assert float(found.log_prob[i]) == pytest.approx(float(one.log_prob(X_0[i : i + 1], f64(0.0)[0])), abs=0.05)

"""Continuous-time consistency: the tangent against closed forms and difference quotients, TrigFlow's loss by hand, learning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from numeric import Fast, f64
from torch import Tensor, nn

from unstir.data.spec import DataSpec
from unstir.denoiser import Denoiser, GaussianDenoiser, NetDenoiser
from unstir.errors import UserError
from unstir.networks import DiTConfig, UNetConfig
from unstir.objectives import Batch, ContinuousConsistencyObjective, LogNormal
from unstir.objectives.consistency import ConsistencyCompanion
from unstir.objectives.continuous import angle, differentiable, tangent
from unstir.objectives.discretization import karras
from unstir.papers import scm
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import EDM, VP, LinearVP, RectifiedFlow
from unstir.sampling import SampleNoise

MEAN, STD = f64(0.6, -0.3), f64(0.9, 0.4)
PROCESSES = pytest.mark.parametrize("process", [EDM(), VP(), RectifiedFlow()], ids=["edm", "vp", "rectified-flow"])


def gaussian(process: Process) -> GaussianDenoiser:
    return GaussianDenoiser(process, MEAN, STD)


class Exact(NetDenoiser):
    """The exact consistency function of the Gaussian, as a denoiser."""

    def __init__(self, process: Process) -> None:
        super().__init__(nn.Identity(), process, "edm", sigma_data=0.7)

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        alpha, sigma = self.process.scales(t, x_t)
        x_0 = gaussian(self.process).flow_map(x_t, t, torch.zeros_like(t))
        return Prediction(x_t, x_0, (x_t - alpha * x_0) / sigma, alpha, sigma)


class Net(nn.Module):
    """Small, without any symmetry."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.last = nn.Linear(3, width), nn.Linear(width, 2)
        self.double()

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        out: Tensor = self.last(torch.tanh(self.first(torch.cat([x, c_noise[:, None]], 1))))
        return out


def data(n: int, seed: int = 0) -> Tensor:
    return MEAN + STD * Fast(seed, n).normal_like(torch.empty(n, 2, dtype=torch.float64))


def levels(process: Process, *ratios: float) -> Tensor:
    return process.t_at_noise_ratio(f64(*ratios))


# ---- the tangent ---------------------------------------------------------------------------------------------------------------


@PROCESSES
def test_along_the_exact_path_the_exact_answer_does_not_change(process: Process) -> None:
    t = levels(process, 0.05, 0.4, 1.5, 20.0)
    x_t = process.add_noise(data(4), t, Fast(1, 4).normal_like(data(4)))
    belief = gaussian(process)(x_t, t)
    f, slope = tangent(Exact(process), belief.x_0, belief.eps, t, {})
    torch.testing.assert_close(f, Exact(process)(x_t, t).x_0)
    assert float(slope.abs().max()) < 1e-9
    _, off = tangent(Exact(process), data(4), Fast(1, 4).normal_like(data(4)), t, {})
    assert float(off.abs().min()) > 1e-3, "along the path to one sample it does"


@PROCESSES
def test_the_tangent_is_the_difference_quotient(process: Process) -> None:
    module = NetDenoiser(Net(), process, "edm", sigma_data=0.7)
    x_0, eps, t = data(3), Fast(1, 3).normal_like(data(3)), levels(process, 0.1, 0.8, 6.0)
    step = 1e-5 * t
    with torch.no_grad():
        up, down = (module(process.add_noise(x_0, s, eps), s).x_0 for s in (t + step, t - step))
    turned = angle(process, t + step, 0.7) - angle(process, t - step, 0.7)
    torch.testing.assert_close(tangent(module, x_0, eps, t, {})[1], (up - down) / turned[:, None], rtol=1e-6, atol=1e-8)


def test_the_angle_is_that_of_trigflow() -> None:
    theta = f64(0.1, 0.7, 1.4)
    torch.testing.assert_close(angle(EDM(), 0.5 * theta.tan(), 0.5), theta)
    # Rectified flow with data of unit variance: tan(theta) = t / (1 - t).
    torch.testing.assert_close(angle(RectifiedFlow(), f64(0.25, 0.5), 1.0), torch.atan(f64(1 / 3, 1)))


def test_eased_in_from_denoising() -> None:
    """Without the rest it is the gradient of denoising: away from x_0."""
    process = EDM()
    module = NetDenoiser(Net(), process, "edm", sigma_data=0.7)
    x_0, eps, t = data(3), Fast(1, 3).normal_like(data(3)), levels(process, 0.1, 0.8, 6.0)
    f, none = tangent(module, x_0, eps, t, {}, 0.0)
    torch.testing.assert_close(none, (f - x_0) / (t / 0.7)[:, None])
    half, whole = (tangent(module, x_0, eps, t, {}, ease)[1] for ease in (0.5, 1.0))
    torch.testing.assert_close(half, (none + whole) / 2)


@pytest.mark.parametrize(
    "config", [UNetConfig(channels=8, middle=1, head_channels=8), DiTConfig(width=16, depth=1, heads=2)]
)
def test_networks_with_attention_can_be_differentiated_forward(config: Any) -> None:
    torch.manual_seed(0)
    network = config.build(DataSpec("image", (1, 8, 8)), 1).eval()
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    module = NetDenoiser(network.double(), EDM(), "edm", sigma_data=0.5)
    module.autocast = torch.bfloat16
    x_0, eps = (Fast(seed, 2).normal_like(torch.empty(2, 1, 8, 8, dtype=torch.float64)) for seed in (1, 2))
    t, step = f64(0.5, 2.0), 1e-6
    _, slope = tangent(module, x_0, eps, t, {})
    assert module.autocast is torch.bfloat16, "as it was"
    module.autocast = None
    with torch.no_grad():
        up, down = (module(EDM().add_noise(x_0, s, eps), s).x_0 for s in (t + step, t - step))
    turned = angle(EDM(), t + step, 0.5) - angle(EDM(), t - step, 0.5)
    torch.testing.assert_close(slope, (up - down) / turned[:, None, None, None], rtol=1e-4, atol=1e-4)


# ---- the loss ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.05, 1.0])
def test_the_loss_is_trigflows(fraction: float) -> None:
    sd, n = 0.5, 4
    module = NetDenoiser(Net(), EDM(), "edm", sigma_data=sd)
    objective = ContinuousConsistencyObjective(times=LogNormal(-0.3, 0.9), stratified=False)
    companion = ConsistencyCompanion()
    companion.at(fraction)
    got = objective(module, Batch(data(n)), SampleNoise(5, range(n)), companion)
    rng = SampleNoise(5, range(n))
    t = torch.atan((-0.3 + 0.9 * torch.special.ndtri(rng.uniform())).exp() / sd)[:, None]

    def F(x: Tensor, t: Tensor) -> Tensor:
        """TrigFlow's network, whose output is minus EDM's."""
        out: Tensor = -module.network(x, (sd * t.tan()).log()[:, 0] / 4)
        return out

    z = sd * rng.normal_like(data(n))
    with differentiable(module):
        loss, length = scm.algorithm_1(F, data(n), z, t, sd, min(1.0, fraction / 0.1), 0.1)
    torch.testing.assert_close(got.parts["tangent"], length)
    torch.testing.assert_close(got.total, loss)
    weights = list(module.parameters())
    ours, theirs = (torch.autograd.grad(value.mean(), weights) for value in (got.total, loss))
    for mine, paper in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, paper)


# ---- learning ------------------------------------------------------------------------------------------------------------------


class Modulated(nn.Module):
    """A map of each entry by itself, straight but for its dependence on the noise level."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.last = nn.Linear(1, 32), nn.Linear(32, 4)
        self.double()

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        scale, shift = self.last(torch.tanh(self.first(2 * c_noise[:, None]))).chunk(2, 1)
        out: Tensor = scale * x + shift
        return out


@pytest.mark.parametrize(
    ("process", "taught"),
    [(EDM(), True), (EDM(), False), (RectifiedFlow(), True)],
    ids=["edm, distilled", "edm, from the data", "rectified-flow, distilled"],
)
def test_the_one_step_map_approaches_the_flows(process: Process, taught: bool) -> None:
    module = NetDenoiser(Modulated(), process, "edm", sigma_data=0.7)
    objective = ContinuousConsistencyObjective(teacher="there" if taught else "", times=LogNormal(0.0, 1.6))
    teacher: Denoiser | None = gaussian(process) if taught else None
    companion = objective.companion(process, teacher)
    assert companion is not None
    end = karras(process).times(process, 1)[:1].expand(500)
    x_T = process.prior_sample(Fast(9, 500).normal_like(torch.empty(500, 2, dtype=torch.float64)), end[0])
    wanted = gaussian(process).flow_map(x_T, end, torch.zeros_like(end))

    def error() -> float:
        with torch.no_grad():
            return float((module(x_T, end).x_0 - wanted).square().mean().sqrt())

    optimizer, before, steps = torch.optim.Adam(module.parameters(), 1e-2), error(), 300
    for step in range(steps):
        companion.at(step / steps)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        optimizer.zero_grad()
        objective(module, Batch(data(128, seed=step)), Fast(step, 128), companion).total.mean().backward()
        optimizer.step()
    assert before > 0.5
    assert error() < 0.15


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="must be positive and ease in"):
        ContinuousConsistencyObjective(bound=0.0)
    with pytest.raises(UserError, match="whole steps"):
        ContinuousConsistencyObjective().companion(LinearVP())

"""The composed path (process, denoiser, sampler, loop) equals the papers' boxes, in float64, where both draw the same noise."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import unstir.papers
from unstir.denoiser import NetDenoiser
from unstir.objectives import Batch, DenoisingObjective
from unstir.papers import ddim, ddpm, dpm_solver_pp, edm
from unstir.processes import EDM, VP, CosineVP, DiscreteVP, LinearVP, RectifiedFlow
from unstir.samplers import DDIM, DDPM, DPMpp2M, Heun
from unstir.samplers.grids import Karras, Leading, Uniform
from unstir.sampling import SampleNoise, sample

SHAPE = (2, 5)
INDICES = [3, 4, 11]


class Net(nn.Module):
    """A small network with no symmetry: any mistake of time, sign or scale changes what it says."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = [(10, 16), (16, 10), (16,)]
        self.first, self.last, self.bias = (
            nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64) * 0.4) for shape in shapes
        )

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        hidden = torch.tanh(x.flatten(1) @ self.first + c_noise[:, None] * self.bias + self.bias)
        return torch.as_tensor(hidden @ self.last).reshape(x.shape)


def eps_theta(net: Net, process: DiscreteVP, x: Tensor, t: int) -> Tensor:
    """The network in the papers' signature: c_in is 1 for a variance-preserving process, c_noise = ln(sigma / alpha) / 4."""
    alpha_bar = (1 - process.beta).cumprod(0)[t]
    c_noise = torch.log((1 - alpha_bar) / alpha_bar) / 8
    F: Tensor = net(x, c_noise.clamp(-2.5, 2.5).expand(len(x)))
    return F


def start(seed: int) -> tuple[Tensor, SampleNoise, SampleNoise]:
    """Standard normal noise, the sampler's random numbers after it, and the same once more to replay."""
    rng, replay = SampleNoise(seed, INDICES), SampleNoise(seed, INDICES)
    replay.normal(SHAPE, torch.float64)
    return rng.normal(SHAPE, torch.float64), rng, replay


def close(ours: Tensor, papers: Tensor) -> None:
    torch.testing.assert_close(ours, papers, rtol=1e-9, atol=1e-10)


PROCESSES = [LinearVP(steps=30, beta_end=0.3), CosineVP(steps=30)]


@pytest.mark.parametrize("process", PROCESSES)
def test_ddpm_algorithm_1(process: DiscreteVP) -> None:
    net = Net()
    denoiser = NetDenoiser(net, process, "eps")
    x_0 = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rng, replay = SampleNoise(5, INDICES), SampleNoise(5, INDICES)
    loss = DenoisingObjective(stratified=False)(denoiser, Batch(x_0), rng)
    t = [int(u * len(process.beta[1:])) + 1 for u in replay.uniform()]  # line 3
    eps = replay.normal(SHAPE, torch.float64)  # line 4
    close(loss.total, ddpm.algorithm_1(lambda x, n: eps_theta(net, process, x, n), x_0, t, eps, process.beta))


@pytest.mark.parametrize("noise", ["posterior", "large"])
@pytest.mark.parametrize("process", PROCESSES)
def test_ddpm_algorithm_2(process: DiscreteVP, noise: str) -> None:
    net, (x_T, rng, replay) = Net(), start(1)
    T = len(process.beta) - 1
    ours = sample(NetDenoiser(net, process), DDPM(noise), Uniform().times(process, T), x_T, rng)  # type: ignore[arg-type]
    z = [torch.empty(0)] * 2 + [replay.normal(SHAPE, torch.float64) for _ in range(T - 1)][::-1]
    fixed_large = noise == "large"
    close(
        ours,
        ddpm.algorithm_2(lambda x, n: eps_theta(net, process, x, n), x_T, z, process.beta, fixed_large=fixed_large),
    )


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("grid", [Uniform(), Leading()])
@pytest.mark.parametrize("process", PROCESSES)
def test_ddim(process: DiscreteVP, grid: Uniform | Leading, eta: float) -> None:
    net, (x, rng, replay) = Net(), start(2)
    times = grid.times(process, 7)
    ours = sample(NetDenoiser(net, process), DDIM(eta), times, x, rng)
    tau = [int(t) for t in times.flip(0)]
    eps = [torch.empty(0)] * 2  # the last step, to the data, draws nothing
    eps += [replay.normal(SHAPE, torch.float64) for _ in tau[2:]][::-1]
    close(ours, ddim.sample(lambda x, n: eps_theta(net, process, x, n), x, tau, eps, process.alpha_bar, eta))


def edm_denoiser(net: Net, sigma_data: float, x: Tensor, sigma: Tensor) -> Tensor:
    """EDM's D(x; sigma) for a network that predicts eps, written out."""
    c_in = 1 / (sigma**2 + sigma_data**2).sqrt()
    F: Tensor = net(c_in * x, (sigma.log() / 4).clamp(-2.5, 2.5).expand(len(x)))
    return x - sigma * F


def test_edm_time_steps() -> None:
    close(Karras().times(EDM(), 18), edm.time_steps(18))
    close(
        Karras(rho=5).times(EDM(sigma_min=0.01, sigma_max=20), 9),
        edm.time_steps(9, sigma_min=0.01, sigma_max=20, rho=5),
    )


def test_edm_algorithm_1() -> None:
    net, (x, rng, _) = Net(), start(3)
    process = EDM()
    times = Karras().times(process, 12)
    ours = sample(NetDenoiser(net, process, sigma_data=0.5), Heun(), times, process.prior_sample(x), rng)
    close(ours, edm.algorithm_1(lambda x, sigma: edm_denoiser(net, 0.5, x, sigma), 80 * x, edm.time_steps(12)))
    assert rng.draws == 1


@pytest.mark.parametrize(
    ("S_churn", "S_tmin", "S_tmax", "S_noise"), [(3, 0.0, 79.0, 1.0), (40, 0.05, 50, 1.003), (2, 0, 79, 0)]
)
def test_edm_algorithm_2(S_churn: float, S_tmin: float, S_tmax: float, S_noise: float) -> None:
    net, (x, rng, replay) = Net(), start(4)
    process, N = EDM(), 12
    times = Karras().times(process, N)
    sampler = Heun(churn=S_churn / N, churn_from=S_tmin, churn_to=S_tmax, churn_noise=S_noise)
    ours = sample(NetDenoiser(net, process, sigma_data=0.5), sampler, times, process.prior_sample(x), rng)
    # Where gamma = 0 the draw of line 4 is not used, and ours not made. S_tmax < sigma_max: our processes end at t_max.
    zeros = torch.zeros_like(x)
    z = [replay.normal(SHAPE, torch.float64) if S_tmin <= t <= S_tmax else zeros for t in times[:-1]]
    D = lambda x, sigma: edm_denoiser(net, 0.5, x, sigma)  # noqa: E731
    close(ours, edm.algorithm_2(D, 80 * x, edm.time_steps(N), z, S_churn, S_tmin, S_tmax, S_noise))
    assert rng.draws == replay.draws > 1


@pytest.mark.parametrize("last", [0.0, 0.02])
@pytest.mark.parametrize("process", [VP(), RectifiedFlow(), LinearVP(steps=30, beta_end=0.3)])
def test_dpm_solver_pp_algorithm_2(process: VP | RectifiedFlow | LinearVP, last: float) -> None:
    net, (x_T, rng, _) = Net(), start(5)
    denoiser = NetDenoiser(net, process)
    times = process.t_max * torch.linspace(0.97, last, 10, dtype=torch.float64)
    ours = sample(denoiser, DPMpp2M(), times, x_T, rng)
    alpha, sigma = process.alpha(times), process.sigma(times)

    def x_theta(x: Tensor, i: int) -> Tensor:
        ratio = sigma[i] / alpha[i]
        eps: Tensor = net(x / alpha[i].hypot(sigma[i]), (ratio.log() / 4).clamp(-2.5, 2.5).expand(len(x)))
        return (x - sigma[i] * eps) / alpha[i]

    close(ours, dpm_solver_pp.algorithm_2(x_theta, x_T, alpha, sigma))


def test_papers_stand_alone() -> None:
    files = sorted(Path(inspect.getfile(unstir.papers)).parent.glob("*.py"))
    assert len(files) > 4
    for file in files:
        assert "from unstir" not in file.read_text()
        assert "import unstir" not in file.read_text()


def test_net_tells_times_apart() -> None:
    # The equalities above would prove little if the network ignored its time.
    x = torch.ones(1, *SHAPE, dtype=torch.float64)
    near, far = (Net()(x, torch.tensor([c], dtype=torch.float64)) for c in (0.5, 0.51))
    assert math.sqrt(float((near - far).detach().square().mean())) > 1e-3

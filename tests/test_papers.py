"""The composed path (process, denoiser, sampler, loop) equals the papers' boxes, in float64, where both draw the same noise."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numeric import f64
from torch import Tensor, nn

import unstir.papers
from unstir.clip import WANTED, CaptionTower, Clip, PictureTower, Towers
from unstir.data.spec import Condition
from unstir.denoiser import NetDenoiser
from unstir.editing import text_diff
from unstir.editing.conditional import KnownBelief
from unstir.guidance import (
    ClassifierFreeGuidance,
    ClassifierGuidance,
    ClipX0,
    DynamicThreshold,
    OnlyKnown,
    SimilarityGuidance,
)
from unstir.likelihood import Chain, DiscretizedDecoder, chain_times, variational_bound
from unstir.networks import VQ
from unstir.networks.tokens import Tokens
from unstir.objectives import (
    Batch,
    ConsistencyObjective,
    ContrastiveObjective,
    DenoisingObjective,
    HybridObjective,
    KarrasPairs,
    ProgressiveObjective,
    Teacher,
)
from unstir.objectives.consistency import ConsistencyCompanion
from unstir.objectives.times import LogNormal, spread
from unstir.papers import (
    cfg,
    clip,
    consistency,
    ddim,
    ddpm,
    ddpm_bound,
    deis,
    dpm_solver,
    dpm_solver_pp,
    dpm_solver_sde,
    edm,
    glide,
    guided_diffusion,
    iddpm,
    imagen,
    ncsn,
    progressive,
    repaint,
    score_sde,
    sdedit,
    unclip,
    unipc,
    vq_vae,
)
from unstir.prediction import Prediction
from unstir.processes import EDM, VP, CosineVP, DiscreteVP, GeometricLadder, LinearVP, RectifiedFlow
from unstir.samplers import (
    DDIM,
    DDPM,
    DEIS,
    AnnealedLangevin,
    Consistency,
    DPMpp2M,
    DPMpp2MSDE,
    DPMpp2S,
    DPMSolver2,
    DPMSolver3,
    Heun,
    PredictorCorrector,
    UniPC,
)
from unstir.samplers.grids import Karras, Leading, Strided, Uniform
from unstir.samplers.repaint import RePaint
from unstir.samplers.replacement import Known, Replacement
from unstir.sampling import SampleNoise, sample, trajectory
from unstir.unclip import best

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


# ---- fast solvers: VP and rectified flow, whose t_lambda the papers have in closed form -----------------------------------------


def t_lambda(process: VP | RectifiedFlow, lambda_: Tensor) -> Tensor:
    """The time at which log(alpha / sigma) is lambda (DPM-Solver, appendix, for VP's linear beta)."""
    if isinstance(process, RectifiedFlow):
        return torch.sigmoid(-lambda_)
    b_0, b_1 = process.beta_min, process.beta_max
    return ((b_0**2 + 2 * (b_1 - b_0) * torch.log1p(torch.exp(-2 * lambda_))).sqrt() - b_0) / (b_1 - b_0)


def theta(net: Net, process: VP | RectifiedFlow, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """eps_theta and x_theta of a network that predicts eps, written out."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    eps: Tensor = net(x / alpha.hypot(sigma), ((sigma / alpha).log() / 4).clamp(-2.5, 2.5).expand(len(x)))
    return eps, (x - sigma * eps) / alpha


FAST = [VP(), RectifiedFlow()]


def fast_times(process: VP | RectifiedFlow, last: float = 0.02) -> Tensor:
    return process.t_max * torch.linspace(0.97, last, 10, dtype=torch.float64)


@pytest.mark.parametrize("process", FAST)
@pytest.mark.parametrize(
    ("sampler", "algorithm"), [(DPMSolver2(), dpm_solver.algorithm_1), (DPMSolver3(), dpm_solver.algorithm_2)]
)
def test_dpm_solver(sampler: DPMSolver2 | DPMSolver3, algorithm: Any, process: VP | RectifiedFlow) -> None:
    net, (x_T, rng, _) = Net(), start(6)
    times = fast_times(process)
    ours = sample(NetDenoiser(net, process), sampler, times, x_T, rng)
    eps_theta = lambda x, t: theta(net, process, x, t)[0]  # noqa: E731
    close(ours, algorithm(eps_theta, x_T, times, process.alpha, process.sigma, lambda l: t_lambda(process, l)))


@pytest.mark.parametrize("process", FAST)
def test_dpm_solver_pp_algorithm_1(process: VP | RectifiedFlow) -> None:
    net, (x_T, rng, _) = Net(), start(7)
    times = fast_times(process)
    ours = sample(NetDenoiser(net, process), DPMpp2S(), times, x_T, rng)
    lambda_ = process.alpha(times).log() - process.sigma(times).log()
    s = torch.cat([times[:1], t_lambda(process, (lambda_[1:] + lambda_[:-1]) / 2)])
    x_theta = lambda x, t: theta(net, process, x, t)[1]  # noqa: E731
    close(ours, dpm_solver_pp.algorithm_1(x_theta, x_T, times, s, process.alpha, process.sigma))


@pytest.mark.parametrize("last", [0.0, 0.02])
@pytest.mark.parametrize("process", FAST)
def test_sde_dpm_solver_pp_2m(process: VP | RectifiedFlow, last: float) -> None:
    net, (x_T, rng, replay) = Net(), start(8)
    times = fast_times(process, last)
    ours = sample(NetDenoiser(net, process), DPMpp2MSDE(), times, x_T, rng)
    z = [torch.empty(0)] + [replay.normal(SHAPE, torch.float64) for _ in times[1:]]
    x_theta = lambda x, i: theta(net, process, x, times[i])[1]  # noqa: E731
    close(ours, dpm_solver_sde.sample_2m(x_theta, x_T, z, process.alpha(times), process.sigma(times)))


@pytest.mark.parametrize("last", [0.0, 0.02])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("process", FAST)
def test_unipc(process: VP | RectifiedFlow, p: Any, variant: Any, last: float) -> None:
    net, (x_T, rng, _) = Net(), start(9)
    times = fast_times(process, last)
    ours = sample(NetDenoiser(net, process), UniPC(p, variant), times, x_T, rng)
    x_theta = lambda x, i: theta(net, process, x, times[i])[1]  # noqa: E731
    close(ours, unipc.sample(x_theta, x_T, process.alpha(times), process.sigma(times), p, variant))


@pytest.mark.parametrize("r", [0, 1, 2, 3])
def test_t_ab_deis(r: int) -> None:
    process = VP()
    net, (x_T, rng, _) = Net(), start(10)
    times = fast_times(process)
    ours = sample(NetDenoiser(net, process), DEIS(r + 1, "time"), times, x_T, rng)  # type: ignore[arg-type]
    beta = lambda t: process.beta_min + t * (process.beta_max - process.beta_min)  # noqa: E731
    papers = deis.t_ab_deis(
        lambda x, t: theta(net, process, x, t)[0],
        x_T,
        times,
        r,
        Psi=lambda s, tau: process.alpha(s) / process.alpha(tau),
        weight=lambda tau: beta(tau) / 2 / process.sigma(tau),  # G² = beta
    )
    close(ours, papers)


@pytest.mark.parametrize("U", [1, 3])
@pytest.mark.parametrize("process", PROCESSES)
def test_repaint_algorithm_1(process: DiscreteVP, U: int) -> None:
    net, (x_T, rng, replay) = Net(), start(21)
    x_0 = torch.randn(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    m = (torch.arange(10).reshape(SHAPE) % 3 == 0).double()
    sampler = RePaint(Replacement(DDPM(), Known(x_0, lambda x: m * x, lambda x: (1 - m) * x)), resamplings=U)
    ours = sample(NetDenoiser(net, process), sampler, Uniform().times(process, 30), x_T, rng)
    noise = lambda: replay.normal(SHAPE, torch.float64)  # noqa: E731
    close(ours, repaint.algorithm_1(lambda x, n: eps_theta(net, process, x, n), x_T, x_0, m, process.beta, U, noise))
    assert rng.draws == replay.draws == 1 + 29 * (2 * U + U - 1)


def test_sdedit_algorithm_1() -> None:
    net, (eps, rng, replay) = Net(), start(22)
    x_g = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    process, N, t_0 = EDM(), 9, 0.7
    sigma = lambda t: 0.02 * (40 / 0.02) ** t  # noqa: E731
    times = torch.tensor([sigma(t_0 * n / N) for n in range(N, -1, -1)], dtype=torch.float64)
    start_ = process.add_noise(x_g, times[0], eps)
    ours = sample(NetDenoiser(net, process, sigma_data=0.5), DDPM("large"), times, start_, rng)

    def s_theta(x: Tensor, t: float) -> Tensor:
        level = torch.tensor(sigma(t), dtype=torch.float64)
        return (edm_denoiser(net, 0.5, x, level) - x) / level**2

    z = [eps, *(replay.normal(SHAPE, torch.float64) for _ in range(N))]
    close(ours, sdedit.algorithm_1(s_theta, x_g, t_0, N, sigma, z))
    assert rng.draws == replay.draws


@pytest.mark.parametrize("process", PROCESSES)
def test_sdedit_with_a_ddpm(process: DiscreteVP) -> None:
    net, (e, rng, replay) = Net(), start(23)
    x_g = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    times = torch.arange(17, -1, -1, dtype=torch.float64)
    ours = sample(NetDenoiser(net, process), DDPM("large"), times, process.add_noise(x_g, times[0], e), rng)
    z = [torch.empty(0)] * 2 + [replay.normal(SHAPE, torch.float64) for _ in range(16)][::-1]
    close(ours, sdedit.released_vp(lambda x, n: eps_theta(net, process, x, n), x_g, 17, e, z, process.beta))


@pytest.mark.parametrize("process", PROCESSES)
def test_ddim_encoding(process: DiscreteVP) -> None:
    net, (x, rng, _) = Net(), start(24)
    tau = [2, 5, 11, 23, 29]
    ours = sample(NetDenoiser(net, process), DDIM(), torch.tensor(tau).double(), x, rng)
    close(ours, ddim.encode(lambda x, n: eps_theta(net, process, x, n), x, tau, process.alpha_bar))
    assert rng.draws == 1


# ---- scores: NCSN's ladder and Score-SDE's predictor-corrector ------------------------------------------------------------------

LADDER = GeometricLadder(levels=6, sigma_min=0.1, sigma_max=3.0)


def s_theta(net: Net, x: Tensor, sigma: Tensor) -> Tensor:
    """The score of a network that predicts eps, for exploding noise, written out (sigma_data = 0.5)."""
    F: Tensor = net(x / sigma.hypot(torch.tensor(0.5)), (sigma.log() / 4).clamp(-2.5, 2.5).expand(len(x)))
    return -F / sigma


def downwards() -> Tensor:
    """NCSN's sigma[1] > ... > sigma[L]."""
    return torch.cat([torch.zeros(1), LADDER.sigma(torch.arange(6, 0, -1, dtype=torch.float64))])


def test_ncsn_loss() -> None:
    net, sigma = Net(), downwards()
    x = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rng, replay = SampleNoise(31, INDICES), SampleNoise(31, INDICES)
    loss = DenoisingObjective(stratified=False)(NetDenoiser(net, LADDER, sigma_data=0.5), Batch(x), rng)
    i = [6 - int(u * 6) for u in replay.uniform()]
    eps = replay.normal(SHAPE, torch.float64)
    # Theirs is half of the sum over the entries, ours the mean.
    close(loss.total * 10 / 2, ncsn.loss(lambda x, n: s_theta(net, x, sigma[n]), x, i, eps, sigma))


@pytest.mark.parametrize("denoise", [True, False])
def test_ncsn_algorithm_1_of_both_papers(denoise: bool) -> None:
    T, e, sigma = 4, 0.08, downwards()
    net, (x, rng, replay) = Net(), start(32)
    times = Uniform().times(LADDER, 6)
    sampler = AnnealedLangevin(repeats=T, step_size=e, denoise=denoise)
    ours = sample(NetDenoiser(net, LADDER, sigma_data=0.5), sampler, times, x, rng)
    z = [[torch.empty(0)] + [replay.normal(SHAPE, torch.float64) for _ in range(T)] for _ in range(6)]
    z, score, epsilon = [[], *z], lambda x, i: s_theta(net, x, sigma[i]), e * 0.1**2
    close(ours, ncsn.algorithm_1_v2(score, x, z, sigma, epsilon, T, denoise=denoise))
    if not denoise:
        close(ours, ncsn.algorithm_1(score, x, z, sigma, 2 * epsilon, T))
    assert rng.draws == replay.draws


@pytest.mark.parametrize("M", [0, 2])
def test_score_sde_pc_for_ve(M: int) -> None:
    net, (x, rng, replay) = Net(), start(33)
    ours = sample(
        NetDenoiser(net, LADDER, sigma_data=0.5),
        PredictorCorrector(corrections=M, snr=0.16),
        Uniform().times(LADDER, 6),
        x,
        rng,
    )
    z, z_c = noises(replay, 6, M)
    sigma = LADDER.sigma(torch.arange(7, dtype=torch.float64))
    close(ours, score_sde.pc_ve(lambda x, i: s_theta(net, x, sigma[i]), x, z, z_c, sigma, 0.16))
    assert rng.draws == replay.draws


@pytest.mark.parametrize("M", [0, 2])
@pytest.mark.parametrize("process", PROCESSES)
def test_score_sde_pc_for_vp(process: DiscreteVP, M: int) -> None:
    net, (x, rng, replay) = Net(), start(34)
    T = len(process.beta) - 1
    sampler = PredictorCorrector(corrections=M, snr=0.16)
    *_, before, last = trajectory(NetDenoiser(net, process), sampler, Uniform().times(process, T), x, rng)
    z, z_c = noises(replay, T, M)
    score = lambda x, i: -eps_theta(net, process, x, i) / (1 - process.alpha_bar[i]).sqrt()  # noqa: E731
    x_1, x_0 = score_sde.pc_vp(score, x, z, z_c, process.beta, 0.16)
    close(before.x_s, x_1)
    # Ours is then the belief (x_1 - sqrt(beta_1) eps) / sqrt(1 - beta_1), which differs by the second order in beta_1.
    torch.testing.assert_close(last.x_s, x_0, rtol=0, atol=float(process.beta[1]))
    assert rng.draws == replay.draws


def noises(replay: SampleNoise, N: int, M: int) -> tuple[list[Tensor], list[list[Tensor]]]:
    """The predictor's and the corrector's draws at x_{N-1} .. x_1, in the order in which they are made."""
    z, z_c = [torch.empty(0)] * N, [[torch.empty(0)]] * N
    for i in range(N - 1, 0, -1):
        z[i] = replay.normal(SHAPE, torch.float64)
        z_c[i] = [replay.normal(SHAPE, torch.float64) for _ in range(M)]
    return z, z_c


# ---- guidance ------------------------------------------------------------------------------------------------------------------


def log_p(x: Tensor, alpha_bar: Tensor) -> Tensor:
    """(B,) some noisy classifier's log probability, with no symmetry in x or in time."""
    weights = torch.linspace(-1, 1.5, x[0].numel(), dtype=torch.float64)
    score = (x.flatten(1) * weights).sum(1) * alpha_bar + x.flatten(1)[:, 0].square() / 4
    return -torch.nn.functional.softplus(-score)


def classifier_of(process: DiscreteVP) -> Any:
    """The classifier as guidance asks it, and its gradient as the paper does."""

    def log_prob(x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        return log_p(x_t, process.alpha_bar[int(t)])

    def grad_log_p(x: Tensor, t: int) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(log_p(x, process.alpha_bar[t]).sum(), x)[0]

    return log_prob, grad_log_p


class TwoHeads(nn.Module):
    """A network that learns the variance as well."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.variance = Net(), Net()

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return torch.cat([self.mean(x, c_noise), torch.tanh(self.variance(x.flip(1), c_noise))], 1)


@pytest.mark.parametrize("noise", ["posterior", "large", "learned"])
@pytest.mark.parametrize("process", PROCESSES)
def test_guided_diffusion_algorithm_1(process: DiscreteVP, noise: Any) -> None:
    net, (x_T, rng, replay), s = TwoHeads(), start(6), 2.5
    T, (log_prob, grad_log_p) = len(process.beta) - 1, classifier_of(process)
    guided = ClassifierGuidance(NetDenoiser(net, process, learn_variance=True), log_prob, s)
    ours = sample(guided, DDPM(noise, mean_shift=True), Uniform().times(process, T), x_T, rng)
    beta, alpha_bar = process.beta, process.alpha_bar

    def heads(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        c_noise = (torch.log((1 - alpha_bar[t]) / alpha_bar[t]) / 8).clamp(-2.5, 2.5)
        eps, v = net(x, c_noise.expand(len(x))).chunk(2, 1)
        return eps, (v + 1) / 2

    def mu_theta(x: Tensor, t: int) -> Tensor:
        return (x - beta[t] / (1 - alpha_bar[t]).sqrt() * heads(x, t)[0]) / (1 - beta[t]).sqrt()

    def Sigma_theta(x: Tensor, t: int) -> Tensor:
        small, v = (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]) * beta[t], heads(x, t)[1]
        if t == 1:  # the last step is certain
            return torch.zeros_like(x)
        learned = (v * beta[t].log() + (1 - v) * small.log()).exp()
        return {"posterior": small.expand_as(x), "large": beta[t].expand_as(x), "learned": learned}[noise]

    z = [torch.zeros_like(x_T)] * 2 + [replay.normal(SHAPE, torch.float64) for _ in range(T - 1)][::-1]
    with torch.no_grad():
        close(ours, guided_diffusion.algorithm_1(mu_theta, Sigma_theta, grad_log_p, x_T, z, s))
        through_belief = sample(guided, DDPM(noise), Uniform().times(process, T), x_T, SampleNoise(7, INDICES))
    assert not torch.allclose(ours, through_belief, atol=1e-3)


@pytest.mark.parametrize("process", PROCESSES)
def test_guided_diffusion_algorithm_2(process: DiscreteVP) -> None:
    net, (x_T, rng, _), s = Net(), start(7), 1.7
    log_prob, grad_log_p = classifier_of(process)
    guided = ClassifierGuidance(NetDenoiser(net, process), log_prob, s)
    ours = sample(guided, DDIM(), Uniform().times(process, len(process.beta) - 1), x_T, rng)
    with torch.no_grad():
        theirs = guided_diffusion.algorithm_2(
            lambda x, t: eps_theta(net, process, x, t), grad_log_p, x_T, process.alpha_bar, s
        )
    close(ours, theirs)


def test_the_step_s_own_variance_is_nearly_what_guidance_through_the_belief_does() -> None:
    """The belief's shift of the mean is beta / sqrt(1 - beta) g: algorithm 1 with a slightly larger Sigma than the large one."""
    process = LinearVP(steps=30, beta_end=0.3)
    net, (x_T, _, _), s = Net(), start(8), 2.5
    log_prob, grad_log_p = classifier_of(process)
    guided = ClassifierGuidance(NetDenoiser(net, process), log_prob, s)
    t = torch.tensor([11.0, 10.0], dtype=torch.float64)
    ours = sample(guided, DDPM("large"), t, x_T, SampleNoise(9, INDICES))
    beta, z = process.beta[11], SampleNoise(9, INDICES).normal(SHAPE, torch.float64)
    with torch.no_grad():
        eps = eps_theta(net, process, x_T, 11)
    mean = (x_T - beta / (1 - process.alpha_bar[11]).sqrt() * eps) / (1 - beta).sqrt()
    close(ours, mean + s * beta / (1 - beta).sqrt() * grad_log_p(x_T, 11) + beta.sqrt() * z)


# ---- CLIP ----------------------------------------------------------------------------------------------------------------------


class Vectors(nn.Module):
    """What a network says of a picture, as a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.net(x, c_noise).flatten(1)


class Letters(nn.Module):
    """A vector for each letter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(9, width)

    def forward(self, text: Tensor) -> Tokens:
        return Tokens(self.table(text.clamp(min=0)), text != -1)


CAPTIONS = torch.tensor([[1, 2, 3, 4], [5, -1, -1, -1], [7, 1, 8, -1]])


def clip_of(process: DiscreteVP, t: float) -> Clip:
    """A small CLIP in float64, whose logits are scaled by exp(t)."""
    torch.manual_seed(3)
    towers = Towers(PictureTower(Vectors(), 10), CaptionTower(Letters(6), 6, 10)).double()
    nn.init.constant_(towers.log_scale, t)
    return Clip(towers, process, Condition("text", 9, shape=(4,), encoder="bytes"))


@pytest.mark.parametrize("t", [-0.5, 1.3, 3.0])
def test_clip_figure_3(t: float) -> None:
    module, process = clip_of(PROCESSES[0], t), PROCESSES[0]
    x = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    times = LogNormal(0.0, 1.0)
    loss = ContrastiveObjective(times, clean=0.4)(module, Batch(x, {"text": CAPTIONS}), SampleNoise(8, INDICES))
    replay = SampleNoise(8, INDICES)
    at = times.quantile(process, spread(replay, True))
    at = torch.where(replay.uniform() < 0.4, 0.0, at)
    x_t = process.add_noise(x, at, replay.normal_like(x))
    assert 0 < int((at == 0).sum()) < 3
    towers = module.network
    with torch.no_grad():
        level = (-process.log_snr(at) / 8).clamp(-2.5, 2.5)
        I_f = towers.pictures.network(x_t, level) + towers.pictures.origin
        states = [towers.captions.tokens.table(row[row >= 0]).mean(0) for row in CAPTIONS]  # type: ignore[union-attr, operator]
    out = towers.captions.out
    T_f = torch.cat([torch.stack(states), torch.ones(3, 1, dtype=torch.float64)], 1)  # the bias is a weight of 1
    W_t = torch.cat([out.weight.T, out.bias[None]]).detach()
    theirs = clip.figure_3(I_f.numpy(), T_f.numpy(), np.eye(10), W_t.numpy(), t)
    assert float(loss.total.detach().mean()) == pytest.approx(theirs, rel=1e-10)


@pytest.mark.parametrize("process", PROCESSES)
def test_glide_clip_guidance(process: DiscreteVP) -> None:
    net, (x_T, rng, replay), s = Net(), start(6), 2.5
    T, module = len(process.beta) - 1, clip_of(process, 1.5)
    g_c = module.captions(CAPTIONS).detach()
    guided = SimilarityGuidance(OnlyKnown(NetDenoiser(net, process), ()), module.log_prob, s)
    sampler, times = DDPM("large", mean_shift=True), Uniform().times(process, T)
    ours = sample(guided, sampler, times, x_T, rng, {WANTED: g_c})
    beta, alpha_bar = process.beta, process.alpha_bar

    def f(x: Tensor, t: int) -> Tensor:
        c_noise = (torch.log((1 - alpha_bar[t]) / alpha_bar[t]) / 8).clamp(-2.5, 2.5)
        v = module.network.pictures.network(x, c_noise.expand(len(x))) + module.network.pictures.origin
        return v / v.norm(dim=1, keepdim=True)

    def mu_theta(x: Tensor, t: int) -> Tensor:
        with torch.no_grad():
            eps = eps_theta(net, process, x, t)
        return (x - beta[t] / (1 - alpha_bar[t]).sqrt() * eps) / (1 - beta[t]).sqrt()

    def Sigma_theta(x: Tensor, t: int) -> Tensor:
        return beta[t].expand_as(x) if t > 1 else torch.zeros_like(x)  # the last step is certain

    z = [torch.zeros_like(x_T)] * 2 + [replay.normal(SHAPE, torch.float64) for _ in range(T - 1)][::-1]
    theirs = glide.clip_guidance(mu_theta, Sigma_theta, f, g_c, x_T, z, s * math.exp(1.5))
    close(ours, theirs.detach())
    unguided = sample(NetDenoiser(net, process), sampler, times, x_T, SampleNoise(6, INDICES))
    assert not torch.allclose(ours, unguided, atol=1e-3)


class OfAnEmbedding(nn.Module):
    """A network that is told an embedding, or none (NaN)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor, c_noise: Tensor, image_embedding: Tensor) -> Tensor:
        told = image_embedding.nan_to_num(nan=0.3).reshape(-1, *SHAPE)
        F: Tensor = self.net(x + told, c_noise) + torch.sin(2 * told)
        return F


@pytest.mark.parametrize("process", PROCESSES)
def test_unclip(process: DiscreteVP) -> None:
    """Caption -> two samples of the prior -> the better one -> picture; and a change of the embedding."""
    net, T, beta = Net(), len(process.beta) - 1, process.beta
    times, unit = Uniform().times(process, T), torch.nn.functional.normalize
    prior, ours, theirs = NetDenoiser(net, process, "x_0"), [], []

    def f_theta(z: Tensor, t: int) -> Tensor:
        with torch.no_grad():
            return eps_theta(net, process, z, t)  # the network's output, whatever it stands for

    for seed in (21, 22):
        x_T, rng, replay = start(seed)
        ours.append(sample(prior, DDPM(), times, x_T, rng).flatten(1))
        noise = [torch.zeros_like(x_T)] * 2 + [replay.normal(SHAPE, torch.float64) for _ in range(T - 1)][::-1]
        theirs.append(unclip.prior(f_theta, beta, x_T, noise).flatten(1))
        close(ours[-1], theirs[-1])
    z_t = unit(
        f64(1, -1, 1).unsqueeze(1) * (ours[0] - ours[1]), dim=1
    )  # of the second sample the second is the better one
    z_i = best(torch.stack(ours), z_t)
    assert [bool((z_i[k] == ours[0][k]).all()) for k in range(3)] == [True, False, True]
    close(z_i, unclip.chosen(theirs[0], theirs[1], z_t))
    decoder, (x_T, rng, _) = OfAnEmbedding(), start(23)
    guided = ClassifierFreeGuidance(NetDenoiser(decoder, process, "eps"), 2.5)
    x = sample(guided, DDIM(), times, x_T, rng, {"image_embedding": z_i})

    def eps_of(x: Tensor, t: int, z: Tensor | None) -> Tensor:
        alpha_bar = (1 - beta).cumprod(0)[t]
        level = (torch.log((1 - alpha_bar) / alpha_bar) / 8).clamp(-2.5, 2.5).expand(len(x))
        with torch.no_grad():
            F: Tensor = decoder(x, level, torch.full_like(z_i, torch.nan) if z is None else z)
        return F

    close(x, unclip.decoder(eps_of, beta, x_T, z_i, 2.5))
    thetas = f64(0, 0.25, 0.5, 1)
    turned = text_diff(unit(z_i[0], dim=0), z_t[0], z_t[1], thetas)
    for theta, z in zip(thetas, turned, strict=True):
        close(z, unclip.text_diff(unit(z_i[0], dim=0), z_t[0], z_t[1], float(theta)))


class Conditional(nn.Module):
    """A network with a class, and a variance fraction v that is the same everywhere."""

    def __init__(self, v: float) -> None:
        super().__init__()
        self.net, self.v = Net(), v

    def eps(self, x: Tensor, c_noise: Tensor, label: Tensor) -> Tensor:
        by_class = torch.where(label >= 0, torch.sin(label + 1.0), torch.zeros(())).to(x.dtype)
        F: Tensor = self.net(x, c_noise) + by_class.reshape(-1, 1, 1) * torch.tanh(x)
        return F

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor) -> Tensor:
        F = self.eps(x, c_noise, label)
        return torch.cat([F, torch.full_like(F, 2 * self.v - 1)], 1)


@pytest.mark.parametrize(("v", "noise"), [(0.0, "posterior"), (1.0, "large"), (0.3, "learned")])
def test_classifier_free_guidance_algorithm_2(v: float, noise: Any) -> None:
    net, (z_1, rng, replay), w = Conditional(v), start(10), 1.8
    process, label = VP(), torch.tensor([2, 0, 1])
    times = torch.linspace(0.98, 0, 9, dtype=torch.float64)
    guided = ClassifierFreeGuidance(NetDenoiser(net, process, learn_variance=True), 1 + w)
    with torch.no_grad():
        ours = sample(guided, DDPM(noise), times, z_1, rng, {"label": label})
        lambda_ = process.log_snr(times[:-1])

        def eps_theta(z: Tensor, t: int, label: Tensor) -> Tensor:
            return net.eps(z, (-lambda_[t] / 8).expand(3), label)

        draws = [replay.normal(SHAPE, torch.float64) for _ in times[2:]]
        theirs = cfg.algorithm_2(
            lambda z, t: eps_theta(z, t, label),
            lambda z, t: eps_theta(z, t, torch.full((3,), -1)),
            z_1,
            lambda_,
            draws,
            w,
            v,
        )
    close(ours, theirs)


@pytest.mark.parametrize("p", [80.0, 99.5])
def test_imagen_thresholding(p: float) -> None:
    process = LinearVP(steps=30, beta_end=0.3)
    denoiser, t = NetDenoiser(Net(), process), torch.tensor(20.0, dtype=torch.float64)
    x = 3 * start(11)[0]
    with torch.no_grad():
        believed = denoiser(x, t).x_0.numpy()
        dynamic, static = DynamicThreshold(denoiser, p)(x, t).x_0, ClipX0(denoiser)(x, t).x_0
    close(dynamic, torch.from_numpy(imagen.dynamic_thresholding(believed, p)))
    close(static, torch.from_numpy(imagen.static_thresholding(believed)))
    assert not torch.allclose(dynamic, static, atol=1e-2)


# ---- the variational bound, and a learned variance -----------------------------------------------------------------------------


def whole_numbers(n: int) -> Tensor:
    """Bytes, the outermost among them, in [-1, 1]."""
    x = torch.randint(0, 256, (n, *SHAPE), generator=torch.Generator().manual_seed(2)).double()
    x[:, 0, :2] = torch.tensor([0.0, 255.0], dtype=torch.float64)
    return (x - 127.5) / 127.5


BYTES = DiscretizedDecoder(torch.tensor(2 / 255, dtype=torch.float64))


@pytest.mark.parametrize("noise", ["posterior", "large"])
@pytest.mark.parametrize("process", PROCESSES)
def test_ddpm_variational_bound(process: DiscreteVP, noise: Any) -> None:
    net, x_0, T = Net(), whole_numbers(3), len(process.beta) - 1
    rng, replay = SampleNoise(5, INDICES), SampleNoise(5, INDICES)
    chain = Chain(process, chain_times(process), noise, BYTES)
    ours = variational_bound(NetDenoiser(net, process), chain, x_0, rng)
    eps = [torch.empty(0)] + [replay.normal(SHAPE, torch.float64) for _ in range(T)][::-1]
    prior_std = float((1 - process.alpha_bar[-1]).sqrt())  # our noise begins with what there is at T, not with 1
    with torch.no_grad():
        papers = ddpm_bound.variational_bound(
            lambda x, n: eps_theta(net, process, x, n),
            x_0,
            eps,
            process.beta,
            fixed_large=noise == "large",
            prior_std=prior_std,
        )
    close(ours.steps.flip(0), papers[:-1])
    close(ours.prior, papers[-1])
    close(ours.total, papers.sum(0))


class WithVariance(nn.Module):
    """A network whose second half of channels is the raw variance."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.variance = Net(), Net()
        self.variance.first.data *= -0.6

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return torch.cat([self.mean(x, c_noise), self.variance(x, c_noise)], 1)


def v_theta(net: WithVariance, process: DiscreteVP, x: Tensor, t: int) -> Tensor:
    return (eps_theta(net.variance, process, x, t) + 1) / 2


@pytest.mark.parametrize("grid", [Uniform(), Leading()])
@pytest.mark.parametrize("process", PROCESSES)
def test_iddpm_strided_sampling(process: DiscreteVP, grid: Uniform | Leading) -> None:
    net, (x, rng, replay) = WithVariance(), start(30)
    times = grid.times(process, 7)
    ours = sample(NetDenoiser(net, process, learn_variance=True), DDPM("learned"), times, x, rng)
    S = [int(t) for t in times.flip(0)]
    z = [torch.empty(0)] * 2  # the last step, to the data, draws nothing
    z += [replay.normal(SHAPE, torch.float64) for _ in S[2:]][::-1]
    eps, v = (lambda x, n: eps_theta(net.mean, process, x, n)), (lambda x, n: v_theta(net, process, x, n))
    close(ours, iddpm.sample(eps, v, x, S, z, process.alpha_bar))
    # and the betas of the strided chain are what the process says of its longer steps
    beta, beta_tilde = iddpm.strided(process.alpha_bar, S)
    t, s = times[:-1].flip(0), times[1:].flip(0)
    close(process.transition_std(t, s).square(), beta[1:])
    close(process.posterior_std(t, s).square(), beta_tilde[1:])


@pytest.mark.parametrize("process", PROCESSES)
def test_iddpm_hybrid_loss(process: DiscreteVP) -> None:
    net, n, T = WithVariance(), 96, len(process.beta) - 1
    x_0, rng, replay = whole_numbers(n), SampleNoise(6, range(n)), SampleNoise(6, range(n))
    objective = HybridObjective(bin_width=2 / 255, stratified=False, vlb_weight=0.01)
    ours = objective(NetDenoiser(net, process, learn_variance=True), Batch(x_0), rng).total
    t = [int(u * T) + 1 for u in replay.uniform()]
    assert t.count(1) > 1
    assert t.count(2) > 1
    papers = iddpm.hybrid(
        lambda x, n: eps_theta(net.mean, process, x, n),
        lambda x, n: v_theta(net, process, x, n),
        x_0,
        t,
        replay.normal(SHAPE, torch.float64),
        process.alpha_bar,
        lambda x, mean, std: -BYTES.log_prob(x, mean, std),
        lambda_=0.01,
    )
    close(ours, papers)
    parameters = list(net.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(ours.mean(), parameters), torch.autograd.grad(papers.mean(), parameters), strict=True
    ):
        close(mine, theirs)


# ---- consistency models ------------------------------------------------------------------------------------------------------


def consistency_model() -> tuple[NetDenoiser, Any]:
    """A network that predicts eps, f(x, sigma) = x - sigma eps, as the library's denoiser and in the papers' signature."""
    net = Net()
    f = lambda x, sigma: edm_denoiser(net, 0.5, x, torch.tensor(sigma, dtype=torch.float64))  # noqa: E731
    return NetDenoiser(net, EDM(), sigma_data=0.5), f


def test_multistep_consistency_sampling() -> None:
    (module, f), (x, rng, replay) = consistency_model(), start(41)
    times = torch.tensor([80, 24.4, 5.84, 0.9, 0], dtype=torch.float64)
    ours = sample(module, Consistency(), times, module.process.prior_sample(x), rng)
    z = [replay.normal(SHAPE, torch.float64) for _ in range(3)]
    close(ours, consistency.algorithm_1(f, 80 * x, 80.0, [24.4, 5.84, 0.9], z, eps=0.0))
    assert rng.draws == replay.draws


@pytest.mark.parametrize("teacher", [False, True])
def test_consistency_distillation_and_training(teacher: bool) -> None:
    (module, f), N = consistency_model(), 12
    x = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rng, replay = SampleNoise(42, INDICES), SampleNoise(42, INDICES)
    pairs = KarrasPairs(first=N, last=N, growth="constant")
    objective = ConsistencyObjective(pairs=pairs, solver="ddim", distance="squared", weight="uniform", stratified=False)
    teaching = NetDenoiser(Net(), EDM(), sigma_data=1.7)  # another model: the same network, told another scale

    def drift(x: Tensor, t: float) -> Tensor:  # Phi of the teacher, dx/dt = (x - D(x, t)) / t
        return (x - edm_denoiser(teaching.network, 1.7, x, torch.tensor(t, dtype=torch.float64))) / t  # type: ignore[arg-type]

    with torch.no_grad():
        ours = objective(module, Batch(x), rng, ConsistencyCompanion(teaching if teacher else None)).total
    n = [1 + int(u * (N - 1)) for u in replay.uniform()]
    z, t = replay.normal(SHAPE, torch.float64), consistency.time_steps(N)
    t[0] = 0  # our boundary
    theirs = [
        consistency.consistency_loss(f, f, drift if teacher else None, x[i : i + 1], z[i : i + 1], t, n[i])
        for i in range(3)
    ]
    close(ours, torch.cat(theirs).square().flatten(1).mean(1))


def test_zero_shot_editing_with_a_consistency_model() -> None:
    (module, f), (x, rng, replay) = consistency_model(), start(43)
    y = torch.randn(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    Omega = (torch.arange(10).reshape(SHAPE) % 3 == 0).double()
    known = Known(y, lambda x: (1 - Omega) * x, lambda x: Omega * x)
    t = [60.0, 9.0, 2.0, 0.5]
    first = known.put(t[0] * x, y + t[0] * x)
    ours = sample(KnownBelief(module, known), Consistency(), torch.tensor([*t, 0], dtype=torch.float64), first, rng)
    z = [x, *(replay.normal(SHAPE, torch.float64) for _ in range(3))]
    close(ours, consistency.algorithm_4(f, y.expand(3, *SHAPE), Omega, t, z, eps=0.0))


# ---- distillation ----------------------------------------------------------------------------------------------------


class Guidable(nn.Module):
    """A network with classes, of which -1 is none; asked without, it is asked for none."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.shift = nn.Parameter(torch.linspace(-0.9, 0.7, 4, dtype=torch.float64))

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        label = torch.full((len(x),), -1) if label is None else label
        F: Tensor = self.net(x + self.shift[label + 1].reshape(-1, 1, 1), c_noise)
        return F


@pytest.mark.parametrize("process", [VP(), RectifiedFlow()])
@pytest.mark.parametrize("w", [None, (1.0, 4.0)])
def test_progressive_distillation_algorithm_2(process: VP | RectifiedFlow, w: tuple[float, float] | None) -> None:
    N = 3
    teacher_net, student_net = Guidable(), Net()
    student_net.load_state_dict({name: 0.7 * value for name, value in student_net.state_dict().items()})
    teacher = NetDenoiser(teacher_net, process, "v")
    student = Deaf(student_net, process, "v")
    objective = ProgressiveObjective(steps=N, grid=Strided(Uniform(), 2 * N), guidance_range=w or ())
    companion = Teacher(ClassifierFreeGuidance(teacher, 1.0) if w else teacher)
    batch = Batch(torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(3, *SHAPE), {"label": torch.tensor([0, 2, 1])})
    rng, replay = SampleNoise(5, INDICES), SampleNoise(5, INDICES)
    loss = objective(student, batch, rng, companion)
    steps = (N - (N - 1 - (spread(replay, True) * N).long())).tolist()  # the paper counts from the data
    eps = replay.normal(SHAPE, torch.float64)
    scales = (w[0] + (w[1] - w[0]) * replay.uniform() if w else torch.ones(3)).tolist()

    def x_hat(denoiser: NetDenoiser, label: int | None) -> progressive.Model:
        cond = {} if label is None else {"label": torch.tensor([label])}
        return lambda z, t: denoiser(z, torch.tensor(t, dtype=torch.float64), **cond).x_0

    def teacher_x_hat(label: int, scale: float) -> progressive.Model:
        w = torch.tensor(scale - 1, dtype=torch.float64)
        return lambda z, t: progressive.guided(x_hat(teacher, label)(z, t), x_hat(teacher, -1)(z, t), w)

    def alpha(t: float) -> Tensor:
        return process.alpha(torch.tensor(t, dtype=torch.float64))

    def sigma(t: float) -> Tensor:
        return process.sigma(torch.tensor(t, dtype=torch.float64))

    for row, (i, label, scale) in enumerate(zip(steps, [0, 2, 1], scales, strict=True)):
        x, noise = batch.x[row : row + 1], eps[row : row + 1]
        models = x_hat(student, None), teacher_x_hat(label, scale)
        _, expected = progressive.algorithm_2_loss(*models, x, i, N, noise, alpha, sigma)
        close(loss.total[row], expected.mean())


class Deaf(NetDenoiser):
    """A student that does not listen to its conditions."""

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        return super().forward(x_t, t)


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


# ---- VQ-VAE ----------------------------------------------------------------------------------------------------------


def test_vq_vae_equations_and_appendix() -> None:
    """Two steps of training: codes, commitment, and the averages that the codes follow."""
    torch.manual_seed(0)
    K, D, beta, gamma = 5, 3, 0.25, 0.9
    book = VQ(codes=K, commitment=beta, decay=gamma, restart=0.0).build(D).double()
    e = book.get_buffer("codes").numpy().copy()
    start, m = np.full(K, 0.5), 0.5 * e  # so that no code is without any use
    book.get_buffer("uses").copy_(torch.from_numpy(start))
    book.get_buffer("sums").copy_(torch.from_numpy(m))
    N = start
    for seed in range(2):
        h = torch.randn(4, D, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        z_e = h.movedim(1, -1).reshape(-1, D).numpy()
        found = book(h, torch.zeros_like(h), numbers=1)
        ours = found.z.movedim(1, -1).reshape(-1, D).numpy()
        np.testing.assert_allclose(ours, vq_vae.equation_2(z_e, e), atol=1e-12)
        theirs = [vq_vae.commitment(z, e, beta) / (6 * D) for z in z_e.reshape(4, 6, D)]  # a mean over the numbers
        np.testing.assert_allclose(book.weight * found.penalty.numpy(), theirs, rtol=1e-12)
        N, m, e = vq_vae.appendix_a_1(N, m, e, z_e, gamma)
        book.follow()
        np.testing.assert_allclose(book.get_buffer("codes").numpy(), e, rtol=1e-12)

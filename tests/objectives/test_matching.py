"""Distribution matching: by hand, as in the paper, against the KL divergence of Gaussians, and learning a mixture."""

from __future__ import annotations

import math

import pytest
import torch
from numeric import Fast, f64
from torch import Tensor, nn

from unstir.denoiser import ChangeProcess, GaussianDenoiser, MixtureDenoiser, NetDenoiser
from unstir.errors import UserError
from unstir.guidance import ClassifierFreeGuidance, OnlyKnown
from unstir.objectives import Batch, LogNormal, MatchingObjective
from unstir.objectives.matching import Rivals, matching_gradient
from unstir.papers import dmd
from unstir.processes import EDM, VP
from unstir.samplers import Consistency
from unstir.samplers.grids import Karras
from unstir.sampling import SampleNoise, trajectory

MEAN, STD = f64(0.6, -0.3), f64(0.9, 0.4)


class Net(nn.Module):
    """Small, without any symmetry; hears a label where there is one."""

    def __init__(self, width: int = 16, seed: int = 3) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(
            nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )
        self.double()

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        level = c_noise[:, None] + (0 if label is None else 0.3 * label[:, None])
        out: Tensor = self.layers(torch.cat([x, level], 1))
        return out


def net(seed: int = 3, width: int = 16) -> NetDenoiser:
    return NetDenoiser(Net(width, seed), EDM(), "edm", sigma_data=0.7)


def data(n: int) -> Tensor:
    return torch.zeros(n, 2, dtype=torch.float64)


# ---- by hand, and as in the paper ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3])
def test_the_loss_and_its_gradients_are_the_papers(steps: int) -> None:
    """Algorithm 2 with the student's samples of backward simulation; the fake score's loss weighted as EDM's."""
    student, fake, teacher = net(1), net(2), GaussianDenoiser(EDM(), MEAN, STD)
    grid, times = Karras(sigma_min=0.3), LogNormal(0.2, 0.8)
    objective = MatchingObjective(grid=grid, steps=steps, times=times, stratified=False)
    indices = [0, 4, 7, 9, 11]
    got = objective(student, Batch(data(5)), SampleNoise(5, indices), Rivals(teacher, fake))
    # The same numbers, drawn in the same order.
    rng, like = SampleNoise(5, indices), data(5)
    last = (rng.uniform() * steps).long()
    z = rng.normal_like(like)
    noises = [rng.normal_like(like) for _ in range(steps - 1)]
    sigmas = grid.times(EDM(), steps)[:-1]

    def G(x_t: Tensor, sigma: Tensor) -> Tensor:
        x_0: Tensor = student(x_t, sigma).x_0
        return x_0

    shown = dmd.backward_simulation(G, z, sigmas, noises)
    x_t = torch.stack([shown[k][i] for i, k in enumerate(last.tolist())])
    x = student(x_t, sigmas[last]).x_0
    sigma_s = (0.2 + 0.8 * torch.special.ndtri(rng.uniform())).exp()[:, None]
    eps = rng.normal_like(like)

    def mu(denoiser: nn.Module) -> dmd.Mu:
        return lambda x_t, sigma: denoiser(x_t, sigma[:, 0]).x_0

    matching = dmd.distributionMatchingLoss(mu(teacher), mu(fake), x, eps, sigma_s)
    denoising = dmd.denoising_loss(mu(fake), x, eps, sigma_s) * (sigma_s**-2 + 0.7**-2)[:, 0]  # 1 / c_out²
    torch.testing.assert_close(got.parts["loss"], matching)
    torch.testing.assert_close(got.parts["fake"], denoising)
    torch.testing.assert_close(got.total, matching + denoising)
    torch.testing.assert_close(got.log_snr, -2 * sigma_s[:, 0].log())
    for weight, loss in ((student, matching), (fake, denoising)):
        ours = torch.autograd.grad(got.total.mean(), list(weight.parameters()), retain_graph=True)
        theirs = torch.autograd.grad(loss.mean(), list(weight.parameters()), retain_graph=True)
        for mine, paper in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, paper)
        assert sum(float(g.abs().sum()) for g in ours) > 1e-3


def test_in_training_a_step_begins_where_sampling_begins_it() -> None:
    """The same noise gives the same x_t as the sampler, stop for stop."""
    student, grid = net(1), Karras(sigma_min=0.3)
    objective = MatchingObjective(grid=grid, steps=3)
    like, rng = data(64), SampleNoise(1, range(64))
    x_t, t = objective.begin(student, like, {}, rng)
    again = SampleNoise(1, range(64))
    last = (again.uniform() * 3).long()
    assert last.bincount().min() > 10
    times = grid.times(EDM(), 3)
    x_T = EDM().prior_sample(again.normal_like(like), times[0])
    with torch.no_grad():
        walked = [x_T, *(step.x_s for step in trajectory(student, Consistency(), times, x_T, again))]
    for k in range(3):
        assert torch.equal(t[last == k], times[k].expand(int((last == k).sum())))
        torch.testing.assert_close(x_t[last == k], walked[k][last == k])


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_for_gaussians_it_is_the_gradient_of_the_kl_divergence(sigma: float) -> None:
    """Of samples a + b z, whose distribution is known: dKL/da and dKL/db of the noised ones, up to the factor sigma² and the size."""
    process, n = EDM(), 200_000
    a, b = f64(-0.4, 0.5).requires_grad_(), f64(0.3, 0.8).requires_grad_()
    rng = Fast(0, n)
    like = data(n)
    x = a + b * rng.normal_like(like)
    t = f64(sigma).expand(n)
    x_t = process.add_noise(x, t, rng.normal_like(like)).detach()
    real = GaussianDenoiser(process, MEAN, STD)(x_t, t).x_0
    fake = GaussianDenoiser(process, a.detach(), b.detach())(x_t, t).x_0
    gradient = matching_gradient(x.detach(), real, fake)
    size = (x.detach() - real).abs().mean(1, keepdim=True)
    got = torch.autograd.grad((x * gradient * size / sigma**2).sum() / n, [a, b])
    v, w = b**2 + sigma**2, STD**2 + sigma**2
    kl = (0.5 * (w / v).log() + (v + (a - MEAN) ** 2) / (2 * w)).sum()
    for mine, exact in zip(got, torch.autograd.grad(kl, [a, b]), strict=True):
        torch.testing.assert_close(mine, exact, atol=0.02 / sigma, rtol=0.03)


# ---- learning ------------------------------------------------------------------------------------------------------------------

CORNERS = f64(1, 1, -1, 1, -1, -1, 1, -1).reshape(4, 2)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """0 for two samples of one distribution, on average; of any two others more."""
    n, m = len(x), len(y)
    within = torch.cdist(x, x).sum() / (n * (n - 1)) + torch.cdist(y, y).sum() / (m * (m - 1))
    return float(2 * torch.cdist(x, y).mean() - within)


def test_a_student_comes_to_draw_what_the_teacher_draws() -> None:
    """Four corners, from a network that has learned nothing: in one step, without a sample of theirs."""
    torch.manual_seed(0)
    process = EDM(sigma_max=20.0)
    teacher = MixtureDenoiser(process, CORNERS, f64(0.15).expand(4, 2))
    student = NetDenoiser(Net(48, 1), process, "edm", sigma_data=1.0)
    fake = NetDenoiser(Net(48, 2), process, "edm", sigma_data=1.0)
    objective, rivals = MatchingObjective(times=LogNormal(-0.5, 1.2)), Rivals(teacher, fake)
    truth = CORNERS[torch.arange(2000) % 4] + 0.15 * Fast(8, 2000).normal_like(data(2000))
    z, t = 20 * Fast(9, 2000).normal_like(data(2000)), f64(20)

    def distance() -> float:
        with torch.no_grad():
            return energy_distance(student(z, t).x_0, truth)

    optimizers = [torch.optim.Adam(student.parameters(), 1e-3), torch.optim.Adam(fake.parameters(), 3e-3)]
    before, steps = distance(), 1500
    for step in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        objective(student, Batch(data(256)), Fast(step, 256), rivals).total.mean().backward()
        for optimizer in optimizers:
            optimizer.step()
    assert before > 0.15
    assert distance() < before / 8


# ---- what it is built of -------------------------------------------------------------------------------------------------------


def test_the_fake_score_begins_as_the_teacher_unguided_and_only_it_is_trained() -> None:
    bare = net()
    teacher = OnlyKnown(ClassifierFreeGuidance(bare, 3.0), ["label"])
    companion = MatchingObjective(teacher="there").companion(EDM(), teacher)
    assert isinstance(companion, Rivals)
    assert companion.fake is not bare
    x, t = data(3) + 0.3, f64(0.5, 1, 2)
    assert torch.equal(companion.fake(x, t).x_0, bare(x, t).x_0)
    assert all(not p.requires_grad for p in bare.parameters())
    learned = {id(p) for p in companion.parameters() if p.requires_grad}
    assert learned == {id(p) for p in companion.fake.parameters()}
    assert set(companion.state_dict()) == {"fingerprint", *(f"fake.{name}" for name in bare.state_dict())}


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="at least 1, not 0"):
        MatchingObjective(steps=0)
    with pytest.raises(UserError, match="one guidance scale for good"):
        MatchingObjective(guidance_range=(1, 4))
    with pytest.raises(UserError, match="its teacher's process"):
        MatchingObjective(teacher="there").companion(VP(), ChangeProcess(net(), VP()))
    with pytest.raises(UserError, match="learns from a run"):
        MatchingObjective().companion(EDM())


def test_equal_beliefs_move_nothing_and_exact_ones_do_not_divide_by_zero() -> None:
    x = torch.ones(2, 3)
    assert torch.equal(matching_gradient(x, x, x), torch.zeros(2, 3))
    assert math.isfinite(float(matching_gradient(x, x, x + 1e-9).abs().max()))

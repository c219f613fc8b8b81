"""The consistency objective: by hand, at its boundary, against the exact consistency function, and learning it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from numeric import Fast, f64
from torch import Tensor, nn

from unstir.denoiser import Denoiser, GaussianDenoiser, MixtureDenoiser, NetDenoiser
from unstir.errors import UserError
from unstir.linear import CorrectingDenoiser, LinearDenoiser
from unstir.objectives import (
    Batch,
    ConsistencyObjective,
    KarrasPairs,
    LogNormal,
    LogNormalPairs,
    Pairs,
    ShrinkingPairs,
)
from unstir.objectives.consistency import ConsistencyCompanion, consistent
from unstir.objectives.discretization import karras
from unstir.parameterization import PARAMETERIZATIONS
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import EDM, PROCESSES, VP, RectifiedFlow
from unstir.samplers import Heun
from unstir.samplers.grids import Karras
from unstir.sampling import SampleNoise, sample

MEAN, STD = f64(0.6, -0.3), f64(0.9, 0.4)


def gaussian(process: Process) -> GaussianDenoiser:
    return GaussianDenoiser(process, MEAN, STD)


def consistency_function(process: Process, x: Tensor, t: Tensor) -> Tensor:
    """What the probability flow of N(MEAN, STD²) makes of x (B, 2) at t (B,)."""
    return gaussian(process).flow_map(x, t, torch.zeros_like(t))


class Exact(NetDenoiser):
    """The exact consistency function of the Gaussian, as a denoiser."""

    def __init__(self, process: Process) -> None:
        super().__init__(nn.Identity(), process, "edm", sigma_data=0.7)

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        alpha, sigma = self.process.scales(t, x_t)
        x_0 = consistency_function(self.process, x_t, t)
        return Prediction(x_t, x_0, (x_t - alpha * x_0) / sigma, alpha, sigma)


class Net(nn.Module):
    """Small, without any symmetry; hears a label where there is one."""

    def __init__(self, width: int = 24, entries: int = 2) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.last = nn.Linear(entries + 1, width), nn.Linear(width, entries)
        self.double()

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        level = c_noise[:, None] + (0 if label is None else 0.3 * label[:, None])
        out: Tensor = self.last(torch.tanh(self.first(torch.cat([x.flatten(1), level], 1))))
        return out.reshape(x.shape)


def data(n: int, seed: int = 0) -> Tensor:
    return MEAN + STD * Fast(seed, n).normal_like(torch.empty(n, 2, dtype=torch.float64))


# ---- by hand -------------------------------------------------------------------------------------------------------------------


def pairs_by_hand(u: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """EDM's levels 0.002 .. 80, of which the lowest is 0; n = floor(u (N - 1)) counts from 0."""
    i = torch.arange(N, dtype=torch.float64)
    levels = (0.002 ** (1 / 7) + i / (N - 1) * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7
    levels[0] = 0
    n = (u * (N - 1)).long()
    return levels[n + 1], levels[n]


@pytest.mark.parametrize("teacher", [False, True])
def test_the_value_by_hand(teacher: bool) -> None:
    """EDM's network written out, the paper's pseudo-Huber distance (a sum, with c = 0.00054 sqrt(D)), Heun's step."""
    sd, x_0, N = 0.5, data(3), 9
    net = Net()
    pairs = KarrasPairs(last=N, first=N, growth="constant")
    objective = ConsistencyObjective(pairs=pairs, stratified=False)
    companion = ConsistencyCompanion(gaussian(EDM()) if teacher else None)
    got = objective(NetDenoiser(net, EDM(), "edm", sigma_data=sd), Batch(x_0), SampleNoise(5, [0, 4, 7]), companion)
    replay = SampleNoise(5, [0, 4, 7])
    t, s = (value[:, None] for value in pairs_by_hand(replay.uniform(), N))
    eps = replay.normal((2,), torch.float64)

    def f(x: Tensor, sigma: Tensor) -> Tensor:
        c_skip, c_out = sd**2 / (sigma**2 + sd**2), sigma * sd / (sigma**2 + sd**2).sqrt()
        level = (sigma.clamp(min=math.exp(-10)).log() / 4)[:, 0]
        return c_skip * x + c_out * net(x / (sigma**2 + sd**2).sqrt(), level)

    def slope(x: Tensor, sigma: Tensor) -> Tensor:  # dx/dsigma of the Gaussian's probability flow
        return sigma / (STD**2 + sigma**2) * (x - MEAN)

    x_t, x_s = x_0 + t * eps, x_0 + s * eps
    if teacher:
        euler = x_t + (s - t) * slope(x_t, t)
        heun = x_t + (s - t) * (slope(x_t, t) + slope(euler, s)) / 2
        x_s = torch.where(s == 0, euler, heun)
    difference = f(x_t, t) - torch.where(s == 0, x_s, f(x_s, s))
    c = 0.00054 * math.sqrt(2)
    paper = ((difference.square().sum(1) + c**2).sqrt() - c) / (t - s)[:, 0]
    torch.testing.assert_close(got.total, paper / math.sqrt(2))
    torch.testing.assert_close(got.parts["distance"], paper * (t - s)[:, 0] / math.sqrt(2))
    torch.testing.assert_close(got.log_snr, -2 * t[:, 0].log())


def test_the_other_weights_and_the_square() -> None:
    x_0, module = data(4), NetDenoiser(Net(), EDM(), "edm", sigma_data=0.5)
    pairs = KarrasPairs(last=9, first=9, growth="constant")

    def loss(**settings: Any) -> Any:
        return ConsistencyObjective(pairs=pairs, distance="squared", **settings)(
            module, Batch(x_0), SampleNoise(1, range(4))
        )

    plain, edm = loss(weight="uniform"), loss(weight="edm")
    torch.testing.assert_close(plain.total, plain.parts["distance"])
    torch.testing.assert_close(edm.total, plain.total * (edm.log_snr.exp() + 4))
    rough = ConsistencyObjective(pairs=pairs, weight="uniform")(module, Batch(x_0), SampleNoise(1, range(4)))
    torch.testing.assert_close(rough.total, (plain.total + 0.00054**2).sqrt() - 0.00054)


def test_the_target_is_held_still() -> None:
    """The gradient is the one for a target that does not change with the weights."""
    module = NetDenoiser(Net(), EDM(), "edm", sigma_data=0.5)
    objective = ConsistencyObjective(
        pairs=KarrasPairs(last=9, first=9, growth="constant"), distance="squared", weight="uniform"
    )
    batch, weight = Batch(data(4)), module.network.last.weight  # type: ignore[union-attr]
    (got,) = torch.autograd.grad(objective(module, batch, SampleNoise(1, range(4))).total.mean(), weight)
    held = ConsistencyCompanion(decay=lambda fraction: 0.0)
    held.begin(module)
    (fixed,) = torch.autograd.grad(objective(module, batch, SampleNoise(1, range(4)), held).total.mean(), weight)
    torch.testing.assert_close(got, fixed)
    weight.data[0, 0] += 1e-6  # and by difference quotient, while the held copy stays
    up = objective(module, batch, SampleNoise(1, range(4)), held).total.mean()
    weight.data[0, 0] -= 2e-6
    down = objective(module, batch, SampleNoise(1, range(4)), held).total.mean()
    assert float(got[0, 0]) == pytest.approx(float((up - down).detach()) / 2e-6, rel=1e-4)


class Dropping(nn.Module):
    """Dropout and nothing else; remembers what it dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.masks: list[Tensor] = []

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        self.masks.append(torch.nn.functional.dropout(torch.ones_like(x), 0.5, self.training))
        return self.weight * self.masks[-1]


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_both_answers_are_drawn_under_one_dropout_mask(decay: float) -> None:
    module, objective = NetDenoiser(Dropping(), EDM(), "edm"), ConsistencyObjective(target_decay=decay)
    companion = objective.companion(EDM())
    assert companion is not None
    companion.begin(module.train())
    torch.manual_seed(0)
    for _ in range(2):
        objective(module, Batch(torch.zeros(8, 5, dtype=torch.float64)), SampleNoise(1, range(8)), companion)
    student = module.network.masks  # type: ignore[union-attr]
    target = companion.target.network.masks if decay else student[::2]  # type: ignore[union-attr]
    student = student if decay else student[1::2]
    assert len(target) == len(student) == 2
    for ours, theirs in zip(student, target, strict=True):  # type: ignore[arg-type]
        assert torch.equal(ours, theirs)
        assert 0 < float((ours == 0).double().mean()) < 1
    assert not torch.equal(student[0], student[1])  # type: ignore[index]


# ---- the boundary --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize("process", PROCESSES)
def test_the_answer_at_the_data_is_what_was_asked_about(process: str, name: str) -> None:
    module = NetDenoiser(Net(), PROCESSES[process](), name, sigma_data=0.5)
    x, s = data(4), f64(0, 1, 0, 1) * PROCESSES[process]().t_max / 2
    got = consistent(module, x, s, {})
    assert torch.equal(got[[0, 2]], x[[0, 2]])
    torch.testing.assert_close(got[[1, 3]], module(x, s).x_0[[1, 3]])
    if name != "x_0":  # whose network may say what it likes there
        torch.testing.assert_close(module(x, torch.zeros(4, dtype=torch.float64)).x_0, x)


def test_a_corrected_linear_denoiser_keeps_to_the_boundary_and_is_right_about_what_is_linear() -> None:
    class Zero(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
            return torch.zeros_like(x[:, :2])

    linear = LinearDenoiser(EDM(), (2,), 2).double()
    linear.mean.copy_(MEAN), linear.directions.copy_(torch.eye(2)), linear.variances.copy_(STD**2)  # type: ignore[unused-ignore]
    module = CorrectingDenoiser(Zero(), linear, sigma_data=0.7)
    x = data(5, seed=2)
    torch.testing.assert_close(module(x, torch.zeros(5, dtype=torch.float64)).x_0, x)
    # Both go to x; the linear belief v / (v + sigma²) falls short of sqrt(v / (v + sigma²)) by half of sigma² / v.
    t = torch.full((5,), 0.01, dtype=torch.float64)
    wanted = 1e-4 / 2 / STD**2 * (x - MEAN)
    torch.testing.assert_close(consistency_function(EDM(), x, t) - module(x, t).x_0, wanted, rtol=2e-3, atol=1e-8)


# ---- the exact consistency function --------------------------------------------------------------------------------------------


def mean_loss(
    module: NetDenoiser, objective: ConsistencyObjective, teacher: Denoiser | None = None, n: int = 2000
) -> float:
    companion = ConsistencyCompanion(teacher)
    companion.at(1.0)
    return float(objective(module, Batch(data(n)), Fast(1, n), companion).total.detach().mean())


@pytest.mark.parametrize("process", [EDM(), VP(), RectifiedFlow()], ids=["edm", "vp", "rectified-flow"])
@pytest.mark.parametrize(("solver", "order"), [("ddim", 4), ("heun", 6), ("", 2)])
def test_the_loss_of_the_exact_function_vanishes_with_the_solvers_order(
    process: Process, solver: Any, order: int
) -> None:
    """A solver's local error of order p + 1 in the step, squared; without a teacher the path of a sample is not the flow's, and the two
    answers differ by the order of the step itself."""
    settings: dict[str, Any] = {"solver": solver} if solver else {}
    losses = []
    for N in (64, 128):
        objective = ConsistencyObjective(
            pairs=KarrasPairs(first=N, last=N, growth="constant"), distance="squared", weight="uniform", **settings
        )
        losses.append(mean_loss(Exact(process), objective, gaussian(process) if solver else None))
    assert math.log2(losses[0] / losses[1]) == pytest.approx(order, abs=0.35)
    assert 0 < losses[1] < {4: 1e-4, 6: 1e-6, 2: 1e-2}[order]


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("process", ["edm", "vp", "sub-vp", "cosine", "rectified-flow"])
def test_of_one_point_the_consistency_function_is_that_point(process: str, taught: bool) -> None:
    point, here = f64(0.4, -1.1), PROCESSES[process]()

    class Point(Exact):
        def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
            alpha, sigma = self.process.scales(t, x_t)
            x_0 = point.expand_as(x_t)
            eps = torch.where(sigma == 0, 0, (x_t - alpha * x_0) / sigma)
            return Prediction(x_t, x_0, eps, alpha, sigma)

    for pairs in (KarrasPairs(), ShrinkingPairs(), LogNormalPairs()):
        objective = ConsistencyObjective(pairs=pairs, distance="squared", weight="uniform")
        companion = ConsistencyCompanion(Point(here) if taught else None)
        for fraction in (0.0, 0.4, 1.0):
            companion.at(fraction)
            loss = objective(Point(here), Batch(point.expand(50, 2)), SampleNoise(1, range(50)), companion)
            assert float(loss.total.max()) < 1e-18


# ---- learning it ---------------------------------------------------------------------------------------------------------------


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


def learned(process: Process, objective: ConsistencyObjective, teacher: Denoiser | None, steps: int) -> list[float]:
    """Root-mean-square errors of a tiny student's one-step samples, before, half-way through and after training."""
    module = NetDenoiser(Modulated(), process, "edm", sigma_data=0.7)
    companion = replace(objective, teacher="there" if teacher else "").companion(process, teacher)
    assert companion is not None
    companion.begin(module)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    end = karras(process).times(process, 1)[:1].expand(500)
    x_T = process.prior_sample(Fast(9, 500).normal_like(torch.empty(500, 2, dtype=torch.float64)), end[0])
    wanted = consistency_function(process, x_T, end)
    errors = []
    for step in range(steps + 1):
        if step in (0, steps // 2, steps):
            with torch.no_grad():
                errors.append(float((module(x_T, end).x_0 - wanted).square().mean().sqrt()))
        companion.at(step / steps)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / (steps + 1))
        optimizer.zero_grad()
        objective(module, Batch(data(128, seed=step)), Fast(step, 128), companion).total.mean().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        companion.follow(module, step + 1)
    return errors


LEARN: dict[str, tuple[ConsistencyObjective, bool, float]] = {
    "distilled, heun": (ConsistencyObjective(pairs=KarrasPairs(last=18, growth="constant")), True, 0.05),
    "distilled, ddim": (ConsistencyObjective(solver="ddim", pairs=ShrinkingPairs()), True, 0.09),
    "from the data": (ConsistencyObjective(pairs=ShrinkingPairs()), False, 0.1),
    "improved training": (ConsistencyObjective(pairs=LogNormalPairs()), False, 0.1),
    "as in 2023": (
        ConsistencyObjective(
            pairs=KarrasPairs(last=18, growth="constant"), distance="squared", weight="uniform", target_decay=0.8
        ),
        True,
        0.05,
    ),
}


@pytest.mark.parametrize(
    ("process", "how"),
    [*[("edm", how) for how in LEARN], ("vp", "distilled, heun"), ("rectified-flow", "from the data")],
)
def test_a_student_learns_the_flow_to_the_data(process: str, how: str) -> None:
    objective, taught, margin = LEARN[how]
    here = PROCESSES[process]()
    before, half, after = learned(here, objective, gaussian(here) if taught else None, 400)
    assert after < 0.6 * half < 0.3 * before
    assert after < margin
    assert before > 0.5


class Bending(nn.Module):
    """A small network for points in the plane, which hears the noise level in waves."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(10, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))
        nn.init.zeros_(self.body[-1].weight)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        waves = c_noise[:, None] * torch.tensor([1.5, 3.0, 6.0, 12.0])
        out: Tensor = self.body(torch.cat([x, waves.sin(), waves.cos()], 1))
        return out


def test_of_a_mixture_too() -> None:
    """Six Gaussians on a circle, the exact denoiser for a teacher: the one-step map nears the end of the probability flow."""
    angles = torch.arange(6) * torch.pi / 3
    means = torch.stack([angles.cos(), angles.sin()], 1)
    teacher = MixtureDenoiser(EDM(), means, torch.full((6, 1), 0.15))
    noise = Fast(9, 500).normal_like(torch.empty(500, 2))
    wanted = sample(teacher, Heun(), Karras().times(EDM(), 100), 80 * noise, Fast(0, 500))
    module = NetDenoiser(Bending(), EDM(), "edm", sigma_data=0.72)
    objective = ConsistencyObjective(teacher="there", pairs=KarrasPairs(first=18, last=18, growth="constant"))
    companion, steps = objective.companion(EDM(), teacher), 160
    optimizer, errors = torch.optim.Adam(module.parameters(), betas=(0.9, 0.99)), []
    for step in range(steps + 1):
        if step % (steps // 2) == 0:
            with torch.no_grad():
                answer = module(80 * noise, torch.tensor(80.0, dtype=torch.float64)).x_0
            errors.append(float((answer - wanted).square().mean().sqrt()))
        draw = Fast(step, 128)
        x_0 = means[(draw.uniform() * 6).long()] + 0.15 * draw.normal_like(torch.empty(128, 2))
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1, 2 * (1 - step / (steps + 1)))
        optimizer.zero_grad()
        objective(module, Batch(x_0), draw, companion).total.mean().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    assert errors[0] == pytest.approx(0.72, abs=0.03)  # the mean of all data
    assert errors[2] < 0.9 * errors[1] < 0.9 * errors[0]
    assert errors[2] < 0.5


# ---- what it remembers ---------------------------------------------------------------------------------------------------------


def test_the_target_is_an_average_that_slows_down_with_the_pairs() -> None:
    objective = ConsistencyObjective(pairs=KarrasPairs(2, 150, "square-root"), target_decay=0.9)
    # mu(k) = exp(s_0 ln mu_0 / N(k)): at the start N = s_0, in the end N = s_1 + 1.
    assert objective.decay(0.0) == pytest.approx(0.9)
    assert objective.decay(1.0) == pytest.approx(math.exp(2 * math.log(0.9) / 151))
    module, companion = NetDenoiser(Net(), EDM(), "edm"), objective.companion(EDM())
    assert isinstance(companion, ConsistencyCompanion)
    module.register_buffer("steps", torch.zeros(()))
    companion.begin(module)
    wanted = copy.deepcopy(module.network.last.weight.detach())  # type: ignore[union-attr]
    for step in range(1, 5):
        companion.at(step / 10)
        module.network.last.weight.data += 0.1 * step  # type: ignore[union-attr]
        module.steps += 1
        companion.follow(module, step)
        mu = objective.decay(step / 10)
        wanted = mu * wanted + (1 - mu) * module.network.last.weight.detach()  # type: ignore[union-attr]
    torch.testing.assert_close(companion.target.network.last.weight, wanted)  # type: ignore[union-attr]
    assert float(companion.target.steps) == 4  # type: ignore[union-attr, arg-type]
    assert not any(p.requires_grad for p in companion.parameters())
    # A state is whole: another companion that loads it goes on alike.
    other = objective.companion(EDM())
    assert other is not None
    other.begin(module)
    other.load_state_dict(companion.state_dict())
    for ours, theirs in zip(other.state_dict().values(), companion.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    other.begin(module)  # and begins anew where training goes on with another objective
    assert torch.equal(other.target.network.last.weight, module.network.last.weight)  # type: ignore[union-attr]


def test_without_an_average_nothing_is_kept_and_the_teacher_is_no_part_of_it() -> None:
    teacher = gaussian(EDM())
    companion = ConsistencyObjective(teacher="there").companion(EDM(), teacher)
    assert isinstance(companion, ConsistencyCompanion)
    companion.begin(NetDenoiser(Net(), EDM(), "edm"))
    assert companion.denoiser is teacher
    assert companion.target is None
    assert list(companion.state_dict()) == ["fingerprint"]
    with pytest.raises(UserError, match="there is to be distilled"):
        ConsistencyObjective(teacher="there").companion(EDM())


def test_the_fraction_of_the_training_decides_the_pairs() -> None:
    seen: list[float] = []

    class Watching(KarrasPairs):
        def pair(self, process: Process, u: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
            seen.append(fraction)
            return super().pair(process, u, fraction)

    objective: ConsistencyObjective = ConsistencyObjective(pairs=Watching())
    module, companion = NetDenoiser(Net(), EDM(), "edm"), objective.companion(EDM())
    assert companion is not None
    companion.at(0.3)
    objective(module, Batch(data(2)), SampleNoise(0, range(2)), companion)
    objective(module, Batch(data(2)), SampleNoise(0, range(2)))  # nothing trains: as at the end
    assert seen == [0.3, 1.0]


# ---- conditions ----------------------------------------------------------------------------------------------------------------


class Heard(Denoiser):
    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.process)
        self.inner, self.labels = inner, []

    labels: list[Tensor]

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        self.labels.append(cond["label"])
        return self.inner(x_t, t)


def test_student_target_and_teacher_are_told_the_same() -> None:
    n, told = 400, []

    class Listening(Net):
        def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
            told.append(label)
            return super().forward(x, c_noise, label)

    teacher = Heard(gaussian(EDM()))
    objective = ConsistencyObjective(dropout=0.25)
    batch = Batch(data(n), {"label": torch.arange(n) % 5})
    objective(NetDenoiser(Listening(), EDM(), "edm"), batch, SampleNoise(0, range(n)), ConsistencyCompanion(teacher))
    assert len(told) == len(teacher.labels) == 2
    for labels in (*told, *teacher.labels):
        assert torch.equal(labels, told[0])
    dropped = told[0] == -1
    assert float(dropped.double().mean()) == pytest.approx(0.25, abs=0.06)
    assert torch.equal(told[0][~dropped], batch.cond["label"][~dropped])


def test_what_it_refuses() -> None:
    for settings in ({"huber": 0.0}, {"target_decay": 1.0}, {"target_decay": -0.1}):
        with pytest.raises(UserError, match="huber must be positive"):
            ConsistencyObjective(**settings)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="2 <= first <= last"):
        KarrasPairs(first=20, last=10)
    with pytest.raises(UserError, match=r"pairs\.q must be more than 1"):
        ShrinkingPairs(q=1.0)
    assert replace(ShrinkingPairs(), times=LogNormal(0.0, 1.0)) != ShrinkingPairs()
    assert issubclass(LogNormalPairs, Pairs)

"""Progressive distillation against closed forms: the target, the weights, and a student that learns to go the whole way at once."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Literal

import pytest
import torch
from numeric import scalar
from torch import Tensor

from unstir.conditioning.guidance_scale import GUIDANCE_SCALE
from unstir.data.spec import Condition, DataSpec
from unstir.denoiser import Denoiser, GaussianDenoiser, MixtureDenoiser, NetDenoiser
from unstir.errors import UserError
from unstir.guidance import ClassifierFreeGuidance, ClipX0
from unstir.networks import MLPConfig
from unstir.objectives import Batch, Constant, ProgressiveObjective, SNRPlusOne, Teacher, TruncatedSNR
from unstir.objectives.distillation import fingerprint
from unstir.objectives.progressive import belief_behind
from unstir.process import Process
from unstir.processes import EDM, PROCESSES, VP, CosineVP, LinearVP, RectifiedFlow
from unstir.samplers import DDIM, Heun
from unstir.samplers.grids import Karras, Strided, Uniform
from unstir.sampling import SampleNoise, Sampler, sample
from unstir.trained import Trained
from unstir.training.adopt import adopt

MEAN, STD = torch.tensor([0.7, -0.4]).double(), torch.tensor([0.3, 1.5]).double()
ENDS = [VP(), RectifiedFlow(), EDM(), CosineVP(beta_max=1.0)]  # alpha = 0 at noise: the second and the last


def gaussian(process: Process) -> GaussianDenoiser:
    return GaussianDenoiser(process, MEAN, STD)


def mixture(process: Process) -> MixtureDenoiser:
    means = torch.tensor([[0.8, -0.2], [-0.5, 0.4], [0.1, -1.0]], dtype=torch.float64)
    return MixtureDenoiser(process, means, torch.tensor([[0.2], [0.4], [0.3]], dtype=torch.float64))


# ---- the target ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROCESSES)
def test_the_belief_behind_a_step_of_ddim_is_the_belief(name: str) -> None:
    """And so a student of one substep learns what its teacher believes, at every time, the last step included."""
    process = PROCESSES[name]()
    times = Uniform().times(process, 5)
    x_t = torch.linspace(-2, 2, 10, dtype=torch.float64).reshape(5, 2)
    for t, s in itertools.combinations(times, 2):
        prediction = mixture(process)(x_t, t)
        x_s = process.alpha(s) * prediction.x_0 + process.sigma(s) * prediction.eps
        x_0, eps = belief_behind(process, x_t, t, x_s, s)
        torch.testing.assert_close(x_0, prediction.x_0, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(eps, prediction.eps, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("process", ENDS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_two_steps_of_the_exact_teacher_of_a_gaussian(process: Process, steps: int) -> None:
    """Of a Gaussian a step of DDIM is x -> mean + gain (x - mean): two of them, and what one would have to believe, by hand."""
    objective = ProgressiveObjective(grid=Strided(Uniform(), 6), steps=steps)
    path = objective.paths(process, SampleNoise(0, range(6)))
    assert {float(t) for t in path[0]} == set(Uniform().times(process, steps)[:-1].tolist())
    x_t = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(6, 2)
    x_0, eps = objective.target(Teacher(gaussian(process)), x_t, path, {})

    def scales(t: Tensor) -> tuple[Tensor, Tensor]:
        return process.alpha(t)[:, None], process.sigma(t)[:, None]

    def step(deviation: Tensor, t: Tensor, s: Tensor) -> Tensor:
        (a, b), (c, d) = scales(t), scales(s)
        return deviation * (c * a * STD**2 + d * b) / (a**2 * STD**2 + b**2)

    (alpha_t, sigma_t), (alpha_s, sigma_s) = scales(path[0]), scales(path[2])
    there = alpha_s * MEAN + step(step(x_t - alpha_t * MEAN, path[0], path[1]), path[1], path[2])
    expected = (there - sigma_s / sigma_t * x_t) / (alpha_s - sigma_s / sigma_t * alpha_t)
    torch.testing.assert_close(x_0, expected)
    torch.testing.assert_close(alpha_t * x_0 + sigma_t * eps, x_t)
    torch.testing.assert_close(alpha_s * x_0 + sigma_s * eps, there)


@pytest.mark.parametrize(("solver", "sampler"), [("ddim", DDIM()), ("heun", Heun())])
@pytest.mark.parametrize("substeps", [1, 2, 4])
def test_a_student_that_believes_the_target_draws_the_teacher_s_samples(
    substeps: int, solver: Literal["ddim", "heun"], sampler: Sampler
) -> None:
    """Walking along the student's grid with the targets for beliefs is walking along the teacher's with its own."""
    process = EDM(sigma_max=20.0)
    grid = Strided(Karras(sigma_min=0.02), 12)
    objective = ProgressiveObjective(grid=grid, steps=12 // substeps, substeps=substeps, solver=solver)
    teacher = Teacher(ClipX0(mixture(process), -1.0, 1.0))

    class Taught(Denoiser):
        def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor):  # type: ignore[no-untyped-def]
            times = grid.times(process, 12)
            at = int((times == t).nonzero())
            x_0, eps = objective.target(teacher, x_t, times[at : at + substeps + 1], {})
            return replace(teacher.denoiser(x_t, t), x_0=x_0, eps=eps)

    x = 20 * torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rng = SampleNoise(0, range(7))
    ours = sample(Taught(process), DDIM(), grid.times(process, 12 // substeps), x, rng)
    torch.testing.assert_close(ours, sample(teacher.denoiser, sampler, grid.times(process, 12), x, rng))


def test_in_single_precision_a_fine_grid_loses_little() -> None:
    """The difference of two neighbouring times is divided by; what is lost must not show beside what is learnt."""
    for process in ENDS:
        objective = ProgressiveObjective(grid=Strided(Karras(sigma_min=0.02), 512), steps=256)
        path = objective.paths(process, SampleNoise(0, range(256)))
        x_0 = MEAN + STD * torch.randn(256, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x_t = process.add_noise(x_0, path[0], torch.randn(256, 2, dtype=torch.float64))
        exact, _ = objective.target(Teacher(mixture(process)), x_t, path, {})
        rounded, _ = objective.target(Teacher(mixture(process).float()), x_t.float(), path, {})
        weight = TruncatedSNR()(process.log_snr(path[0]))
        assert float((weight[:, None] * (exact - rounded).square()).mean()) < 1e-6


# ---- the loss --------------------------------------------------------------------------------------------------------


def test_the_spaces_and_weights_of_the_paper() -> None:
    """Truncated SNR is the larger one of the errors of x_0 and eps; SNR + 1 is the error of v."""
    process = VP()
    batch = Batch(torch.linspace(-1, 1, 24).double().reshape(12, 2))
    wrong = GaussianDenoiser(process, MEAN + 0.3, 0.8 * STD)

    def loss(**settings: object) -> Tensor:
        objective = ProgressiveObjective(grid=Strided(Uniform(), 8), **settings)  # type: ignore[arg-type]
        return objective(wrong, batch, SampleNoise(3, range(12)), Teacher(gaussian(process))).total

    by_x_0, by_eps = (loss(space=space, weight=Constant()) for space in ("x_0", "eps"))
    assert (by_x_0 > by_eps).any()
    assert (by_x_0 < by_eps).any()
    torch.testing.assert_close(loss(weight=TruncatedSNR()), by_x_0.maximum(by_eps))
    torch.testing.assert_close(loss(weight=SNRPlusOne()), loss(space="v", weight=Constant()))


def test_a_student_that_is_right_costs_nothing() -> None:
    """With one substep the teacher's belief is the target; a conditional one is asked for the same class."""
    process = EDM()
    objective = ProgressiveObjective(grid=Strided(Karras(), 8), substeps=1, steps=8)
    batch = Batch(torch.linspace(-1, 1, 24).double().reshape(12, 2), {"label": torch.arange(12) % 3})
    loss = objective(mixture(process), batch, SampleNoise(3, range(12)), Teacher(mixture(process)))
    assert float(loss.total.max()) < 1e-16
    other = Batch(batch.x, {"label": (torch.arange(12) + 1) % 3})

    class Other(MixtureDenoiser):
        def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor):  # type: ignore[no-untyped-def, override]
            return super().forward(x_t, t, **other.cond)

    exact = mixture(process)
    loss = objective(Other(process, exact.means, exact.stds), batch, SampleNoise(3, range(12)), Teacher(exact))
    assert float(loss.total.mean()) > 0.01


def test_conditions_are_dropped_for_both_alike() -> None:
    objective = ProgressiveObjective(grid=Strided(Karras(), 8), substeps=1, steps=8, dropout=0.5)
    batch = Batch(torch.zeros(64, 2).double(), {"label": torch.arange(64) % 3})
    ours, theirs = objective.told(batch, SampleNoise(3, range(64)))
    assert torch.equal(ours["label"], theirs["label"])
    dropped = ours["label"] == -1
    assert 20 < int(dropped.sum()) < 44
    assert torch.equal(ours["label"][~dropped], batch.cond["label"][~dropped])


def test_the_scale_is_told_to_both_in_their_own_units() -> None:
    objective = ProgressiveObjective(guidance_range=(0.5, 3.5))
    batch = Batch(torch.zeros(64, 2), {"label": torch.arange(64) % 3})
    ours, theirs = objective.told(batch, SampleNoise(3, range(64)))
    scale, shown = theirs[GUIDANCE_SCALE], ours[GUIDANCE_SCALE]
    assert scale.dtype == torch.float64
    assert shown.shape == (64, 1)
    torch.testing.assert_close(shown[:, 0].double() * 1.5 + 2, scale, rtol=1e-6, atol=1e-6)
    assert 0.5 <= float(scale.min()) < 0.7
    assert 3.3 < float(scale.max()) < 3.5
    spec = objective.described(DataSpec("points", (2,), conditions={"label": Condition("class", 3)}))
    torch.testing.assert_close(spec.conditions[GUIDANCE_SCALE].to_model(scale[:, None]).float(), shown)


def test_a_teacher_guided_by_a_scale_of_each_sample_s_own() -> None:
    process, label = VP(), torch.arange(6) % 3
    x_t = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(6, 2)
    t, scale = torch.linspace(0.1, 0.9, 6, dtype=torch.float64), torch.linspace(1, 4, 6, dtype=torch.float64)
    interval = (0.2, 3.0)
    guided = ClassifierFreeGuidance(mixture(process), 7.0, interval)
    together = Teacher(guided).believe(x_t, t, {"label": label, GUIDANCE_SCALE: scale})
    for i in range(6):
        alone = ClassifierFreeGuidance(mixture(process), float(scale[i]), interval)
        expected = alone(x_t[i : i + 1], t[i], label=label[i : i + 1])
        torch.testing.assert_close(together.x_0[i : i + 1], expected.x_0)
        torch.testing.assert_close(together.eps[i : i + 1], expected.eps)


@pytest.mark.parametrize("wanted", [(1.0,), (2.0, 4.0), (1.0, 1.0), (-1.0, 3.0), (1.0, 2.0, 3.0)])
def test_ranges_that_are_none(wanted: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="a lowest one, at most 1"):
        ProgressiveObjective(guidance_range=wanted)


def test_what_cannot_be_taught() -> None:
    with pytest.raises(UserError, match="not both"):
        ProgressiveObjective(guidance_range=(1.0, 2.0), guidance_scale=2.0)
    with pytest.raises(UserError, match="at least 1"):
        ProgressiveObjective(steps=0)
    with pytest.raises(UserError, match="nothing to guide by"):
        ProgressiveObjective(guidance_range=(1.0, 2.0)).described(DataSpec("points", (2,)))
    with pytest.raises(UserError, match="learns from a run"):
        ProgressiveObjective().companion(VP())
    with pytest.raises(UserError, match="has 4 steps, and the teacher is to take 16"):
        ProgressiveObjective(grid=Uniform(), steps=8).paths(LinearVP(steps=4), SampleNoise(0, range(2)))


# ---- the teacher -----------------------------------------------------------------------------------------------------


def test_a_teacher_is_frozen_and_no_part_of_what_is_saved() -> None:
    teacher = Teacher(student_of(EDM()), "runs/a")
    assert not any(parameter.requires_grad for parameter in teacher.denoiser.parameters())
    assert not teacher.denoiser.training
    assert list(teacher.parameters()) == []
    assert list(teacher.state_dict()) == ["fingerprint"]


def test_another_teacher_on_resuming_is_refused() -> None:
    teacher = Teacher(student_of(EDM()), "runs/a")
    Teacher(student_of(EDM())).load_state_dict(teacher.state_dict())
    other = student_of(EDM())
    with torch.no_grad():
        next(other.parameters())[0] += 1e-6
    with pytest.raises(UserError, match="runs/b is not the teacher that this run began with"):
        Teacher(other, "runs/b").load_state_dict(teacher.state_dict())


def test_a_fingerprint_is_of_names_types_shapes_and_numbers() -> None:
    class Two(torch.nn.Module):
        def __init__(self, a: str, tensor: Tensor) -> None:
            super().__init__()
            self.register_buffer(a, tensor)

    x = torch.arange(6.0)
    others = [("b", x), ("a", x.double()), ("a", x.reshape(2, 3)), ("a", x.flip(0)), ("a", x.bfloat16())]
    prints = [tuple(fingerprint(Two(name, tensor)).tolist()) for name, tensor in [("a", x), *others]]
    assert len(set(prints)) == len(prints)
    assert prints[0] == tuple(fingerprint(Two("a", x.clone())).tolist())


# ---- students --------------------------------------------------------------------------------------------------------

SPEC = DataSpec("points", (2,))


def student_of(process: Process, spec: DataSpec = SPEC) -> NetDenoiser:
    torch.manual_seed(0)
    return NetDenoiser(MLPConfig(width=32, depth=2).build(spec, 2), process, "edm", sigma_data=1.0)


def taught(
    student: NetDenoiser,
    teacher: Denoiser,
    objective: ProgressiveObjective,
    data: Tensor,
    iterations: int,
    batch: int = 64,
) -> NetDenoiser:
    """The student after so many steps of Adam, its learning rate going down to 0."""
    companion = Teacher(teacher)
    optimizer = torch.optim.Adam(student.parameters(), 4e-3)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 - k / iterations)
    for k in range(iterations):
        rows = torch.randint(len(data), (batch,), generator=torch.Generator().manual_seed(k))
        loss = objective(student, Batch(data[rows]), SampleNoise(k, range(batch)), companion)
        optimizer.zero_grad()
        loss.total.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        decay.step()
    return student


def copied(student: NetDenoiser) -> NetDenoiser:
    other = student_of(student.process)
    other.load_state_dict(student.state_dict())
    return other


def distilled(exact: MixtureDenoiser, data: Tensor, iterations: int) -> NetDenoiser:
    """16 steps of the exact denoiser -> 4 -> 2 -> 1."""
    grid, student, teacher = Strided(Karras(sigma_min=0.02), 16), student_of(exact.process), exact.float()
    for steps, substeps in ((4, 4), (2, 2), (1, 2)):
        objective = ProgressiveObjective(grid=grid, steps=steps, substeps=substeps)
        student = taught(copied(student), teacher, objective, data, iterations)
        teacher = student
    return student


def test_one_step_approaches_the_flow_map_of_a_gaussian() -> None:
    process = EDM(sigma_max=10.0)
    exact = gaussian(process)
    data = (MEAN + STD * torch.randn(4096, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).float()
    noise = 10 * torch.randn(512, 2, generator=torch.Generator().manual_seed(2))
    end = exact.flow_map(noise.double(), scalar(10.0), scalar(0.0))

    def error(denoiser: Denoiser, steps: int = 1) -> float:
        times = Strided(Karras(sigma_min=0.02), 16).times(process, steps)
        found = sample(denoiser, DDIM(), times, noise, SampleNoise(0, range(512)))
        return float((found - end).square().mean().sqrt())

    little, much = (error(distilled(gaussian(process), data, iterations)) for iterations in (15, 150))
    undistilled = error(gaussian(process).float()), error(gaussian(process).float(), 8)
    assert much < 0.35 * little
    assert much < 0.15 * undistilled[0]
    assert much < undistilled[1]


def test_one_step_approaches_the_flow_map_of_a_mixture() -> None:
    """Whose map has no closed form, but whose denoiser has, so that many small steps are as good."""
    process = EDM(sigma_max=10.0)
    means, stds = torch.tensor([[1.2, 0.3], [-0.9, -0.6]]), torch.tensor([[0.25], [0.25]])
    exact = MixtureDenoiser(process, means.double(), stds.double())
    which = torch.arange(4096) % 2
    data = means[which] + stds[which] * torch.randn(4096, 2, generator=torch.Generator().manual_seed(1))
    noise = 10 * torch.randn(512, 2, generator=torch.Generator().manual_seed(2))
    rng = SampleNoise(0, range(512))
    end = sample(exact, Heun(), Karras().times(process, 128), noise.double(), rng).float()

    def error(denoiser: Denoiser, steps: int = 1) -> float:
        times = Strided(Karras(sigma_min=0.02), 16).times(process, steps)
        return float((sample(denoiser, DDIM(), times, noise, rng) - end).square().mean().sqrt())

    teacher = MixtureDenoiser(process, means, stds)
    little, much = (error(distilled(teacher, data, iterations)) for iterations in (15, 250))
    assert much < 0.5 * little
    assert much < 0.3 * error(teacher)
    assert much < error(teacher, 4)


def test_a_student_begins_as_its_teacher_and_the_scale_says_nothing_yet() -> None:
    labelled = replace(SPEC, conditions={"label": Condition("class", 3)})
    base = student_of(EDM(), labelled)
    for parameter in base.parameters():
        if not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.2)
    spec = ProgressiveObjective(guidance_range=(1.0, 4.0)).described(labelled)
    student = student_of(EDM(), spec)
    from unstir.recipes import Recipe

    assert adopt(student, Trained(base, labelled, Recipe(network=MLPConfig())), spec).notes == (
        f"{GUIDANCE_SCALE} is new",
    )
    x_t, t, label = torch.randn(4, 2), scalar(0.7), torch.tensor([0, 1, 2, -1])
    shown = {GUIDANCE_SCALE: torch.tensor([[-1.0], [0.0], [0.5], [1.0]])}
    assert torch.equal(student(x_t, t, label=label, **shown).x_0, base(x_t, t, label=label).x_0)

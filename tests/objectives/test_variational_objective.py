"""L_hybrid and L_vlb: whose gradient reaches what, estimates that are right on average and vary less, and what is remembered."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unstir.data.spec import DataSpec
from unstir.denoiser import MixtureDenoiser, NetDenoiser
from unstir.errors import UserError
from unstir.likelihood import Chain, bits_per_dim, chain_times, variational_bound
from unstir.objectives import Batch, DenoisingObjective, HybridObjective, VariationalObjective
from unstir.objectives.variational import HISTORY, UNIFORM, LossHistory
from unstir.processes import EDM, CosineVP, LinearVP, RectifiedFlow
from unstir.sampling import SampleNoise

X_0 = torch.linspace(-1, 1, 8 * 6, dtype=torch.float64).reshape(8, 2, 3)
PROCESS = LinearVP(steps=20, beta_end=0.4)


class Net(nn.Module):
    """Separate parameters for what the mean and what the variance need."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([0.8, -0.3], dtype=torch.float64))
        self.variance = nn.Parameter(torch.tensor([0.2, 0.1], dtype=torch.float64))

    def forward(self, x: Tensor, c_noise: Tensor, **cond: Tensor) -> Tensor:
        c = c_noise.reshape(-1, 1, 1)
        return torch.cat(
            [self.mean[0] * torch.sin(2 * x) + self.mean[1] * c, self.variance[0] * x + self.variance[1] * c], 1
        )


def denoiser(process: Any = PROCESS) -> NetDenoiser:
    return NetDenoiser(Net(), process, "eps", learn_variance=True)


def rng(n: int = 8, seed: int = 1) -> SampleNoise:
    return SampleNoise(seed, range(n))


def gradients(objective: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    module = denoiser(**kwargs)
    loss = objective(module, Batch(X_0), rng())
    assert isinstance(module.network, Net)
    network = module.network
    mean, variance = torch.autograd.grad(loss.total.mean(), (network.mean, network.variance), allow_unused=True)
    return mean, variance if variance is not None else torch.zeros(2, dtype=torch.float64)


@pytest.mark.parametrize("bin_width", [None, 2 / 255])
def test_the_bound_in_hybrid_trains_the_variance_alone(bin_width: float | None) -> None:
    simple, _ = gradients(DenoisingObjective())
    hybrid, variance = gradients(HybridObjective(bin_width=bin_width))
    torch.testing.assert_close(hybrid, simple)
    bound, bound_variance = gradients(VariationalObjective(resampled=False, bin_width=bin_width))
    assert (bound - simple).abs().min() > 1e-4  # which the bound itself would not leave alone
    torch.testing.assert_close(variance, 0.001 * bound_variance)
    assert variance.abs().min() > 1e-8
    doubled = gradients(HybridObjective(vlb_weight=0.002, bin_width=bin_width))
    torch.testing.assert_close(doubled[0], simple)
    torch.testing.assert_close(doubled[1], 2 * variance)


def test_hybrid_is_made_of_its_parts() -> None:
    loss = HybridObjective()(denoiser(), Batch(X_0), rng())
    simple = DenoisingObjective()(denoiser(), Batch(X_0), rng())
    torch.testing.assert_close(loss.parts["simple"], simple.total)
    torch.testing.assert_close(loss.total, loss.parts["simple"] + 0.001 * loss.parts["vlb"])
    assert loss.log_snr is not None
    torch.testing.assert_close(loss.log_snr, simple.log_snr)


@pytest.mark.parametrize("objective", [HybridObjective(), VariationalObjective()])
def test_a_network_without_a_variance_is_refused(objective: Any) -> None:
    class Plain(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
            return x

    with pytest.raises(UserError, match="learn-variance"):
        objective(NetDenoiser(Plain(), PROCESS), Batch(X_0), rng())


# ---- the bound as an objective -----------------------------------------------------------------------------------------------


def oracle(process: Any = PROCESS) -> MixtureDenoiser:
    means = torch.stack([torch.full((2, 3), 0.6), torch.full((2, 3), -0.4)]).double()
    return MixtureDenoiser(process, means, torch.tensor([0.2, 0.5]).double().reshape(2, 1, 1))


def draw(objective: VariationalObjective, module: MixtureDenoiser, n: int, seed: int, companion: Any = None) -> Tensor:
    x_0 = X_0[torch.arange(n) % 8]
    return objective(module, Batch(x_0), rng(n, seed), companion).total


@pytest.mark.parametrize("process", [PROCESS, RectifiedFlow(), EDM()])
def test_the_objective_estimates_the_bound(process: Any) -> None:
    """Without L_T, in bits/dim: against every term of the chain."""
    module = oracle(process)
    objective = VariationalObjective(noise="posterior", resampled=False, stratified=False, steps=20)
    chain = Chain(process, chain_times(process, 20))
    bound = variational_bound(module, chain, X_0.repeat(100, 1, 1), SampleNoise(5, range(800)))
    wanted = bits_per_dim(bound.steps.sum(0), 6).mean()
    found = draw(objective, module, 8000, 6)
    assert abs(float(found.mean() - wanted)) < 4 * float(found.std()) / math.sqrt(8000) + 0.02


def filled(objective: VariationalObjective, module: MixtureDenoiser) -> LossHistory:
    history = objective.companion(module.process)
    assert isinstance(history, LossHistory)
    for seed in range(40):
        loss = objective(module, Batch(X_0.repeat(8, 1, 1)), rng(64, 100 + seed), history)
        history.take_in({name: value.cpu() for name, value in loss.seen.items()})
    assert (history.counts == HISTORY).all()
    return history


def test_resampled_steps_are_right_on_average_and_vary_less() -> None:
    module = oracle()
    objective = VariationalObjective(noise="posterior", stratified=False)
    history = filled(objective, module)
    assert float(history.probabilities().max()) > 3 / 20
    even, resampled = draw(objective, module, 20_000, 3), draw(objective, module, 20_000, 4, history)
    error = math.hypot(float(even.std()), float(resampled.std())) / math.sqrt(20_000)
    assert abs(float(even.mean() - resampled.mean())) < 4 * error
    assert float(resampled.var()) < 0.5 * float(even.var())


def test_the_history() -> None:
    history = LossHistory(3)
    even = torch.full((3,), 1 / 3, dtype=torch.float64)
    assert torch.equal(history.probabilities(), even)
    steps = torch.tensor([0, 1, 2]).repeat(HISTORY)[:-1]
    history.take_in({"step": steps, "loss": torch.ones(len(steps))})
    assert torch.equal(history.probabilities(), even)  # step 2 was drawn nine times
    history.take_in({"step": torch.tensor([2]), "loss": torch.tensor([1.0])})
    torch.testing.assert_close(history.probabilities(), even)
    # ten losses of 3 and of 4 push out those of 1; the roots of the mean squares are 1, 3, 4
    history.take_in({"step": torch.tensor([1, 2]).repeat(HISTORY), "loss": torch.tensor([3.0, 4.0]).repeat(HISTORY)})
    wanted = (1 - UNIFORM) * torch.tensor([1, 3, 4], dtype=torch.float64) / 8 + UNIFORM / 3
    torch.testing.assert_close(history.probabilities(), wanted)
    history.take_in({"step": torch.tensor([0]), "loss": torch.tensor([5.0])})  # the newest one of ten
    root = torch.tensor([math.sqrt((9 + 25) / 10), 3, 4], dtype=torch.float64)
    torch.testing.assert_close(history.probabilities(), (1 - UNIFORM) * root / root.sum() + UNIFORM / 3)
    again = LossHistory(3)
    again.load_state_dict(history.state_dict())
    assert torch.equal(again.probabilities(), history.probabilities())


def test_what_is_seen_are_the_unweighted_terms() -> None:
    objective, module = VariationalObjective(noise="posterior", stratified=False), oracle()
    history = filled(objective, module)
    loss = objective(module, Batch(X_0), rng(), history)
    weight = 1 / (20 * history.probabilities()[loss.seen["step"]])
    torch.testing.assert_close(loss.total, weight * loss.seen["loss"])
    assert loss.log_snr is not None
    times = chain_times(PROCESS)[loss.seen["step"]]
    torch.testing.assert_close(loss.log_snr, PROCESS.log_snr(times))


def test_steps_are_drawn_with_their_probabilities() -> None:
    objective = VariationalObjective(stratified=False)
    chain = objective.chain(PROCESS, "posterior")
    p = torch.arange(1, 21, dtype=torch.float64)
    i = objective.draw_steps(chain, rng(50_000), p / p.sum())
    torch.testing.assert_close(i.bincount(minlength=20) / 50_000, (p / p.sum()), rtol=0.1, atol=1e-3, check_dtype=False)


# ---- the data ----------------------------------------------------------------------------------------------------------------


def test_the_last_step_is_fitted_to_the_data() -> None:
    picture = DataSpec("image", (1, 2, 2), "uint8", (127.5,), (127.5,), bounds=(-1.0, 1.0))
    signal = DataSpec("signal", (1, 8), "float32", (3.0,), (2.0,))
    for objective in (HybridObjective(), VariationalObjective()):
        assert objective.fitted(picture).bin_width == pytest.approx(2 / 255)  # type: ignore[attr-defined]
        assert objective.fitted(signal).bin_width == 0  # type: ignore[attr-defined]
    assert HybridObjective(bin_width=0.5).fitted(picture) == HybridObjective(bin_width=0.5)
    assert DenoisingObjective().fitted(picture) == DenoisingObjective()


def test_the_last_step_of_bytes_is_a_probability() -> None:
    """With a belief that is exactly right the decoder's cost is small and positive; a density's would be far below 0."""
    exact = MixtureDenoiser(CosineVP(steps=10), X_0, torch.tensor(1e-6).double().reshape(1, 1, 1))
    whole = (X_0 * 127.5).round() / 127.5
    exact.means.copy_(whole)

    def last(bin_width: float) -> Tensor:
        objective = VariationalObjective(noise="posterior", resampled=False, stratified=False, bin_width=bin_width)
        loss = objective(exact, Batch(whole[:1].repeat(200, 1, 1)), rng(200))
        return loss.seen["loss"][loss.seen["step"] == 9]

    assert len(last(2 / 255)) > 5
    assert (last(2 / 255) > 0).all()
    assert (last(0.0) < 0).all()

"""The papers' losses by hand, conditions that drop out, and what minimises the loss."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unstir.denoiser import Denoiser, MixtureDenoiser, NetDenoiser
from unstir.objectives import P2, TIMES, WEIGHTS, Batch, DenoisingObjective, LogNormal, Loss, MinSNR
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import EDM, PROCESSES, LinearVP, RectifiedFlow
from unstir.sampling import SampleNoise

INDICES = range(4, 12)
X_0 = torch.linspace(-1.5, 1.5, 48, dtype=torch.float64).reshape(8, 2, 3)


class Net(nn.Module):
    """sin(2 x) + c_noise: in float64, and written out below as ``answer``."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x: Tensor, c_noise: Tensor, **cond: Tensor) -> Tensor:
        return torch.sin(self.scale * x) + c_noise.reshape(-1, 1, 1)


def answer(x: Tensor, c_noise: Tensor) -> Tensor:
    return torch.sin(2 * x) + c_noise


def replayed(objective: DenoisingObjective, process: Process) -> tuple[Tensor, Tensor]:
    """The t and eps that the objective draws, t as (B, 1, 1)."""
    rng = SampleNoise(1, INDICES)
    u = (torch.arange(4, 12) % 8 + rng.uniform()) / 8
    return objective.times.quantile(process, u).reshape(-1, 1, 1), rng.normal((2, 3), torch.float64)


def loss(objective: DenoisingObjective, denoiser: Denoiser) -> Loss:
    return objective(denoiser, Batch(X_0), SampleNoise(1, INDICES))


def test_edm_is_the_papers_weighted_denoising_loss() -> None:
    # Karras et al. 2022, eq. 2 and table 1: lambda(sigma) ||D(x_0 + n; sigma) - x_0||², lambda = (sigma² + sd²) / (sigma sd)².
    objective, sd = DenoisingObjective(space="F", times=LogNormal()), 0.5
    sigma, n = replayed(objective, EDM())
    x = X_0 + sigma * n
    c_skip, c_out = sd**2 / (sigma**2 + sd**2), sigma * sd / (sigma**2 + sd**2).sqrt()
    D = c_skip * x + c_out * answer(x / (sigma**2 + sd**2).sqrt(), sigma.log() / 4)
    wanted = (sigma**2 + sd**2) / (sigma * sd) ** 2 * (D - X_0) ** 2
    got = loss(objective, NetDenoiser(Net(), EDM(), "edm", sigma_data=sd))
    torch.testing.assert_close(got.total, wanted.mean((1, 2)))
    torch.testing.assert_close(got.parts["loss"], got.total)
    assert got.log_snr is not None
    torch.testing.assert_close(got.log_snr, -2 * sigma.log().flatten())


def ddpm(objective: DenoisingObjective) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """alpha, sigma, eps, and the network's eps and x_0 under DDPM's process."""
    t, eps = replayed(objective, LinearVP())
    alpha_bar = LinearVP().alpha_bar[t.long()]
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    x_t = alpha * X_0 + sigma * eps
    eps_theta = answer(x_t, (sigma / alpha).log() / 4)
    return alpha, sigma, eps, eps_theta, (x_t - sigma * eps_theta) / alpha


def test_p2() -> None:
    # Choi et al. 2022, eq. 8: the simple loss times 1 / (k + snr)^gamma.
    objective = DenoisingObjective(weight=P2(gamma=0.5))
    alpha, sigma, eps, eps_theta, _ = ddpm(objective)
    wanted = (eps - eps_theta) ** 2 / (1 + (alpha / sigma) ** 2) ** 0.5
    torch.testing.assert_close(loss(objective, NetDenoiser(Net(), LinearVP())).total, wanted.mean((1, 2)))


def test_min_snr() -> None:
    # Hang et al. 2023: min(snr, gamma) ||x_0 - x_theta||², which for a network of eps is min(snr, gamma) / snr ||eps - eps_theta||².
    objective = DenoisingObjective(space="x_0", weight=MinSNR())
    alpha, sigma, eps, eps_theta, x_theta = ddpm(objective)
    snr = (alpha / sigma) ** 2
    got = loss(objective, NetDenoiser(Net(), LinearVP())).total
    torch.testing.assert_close(got, (snr.clamp(max=5) * (X_0 - x_theta) ** 2).mean((1, 2)))
    torch.testing.assert_close(got, (snr.clamp(max=5) / snr * (eps - eps_theta) ** 2).mean((1, 2)))


def test_rectified_flow() -> None:
    objective = DenoisingObjective(space="flow", times=TIMES["logit-normal"]())
    t, eps = replayed(objective, RectifiedFlow())
    x_t = (1 - t) * X_0 + t * eps
    u = answer(x_t / ((1 - t) ** 2 + t**2).sqrt(), t.logit() / 4)
    got = loss(objective, NetDenoiser(Net(), RectifiedFlow(), "flow")).total
    torch.testing.assert_close(got, ((eps - X_0 - u) ** 2).mean((1, 2)))


def test_v() -> None:
    objective = DenoisingObjective(space="v")
    alpha, sigma, eps, eps_theta, x_theta = ddpm(objective)
    wanted = ((alpha * eps - sigma * X_0) - (alpha * eps_theta - sigma * x_theta)) ** 2
    torch.testing.assert_close(loss(objective, NetDenoiser(Net(), LinearVP())).total, wanted.mean((1, 2)))


def test_gradients_reach_the_network() -> None:
    denoiser = NetDenoiser(Net(), LinearVP())
    assert isinstance(denoiser.network, Net)
    total = loss(DenoisingObjective(), denoiser).total.mean()
    (gradient,) = torch.autograd.grad(total, denoiser.network.scale)
    denoiser.network.scale.data += 1e-6
    difference = loss(DenoisingObjective(), denoiser).total.mean() - total
    assert float(gradient) == pytest.approx(float(difference.detach()) / 1e-6, rel=1e-3)


# ---- conditions ----------------------------------------------------------------------------------------------------------------


class Listening(Denoiser):
    """Believes in zeros, and remembers its conditions."""

    heard: dict[str, Tensor]

    def forward(self, x_t: Tensor, t: Tensor, **cond: Tensor) -> Prediction:
        self.heard = cond
        alpha, sigma = self.process.scales(t, x_t)
        return Prediction(x_t, torch.zeros_like(x_t), x_t / sigma, alpha, sigma)


def heard(dropout: float, caption_dropout: float = 0.0) -> dict[str, Tensor]:
    listening, n = Listening(LinearVP()), 2000
    cond = {"label": torch.arange(n), "text": torch.ones(n, 3, 2)}
    batch = Batch(torch.zeros(n, 2), cond, captions=frozenset({"text"}))
    DenoisingObjective(dropout=dropout, caption_dropout=caption_dropout)(listening, batch, SampleNoise(0, range(n)))
    return listening.heard


def test_dropout() -> None:
    cond = heard(0.2)
    dropped = cond["label"] == -1
    assert float(dropped.double().mean()) == pytest.approx(0.2, abs=0.03)
    assert torch.equal(cond["label"][~dropped], torch.arange(2000)[~dropped])
    # All conditions of a sample together, whole, and the null of a float is NaN.
    assert torch.equal(cond["text"].isnan(), dropped.reshape(-1, 1, 1).expand(2000, 3, 2))


def test_captions_are_dropped_on_their_own_too() -> None:
    cond = heard(0.1, 0.5)
    label, text = cond["label"] == -1, cond["text"].isnan().flatten(1).any(1)
    assert float(label.double().mean()) == pytest.approx(0.1, abs=0.03)
    assert float(text.double().mean()) == pytest.approx(0.55, abs=0.04)
    assert (text[label]).all()
    assert torch.equal(heard(0.2, 0.5)["label"], heard(0.2)["label"])


def test_no_dropout_and_nothing_but_dropout() -> None:
    assert torch.equal(heard(0.0)["label"], torch.arange(2000))
    assert (heard(1.0)["label"] == -1).all()


# ---- the minimiser -------------------------------------------------------------------------------------------------------------


class Perturbed(NetDenoiser):
    """The exact belief with x_0, and eps with it, off by some of what cannot be known at that noise level."""

    def __init__(self, exact: MixtureDenoiser, by: float) -> None:
        super().__init__(nn.Identity(), exact.process, "v")
        self.exact, self.by = exact, by

    def forward(self, x_t: Tensor, t: Tensor, **cond: Tensor) -> Prediction:
        p = self.exact(x_t, t)
        shift = self.by * (p.sigma / p.alpha.hypot(p.sigma))
        return p.with_x_0(p.x_0 + shift)


SPACES = ["F", "eps", "x_0", "v", "flow"]
# They grow like the snr: elsewhere a few samples near the data would be all that counts.
ONLY_IN = {"edm": ["x_0"], "truncated-snr": ["x_0"], "snr-plus-one": ["x_0"]}


# Every process with DDPM's weight and times, and every weight and times under one process.
CASES = [(process, "constant", "uniform") for process in PROCESSES]
CASES += [("vp", weight, times) for weight, times in itertools.product(WEIGHTS, TIMES)][1:]


@pytest.mark.parametrize(("process", "weight", "times"), CASES)
def test_the_exact_denoiser_is_the_minimiser(process: str, weight: str, times: str) -> None:
    n = 4000
    means = torch.tensor([[0.8, -0.2], [-0.5, 0.4]], dtype=torch.float64)
    stds = torch.tensor([[0.3], [0.5]], dtype=torch.float64)
    exact = MixtureDenoiser(PROCESSES[process](), means, stds)
    noise = SampleNoise(1, range(n))
    component = (noise.uniform() * 2).long()
    x_0 = means[component] + stds[component] * noise.normal((2,), torch.float64)
    for space in ONLY_IN.get(weight, SPACES):
        kwargs: dict[str, Any] = {"space": space, "weight": WEIGHTS[weight](), "times": TIMES[times]()}
        objective = DenoisingObjective(**kwargs)
        # The same noise for all, so that the differences are those of the beliefs.
        low, high, none = (
            objective(Perturbed(exact, by), Batch(x_0), SampleNoise(2, range(n))).total for by in (-0.3, 0.3, 0.0)
        )
        assert none.isfinite().all()
        for worse in (low, high):
            assert float(worse.mean()) > float(none.mean())

"""Classifier guidance against Bayes' rule on a mixture, where the perfect classifier is known; and the noisy classifier itself."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from numeric import f64
from torch import Tensor, nn

from unstir.denoiser import ChangeProcess, MixtureDenoiser
from unstir.guidance import ClassifierFreeGuidance, ClassifierGuidance, LogProb, OnlyKnown
from unstir.noisy_classifier import NoisyClassifier
from unstir.process import Process
from unstir.processes import EDM, PROCESSES, VP, LinearVP, RectifiedFlow

LABEL = torch.tensor([2, 0, 1, 1])
X_T = torch.tensor([[0.3, -1.0], [1.2, 0.7], [-2.0, 0.1], [0.5, 0.4]], dtype=torch.float64)


def exact(process: Process) -> MixtureDenoiser:
    means = torch.tensor([[0.8, -0.2], [-0.5, 1.4], [0.1, -1.0]], dtype=torch.float64)
    return MixtureDenoiser(process, means, f64(0.3, 0.5, 0.2).reshape(3, 1), f64(0.2, 0.5, 0.3))


def perfect(process: Process) -> LogProb:
    def log_prob(x_t: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        label = cond["label"]
        found = exact(process).log_posterior(x_t, t).gather(1, label.clamp(min=0)[:, None])[:, 0]
        return torch.where(label < 0, torch.zeros_like(found), found)

    return log_prob


def guided(process: Process, scale: float = 1.0, **settings: tuple[float, float]) -> ClassifierGuidance:
    """The unconditional mixture and the perfect classifier."""
    return ClassifierGuidance(OnlyKnown(exact(process), ()), perfect(process), scale, **settings)


def times(process: Process) -> Tensor:
    return process.t_at_noise_ratio(f64(0.05, 0.3, 1.0, 4.0))


@pytest.mark.parametrize("name", PROCESSES)
def test_scale_1_is_the_exact_conditional_denoiser(name: str) -> None:
    process = PROCESSES[name]()
    t = times(process)
    wanted = exact(process)(X_T, t, label=LABEL)
    with torch.no_grad():  # as in sampling
        got = guided(process)(X_T, t, label=LABEL)
    for what in ("x_0", "eps", "v", "score"):
        torch.testing.assert_close(getattr(got, what), getattr(wanted, what), rtol=1e-10, atol=1e-10)
    assert not got.x_0.requires_grad


def test_the_posterior_is_that_of_the_densities() -> None:
    process, t = VP(), f64(0.1, 0.4, 0.6, 0.9)
    alpha, sigma = (value[:, None, None] for value in (process.alpha(t), process.sigma(t)))
    std = (alpha * exact(process).stds[:, :1]).hypot(sigma).expand(4, 3, 2)
    density = torch.distributions.Normal(alpha * exact(process).means, std).log_prob(X_T[:, None]).sum(2).exp()
    joint = density * f64(0.2, 0.5, 0.3)
    torch.testing.assert_close(exact(process).log_posterior(X_T, t), (joint / joint.sum(1, keepdim=True)).log())


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.7])
def test_classifier_free_guidance_is_an_implicit_classifier(scale: float) -> None:
    # uncond + w (cond - uncond) is the score of q(x_t) p(y | x_t)^w, and so is the unconditional model with w times the gradient.
    process = RectifiedFlow()
    t = times(process)
    free = ClassifierFreeGuidance(exact(process), scale)(X_T, t, label=LABEL)
    got = guided(process, scale)(X_T, t, label=LABEL)
    torch.testing.assert_close(got.x_0, free.x_0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.eps, free.eps, rtol=1e-9, atol=1e-9)


def test_without_a_label_nothing_is_guided() -> None:
    process, t = EDM(), f64(0.5)[0]
    plain = exact(process)(X_T, t)
    label = torch.tensor([2, -1, 1, -1])
    got = guided(process, 3.0)(X_T, t, label=label)
    assert torch.equal(got.x_0[1::2], plain.x_0[1::2])
    assert not torch.allclose(got.x_0[::2], plain.x_0[::2])
    off = guided(process, 0.0)(X_T, t, label=LABEL)
    assert torch.equal(off.x_0, plain.x_0)
    assert off.score_shift is None


def test_interval() -> None:
    process = VP()
    t = process.t_at_noise_ratio(f64(0.1, 1.0, 5.0, 1.5))
    got, plain = guided(process, 2.0, interval=(0.5, 2.0))(X_T, t, label=LABEL), exact(process)(X_T, t)
    always = guided(process, 2.0)(X_T, t, label=LABEL)
    for i, wanted in enumerate((plain, always, plain, always)):
        torch.testing.assert_close(got.x_0[i], wanted.x_0[i])


def test_it_stacks_with_classifier_free_guidance_once_or_as_often_as_that_extrapolates() -> None:
    process = VP()
    t, w, s = times(process), 2.5, 0.7
    free = ClassifierFreeGuidance(exact(process), w)
    outside = ClassifierGuidance(free, perfect(process), s)(X_T, t, label=LABEL)
    inside = ClassifierFreeGuidance(ClassifierGuidance(exact(process), perfect(process), s / w), w)(X_T, t, label=LABEL)
    torch.testing.assert_close(inside.x_0, outside.x_0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(inside.eps, outside.eps, rtol=1e-9, atol=1e-9)
    assert inside.score_shift is not None
    assert outside.score_shift is not None
    torch.testing.assert_close(inside.score_shift, outside.score_shift)
    # The perfect classifier's gradient is the difference of the two scores once more, so w and s add up.
    wanted = ClassifierFreeGuidance(exact(process), w + s)(X_T, t, label=LABEL)
    torch.testing.assert_close(outside.x_0, wanted.x_0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(outside.eps, wanted.eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        outside.score_shift, s * (exact(process)(X_T, t, label=LABEL).score - exact(process)(X_T, t).score)
    )


@pytest.mark.parametrize("name", PROCESSES)
def test_in_the_coordinates_of_another_process(name: str) -> None:
    process, inner = PROCESSES[name](), LinearVP()
    t = times(process)
    got = ChangeProcess(guided(inner, 2.0), process)(X_T, t, label=LABEL)
    wanted = guided(process, 2.0)(X_T, t, label=LABEL)
    for what in ("x_0", "eps", "score_shift"):
        torch.testing.assert_close(getattr(got, what), getattr(wanted, what), rtol=1e-6, atol=1e-6)


# ---- the noisy classifier ------------------------------------------------------------------------------------------------------


class Logits(nn.Module):
    """The mixture's joint log densities, from an input at unit scale and c_noise = ln(sigma/alpha) / 4."""

    def __init__(self, sigma_data: float) -> None:
        super().__init__()
        self.sigma_data = sigma_data
        self.anchor = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        sigma = (4 * c_noise).exp()
        at = EDM(sigma_max=1e6)
        x_t = x * (self.sigma_data**2 + sigma**2).sqrt()[:, None]
        return exact(at)._components(x_t, *at.scales(sigma, x_t))[2]


@pytest.mark.parametrize("trained", ["edm", "linear", "rectified-flow"])
@pytest.mark.parametrize("asked", PROCESSES)
def test_a_noisy_classifier_is_asked_at_the_same_noise_level_under_any_process(trained: str, asked: str) -> None:
    process = PROCESSES[asked]()
    classifier = NoisyClassifier(Logits(0.7), PROCESSES[trained](), sigma_data=0.7)
    t = process.t_at_noise_ratio(f64(0.05, 0.3, 1.0, 2.0))
    got = classifier.log_prob(X_T, t, {"label": LABEL}, process)
    torch.testing.assert_close(got, perfect(process)(X_T, t, {"label": LABEL}), rtol=1e-6, atol=1e-6)


def test_a_noisy_classifier_s_answers() -> None:
    process, t = EDM(), f64(0.7)[0]
    classifier = NoisyClassifier(Logits(0.7), process, sigma_data=0.7)
    logits = classifier(X_T, t)
    torch.testing.assert_close(logits.log_softmax(1), exact(process).log_posterior(X_T, t))
    cond = {"label": torch.tensor([2, -1, 0, -1])}
    found = classifier.log_prob(X_T, t, cond)
    assert found[1::2].tolist() == [0, 0]
    torch.testing.assert_close(found[::2], logits.log_softmax(1)[[0, 2], [2, 0]])
    assert classifier.log_prob(X_T, t, {"other": LABEL}).tolist() == [0] * 4
    got = ClassifierGuidance(exact(process), classifier.log_prob, 2.0)(X_T, t)  # nobody asks for a class
    assert torch.equal(got.x_0, exact(process)(X_T, t).x_0)


def test_in_single_precision_and_in_bfloat16() -> None:
    process, t = EDM(), f64(0.7)[0]
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 3))

        def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
            return self.layers(torch.cat([x, c_noise[:, None]], 1))

    classifier = NoisyClassifier(Net(), process)
    denoiser = exact(process).float()
    results = []
    for kind in (None, torch.bfloat16):
        classifier.autocast = kind
        with torch.no_grad():
            got = ClassifierGuidance(denoiser, classifier.log_prob, 5.0)(X_T.float(), t, label=LABEL)
        assert got.x_0.dtype == torch.float32
        assert got.score_shift is not None
        results.append(got.score_shift)
    assert 0 < (results[0] - results[1]).norm() / results[0].norm() < 0.03
    assert all(p.grad is None for p in classifier.parameters())

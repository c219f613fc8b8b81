"""Classifier-free guidance against two separate calls, and against the exact posterior of a mixture."""

from __future__ import annotations

import math

import pytest
import torch
from numeric import f64
from torch import Tensor

from unstir.denoiser import Denoiser, MixtureDenoiser
from unstir.guidance import ClassifierFreeGuidance
from unstir.prediction import Prediction
from unstir.processes import VP, RectifiedFlow


def exact() -> MixtureDenoiser:
    means = torch.tensor([[0.8, -0.2], [-0.5, 1.4], [0.1, -1.0]], dtype=torch.float64)
    return MixtureDenoiser(VP(), means, f64(0.3).reshape(1, 1), f64(0.2, 0.5, 0.3))


X_T = torch.tensor([[0.3, -1.0], [1.2, 0.7], [-2.0, 0.1]], dtype=torch.float64)
LABEL = torch.tensor([2, 0, 1])
NULL = torch.full((3,), -1)


class Counting(Denoiser):
    """Remembers the batches it was asked."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser
        self.calls: list[dict[str, Tensor]] = []

    def forward(self, x_t: Tensor, t: Tensor, **cond: Tensor) -> Prediction:
        self.calls.append({"x_t": x_t, "t": t, **cond})
        return self.denoiser(x_t, t, **cond)


@pytest.mark.parametrize("t", [torch.tensor(0.3, dtype=torch.float64), f64(0.05, 0.4, 0.9)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 0.5, 7.3])
def test_equals_two_calls(scale: float, t: Tensor) -> None:
    cond, uncond = exact()(X_T, t, label=LABEL), exact()(X_T, t, label=NULL)
    got = ClassifierFreeGuidance(exact(), scale)(X_T, t, label=LABEL)
    for name in ("x_0", "eps", "v", "score"):
        a, b = getattr(cond, name), getattr(uncond, name)
        torch.testing.assert_close(getattr(got, name), b + scale * (a - b), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got.alpha * got.x_0 + got.sigma * got.eps, X_T)


def test_score_is_that_of_the_sharpened_label() -> None:
    # Ho & Salimans 2022, section 3: uncond + scale (cond - uncond) is the score of q(x_t) q(label | x_t)^scale.
    scale, t = 3.0, torch.tensor(0.3, dtype=torch.float64)
    x = X_T.clone().requires_grad_()
    alpha, sigma = VP().scales(t, x)
    _, _, joint = exact()._components(x, alpha, sigma)
    log_posterior = joint.log_softmax(1).gather(1, LABEL[:, None])[:, 0]
    (wanted,) = torch.autograd.grad((joint.logsumexp(1) + scale * log_posterior).sum(), x)
    got = ClassifierFreeGuidance(exact(), scale)(X_T, t, label=LABEL)
    torch.testing.assert_close(got.score, wanted, rtol=1e-9, atol=1e-9)


def test_one_call_of_twice_the_batch() -> None:
    counting = Counting(exact())
    ClassifierFreeGuidance(counting, 2.0)(X_T, f64(0.1, 0.2, 0.3), label=LABEL)
    (call,) = counting.calls
    assert call["label"].tolist() == [-1, -1, -1, 2, 0, 1]
    assert call["t"].tolist() == [0.1, 0.2, 0.3] * 2


@pytest.mark.parametrize("cond", [{}, {"label": LABEL}])
def test_off(cond: dict[str, Tensor]) -> None:
    # Scale 1, or nothing to be guided by: one plain call.
    counting, t = Counting(exact()), torch.tensor(0.3, dtype=torch.float64)
    got = ClassifierFreeGuidance(counting, 1.0 if cond else 4.0)(X_T, t, **cond)
    assert torch.equal(got.x_0, exact()(X_T, t, **cond).x_0)
    assert [len(call["x_t"]) for call in counting.calls] == [3]


def test_interval() -> None:
    process = exact().process
    t = process.t_at_noise_ratio(f64(0.1, 1.0, 5.0))
    counting = Counting(exact())
    guidance = ClassifierFreeGuidance(counting, 4.0, interval=(0.5, 2.0))
    got, always = guidance(X_T, t, label=LABEL), ClassifierFreeGuidance(exact(), 4.0)(X_T, t, label=LABEL)
    cond = exact()(X_T, t, label=LABEL)
    for i, wanted in enumerate((cond, always, cond)):
        torch.testing.assert_close(got.x_0[i], wanted.x_0[i])
        torch.testing.assert_close(got.eps[i], wanted.eps[i])
    assert not torch.allclose(always.x_0, cond.x_0)
    guidance(X_T, t[2], label=LABEL)  # outside: the conditional belief alone is asked
    assert [len(call["x_t"]) for call in counting.calls] == [6, 3]


def test_pure_noise_is_inside_an_open_interval() -> None:
    # At alpha = 0 the noise level is infinite.
    denoiser = MixtureDenoiser(RectifiedFlow(), exact().means, f64(0.3).reshape(1, 1))
    one = torch.tensor(1.0, dtype=torch.float64)
    got = ClassifierFreeGuidance(denoiser, 2.0)(X_T, one, label=LABEL)
    means = exact().means
    torch.testing.assert_close(got.x_0, 2 * means[LABEL] - means.mean(0))
    outside = ClassifierFreeGuidance(denoiser, 2.0, (0, 100.0))(X_T, one, label=LABEL)
    torch.testing.assert_close(outside.x_0, means[LABEL])


def test_float_conditions_are_nulled_by_nan() -> None:
    counting = Counting(Unconditional(exact()))
    ClassifierFreeGuidance(counting, 2.0)(X_T, f64(0.1, 0.2, 0.3), text=torch.ones(3, 4), label=LABEL)
    (call,) = counting.calls
    assert call["text"].isnan().all(dim=1).tolist() == [True] * 3 + [False] * 3
    assert not math.isnan(float(call["text"][3:].sum()))


class Unconditional(Denoiser):
    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser

    def forward(self, x_t: Tensor, t: Tensor, **cond: Tensor) -> Prediction:
        return self.denoiser(x_t, t)


def test_learned_variance_is_the_conditional_one() -> None:
    class Learned(Unconditional):
        def forward(self, x_t: Tensor, t: Tensor, **cond: Tensor) -> Prediction:
            p = self.denoiser(x_t, t)
            return Prediction(
                p.x_t, p.x_0, p.eps, p.alpha, p.sigma, cond["label"].double().reshape(-1, 1).expand_as(x_t)
            )

    got = ClassifierFreeGuidance(Learned(exact()), 3.0)(X_T, torch.tensor(0.3).double(), label=LABEL)
    assert got.variance_fraction is not None
    assert got.variance_fraction[:, 0].tolist() == [2, 0, 1]

"""Cross-entropy against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from unstir.errors import UserError
from unstir.noisy_classifier import NoisyClassifier
from unstir.objectives import Batch, LogNormal
from unstir.objectives.classification import ClassificationObjective, NoisyClassificationObjective
from unstir.processes import VP
from unstir.sampling import SampleNoise


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_it_is_the_smoothed_cross_entropy(smoothing: float) -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0], [1.0, 1.5, -2.0]])
    label = torch.tensor([0, 2, 1])
    loss = ClassificationObjective(smoothing=smoothing)(
        nn.Identity(), Batch(logits, {"label": label}), SampleNoise(0, range(3))
    )
    for row, k, found in zip(logits.tolist(), label.tolist(), loss.total.tolist(), strict=True):
        total = sum(math.exp(v) for v in row)
        q = [(1 - smoothing) * (i == k) + smoothing / 3 for i in range(3)]
        assert found == pytest.approx(-sum(p * math.log(math.exp(v) / total) for p, v in zip(q, row)), rel=1e-5)
    assert loss.parts["accuracy"].tolist() == [1, 0, 1]
    assert torch.equal(loss.parts["loss"], loss.total)


def test_the_label_may_have_another_name_and_bf16_logits_lose_nothing_in_the_loss() -> None:
    logits = torch.tensor([[300.0, 299.0]])  # the difference of the exponents needs fp32
    batch = Batch(logits.bfloat16(), {"kind": torch.tensor([1])})
    loss = ClassificationObjective("kind", 0.0)(nn.Identity(), batch, SampleNoise(0, [0]))
    found = logits.bfloat16().float()[0]
    assert float(loss.total) == pytest.approx(math.log1p(math.exp(float(found[0] - found[1]))), rel=1e-6)


def test_smoothing_has_bounds() -> None:
    with pytest.raises(UserError, match="must lie in"):
        ClassificationObjective(smoothing=1.0)


class Recording(NoisyClassifier):
    """Gives logits that are a function of what it was asked, and remembers it."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), VP(), "kind")
        self.asked: list[tuple[Tensor, Tensor]] = []

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.asked.append((x_t, t))
        return x_t


def test_the_noisy_objective_shows_noised_data_at_its_times() -> None:
    x, label = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3
    module, times = Recording(), LogNormal(0.0, 1.0)
    loss = NoisyClassificationObjective(times)(module, Batch(x, {"kind": label}), SampleNoise(0, range(64)))
    replay = SampleNoise(0, range(64))
    t = times.quantile(VP(), (torch.arange(64) + replay.uniform()) / 64)
    x_t = VP().add_noise(x, t, replay.normal_like(x))
    torch.testing.assert_close(module.asked[0][1], t)
    torch.testing.assert_close(module.asked[0][0], x_t)
    torch.testing.assert_close(loss.total, -x_t.log_softmax(1)[torch.arange(64), label])
    torch.testing.assert_close(loss.log_snr, VP().log_snr(t))


def test_samples_without_a_label_cost_nothing() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    label = torch.tensor([0, -1, 2, -1])
    for smoothing in (0.0, 0.1):
        loss = ClassificationObjective(smoothing=smoothing)(
            nn.Identity(), Batch(logits, {"label": label}), SampleNoise(0, range(4))
        )
        assert loss.total[[1, 3]].tolist() == [0, 0]
        assert (loss.total[[0, 2]] > 0).all()
        (gradient,) = torch.autograd.grad(loss.total.sum(), logits)
        assert gradient[[1, 3]].abs().max() == 0

"""What stands between an encoder and a decoder, against closed forms and brute force."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from unstir.errors import UserError
from unstir.networks import BOTTLENECKS, KL, VQ
from unstir.networks.bottleneck import START, Gaussian, kl_divergence
from unstir.networks.quantize import Codebook


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def codebook(channels: int, **fields: float) -> Codebook:
    torch.manual_seed(0)
    return VQ(**fields).build(channels).double()  # type: ignore[arg-type]


# ---- Gaussian --------------------------------------------------------------------------------------------------------


def test_the_divergence_is_pytorchs() -> None:
    mean, log_variance = randn(3, 2, 5), randn(3, 2, 5, seed=1)
    ours = torch.distributions.Normal(mean, (log_variance / 2).exp())
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(ours, standard).flatten(1).sum(1)
    torch.testing.assert_close(kl_divergence(mean, log_variance), expected, rtol=1e-12, atol=0)


def test_gaussian_latents_have_the_moments_that_the_encoder_says() -> None:
    """h says a mean of 2 and a standard deviation of 0.3 everywhere."""
    bottleneck = KL().build(1)
    assert isinstance(bottleneck, Gaussian)
    log_variance = 2 * math.log(0.3)
    h = torch.tensor([2.0, log_variance - START], dtype=torch.float64).reshape(1, 2, 1).expand(4, 2, 25_000)
    found = bottleneck(h, randn(4, 1, 25_000), numbers=10)
    assert found.z.mean() == pytest.approx(2.0, abs=0.005)
    assert found.z.std() == pytest.approx(0.3, abs=0.003)
    each = (2.0**2 + 0.3**2 - 1 - log_variance) / 2
    torch.testing.assert_close(found.penalty, torch.full((4,), 25_000 * each / 10, dtype=torch.float64))
    torch.testing.assert_close(bottleneck.encode(h), torch.full_like(h[:, :1], 2.0))


# ---- codebook --------------------------------------------------------------------------------------------------------


def test_the_nearest_code_is_that_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    book, h = codebook(3, codes=17), randn(4, 3, 5, 2)
    rows = h.movedim(1, -1).reshape(-1, 3)
    expected = torch.stack([(book.codes - row).square().sum(1).argmin() for row in rows]).reshape(4, 5, 2)
    assert torch.equal(book.numbers(h), expected)
    assert torch.equal(book.encode(h).movedim(1, -1), book.codes[expected])
    assert torch.equal(book.decode(book.encode(h)), book.encode(h))
    monkeypatch.setattr("unstir.networks.quantize.AT_ONCE", 40)  # two rows at a time
    assert torch.equal(book.numbers(h), expected)


def test_gradients_go_straight_through_and_the_penalty_pulls_at_the_encoder() -> None:
    book, h = codebook(3, codes=17), randn(2, 3, 5).requires_grad_()
    found = book(h, randn(2, 3, 5), numbers=1)
    upstream = randn(2, 3, 5, seed=3)
    (gradient,) = torch.autograd.grad((found.z * upstream).sum(), h, retain_graph=True)
    assert torch.equal(gradient, upstream)
    torch.testing.assert_close(found.z, book.encode(h))
    torch.testing.assert_close(found.penalty, (h - book.encode(h)).square().mean((1, 2)))
    (pull,) = torch.autograd.grad(found.penalty.sum(), h)
    torch.testing.assert_close(pull, 2 * (h - book.encode(h)) / 15)


def test_codes_are_the_weighted_means_of_what_they_stood_for() -> None:
    """After several steps, m / N in one go: sum_s decay^(S - s) z / sum_s decay^(S - s) over all latents ever assigned to a code."""
    book = codebook(2, codes=5, decay=0.7, restart=0.0)
    weights, sums = torch.zeros(5, dtype=torch.float64), torch.zeros(5, 2, dtype=torch.float64)
    for step in range(6):
        h = randn(3, 2, 4, seed=step)
        number = book.numbers(h)
        book(h, randn(3, 2, 4), numbers=1)
        weights, sums = 0.7 * weights, 0.7 * sums
        for k, z in zip(number.flatten().tolist(), h.movedim(1, -1).reshape(-1, 2), strict=True):
            weights[k] += 1
            sums[k] += z
        book.follow()
    used = weights > 0
    assert int(used.sum()) >= 3
    torch.testing.assert_close(book.codes[used], (sums / weights[:, None])[used], rtol=1e-10, atol=0)


def test_nothing_moves_without_a_step_nor_in_eval_mode() -> None:
    book = codebook(2, codes=5)
    before = book.codes.clone()
    book.eval()(randn(3, 2, 4), randn(3, 2, 4), numbers=1)
    book.follow()
    book.train()(randn(3, 2, 4), randn(3, 2, 4), numbers=1)
    assert torch.equal(book.codes, before)
    book.follow()
    assert not torch.equal(book.codes, before)


def test_two_pieces_are_one_batch() -> None:
    """Also in which latents dead codes start anew at."""
    one, two = codebook(2, codes=40), codebook(2, codes=40)
    h, noise = randn(6, 2, 8), randn(6, 2, 8, seed=1)
    for _ in range(3):
        one(h, noise, numbers=1)
        one.follow()
        for rows in ([0, 2, 4], [1, 3, 5]):
            two(h[rows], noise[rows], numbers=1)
        two.follow()
    torch.testing.assert_close(one.codes, two.codes, rtol=1e-12, atol=1e-12)


def perplexity_after(restart: float) -> float:
    """Latents around 32 places; all codes begin around one other place."""
    book = codebook(2, codes=32, restart=restart)
    book.codes.mul_(0.01).add_(20)
    places = 5 * randn(32, 2, seed=9)
    for step in range(60):
        h = (places.repeat(4, 1) + 0.05 * randn(128, 2, seed=step)).reshape(8, 16, 2).mT
        found = book(h, randn(8, 2, 16, seed=1000 + step), numbers=1)
        book.follow()
    return float(found.perplexity)


def test_dead_codes_are_revived() -> None:
    without, used = perplexity_after(0.0), perplexity_after(0.03)
    assert without < 6
    assert used > 20


def test_perplexity_of_even_use_is_the_number_of_codes() -> None:
    book = codebook(1, codes=8)
    book.codes.copy_(torch.arange(8.0)[:, None])
    h = torch.arange(8, dtype=torch.float64).reshape(2, 1, 4)
    assert float(book(h, h, numbers=1).perplexity) == pytest.approx(8)
    assert float(book(h[:1] // 2, h[:1], numbers=1).perplexity) == pytest.approx(2)


def test_the_state_of_a_codebook_is_in_its_checkpoint() -> None:
    book = codebook(2, codes=12)
    book(randn(3, 2, 4), randn(3, 2, 4), numbers=1)
    book.follow()
    other = codebook(2, codes=12)
    other.load_state_dict(copy.deepcopy(book.state_dict()))
    for each in (book, other):
        each(randn(3, 2, 4, seed=5), randn(3, 2, 4, seed=6), numbers=1)
        each.follow()
    assert torch.equal(book.codes, other.codes)


@pytest.mark.parametrize("fields", [{"codes": 1}, {"decay": 1.0}, {"restart": -0.1}, {"commitment": -1.0}])
def test_a_wrong_codebook_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UserError, match="at least 2 codes"):
        VQ(**fields)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="must be at least 0"):
        KL(weight=-1.0)
    assert set(BOTTLENECKS.values()) == {KL, VQ}

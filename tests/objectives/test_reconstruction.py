"""What an autoencoder is trained by, against formulas worked out by hand; and who gets which gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from unstir.autoencoder import Autoencoder
from unstir.data import DataConfig, load
from unstir.data.spec import DataSpec
from unstir.errors import UserError
from unstir.networks import KL, VQ, AutoencoderNetworkConfig, BottleneckConfig
from unstir.networks.autoencoder import GridCoder
from unstir.networks.discriminator import PatchDiscriminator
from unstir.networks.efficientnet import PACKAGE, EfficientNetLite0
from unstir.objectives import Batch, Loss, ReconstructionObjective
from unstir.objectives import reconstruction as module
from unstir.objectives.perceptual import PerceptualDistance, in_colour, why_not
from unstir.objectives.reconstruction import Critics, adaptive_weight, hinge
from unstir.processes import EDM
from unstir.recipes import AutoencoderConfig
from unstir.sampling import SampleNoise
from unstir.training.config import TrainingConfig
from unstir.training.loop import Loop, TrainingState

SPEC = DataSpec("image", (3, 12, 10), dtype="uint8", bounds=(-1.0, 1.0))
PLAIN = ReconstructionObjective(perceptual=0.0, adversarial=0.5, adversarial_start=0.25, discriminator_channels=4)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def new(
    objective: ReconstructionObjective = PLAIN, bottleneck: BottleneckConfig | None = None, spec: DataSpec = SPEC
) -> tuple[Autoencoder, ReconstructionObjective, Critics]:
    torch.manual_seed(0)
    network = AutoencoderNetworkConfig(channels=8, head_channels=8, linear=False)
    autoencoder = AutoencoderConfig(bottleneck or KL()).build(network, EDM(), spec).double()
    objective = objective.fitted(spec)
    return autoencoder, objective, objective.companion(EDM()).double()


def ask(autoencoder: Autoencoder, objective: ReconstructionObjective, critics: Critics, x: Tensor) -> Loss:
    return objective(autoencoder, Batch(x), SampleNoise(0, range(len(x))), critics)


def test_the_plain_loss_is_the_mean_distance_and_the_bottlenecks_share() -> None:
    autoencoder, objective, critics = new(bottleneck=KL(weight=0.3))
    x = randn(4, *SPEC.shape)
    loss = ask(autoencoder, objective, critics, x)
    noise = SampleNoise(0, range(4)).normal((4, 3, 3)).double()
    network = autoencoder.network
    assert isinstance(network, GridCoder)
    h = network._encode(F.pad(x, (1, 1, 0, 0), mode="replicate"))
    mean, log_variance = h[:, :4], h[:, 4:] - 5
    z = mean + (log_variance / 2).exp() * noise
    y = autoencoder.decode(z, (12, 10))
    kl = (mean**2 + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)) / 2 / (3 * 12 * 12)
    torch.testing.assert_close(loss.total, (x - y).abs().mean((1, 2, 3)) + 0.3 * kl)
    assert set(loss.parts) == {"reconstruction", "kl"}


def test_the_discriminator_begins_where_it_is_told_to() -> None:
    autoencoder, objective, critics = new()
    x = randn(2, *SPEC.shape)
    critics.at(0.24)
    assert "discriminator" not in ask(autoencoder, objective, critics, x).parts
    critics.at(0.25)
    parts = ask(autoencoder, objective, critics, x).parts
    assert {"adversarial", "discriminator", "adaptive_weight"} <= set(parts)
    autoencoder, objective, critics = new(replace(PLAIN, adversarial=0.0))
    critics.at(1.0)
    assert critics.discriminator is None
    assert "discriminator" not in ask(autoencoder, objective, critics, x).parts


def test_the_hinge() -> None:
    real, made = torch.tensor([[2.0, 0.5], [1.0, -1.0]]), torch.tensor([[-3.0, 0.0], [-1.0, 1.0]])
    assert hinge(real, made).tolist() == [0.5 * (0.25 + 0.5), 0.5 * (1.0 + 1.0)]


def test_the_adaptive_weight_of_a_linear_decoder() -> None:
    """y = W z; L_rec = a · y and L_adv = b · y have the gradients a z^T and b z^T, so the weight is |a| / |b| and scales of z drop out."""
    z, a, b = randn(5), randn(3, seed=1), randn(3, seed=2)
    W = randn(3, 5, seed=3).requires_grad_()
    y = W @ z
    gradients = [torch.autograd.grad(part @ y, W, retain_graph=True)[0] for part in (a, b)]
    length = float(z.norm())
    expected = float(a.norm()) * length / (float(b.norm()) * length + 1e-4)
    assert float(adaptive_weight(*gradients)) == pytest.approx(expected, rel=1e-12)
    assert float(adaptive_weight(torch.ones(3), torch.zeros(3))) == 1e4


def test_the_adaptive_weight_is_that_of_the_last_layer_by_autograd() -> None:
    autoencoder, objective, critics = new()
    critics.at(1.0)
    network, x = autoencoder.network, randn(3, *SPEC.shape)
    assert isinstance(network, GridCoder)
    parts = ask(autoencoder, objective, critics, x).parts
    last = network.last.get_parameter("weight")
    rec, adv = (
        torch.autograd.grad(parts[k].mean(), last, retain_graph=True)[0] for k in ("reconstruction", "adversarial")
    )
    expected = rec.norm() / (adv.norm() + 1e-4)
    torch.testing.assert_close(parts["adaptive_weight"], expected.expand(3))
    assert not parts["adaptive_weight"].requires_grad


def test_nobody_gets_anothers_gradient() -> None:
    """The discriminator learns from its own loss alone, and the autoencoder from all others."""
    autoencoder, objective, critics = new()
    critics.at(1.0)
    x = randn(3, *SPEC.shape)
    loss = ask(autoencoder, objective, critics, x)
    ours, theirs = list(autoencoder.parameters()), list(critics.parameters())
    together = torch.autograd.grad(loss.total.mean(), [*ours, *theirs], retain_graph=True)
    judged, adversarial = loss.parts["discriminator"].mean(), loss.parts["adversarial"].mean()
    rest = (loss.total - loss.parts["discriminator"]).mean()
    assert all(g is None for g in torch.autograd.grad(judged, ours, retain_graph=True, allow_unused=True))
    assert all(g is None for g in torch.autograd.grad(adversarial, theirs, retain_graph=True, allow_unused=True))
    expected = [*torch.autograd.grad(rest, ours, retain_graph=True), *torch.autograd.grad(judged, theirs)]
    for a, b in zip(together, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert all(bool(g.any()) for g in expected[len(ours) :])


def test_the_autoencoders_adversarial_gradient_is_the_weighted_one() -> None:
    """d total / d y = d likeness / d y + 0.5 λ d L_adv / d y, with the discriminator as it is."""
    autoencoder, objective, critics = new()
    critics.at(1.0)
    x = randn(2, *SPEC.shape)
    loss = ask(autoencoder, objective, critics, x)
    weight = float(loss.parts["adaptive_weight"][0])
    last = autoencoder.network.get_parameter("last.bias")
    (total,) = torch.autograd.grad(loss.total.mean(), last, retain_graph=True)
    rec, adv = (
        torch.autograd.grad(loss.parts[k].mean(), last, retain_graph=True)[0] for k in ("reconstruction", "adversarial")
    )
    torch.testing.assert_close(total, rec + 0.5 * weight * adv)


def test_the_codebook_follows_only_after_the_step() -> None:
    autoencoder, objective, critics = new(bottleneck=VQ(codes=8))
    x = randn(4, *SPEC.shape)
    before = autoencoder.network.get_buffer("bottleneck.codes").clone()
    parts = ask(autoencoder, objective, critics, x).parts
    assert {"commitment", "perplexity"} <= set(parts)
    assert torch.equal(autoencoder.network.get_buffer("bottleneck.codes"), before)
    critics.follow(autoencoder, 1)
    assert not torch.equal(autoencoder.network.get_buffer("bottleneck.codes"), before)


def test_the_discriminator_tells_data_from_what_a_frozen_autoencoder_makes_of_them() -> None:
    """Through the training loop, whose clipping of the autoencoder's gradient is none of its business."""
    spec = DataSpec("image", (3, 16, 16), dtype="uint8", bounds=(-1.0, 1.0))
    x = torch.rand(64, *spec.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.manual_seed(0)
    autoencoder = AutoencoderConfig(KL()).build(AutoencoderNetworkConfig(channels=8, head_channels=8), EDM(), spec)
    autoencoder.fit(x)  # principal components: pictures with less contrast
    before = {name: value.clone() for name, value in autoencoder.state_dict().items()}
    objective = replace(PLAIN, adversarial_start=0.0, discriminator_channels=8).fitted(spec)
    config = TrainingConfig(steps=60, batch_size=16, learning_rate=2e-3, gradient_clip=1e-3, warmup=0)
    state = TrainingState(autoencoder, config, companion=objective.companion(EDM()))
    for group in state.optimizer.param_groups:
        group["lr_scale"] = 0.0

    def draw(step: int, positions: list[int], rng: SampleNoise) -> Batch:
        return Batch(x[[(16 * step + position) % 64 for position in positions]])

    judged = [float(p.parts["discriminator"]) for p in Loop(state, objective, draw, config, Accelerator(cpu=True))]
    assert judged[0] == pytest.approx(1, abs=0.2)
    assert max(judged[-10:]) < 0.5
    assert all(torch.equal(value, before[name]) for name, value in autoencoder.state_dict().items())


@pytest.mark.parametrize("shape", [(3, 5, 9), (2, 30), (1, 3, 4, 5)])
def test_the_discriminator_judges_each_sample_on_its_own_at_any_size(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(len(shape) - 1, shape[0], 4, 2).double()
    x = randn(3, *shape)
    together = discriminator(x)
    patches = 1
    for size in shape[1:]:
        patches *= -(-size // 4)
    assert together.shape == (3, patches)
    torch.testing.assert_close(together[1:2], discriminator(x[1:2]))


# ---- how it looks ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def look() -> PerceptualDistance:
    pytest.importorskip(PACKAGE, reason='needs pip install "unstir[evaluate]"')
    return PerceptualDistance()


def test_the_perceptual_distance_by_forward_hooks(look: PerceptualDistance) -> None:
    """The same from the network's own forward pass, its inputs as in its training."""
    x, y = (torch.rand(2, 3, 40, 33, generator=torch.Generator().manual_seed(s)) * 2 - 1 for s in (0, 1))
    features: list[list[Tensor]] = []
    network: EfficientNetLite0 = look.network
    for picture in (x, y):
        found: list[Tensor] = []

        def keep(_: object, __: object, out: Tensor, found: list[Tensor] = found) -> None:
            found.append(out)

        handles = [network._blocks[d].register_forward_hook(keep) for d in (0, 2, 4, 10)]
        network((picture * 127.5 + 127.5 - 127) / 128)
        features.append(found)
        for handle in handles:
            handle.remove()
    expected = torch.zeros(2)
    for a, b in zip(*features, strict=True):
        expected += (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean((1, 2)) / 4
    torch.testing.assert_close(look(x, y), expected, rtol=1e-3, atol=1e-5)
    assert [f.shape[1] for f in features[0]] == [16, 24, 40, 112]
    torch.testing.assert_close(look(x, x), torch.zeros(2))


def test_blur_looks_worse_than_a_tint_at_the_same_squared_distance(look: PerceptualDistance) -> None:
    """What it is there for."""
    x = load(DataConfig(source="emoji")).samples(torch.arange(0, 1900, 60))
    blurred = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    size = (blurred - x).square().mean((1, 2, 3), keepdim=True).sqrt()
    tint = x + size * torch.tensor([1.0, 1.0, -1.0]).reshape(1, 3, 1, 1)
    assert float((look(x, blurred) > look(x, tint)).float().mean()) > 0.8


def test_gradients_reach_the_picture_and_not_the_network(look: PerceptualDistance) -> None:
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = (x * 0.5).requires_grad_()
    look(x, y).sum().backward()  # type: ignore[no-untyped-call]
    assert y.grad is not None
    assert bool(y.grad.any())
    assert all(p.grad is None for p in look.network.parameters())
    _, objective, critics = new(ReconstructionObjective(adversarial=0.5))
    assert objective.perceptual == 1.0
    assert all(name.startswith("discriminator.") for name in critics.state_dict())


def test_colours() -> None:
    grey = torch.tensor([0.2]).reshape(1, 1, 1, 1)
    assert in_colour(grey).flatten().tolist() == pytest.approx([0.2, 0.2, 0.2])
    rgba = torch.tensor([0.2, -0.4, 1.0, 0.0]).reshape(1, 4, 1, 1)  # half transparent
    assert in_colour(rgba).flatten().tolist() == pytest.approx([0.6, 0.3, 1.0])
    invisible = torch.tensor([0.2, -1.0]).reshape(1, 2, 1, 1)
    assert in_colour(invisible).flatten().tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_what_nobody_can_look_at_is_said_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    signal = DataSpec("signal", (2, 30))
    fitted = ReconstructionObjective().fitted(signal)
    assert (fitted.perceptual, fitted.shape) == (0.0, (2, 30))
    assert "set to 0: signal of 2 channels" in capsys.readouterr().out
    fitted.fitted(signal)
    assert capsys.readouterr().out == ""
    assert "5 channels" in why_not(DataSpec("image", (5, 8, 8), bounds=(-1.0, 1.0)))
    monkeypatch.setattr("unstir.objectives.perceptual.installed", lambda: False)
    assert "pip install" in why_not(SPEC)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UserError, match="adversarial_start"):
        ReconstructionObjective(adversarial_start=1.5)
    with pytest.raises(UserError, match="discriminator_layers"):
        ReconstructionObjective(discriminator_layers=0)
    assert module.SMALLEST == 1e-4

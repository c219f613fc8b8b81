"""The classifier against the same network written out, and what it must not depend on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from unstir.data.spec import DataSpec
from unstir.errors import UserError
from unstir.networks.classifier import Classifier, ClassifierConfig
from unstir.networks.layers import space_to_depth
from unstir.training.config import HasInnerWeights

SPECS = {
    "gray": DataSpec("image", (1, 28, 28)),
    "small": DataSpec("image", (3, 8, 8)),
    "large": DataSpec("image", (3, 65, 40)),
    "signal": DataSpec("signal", (2, 300)),
    "long": DataSpec("signal", (1, 1000)),
    "volume": DataSpec("volume", (1, 8, 9, 10)),
}


def built(spec: DataSpec, config: ClassifierConfig | None = None) -> Classifier:
    torch.manual_seed(0)
    network = (config or ClassifierConfig((8, 12, 16))).build(spec, 5)
    for name, buffer in network.named_buffers():  # as after training, not as at the start
        if name.endswith("running_mean"):
            buffer.normal_()
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return network.eval()


def test_it_is_the_network_written_out() -> None:
    network = built(SPECS["gray"])
    w = dict(network.state_dict())

    def layer(x: torch.Tensor, level: str, i: int, stride: int = 1) -> torch.Tensor:
        x = F.conv2d(x, w[f"{level}.conv_{i}.weight"], w[f"{level}.conv_{i}.bias"], stride, 1)
        mean, var, scale, shift = (
            w[f"{level}.norm_{i}.{name}"].reshape(-1, 1, 1)
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu((x - mean) / (var + 1e-5).sqrt() * scale + shift)

    x = torch.randn(3, 1, 28, 28)
    h = layer(layer(x, "stem", 1), "levels.0", 1, 2)
    h = layer(h, "levels.1", 1, 2)
    h = h + layer(h, "levels.1", 2)
    torch.testing.assert_close(network.features(x), h.mean((2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(x), h.mean((2, 3)) @ w["head.weight"].T + w["head.bias"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_any_size_and_each_sample_for_itself(name: str) -> None:
    network, spec = built(SPECS[name]), SPECS[name]
    x = torch.randn(4, *spec.shape)
    alone = torch.cat([network.features(x[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(network.features(x), alone, rtol=1e-4, atol=1e-5)
    assert (alone.std(0) > 0).float().mean() > 0.5  # they see the data; some ReLUs of random weights are dead
    assert network(x).shape == (4, 5)


def test_larger_data_are_cut_into_patches() -> None:
    assert [built(SPECS[name]).patch for name in ("gray", "small", "large", "long", "volume")] == [1, 1, 2, 4, 1]
    network, x = built(SPECS["large"]), torch.randn(2, 3, 65, 40)
    padded = F.pad(x, (0, 0, 0, 1), mode="replicate")
    by_hand = network.levels(network.stem(space_to_depth(padded, 2))).mean((2, 3))
    torch.testing.assert_close(network.features(x), by_hand, rtol=1e-4, atol=1e-5)


def test_bf16_is_close_to_fp32() -> None:
    network, x = built(SPECS["gray"]), torch.randn(16, 1, 28, 28)
    exact = network.features(x)
    network.autocast = torch.bfloat16
    rounded = network.features(x)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.02


def test_hidden_layers_are_for_muon_and_the_first_is_not() -> None:
    network = built(SPECS["gray"], ClassifierConfig((8, 12, 16), deep=3))
    inner = [
        id(weight) for part in network.modules() if isinstance(part, HasInnerWeights) for weight in part.inner_weights()
    ]
    names = [name for name, parameter in network.named_parameters() if id(parameter) in inner]
    assert names == [f"levels.{i}.conv_{k}.weight" for i in (0, 1) for k in (1, 2)]
    assert "stem.conv_2.weight" in dict(network.named_parameters())


def test_points_have_no_grid() -> None:
    with pytest.raises(UserError, match="not on points"):
        ClassifierConfig().build(DataSpec("points", (2,)), 3)

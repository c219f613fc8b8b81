"""The Inception-v3 of 2015 that the field's FID is defined by: its weights, its quirks, its resizing."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstir.data import Dataset
from unstir.data.cache import digest, key_of
from unstir.errors import UserError, did_you_mean
from unstir.evaluation.features.pretrained import Prepare, PretrainedSpace, check_pictures, sha256
from unstir.evaluation.features.resize import antialiased, tensorflow_bilinear
from unstir.networks.published import fold, load_into

NAME = "inception-v3"
VERSION = 1  # of the preprocessing below: another number makes cached features worthless
VARIABLE = "UNSTIR_INCEPTION_WEIGHTS"
URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d"
"""How the published file's checksum begins. Distances are called FID only where the weights are these, and the resizing TensorFlow's."""
SIDE = (299, 299)


def like_tensorflow(x: Tensor) -> Tensor:
    """As in the original FID, and in StyleGAN's, EDM's and torch-fidelity's: TensorFlow 1's bilinear resizing, (x - 128) / 128.

    Source:
        Heusel et al. 2017, "GANs trained by a two time-scale update rule", https://arxiv.org/abs/1706.08500; https://github.com/bioinf-jku/TTUR
    """
    return (tensorflow_bilinear(x, SIDE) - 128) / 128


def like_pytorch_fid(x: Tensor) -> Tensor:
    """As in pytorch-fid: PyTorch's bilinear resizing without antialiasing, 2 x / 255 - 1.

    Source:
        Seitzer 2020, https://github.com/mseitzer/pytorch-fid
    """
    return 2 * F.interpolate(x / 255, size=SIDE, mode="bilinear", align_corners=False) - 1


def like_clean_fid(x: Tensor) -> Tensor:
    """As in clean-fid: Pillow's antialiased bicubic resizing, not rounded, clipped to 0 ... 255; (x - 128) / 128.

    Source:
        Parmar, Zhang & Zhu 2022, "On aliased resizing and surprising subtleties in GAN evaluation", https://arxiv.org/abs/2104.11222
    """
    return (antialiased(x, SIDE).clamp(0, 255) - 128) / 128


RESIZING: dict[str, Prepare] = {"tensorflow": like_tensorflow, "pytorch": like_pytorch_fid, "clean": like_clean_fid}
"""From bytes to the network's input."""


class ConvNormReLU(nn.Module):
    """Names as in the published weights."""

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))  # (B, out, H', W')


def average(x: Tensor) -> Tensor:
    """3x3 means over the pixels that there are: TensorFlow does not count the padding."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)  # (B, C, H, W)


def largest(x: Tensor) -> Tensor:
    """3x3 maxima. In the last block, where the paper has means; the 2015 weights come with it."""
    return F.max_pool2d(x, 3, stride=1, padding=1)  # (B, C, H, W)


class BlockA(nn.Module):
    """35x35: 1x1 | 5x5 | 3x3 3x3 | mean."""

    def __init__(self, channels: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNormReLU(channels, 64, 1)
        self.branch5x5_1 = ConvNormReLU(channels, 48, 1)
        self.branch5x5_2 = ConvNormReLU(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvNormReLU(channels, 64, 1)
        self.branch3x3dbl_2 = ConvNormReLU(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNormReLU(96, 96, 3, padding=1)
        self.branch_pool = ConvNormReLU(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))  # (B, 64, 35, 35)
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))  # (B, 96, 35, 35)
        return torch.cat(
            [self.branch1x1(x), five, double, self.branch_pool(average(x))], 1
        )  # (B, 224 + pooled, 35, 35)


class BlockB(nn.Module):
    """35x35 to 17x17: 3x3 | 3x3 3x3 | maximum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNormReLU(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvNormReLU(channels, 64, 1)
        self.branch3x3dbl_2 = ConvNormReLU(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNormReLU(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))  # (B, 96, 17, 17)
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], 1)  # (B, 480 + C, 17, 17)


class BlockC(nn.Module):
    """17x17: 1x1 | 1x7 7x1 | 7x1 1x7 7x1 1x7 | mean."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        wide, tall = (
            partial(ConvNormReLU, kernel=(1, 7), padding=(0, 3)),
            partial(ConvNormReLU, kernel=(7, 1), padding=(3, 0)),
        )
        self.branch1x1 = ConvNormReLU(channels, 192, 1)
        self.branch7x7_1 = ConvNormReLU(channels, inner, 1)
        self.branch7x7_2 = wide(inner, inner)
        self.branch7x7_3 = tall(inner, 192)
        self.branch7x7dbl_1 = ConvNormReLU(channels, inner, 1)
        self.branch7x7dbl_2 = tall(inner, inner)
        self.branch7x7dbl_3 = wide(inner, inner)
        self.branch7x7dbl_4 = tall(inner, inner)
        self.branch7x7dbl_5 = wide(inner, 192)
        self.branch_pool = ConvNormReLU(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))  # (B, 192, 17, 17)
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))  # (B, inner, 17, 17)
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))  # (B, 192, 17, 17)
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(average(x))], 1)  # (B, 768, 17, 17)


class BlockD(nn.Module):
    """17x17 to 8x8: 3x3 | 1x7 7x1 3x3 | maximum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNormReLU(channels, 192, 1)
        self.branch3x3_2 = ConvNormReLU(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvNormReLU(channels, 192, 1)
        self.branch7x7x3_2 = ConvNormReLU(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = ConvNormReLU(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = ConvNormReLU(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))  # (B, 320, 8, 8)
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))  # (B, 192, 8, 8)
        return torch.cat([three, seven, F.max_pool2d(x, 3, stride=2)], 1)  # (B, 512 + C, 8, 8)


class BlockE(nn.Module):
    """8x8: 1x1 | 1x3 and 3x1 | 3x3, then 1x3 and 3x1 | mean or maximum."""

    def __init__(self, channels: int, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        wide, tall = (
            partial(ConvNormReLU, kernel=(1, 3), padding=(0, 1)),
            partial(ConvNormReLU, kernel=(3, 1), padding=(1, 0)),
        )
        self.pool = pool
        self.branch1x1 = ConvNormReLU(channels, 320, 1)
        self.branch3x3_1 = ConvNormReLU(channels, 384, 1)
        self.branch3x3_2a = wide(384, 384)
        self.branch3x3_2b = tall(384, 384)
        self.branch3x3dbl_1 = ConvNormReLU(channels, 448, 1)
        self.branch3x3dbl_2 = ConvNormReLU(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = wide(384, 384)
        self.branch3x3dbl_3b = tall(384, 384)
        self.branch_pool = ConvNormReLU(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)  # (B, 384, 8, 8)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))  # (B, 384, 8, 8)
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(three),
            self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(self.pool(x)),
        ]
        return torch.cat(branches, 1)  # (B, 2048, 8, 8)


class InceptionV3(nn.Module):
    """(B, 3, 299, 299) -> (B, 2048) averages of the last block, and (B, 1008) logits without their biases.

    Source:
        Szegedy et al. 2016, "Rethinking the Inception architecture", table 1, https://arxiv.org/abs/1512.00567, as
        in http://download.tensorflow.org/models/image/imagenet/inception-2015-12-05.tgz
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNormReLU(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvNormReLU(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNormReLU(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvNormReLU(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNormReLU(80, 192, 3)
        self.Mixed_5b = BlockA(192, 32)
        self.Mixed_5c = BlockA(256, 64)
        self.Mixed_5d = BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(768, 128)
        self.Mixed_6c = BlockC(768, 160)
        self.Mixed_6d = BlockC(768, 160)
        self.Mixed_6e = BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b = BlockE(1280, average)
        self.Mixed_7c = BlockE(2048, largest)
        self.fc = nn.Linear(2048, 1008)

    def fold(self) -> None:
        """Batch normalisations into convolutions."""
        for module in self.modules():
            if isinstance(module, ConvNormReLU):
                fold(module, "conv", "bn")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (B, 64, 147, 147)
        x = F.max_pool2d(x, 3, stride=2)  # (B, 64, 73, 73)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))  # (B, 192, 71, 71)
        x = F.max_pool2d(x, 3, stride=2)  # (B, 192, 35, 35)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (B, 288, 35, 35)
        x = self.Mixed_6a(x)  # (B, 768, 17, 17)
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))  # (B, 768, 17, 17)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (B, 2048, 8, 8)
        vectors = x.mean((2, 3))  # (B, 2048)
        return vectors, F.linear(vectors, self.fc.weight)  # (B, 2048), (B, 1008); the literature leaves the biases out


def weights_file(cache: Path) -> Path:
    """The file that UNSTIR_INCEPTION_WEIGHTS names, or the published one: from the cache, or else fetched into it (91 MB).

    Raises:
        UserError: it cannot be fetched, or the named file is not there.
    """
    named = os.environ.get(VARIABLE)
    if named:
        file = Path(named).expanduser()
        if not file.is_file():
            raise UserError(f"{VARIABLE} names {file}, and there is no such file")
        return file
    file = cache / "weights" / URL.rpartition("/")[2]
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URL, str(file), hash_prefix=SHA256)
        except (URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"cannot fetch the weights of {NAME} ({error}). Where there is a connection, download {URL} "
                f"and name the file: {VARIABLE}=FILE; or take other features (--features efficientnet-lite0)"
            ) from error
    return file


def inception(dataset: Dataset, device: torch.device, cache: Path, resizing: str = "tensorflow") -> PretrainedSpace:
    """The 2,048 averages of Inception-v3's last block; Fréchet distances between them are the FID.

    The probabilities are those of the literature's Inception scores: of all 1,008 logits, without their biases (Salimans et al. 2016,
    "Improved techniques for training GANs", https://arxiv.org/abs/1606.03498, in their code).

    Args:
        dataset: the reference.
        device: where it runs.
        cache: the weights are fetched into its folder "weights".
        resizing: "tensorflow" (what the literature quotes), "pytorch" or "clean": a key of ``RESIZING``.

    Raises:
        UserError: no pictures, too many channels, or no weights.
    """
    name = NAME if resizing == "tensorflow" else f"{NAME}-{resizing}"
    check_pictures(name, dataset)
    if resizing not in RESIZING:
        raise UserError(f"unknown resizing '{resizing}'; {did_you_mean(resizing, RESIZING)}")
    file = weights_file(cache)
    network = load_into(InceptionV3, file, NAME)
    assert isinstance(network, InceptionV3)
    network.fold()
    real = resizing == "tensorflow" and sha256(file).startswith(SHA256)
    fingerprint = key_of(NAME, VERSION, digest(file), resizing)
    return PretrainedSpace(name, fingerprint, network, RESIZING[resizing], device, "FID" if real else "FD")

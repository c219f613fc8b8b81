"""DINOv2's loading and preprocessing on a tiny network of random weights, where transformers is installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unstir.data import DataConfig, Dataset, load
from unstir.errors import UserError
from unstir.evaluation.features import dino as module
from unstir.evaluation.features import feature_space
from unstir.evaluation.features.dino import VARIABLE, prepare
from unstir.evaluation.features.resize import as_rgb

CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(256, size=(3, 32, 40, 3), dtype=np.uint8))
    return load(DataConfig(source=str(tmp_path / "x.npy")))


def pillows(pictures: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> torch.Tensor:
    """224x224 by Pillow in floating point, normalised in numpy."""
    found = np.array([[np.asarray(Image.fromarray(picture[..., c].astype(np.float32)).resize((224, 224), Image.Resampling.BICUBIC))
                       for c in range(3)] for picture in pictures])  # fmt: skip
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return torch.from_numpy((found / 255 - mean[:, None, None]) / std[:, None, None]).float()


def test_preprocessing(data: Dataset) -> None:
    pictures = np.array(data.x)
    torch.testing.assert_close(prepare(as_rgb(pictures)), pillows(pictures), atol=1e-4, rtol=0)


def test_vectors_are_the_class_token(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers", reason="needs pip install transformers")
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, patch_size=14, image_size=70
    )
    torch.manual_seed(0)
    network = transformers.Dinov2Model(config).eval()
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.3)  # layer scales and the class token begin at constants
    network.save_pretrained(tmp_path / "tiny")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "tiny"))
    with pytest.raises(UserError, match="holds a dinov2 of 32 numbers, and dinov2-vits14 is a dinov2 of 384"):
        feature_space("dinov2-vits14", data, CPU, tmp_path)
    monkeypatch.setitem(module.MODELS, "dinov2-vits14", ("tiny", 32))
    state = torch.get_rng_state()
    space = feature_space("dinov2-vits14", data, CPU, tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    pictures = np.array(data.x)
    with torch.inference_mode():
        expected = network(pillows(pictures)).pooler_output  # the class token, by transformers' own account
    found = space(pictures)
    assert found.probabilities is None
    assert (space.name, space.frechet_name) == ("dinov2-vits14", "FD")
    torch.testing.assert_close(found.vectors, expected, atol=1e-3, rtol=1e-3)


def test_what_is_missing(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package transformers: pip install transformers"):
        feature_space("dinov2-vits14", data, CPU, tmp_path)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"names .*nowhere, and there is no config.json"):
        feature_space("dinov2-vitl14", data, CPU, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_size": 1024}))
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match="holds a vit of 1024 numbers, and dinov2-vitl14 is a dinov2 of 1024"):
        feature_space("dinov2-vitl14", data, CPU, tmp_path)

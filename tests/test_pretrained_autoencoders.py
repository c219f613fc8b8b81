"""Published autoencoders: folders of diffusers' with random weights give what diffusers gives, and TAEF2's files give pictures back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from unstir.autoencoder import Autoencoder
from unstir.autoencoders import FOLDERS, PRETRAINED
from unstir.autoencoders.tiny import Block, TinyCoder
from unstir.errors import UserError

SMALL: dict[str, Any] = {"block_out_channels": (8, 16), "norm_num_groups": 4}
DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
KL_CONFIGS: list[dict[str, Any]] = [
    {**SMALL, "down_block_types": (DOWN, DOWN), "up_block_types": (UP, UP)},
    {**SMALL, "down_block_types": (DOWN, DOWN), "up_block_types": (UP, UP), "layers_per_block": 2, "use_quant_conv": False,
     "use_post_quant_conv": False, "scaling_factor": 0.3611, "shift_factor": 0.1159, "latent_channels": 16},
    {**SMALL, "down_block_types": (DOWN, DOWN), "up_block_types": (UP, UP), "mid_block_add_attention": False, "in_channels": 1,
     "out_channels": 1},
    {"block_out_channels": (8, 8, 16), "norm_num_groups": 2, "down_block_types": (DOWN,) * 3, "up_block_types": (UP,) * 3,
     "latent_channels": 2, "in_channels": 4, "out_channels": 4, "latents_mean": (0.5, -0.25), "latents_std": (2.0, 0.5)},
]  # fmt: skip
TINY_CONFIGS: list[dict[str, Any]] = [
    {},
    {"num_encoder_blocks": (1, 2, 1), "num_decoder_blocks": (1, 1, 2), "encoder_block_out_channels": (8,) * 3,
     "decoder_block_out_channels": (8,) * 3, "latent_channels": 16, "act_fn": "silu", "scaling_factor": 0.5, "shift_factor": 0.25},
    {"in_channels": 1, "out_channels": 1, "act_fn": "gelu", "upsample_fn": "nearest", "encoder_block_out_channels": (4,) * 4,
     "decoder_block_out_channels": (4,) * 4},
]  # fmt: skip


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def saved(kind: str, config: dict[str, Any], folder: Path) -> Any:
    """diffusers' own, with random weights everywhere, saved."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = getattr(diffusers, kind)(**config).eval().requires_grad_(False)
    for parameter in theirs.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    return theirs


def opened(folder: Path) -> Autoencoder:
    return PRETRAINED["diffusers"](folder)


@pytest.mark.parametrize("config", KL_CONFIGS)
def test_autoencoder_kl_is_that_of_diffusers(config: dict[str, Any], tmp_path: Path) -> None:
    theirs = saved("AutoencoderKL", config, tmp_path)
    ours = opened(tmp_path)
    factor, channels = 2 ** (len(config["block_out_channels"]) - 1), config.get("in_channels", 3)
    assert (ours.factor, ours.latent_channels) == (factor, config.get("latent_channels", 4))
    x = randn(2, channels, 6 * factor, 5 * factor)
    raw = theirs.encode(x).latent_dist.mode()
    scale, shift = theirs.config.scaling_factor, theirs.config.shift_factor or 0.0
    if theirs.config.latents_mean is not None:
        mean, std = (
            torch.tensor(v).reshape(1, -1, 1, 1) for v in (theirs.config.latents_mean, theirs.config.latents_std)
        )
        expected = (raw - mean) * scale / std
    else:
        expected = (raw - shift) * scale
    z = ours.encode(x)
    torch.testing.assert_close(z, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.decode(z), theirs.decode(raw).sample, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", TINY_CONFIGS)
def test_autoencoder_tiny_is_that_of_diffusers(config: dict[str, Any], tmp_path: Path) -> None:
    theirs = saved("AutoencoderTiny", config, tmp_path)
    ours = opened(tmp_path)
    x = randn(2, config.get("in_channels", 3), 24, 16)
    raw = theirs.encode(x).latents
    assert ours.factor == x.shape[2] // raw.shape[2]
    expected = (raw - (config.get("shift_factor") or 0.0)) * config.get("scaling_factor", 1.0)
    scale = float(raw.abs().max())
    torch.testing.assert_close(ours.encode(x), expected, rtol=1e-5, atol=1e-5 * max(1.0, scale))
    theirs_back = theirs.decode(raw).sample
    torch.testing.assert_close(
        ours.decode(ours.encode(x)), theirs_back, rtol=1e-5, atol=1e-5 * max(1.0, float(theirs_back.abs().max()))
    )


def test_sizes_that_the_factor_does_not_divide(tmp_path: Path) -> None:
    saved("AutoencoderKL", KL_CONFIGS[0], tmp_path)
    ours = opened(tmp_path)
    x = randn(1, 3, 7, 9)
    assert ours.encode(x).shape == (1, 4, 4, 5)
    assert ours.decode(ours.encode(x), (7, 9)).shape == x.shape


def test_old_names_of_the_attention(tmp_path: Path) -> None:
    """Folders of 2022: query, key, value and proj_attn, as 1x1 convolutions."""
    saved("AutoencoderKL", KL_CONFIGS[0], tmp_path)
    new, x = opened(tmp_path), randn(1, 3, 8, 8)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    old = {}
    for name, value in safetensors.torch.load_file(file).items():
        for before, after in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
            renamed = name.replace(f".{after}.", f".{before}.")
            if renamed != name:
                name, value = renamed, value[:, :, None, None] if value.ndim == 2 else value
        old[name] = value
    assert sum("query" in name for name in old) == 4
    safetensors.torch.save_file(old, file)
    assert torch.equal(opened(tmp_path).encode(x), new.encode(x))


def test_folders_that_hold_something_else(tmp_path: Path) -> None:
    saved("AutoencoderKL", KL_CONFIGS[0], tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())

    def said(name: str, **changes: Any) -> str:
        folder = tmp_path / name
        shutil.copytree(tmp_path / "a", folder)
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(UserError) as error:
            opened(folder)
        return str(error.value)

    assert "UNet2DModel, and the autoencoders that are known here are AutoencoderKL" in said(
        "b", _class_name="UNet2DModel"
    )
    assert "act_fn = gelu is not known here" in said("c", act_fn="gelu")
    assert "do not fit its configuration" in said("d", layers_per_block=2)
    with pytest.raises(UserError, match=r"cannot read .*config.json"):
        opened(tmp_path / "nowhere")
    (tmp_path / "a" / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be loaded"):
        opened(tmp_path / "a")
    (tmp_path / "a" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no diffusion_pytorch_model\.safetensors"):
        opened(tmp_path / "a")
    assert set(FOLDERS) == {"AutoencoderKL", "AutoencoderTiny"}


# ---- pairs of files --------------------------------------------------------------------------------------------------


def test_a_pair_of_files_is_the_same_as_diffusers_folder(tmp_path: Path) -> None:
    """The author's files number the decoder's layers one higher, for the clamp."""
    theirs = saved("AutoencoderTiny", TINY_CONFIGS[0], tmp_path / "folder")
    state = theirs.state_dict()
    halves: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
    for name, value in state.items():
        half, _, place, own = name.split(".", 3)
        halves[half][f"{int(place) + (half == 'decoder')}.{own}"] = value
    for half, weights in halves.items():
        torch.save(weights, tmp_path / f"taesd_{half}.pth")
    pair, folder, x = PRETRAINED["taesd"](tmp_path), opened(tmp_path / "folder"), randn(1, 3, 16, 16)
    assert torch.equal(pair.encode(x), folder.encode(x))
    assert torch.equal(pair.decode(pair.encode(x)), folder.decode(folder.encode(x)))


def test_taef2s_blocks_by_hand(shared_data: Path) -> None:
    """A block with a pool, from the names of its weights: x' = x + pool(x), relu(conv(x') + x')."""
    weights = torch.load(shared_data / "taef2_decoder.pth", weights_only=True)
    coder = PRETRAINED["taef2"](shared_data).network
    assert isinstance(coder, TinyCoder)
    assert (coder.factor, coder.latent_channels, coder.channels) == (8, 32, 3)
    block = coder.decoder.layers[3]
    assert isinstance(block, Block)

    def conv(x: Tensor, name: str, padding: int) -> Tensor:
        bias = weights.get(f"3.{name}.bias")
        return torch.nn.functional.conv2d(
            x, weights[f"3.{name}.weight"].float(), None if bias is None else bias.float(), padding=padding
        )

    x = randn(1, 64, 6, 5).relu()
    h = conv(x, "pool.0", 0)
    groups = h.reshape(1, 4, -1)
    normal = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    scale, shift = (weights[f"3.pool.1.{k}"].float().reshape(1, -1, 1, 1) for k in ("weight", "bias"))
    x_ = x + conv((normal.reshape(h.shape) * scale + shift).relu(), "pool.3", 0)
    expected = (conv(conv(conv(x_, "conv.0", 1).relu(), "conv.2", 1).relu(), "conv.4", 1) + x_).relu()
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)


def test_taef2_gives_pictures_back(shared_data: Path) -> None:
    """Photographs of 64x64, and one at a size that 8 does not divide."""
    autoencoder = PRETRAINED["taef2"](shared_data)
    file = shared_data / "tiny_imagenet10_64.npz"
    if not file.is_file():
        pytest.skip(f"needs {file.name}")
    with np.load(file) as archive:
        pictures = archive["x"][:8]
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    for some in (x, x[:, :, 3:58, :50]):
        z = autoencoder.encode(some)
        back = autoencoder.decode(z, some.shape[2:]).clamp(-1, 1)
        assert z.shape[1:] == (32, *(-(-size // 8) for size in some.shape[2:]))
        mse = (some - back).square().mean((1, 2, 3))
        assert float((10 * (4 / mse).log10()).mean()) > 22.5
    assert 0.5 < float(autoencoder.encode(x).std()) < 2


def test_files_that_are_not_there_or_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no .*taef2_encoder.pth"):
        PRETRAINED["taef2"](tmp_path)
    torch.save(
        {"0.weight": torch.zeros(4, 3, 3, 3), "2.weight": torch.zeros(4, 4, 3, 3)}, tmp_path / "taef2_encoder.pth"
    )
    torch.save({"1.weight": torch.zeros(4, 4, 3, 3)}, tmp_path / "taef2_decoder.pth")
    with pytest.raises(UserError, match="of a layout that is not known"):
        PRETRAINED["taef2"](tmp_path)
    (tmp_path / "taef2_encoder.pth").write_bytes(b"damaged")
    with pytest.raises(UserError, match="damaged, or another kind of file"):
        PRETRAINED["taef2"](tmp_path)

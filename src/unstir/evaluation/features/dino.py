"""DINOv2, by name, where the package transformers is installed: features learnt without labels, so that no set of classes shapes the distance."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from unstir.data import Dataset
from unstir.data.cache import digest, key_of
from unstir.errors import UserError
from unstir.evaluation.features.pretrained import PretrainedSpace, check_pictures
from unstir.evaluation.features.resize import antialiased

VERSION = 1  # of the preprocessing below: another number makes cached features worthless
VARIABLE = "UNSTIR_DINOV2_WEIGHTS"
SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's

MODELS = {
    "dinov2-vits14": ("facebook/dinov2-small", 384),
    "dinov2-vitb14": ("facebook/dinov2-base", 768),
    "dinov2-vitl14": ("facebook/dinov2-large", 1024),
}
"""Name -> name on the Hugging Face Hub, and the length of its vectors. The literature's FD-DINOv2 is that of vitl14."""


class ClassToken(nn.Module):
    """The class token after the last normalisation.

    Source:
        Oquab et al. 2023, "DINOv2", https://arxiv.org/abs/2304.07193; as a feature space: Stein et al. 2023, "Exposing flaws of
        generative model evaluation metrics and their unfair treatment of diffusion models", https://arxiv.org/abs/2306.04675
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.network(pixel_values=x).last_hidden_state[:, 0], None  # (B, D)


def prepare(x: Tensor) -> Tensor:
    """(B, 3, H, W) from 0 to 255 -> (B, 3, 224, 224): bicubic, antialiased, not rounded; ImageNet's mean and deviation."""
    mean, std = (torch.tensor(values, device=x.device).reshape(3, 1, 1) for values in (MEAN, STD))
    return (antialiased(x, (SIDE, SIDE)) / 255 - mean) / std


def fetch(name: str) -> Path:
    """The folder with a model: the one that UNSTIR_DINOV2_WEIGHTS names, or from the Hub and its own cache.

    Raises:
        UserError: it cannot be fetched, or the named folder is not there.
    """
    named = os.environ.get(VARIABLE)
    if named:
        folder = Path(named).expanduser()
        if not (folder / "config.json").is_file():
            raise UserError(f"{VARIABLE} names {folder}, and there is no config.json in it")
        return folder
    from huggingface_hub import snapshot_download

    repository = MODELS[name][0]
    try:
        return Path(snapshot_download(repository, allow_patterns=["config.json", "*.safetensors"]))
    except Exception as error:  # the Hub's client raises of many kinds, its own and its transport's
        raise UserError(
            f"cannot fetch {repository} from the Hugging Face Hub ({type(error).__name__}). Where there is a connection, download its "
            f"config.json and model.safetensors and name the folder: {VARIABLE}=FOLDER"
        ) from error


def load(folder: Path) -> nn.Module:
    """The network in a folder that transformers wrote: safetensors, nothing pickled.

    Raises:
        UserError: it holds something else.
    """
    from transformers import Dinov2Model

    try:
        with torch.random.fork_rng(devices=[]):  # a training it is called from goes on as if it had not been
            network, found = Dinov2Model.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, json.JSONDecodeError) as error:
        raise UserError(f"{folder} does not hold a DINOv2: {str(error).splitlines()[0][:200]}") from error
    if found["missing_keys"]:
        raise UserError(f"{folder} does not hold a whole DINOv2: {sorted(found['missing_keys'])[0]} is missing")
    return ClassToken(network.float())


def dino(dataset: Dataset, device: torch.device, cache: Path, name: str) -> PretrainedSpace:
    """The class token of a DINOv2; it has no probabilities.

    Args:
        dataset: the reference.
        device: where it runs.
        cache: not needed: the Hub's client has its own.
        name: a key of ``MODELS``.

    Raises:
        UserError: no pictures, too many channels, no transformers, or no weights.
    """
    check_pictures(name, dataset)
    if importlib.util.find_spec("transformers") is None:
        raise UserError(f"--features {name} needs the package transformers: pip install transformers")
    folder = fetch(name)
    config = json.loads((folder / "config.json").read_text())
    if (config.get("model_type"), config.get("hidden_size")) != ("dinov2", MODELS[name][1]):
        found = f"a {config.get('model_type')} of {config.get('hidden_size')} numbers"
        raise UserError(f"{folder} holds {found}, and {name} is a dinov2 of {MODELS[name][1]}")
    hashes = [digest(file) for file in sorted(folder.glob("*.safetensors"))]
    return PretrainedSpace(name, key_of("dinov2", VERSION, config, hashes), load(folder), prepare, device)

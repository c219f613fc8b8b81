"""Networks by name. A new one is a file here and a line in ``NETWORKS``."""

from unstir.networks.config import NetworkConfig
from unstir.networks.context_unet import ContextUNetConfig
from unstir.networks.controlnet import ControlNetConfig
from unstir.networks.dit import DiTConfig
from unstir.networks.encoder import EncoderConfig
from unstir.networks.mlp import MLPConfig
from unstir.networks.unet import UNetConfig

NETWORKS: dict[str, type[NetworkConfig]] = {
    "unet": UNetConfig,
    "dit": DiTConfig,
    "mlp": MLPConfig,
    "context_unet": ContextUNetConfig,
    "encoder": EncoderConfig,
    "controlnet": ControlNetConfig,
}

__all__ = [
    "NETWORKS",
    "ContextUNetConfig",
    "ControlNetConfig",
    "DiTConfig",
    "EncoderConfig",
    "MLPConfig",
    "NetworkConfig",
    "UNetConfig",
]

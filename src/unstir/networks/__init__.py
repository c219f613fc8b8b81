"""Networks by name. A new one is a file here and a line in ``NETWORKS``."""

from unstir.networks.config import NetworkConfig
from unstir.networks.context_unet import ContextUNetConfig
from unstir.networks.encoder import EncoderConfig
from unstir.networks.mlp import MLPConfig
from unstir.networks.unet import UNetConfig

NETWORKS: dict[str, type[NetworkConfig]] = {
    "unet": UNetConfig,
    "mlp": MLPConfig,
    "context_unet": ContextUNetConfig,
    "encoder": EncoderConfig,
}

__all__ = ["NETWORKS", "ContextUNetConfig", "EncoderConfig", "MLPConfig", "NetworkConfig", "UNetConfig"]

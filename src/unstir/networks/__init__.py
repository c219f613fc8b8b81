"""Networks by name. A new one is a file here and a line in ``NETWORKS``."""

from unstir.networks.autoencoder import AutoencoderNetworkConfig
from unstir.networks.bottleneck import KL, BottleneckConfig
from unstir.networks.config import NetworkConfig
from unstir.networks.context_unet import ContextUNetConfig
from unstir.networks.controlnet import ControlNetConfig
from unstir.networks.dit import DiTConfig
from unstir.networks.encoder import EncoderConfig
from unstir.networks.mlp import MLPConfig
from unstir.networks.prior import PriorNetworkConfig
from unstir.networks.quantize import VQ
from unstir.networks.unet import UNetConfig

NETWORKS: dict[str, type[NetworkConfig]] = {
    "unet": UNetConfig,
    "dit": DiTConfig,
    "mlp": MLPConfig,
    "context_unet": ContextUNetConfig,
    "encoder": EncoderConfig,
    "controlnet": ControlNetConfig,
    "autoencoder": AutoencoderNetworkConfig,
    "prior": PriorNetworkConfig,
}

BOTTLENECKS: dict[str, type[BottleneckConfig]] = {"kl": KL, "vq": VQ}
"""What regularises an autoencoder's latents, by name."""

__all__ = [
    "BOTTLENECKS",
    "KL",
    "NETWORKS",
    "VQ",
    "AutoencoderNetworkConfig",
    "BottleneckConfig",
    "ContextUNetConfig",
    "ControlNetConfig",
    "DiTConfig",
    "EncoderConfig",
    "MLPConfig",
    "NetworkConfig",
    "PriorNetworkConfig",
    "UNetConfig",
]

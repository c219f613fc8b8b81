"""What a network's configuration promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from unstir.data.spec import DataSpec


@dataclass(frozen=True)
class NetworkConfig(ABC):
    """The size of a network. A new network is a frozen dataclass like this, its module, and a line in ``NETWORKS``.

    The module is called with x (B, C, ...), c_noise (B,) and conditions by name, and gives F (B, out_channels, ...), or
    (B, out_channels) where it is ``pooled``.
    """

    @abstractmethod
    def build(self, spec: DataSpec, out_channels: int, in_channels: int | None = None) -> nn.Module:
        """A freshly initialised network for such data.

        Args:
            spec: shape and conditions of the data.
            out_channels: of F; more than the data's where the network gives more than F.
            in_channels: of x; by default the data's.
        """

    @property
    def pooled(self) -> bool:
        """Whether it gives one vector (B, out_channels) for each sample, whatever the sample's grid."""
        return False

    def around(self, base: NetworkConfig, conditions: Iterable[str]) -> NetworkConfig:
        """The network of a recipe that starts from a run (``--base``): that run's own; or this one around it, where it is of the kind
        that is built around another.

        Args:
            base: the run's.
            conditions: the names of those that it knows.

        Raises:
            UserError: it cannot be built around such a network.
        """
        return base

    @property
    def needs_base(self) -> bool:
        """Whether it is built around the network of another run, which stays as it is."""
        return False

"""ControlNet: a trained network that stays as it is, and a copy of its way down that is shown a control and learns to steer it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from unstir.conditioning.embed import GridChannels
from unstir.data.spec import DataSpec
from unstir.errors import UserError
from unstir.networks.config import NetworkConfig
from unstir.networks.layers import conv, zero
from unstir.networks.unet import UNet, UNetConfig

STRENGTH = "control_strength"
"""The name of what the network is told beside its conditions: how much the control counts, (B,); where it is absent, 1."""


@dataclass(frozen=True)
class ControlNetConfig(NetworkConfig):
    """A trained U-Net (the run of --base), frozen, and beside it a trainable copy of its way down, which sees the control."""

    base: NetworkConfig = field(default_factory=UNetConfig)
    """The network that is controlled: that of the run of --base."""
    knows: tuple[str, ...] = ()
    """Conditions that this network knows; all others are controls. Taken from the run of --base."""
    hint_channels: int = 32
    """Channels of the layers that read the control."""

    def around(self, base: NetworkConfig, conditions: Iterable[str]) -> NetworkConfig:
        if isinstance(base, ControlNetConfig):  # is trained on as it is
            return base
        _check_base(base)
        return replace(self, base=base, knows=tuple(conditions))

    @property
    def needs_base(self) -> bool:
        return True

    def build(self, spec: DataSpec, out_channels: int, in_channels: int | None = None) -> nn.Module:
        base = _check_base(self.base)
        if not spec.conditions.keys() - set(self.knows):
            raise UserError("a ControlNet needs something to be controlled by: --derived edges, for example")
        if self.hint_channels < 1:
            raise UserError("network.hint_channels must be at least 1")
        return base.in_memory_order(ControlNet(self, base, spec, in_channels or spec.shape[0], out_channels), spec)


def _check_base(base: NetworkConfig) -> UNetConfig:
    """Refuses networks without a way down that could be copied, and skip connections through which to steer."""
    if isinstance(base, UNetConfig) and not base.pooled:
        return base
    raise UserError(
        f"a ControlNet is built around a U-Net, and this run's network is a {type(base).__name__.removesuffix('Config')}; "
        "train a base with --network unet"
    )


class Hint(nn.Module):
    """Controls (grids) as features of the base's first level. The last layer starts at 0.

    Source:
        Zhang, Rao & Agrawala 2023, eq. 4 and section 3.2 (a tiny network encodes the condition), https://arxiv.org/abs/2302.05543

    Args:
        inputs: channels of the controls, in patches.
        channels: of the layers between. outputs: of the base's first features.
    """

    def __init__(self, rank: int, inputs: int, channels: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(rank, inputs, channels),
            nn.SiLU(),
            conv(rank, channels, channels),
            nn.SiLU(),
            zero(conv(rank, channels, outputs, 1)),
        )

    def forward(self, controls: Tensor) -> Tensor:
        hint: Tensor = self.layers(controls)  # (B, outputs, ...)
        return hint


class ControlNet(nn.Module):
    """The module of ``ControlNetConfig``.

    Where the base's way up is shown features h of its way down and middle, it is shown h plus what the copy makes of them and of the
    control, each through a convolution that starts at 0: before training the output is the base's, to the bit. The base is frozen,
    and stays as it is in ``model.train()`` as well: without drop-out.

    Equation:
        y = F(x; base) + Z(F(x + Z(hint(control)); copy)),   Z: a 1 x 1 convolution that starts at 0
    Source:
        Zhang, Rao & Agrawala 2023, eq. 2 and section 3.2, https://arxiv.org/abs/2302.05543
    """

    def __init__(
        self, config: ControlNetConfig, base: UNetConfig, spec: DataSpec, in_channels: int, out_channels: int
    ) -> None:
        super().__init__()
        known = {name: c for name, c in spec.conditions.items() if name in config.knows}
        controls = {name: c for name, c in spec.conditions.items() if name not in known}
        others = {name: c for name, c in controls.items() if c.kind != "grid"}
        self.controls = frozenset(controls)
        self.base = self._unet(base, replace(spec, conditions=known), out_channels, in_channels).requires_grad_(False)
        # What comes with a control and is no grid (its noise level, say) is read by the copy, as one condition more.
        self.copy = self._unet(
            base, replace(spec, conditions={**known, **others}), out_channels, in_channels
        ).without_way_up()
        widths = [base.channels * m for m in base.multipliers]
        self.grids = GridChannels(controls)
        inputs = self.grids.channels * base.patch**spec.rank
        self.hint = Hint(spec.rank, inputs, config.hint_channels, widths[0]) if inputs else None
        crossing = [
            *widths[base.efficient :][: len(widths) - 1],
            widths[-1],
        ]  # what the way up is shown, and the middle
        self.zeros = nn.ModuleList(zero(conv(spec.rank, width, width, 1)) for width in crossing)

    @staticmethod
    def _unet(config: UNetConfig, spec: DataSpec, out_channels: int, in_channels: int) -> UNet:
        network = config.build(spec, out_channels, in_channels)
        assert isinstance(network, UNet)
        return network

    def places(self, name: str) -> tuple[str, ...]:
        """Where a part of the base run's network belongs: in the base, and in the copy of its way down."""
        return f"base.{name}", f"copy.{name}"

    def train(self, mode: bool = True) -> ControlNet:
        super().train(mode)
        self.base.eval()
        return self

    def forward(self, x: Tensor, c_noise: Tensor, /, **cond: Tensor) -> Tensor:
        strength = cond.pop(STRENGTH, None)  # (B,)
        known = {name: value for name, value in cond.items() if name not in self.controls}
        read = {name: value for name, value in cond.items() if name not in self.grids.sizes}
        embedding = self.base.embedding(c_noise, known)
        h, skips = self.base.encode(self.base.enter(x, known), embedding)
        first = self.copy.enter(x, read)  # (B, widths[0], ...)
        if self.hint is not None:
            first = first + self.hint(self.base.patches(self.grids(x, cond)))  # (B, widths[0], ...)
        middle, copied = self.copy.encode(first, self.copy.embedding(c_noise, read))
        added = [gate(c) for gate, c in zip(self.zeros, [*copied, middle], strict=True)]  # (B, widths[level], ...) each
        if strength is not None:
            factor = strength.reshape(-1, *[1] * (x.ndim - 1))  # (B, 1, 1...)
            added = [(factor * a).to(a.dtype) for a in added]  # (B, widths[level], ...) each
        *shown, h = [own + a for own, a in zip([*skips, h], added, strict=True)]  # (B, widths[level], ...) each
        return self.base.decode(h, shown, embedding, x.shape[2:])

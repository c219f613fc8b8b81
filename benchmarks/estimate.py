"""What one H200, and eight machines of eight, should train: a written estimate from counted FLOPs and bytes. Nothing here is measured.

Counted on this machine, for one picture: FLOPs of the forward pass (PyTorch's counter; the backward pass is twice that), bytes that
autograd keeps for the backward pass (its own hooks), and operators called forward and backward (by dispatch; the optimiser's, which
come on top without CUDA graphs, are left out).

Equation:
    compute     = 3 F B / (peak · efficiency)
    memory      = (4 A B + 40 P) / (bandwidth · efficiency)      every kept byte is written, read, and its gradient written and read;
                                                                 ten fp32 passes over the weights: gradient, optimiser, average
    launching   = operators · time of one                        eagerly; CUDA graphs remove it
    step        = max(compute + memory, launching)
    all-reduce  = 4 P (2 (g - 1) / g / NVLink + 2 (m - 1) / m / (g · network)) + latencies      g GPUs in each of m machines, in rings,
                                                                 reduced within a machine first
    hidden      = the backward pass, 2/3 of the step, but for the last bucket
    pictures/s  = g m B / (step + max(all-reduce - hidden, all-reduce of the last bucket))
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from report import heading, table, write_json
from unstir.data import DataSpec
from unstir.denoiser import NetDenoiser
from unstir.networks import UNetConfig
from unstir.recipes import RECIPES, Recipe

FREE = frozenset(
    [
        "view",
        "_unsafe_view",
        "reshape",
        "transpose",
        "permute",
        "expand",
        "slice",
        "select",
        "split",
        "t",
        "detach",
        "unsqueeze",
    ]
)
"""Operators that launch nothing."""


@dataclass(frozen=True)
class Cluster:
    """What is assumed of the machines; speeds in units a second, for one GPU and one direction."""

    peak: float = 989e12  # bf16 dense, H200 SXM, NVIDIA's data sheet
    bandwidth: float = 4.8e12  # HBM3e, data sheet
    nvlink: float = 450e9  # 900 GB/s both ways, data sheet
    network: float = 50e9  # a 400 Gb/s adapter for each GPU
    efficiency: float = 0.4  # of the peak, in convolutions of these sizes: assumed
    memory_efficiency: float = 0.8  # assumed
    link_efficiency: float = 0.7  # assumed
    launch: float = 6e-6  # seconds that Python and the driver take for an operator: assumed
    latency: tuple[float, float] = (3e-6, 1.5e-5)  # of a hop within a machine and between machines: assumed
    bucket: float = 25e6  # bytes: DistributedDataParallel's default


@dataclass(frozen=True)
class Counted:
    """Of a training step: parameters, and for one picture FLOPs of the forward pass and bytes kept; operators, forward and backward."""

    parameters: int
    flops: int
    kept: int
    operators: int


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is called, views left out."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ not in FREE
        return func(*args, **(kwargs or {}))


def _kept(denoiser: NetDenoiser, spec: DataSpec, batch: int) -> tuple[int, int]:
    """(bytes that autograd keeps, operators called) in a forward and backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x, t = torch.zeros(batch, *spec.shape), torch.ones(batch, dtype=torch.float64)
    mode = _Operators()  # type: ignore[no-untyped-call]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), mode:
        denoiser(x, t).x_0.square().mean().backward()  # type: ignore[no-untyped-call]
    return sum(kept.values()), mode.count


def count(recipe: Recipe, spec: DataSpec) -> Counted:
    """Counts a recipe's denoiser on the CPU, as it is before training; under bf16, as GPUs run it."""
    denoiser = recipe.denoiser.build(recipe.network, recipe.process, spec)
    assert isinstance(denoiser, NetDenoiser)
    denoiser.autocast = torch.bfloat16
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
        denoiser(torch.zeros(1, *spec.shape), torch.ones(1, dtype=torch.float64))
    few, _ = _kept(denoiser, spec, 2)
    many, operators = _kept(denoiser, spec, 4)  # what is kept once, such as weights in bf16, is in both
    parameters = sum(parameter.numel() for parameter in denoiser.parameters())
    return Counted(parameters, flops.get_total_flops(), (many - few) // 2, operators)


def step_seconds(counted: Counted, batch: int, cluster: Cluster, graphs: bool) -> float:
    """Of one GPU; with CUDA graphs nothing is launched from Python."""
    compute = 3 * counted.flops * batch / (cluster.peak * cluster.efficiency)
    bytes_moved = 4 * counted.kept * batch + 40 * counted.parameters
    memory = bytes_moved / (cluster.bandwidth * cluster.memory_efficiency)
    return max(compute + memory, 0.0 if graphs else counted.operators * cluster.launch)


def reduce_seconds(size: float, gpus: int, machines: int, cluster: Cluster) -> float:
    """An all-reduce of so many bytes over all GPUs."""
    within = 2 * (gpus - 1) / gpus * size / (cluster.nvlink * cluster.link_efficiency)
    between = 2 * (machines - 1) / machines * size / gpus / (cluster.network * cluster.link_efficiency)
    hops = 2 * (gpus - 1) * cluster.latency[0] + 2 * (machines - 1) * cluster.latency[1]
    return within + between + hops


def pictures_per_second(
    counted: Counted, batch: int, gpus: int, machines: int, cluster: Cluster, graphs: bool
) -> float:
    """Of all GPUs together, ``batch`` on each."""
    step = step_seconds(counted, batch, cluster, graphs)
    if gpus * machines == 1:
        return batch / step
    size = 4.0 * counted.parameters
    whole = reduce_seconds(size, gpus, machines, cluster)
    last = reduce_seconds(min(size, cluster.bucket), gpus, machines, cluster)
    return gpus * machines * batch / (step + max(whole - 2 / 3 * step, last))


CASES: dict[str, tuple[Recipe, DataSpec, int]] = {
    "quick, 28 x 28 gray": (RECIPES["quick"], DataSpec("image", (1, 28, 28)), 64),
    "quick, 28 x 28 gray, large batch": (RECIPES["quick"], DataSpec("image", (1, 28, 28)), 1024),
    "edm, 32 x 32 RGB": (RECIPES["edm"], DataSpec("image", (3, 32, 32)), 256),
    "edm, 192 channels, patch 1, 64 x 64 RGB": (
        dataclasses.replace(RECIPES["edm"], network=UNetConfig(192, (1, 2, 3, 4), (3,), 4, (2, 3), patch=1)),
        DataSpec("image", (3, 64, 64)),
        64,
    ),
}
"""Recipe, data, pictures on each GPU."""


def rows(cluster: Cluster) -> list[list[object]]:
    """Of the table."""
    lines: list[list[object]] = []
    for name, (recipe, spec, batch) in CASES.items():
        counted = count(recipe, spec)
        about = [f"{counted.parameters / 1e6:.1f}", f"{counted.flops / 1e9:.2f}", f"{counted.kept / 1e6:.1f}"]
        for graphs in (False, True):
            one = pictures_per_second(counted, batch, 1, 1, cluster, graphs)
            many = pictures_per_second(counted, batch, 8, 8, cluster, graphs)
            lines.append(
                [f"{name}{', CUDA graphs' if graphs else ''}", batch, *about, counted.operators]
                + [f"{1e3 * batch / one:.2f}", f"{one:,.0f}", f"{many:,.0f}", f"{100 * many / one / 64:.0f} %"]
            )
    return lines


def _plain(value: float | tuple[float, ...]) -> str:
    return " and ".join(f"{one:.3g}" for one in value) if isinstance(value, tuple) else f"{value:.3g}"


def print_estimate(path: str | None, cluster: Cluster | None = None) -> None:
    """The table, with everything assumed."""
    cluster = cluster or Cluster()
    found = rows(cluster)
    print(heading("Estimate for H200s (nothing here is measured)"))
    assert __doc__ is not None
    print(__doc__.split("Equation:\n")[1].rstrip())
    print(
        "\nAssumed: "
        + ", ".join(f"{name} {_plain(value)}" for name, value in dataclasses.asdict(cluster).items())
        + "\n"
    )
    header = ["network", "batch a GPU", "M weights", "GFLOP forward", "MB kept", "operators"]
    print(table([*header, "step, ms", "pictures/s, 1 GPU", "8 x 8", "efficiency"], found))
    write_json(path, {"assumed": dataclasses.asdict(cluster), "rows": found})

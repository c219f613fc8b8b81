"""Samplers by the names people type. A new one is a file here and a line in ``SAMPLERS``; the tests pick it up by themselves."""

from unstir.samplers.ancestral import DDIM, DDPM
from unstir.samplers.dpm_solver import DPMpp2M
from unstir.samplers.grids import GRIDS
from unstir.samplers.ode import Euler, Heun
from unstir.sampling import Sampler

SAMPLERS: dict[str, type[Sampler]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "euler": Euler,
    "heun": Heun,
    "dpmpp_2m": DPMpp2M,
}

__all__ = ["DDIM", "DDPM", "GRIDS", "SAMPLERS", "DPMpp2M", "Euler", "Heun"]

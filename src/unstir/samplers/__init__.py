"""Samplers by the names people type. A new one is a file here and a line in ``SAMPLERS``; the tests pick it up by themselves."""

from unstir.samplers.ancestral import DDIM, DDPM, EulerAncestral
from unstir.samplers.consistency import Consistency
from unstir.samplers.deis import DEIS, LMS
from unstir.samplers.dpm_solver import (
    DPMpp2M,
    DPMpp2MSDE,
    DPMpp2S,
    DPMpp2SAncestral,
    DPMpp3M,
    DPMpp3MSDE,
    DPMSolver2,
    DPMSolver3,
)
from unstir.samplers.grids import GRIDS
from unstir.samplers.langevin import AnnealedLangevin
from unstir.samplers.ode import Euler, Heun
from unstir.samplers.predictor_corrector import PredictorCorrector
from unstir.samplers.rk45 import RK45
from unstir.samplers.sde import EulerMaruyama, ReverseDiffusion
from unstir.samplers.unipc import UniPC
from unstir.sampling import Sampler

SAMPLERS: dict[str, type[Sampler]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "euler": Euler,
    "heun": Heun,
    "euler_ancestral": EulerAncestral,
    "dpm_solver_1": DDIM,
    "dpm_solver_2": DPMSolver2,
    "dpm_solver_3": DPMSolver3,
    "dpmpp_2s": DPMpp2S,
    "dpmpp_2s_ancestral": DPMpp2SAncestral,
    "dpmpp_2m": DPMpp2M,
    "dpmpp_3m": DPMpp3M,
    "dpmpp_2m_sde": DPMpp2MSDE,
    "dpmpp_3m_sde": DPMpp3MSDE,
    "unipc": UniPC,
    "deis": DEIS,
    "lms": LMS,
    "rk45": RK45,
    "euler_maruyama": EulerMaruyama,
    "reverse_diffusion": ReverseDiffusion,
    "pc": PredictorCorrector,
    "annealed_langevin": AnnealedLangevin,
    "consistency": Consistency,
}

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "GRIDS",
    "LMS",
    "RK45",
    "SAMPLERS",
    "AnnealedLangevin",
    "Consistency",
    "DPMSolver2",
    "DPMSolver3",
    "DPMpp2M",
    "DPMpp2MSDE",
    "DPMpp2S",
    "DPMpp2SAncestral",
    "DPMpp3M",
    "DPMpp3MSDE",
    "Euler",
    "EulerAncestral",
    "EulerMaruyama",
    "Heun",
    "PredictorCorrector",
    "ReverseDiffusion",
    "UniPC",
]

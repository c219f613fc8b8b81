"""Noise-conditional score networks: a ladder of noise levels, denoising score matching, annealed Langevin dynamics.

The score is learnt as score = -F / sigma ("eps"): its loss is the papers' lambda(sigma) = sigma² times denoising score matching, and
dividing the network's output by sigma is NCSNv2's technique 3. The papers' pictures lie in [0, 1] and ours in [-1, 1], so noise
levels are twice theirs.
"""

import dataclasses

from unstir.objectives import DenoisingObjective
from unstir.processes import GeometricLadder
from unstir.recipes.ddpm import ddpm
from unstir.recipes.recipe import DenoiserConfig, SamplingConfig
from unstir.samplers.grids import Uniform
from unstir.samplers.langevin import AnnealedLangevin
from unstir.training.ema import ExponentialAverage

ncsn = dataclasses.replace(
    ddpm,
    about="NCSN (Song & Ermon 2019): ten noise levels, denoising score matching, 100 Langevin steps at each level.",
    process=GeometricLadder(levels=10, sigma_min=0.02, sigma_max=2.0),
    denoiser=DenoiserConfig(parameterization="eps"),
    objective=DenoisingObjective(space="eps", dropout=0.1),
    sampling=SamplingConfig(AnnealedLangevin(repeats=100, step_size=0.1, denoise=False), Uniform(), steps=10),
)

ncsnv2 = dataclasses.replace(
    ncsn,
    about="NCSNv2 (Song & Ermon 2020): noise levels fitted to the data, 5 Langevin steps at each, sized by rule, and a last denoising step.",
    process=GeometricLadder(levels=0, sigma_min=0.02, sigma_max=0.0),
    training=dataclasses.replace(ddpm.training, average=ExponentialAverage(0.999)),
    sampling=SamplingConfig(AnnealedLangevin(), Uniform(), steps=1000),  # that is, every level there is
)

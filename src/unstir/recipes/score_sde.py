"""Score-based models in continuous time: one loss, three SDEs, and the three ways of sampling that the paper is about."""

import dataclasses

from unstir.processes import VE, VP, SubVP
from unstir.recipes.ddpm import ddpm
from unstir.recipes.recipe import DenoiserConfig, SamplingConfig
from unstir.samplers.grids import Uniform
from unstir.samplers.predictor_corrector import PredictorCorrector
from unstir.samplers.rk45 import RK45
from unstir.samplers.sde import EulerMaruyama
from unstir.training.ema import ExponentialAverage

score_sde_vp = dataclasses.replace(
    ddpm,
    about="Score-SDE, VP (Song et al. 2021): DDPM in continuous time; the reverse SDE by Euler-Maruyama in 1000 steps.",
    process=VP(),
    sampling=SamplingConfig(EulerMaruyama(), Uniform(), steps=1000),
)

score_sde_subvp = dataclasses.replace(
    ddpm,
    about="Score-SDE, sub-VP (Song et al. 2021): less noise, for likelihoods; the probability-flow ODE by an adaptive solver.",
    process=SubVP(),
    sampling=SamplingConfig(RK45(rtol=1e-3, atol=1e-3), Uniform(), steps=8),  # an eighth of a grey level
)

score_sde_ve = dataclasses.replace(
    ddpm,
    about="Score-SDE, VE (Song et al. 2021): NCSN in continuous time, its largest noise fitted to the data; predictor-corrector in 1000 steps.",
    process=VE(sigma_min=0.02, sigma_max=0.0),
    denoiser=DenoiserConfig(parameterization="eps"),
    training=dataclasses.replace(ddpm.training, average=ExponentialAverage(0.999)),
    sampling=SamplingConfig(PredictorCorrector(), Uniform(), steps=1000),
)

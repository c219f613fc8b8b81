"""Editing with a trained model: fill, vary, blend, colour. Functions from (model, samples in model units) to samples.

inpaint(model, x_0, fill)            fill a part                             model, belief, repaint, replacement, gradient
image_to_image(model, x_0, 0.5)      something like it                       SDEdit
interpolate(model, a, b)             from one to the other                   by DDIM's latents, DDPM's noise, CLIP's vectors
colorize(model, grey)                colours for a grey picture              as inpaint
variations(model, x_0)               others that show the same               unCLIP
restyle(model, x_0, "a dog")         turned towards a caption                unCLIP
upscale(model, small)                a larger one                            a cascade's stage, or as inpaint
invert, decode                       samples to latents and back             DDIM inversion
"""

from unstir.editing.colorize import colorize
from unstir.editing.conditional import METHODS, ByBelief, ByGradient, ByReplacement, ByResampling, Method
from unstir.editing.embedding import restyle, text_diff, variations
from unstir.editing.image_to_image import image_to_image
from unstir.editing.inpaint import ByModel, inpaint
from unstir.editing.interpolate import decode, interpolate, invert, slerp
from unstir.editing.reconstruction import ReconstructionGuidance
from unstir.editing.upscale import upscale

__all__ = [
    "METHODS",
    "ByBelief",
    "ByGradient",
    "ByModel",
    "ByReplacement",
    "ByResampling",
    "Method",
    "ReconstructionGuidance",
    "colorize",
    "decode",
    "image_to_image",
    "inpaint",
    "interpolate",
    "invert",
    "restyle",
    "slerp",
    "text_diff",
    "upscale",
    "variations",
]

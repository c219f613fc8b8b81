"""What is trained: a network, and what its output means.

Most recipes train a denoiser. Anything else (a noisy classifier, a CLIP) goes through the same session, loop, run folder and checkpoints: it is a
``ModuleConfig`` here, with a line in ``MODULES``; an Objective that trains it; and a line in ``training/show.py`` that says how it shows
what it has learnt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from unstir.autoencoder import Autoencoder
from unstir.clip import CaptionTower, Clip, PictureTower, Towers
from unstir.conditioning.text import tidy
from unstir.data import Condition, Dataset, DataSpec
from unstir.denoiser import NetDenoiser
from unstir.errors import UserError, did_you_mean
from unstir.linear import CorrectingDenoiser, LinearDenoiser, RestDenoiser, Wiener
from unstir.networks import KL, AutoencoderNetworkConfig, BottleneckConfig, NetworkConfig
from unstir.networks.text import TextTokens
from unstir.noisy_classifier import NoisyClassifier
from unstir.process import Process
from unstir.trainable import Trainable

COMPONENT_NUMBERS = 2**22
"""Most numbers that the components of a linear denoiser may have together."""


class ModuleConfig(ABC):
    """What the network's output means. A new one is a frozen dataclass and a line in ``MODULES``."""

    @abstractmethod
    def build(self, network: NetworkConfig, process: Process, spec: DataSpec) -> Trainable:
        """A freshly initialised module for such data.

        Raises:
            UserError: a network or data of which none can be made.
        """

    def rows(self, dataset: Dataset) -> npt.NDArray[np.int64]:
        """The samples that it can learn from; by default all.

        Raises:
            UserError: too few.
        """
        return np.arange(len(dataset))

    def kin(self, dataset: Dataset, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """A number for each of these samples: of those with the same, all are trained on or all are held out. Default: each is alone."""
        return None


@dataclass(frozen=True)
class DenoiserConfig(ModuleConfig):
    """A denoiser: the network's output stands for a belief about the data."""

    parameterization: Literal["eps", "x_0", "v", "score", "flow", "edm"] = "edm"
    """Which mix of data and noise the network gives."""
    sigma_data: float = 0.0
    """Standard deviation of the data, for the scale of the network's input and for edm. 0: measured from the data."""
    linear_components: int = 0
    """Let the network correct the best linear denoiser of the data, known from their mean and this many principal components, instead
    of predicting from their standard deviation alone (0). For parameterization edm."""
    given: str = ""
    """Name of a condition on the data's grid that the data are close to (low_res): the network corrects what is best believed linearly
    beside it, and so is left with what it does not tell. It can no longer be left out. For parameterization edm."""
    learn_variance: bool = False
    """The network also gives the reverse step's variance (improved DDPM); its objective must train it."""

    def build(self, network: NetworkConfig, process: Process, spec: DataSpec) -> NetDenoiser:
        """A freshly initialised denoiser for such data.

        Raises:
            UserError: a network that gives no pictures; a linear denoiser to be corrected, and a parameterisation other than edm.
        """
        if network.pooled:
            raise UserError(
                "this network gives a vector for each sample, and a denoiser's a sample; use --network unet"
            )
        channels = spec.shape[0] * (2 if self.learn_variance else 1)
        sigma_data = self.sigma_data or spec.std
        linear = self.linear(process, spec)
        if linear is not None:
            return CorrectingDenoiser(
                network.build(spec, out_channels=channels, in_channels=2 * spec.shape[0]),
                linear,
                sigma_data=sigma_data,
                learn_variance=self.learn_variance,
            )
        return NetDenoiser(
            network.build(spec, out_channels=channels),
            process,
            self.parameterization,
            sigma_data=sigma_data,
            learn_variance=self.learn_variance,
        )

    def linear(self, process: Process, spec: DataSpec) -> Wiener | None:
        """The linear denoiser that the network corrects; None where it stands alone.

        Raises:
            UserError: settings that exclude each other, or a condition that the data do not have.
        """
        settings = {"linear_components": bool(self.linear_components), "given": bool(self.given)}
        used = [name for name, set_ in settings.items() if set_]
        if not used:
            return None
        if len(used) > 1:
            raise UserError("a network corrects one linear denoiser: denoiser.linear_components, or denoiser.given")
        if self.parameterization != "edm":
            off = "set it to 0" if self.linear_components else "leave it out"
            raise UserError(
                f"denoiser.{used[0]} works with denoiser.parameterization edm, not {self.parameterization}; {off}"
            )
        if self.given:
            return RestDenoiser(process, _on_the_datas_grid(self.given, spec))
        # Larger pictures get fewer components: the linear denoiser must not outgrow the network.
        components = min(self.linear_components, spec.dimensions, COMPONENT_NUMBERS // spec.dimensions)
        return LinearDenoiser(process, spec.shape, components) if components else None


def _on_the_datas_grid(name: str, spec: DataSpec) -> str:
    """The name of a condition that always comes and has the data's shape.

    Raises:
        UserError: there is none of this name.
    """
    fitting = [key for key, c in spec.conditions.items() if c.kind == "grid" and c.always and c.shape == spec.shape]
    if name not in fitting:
        none = "there is none here (--derived low-res makes one, but latents seldom have its shape: leave it out with --denoiser.given '')"
        raise UserError(
            f"denoiser.given is a condition that always comes and has the data's shape, and '{name}' is none: "
            f"{did_you_mean(name, fitting) if fitting else none}"
        )
    return name


def class_of(spec: DataSpec) -> tuple[str, Condition] | None:
    """The condition that is the data's class, with its name: the first that somebody gave them."""
    return next(((name, condition) for name, condition in spec.conditions.items() if condition.named), None)


@dataclass(frozen=True)
class NoisyClassifierConfig(ModuleConfig):
    """A classifier of noisy data, by whose gradient samples are guided: the network's output is the logits of the classes."""

    sigma_data: float = 0.0
    """Standard deviation of the data, for the scale of the network's input. 0: measured from the data."""

    def build(self, network: NetworkConfig, process: Process, spec: DataSpec) -> NoisyClassifier:
        """A freshly initialised classifier for such data.

        Raises:
            UserError: data without classes, or a network that does not give a vector for each sample.
        """
        found = class_of(spec)
        if found is None:
            raise UserError(
                f"a classifier learns classes, and these data ({spec.kind}) come without: make a sub-folder for each class, or give "
                "labels (y in an .npz, a column in a .csv)"
            )
        name, condition = found
        if not network.pooled and spec.rank > 0:
            raise UserError("a classifier's network gives a vector for each sample; use --network encoder")
        unconditional = replace(spec, conditions={})  # it must not be told what it is to find out
        module = network.build(unconditional, out_channels=condition.size)
        return NoisyClassifier(module, process, name, sigma_data=self.sigma_data or spec.std)

    def rows(self, dataset: Dataset) -> npt.NDArray[np.int64]:
        """The samples whose class is known.

        Raises:
            UserError: none, or all of one class.
        """
        found = class_of(dataset.spec)
        if found is None:
            raise UserError(
                f"a classifier learns classes, and {dataset.name} comes without: make a sub-folder for each class, or give labels "
                "(y in an .npz, a column in a .csv)"
            )
        values = np.asarray(dataset.conditions[found[0]])
        rows = np.flatnonzero(values >= 0)
        if len(np.unique(values[rows])) < 2:
            raise UserError(f"a classifier needs samples of at least 2 classes, and those of {dataset.name} are of one")
        return rows


def caption_of(spec: DataSpec) -> tuple[str, Condition] | None:
    """The condition that is the data's caption, with its name, where a text encoder reads it."""
    return next(((name, c) for name, c in spec.conditions.items() if c.kind == "text" and c.seen), None)


@dataclass(frozen=True)
class ClipConfig(ModuleConfig):
    """Pictures and captions in one space, by whose similarity samples are guided and judged: the network's output is a picture's vector."""

    width: int = 128
    """Length of the vectors."""
    text_width: int = 64
    """Width of the states of a caption's tokens."""
    text_depth: int = 2
    """Layers of the transformer that learns to read captions, where no frozen encoder has read them (data.text bytes)."""
    temperature: float = 0.07
    """By which similarities are divided in the beginning; it is learned."""
    sigma_data: float = 0.0
    """Standard deviation of the data, for the scale of the network's input. 0: measured from the data."""

    def __post_init__(self) -> None:
        if self.width < 2 or self.text_width < 1 or self.text_depth < 0 or self.temperature <= 0:
            raise UserError(
                "a CLIP's width must be at least 2, its text_width and temperature positive, its text_depth at least 0"
            )

    def build(self, network: NetworkConfig, process: Process, spec: DataSpec) -> Clip:
        """A freshly initialised CLIP for such data.

        Raises:
            UserError: data without captions, or a network that does not give a vector for each sample.
        """
        found = caption_of(spec)
        if found is None:
            raise UserError(
                f"a CLIP learns from captions, and these data ({spec.kind}) have none that a text encoder reads: give captions (a "
                "metadata.jsonl with file_name and text, text in an .npz) and --data.text bytes"
            )
        if not network.pooled and spec.rank > 0:
            raise UserError("a CLIP's network gives a vector for each sample; use --network encoder")
        name, caption = found
        unconditional = replace(spec, conditions={})  # it must not be told what it is to find out
        pictures = PictureTower(network.build(unconditional, out_channels=self.width), self.width)
        tokens = TextTokens(caption, self.text_width, self.text_depth)
        captions = CaptionTower(tokens, self.text_width, self.width)
        towers = Towers(pictures, captions, self.temperature)
        return Clip(towers, process, caption, name, sigma_data=self.sigma_data or spec.std)

    def rows(self, dataset: Dataset) -> npt.NDArray[np.int64]:
        """The samples that have a caption.

        Raises:
            UserError: none, or all with the same.
        """
        captions = [tidy(caption) for caption in dataset.captions]
        rows = np.array([row for row, caption in enumerate(captions) if caption], np.int64)
        if not len(rows):
            raise UserError(
                f"a CLIP learns from captions, and {dataset.name} comes without: give them in a metadata.jsonl (file_name, text), "
                "in .txt files beside the pictures, or as text in an .npz"
            )
        if len(set(captions) - {""}) < 2:
            raise UserError(f"a CLIP needs at least 2 different captions, and those of {dataset.name} are all the same")
        return rows

    def kin(self, dataset: Dataset, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Samples of one caption stay together: one that was trained on would be no test."""
        _, number = np.unique([tidy(dataset.captions[row]) for row in rows], return_inverse=True)
        return np.asarray(number, np.int64)


@dataclass(frozen=True)
class AutoencoderConfig(ModuleConfig):
    """Data in fewer numbers and back, for latent diffusion: the network's two halves, and what keeps the latents in order between them."""

    bottleneck: BottleneckConfig = field(default_factory=KL)
    """What regularises the latents: kl (about Gaussian) or vq (codes of a codebook)."""

    def build(self, network: NetworkConfig, process: Process, spec: DataSpec) -> Autoencoder:
        """A freshly initialised autoencoder for such data.

        Raises:
            UserError: a network without two halves, or points.
        """
        if not isinstance(network, AutoencoderNetworkConfig):
            raise UserError("an autoencoder's network has an encoder and a decoder; use --network autoencoder")
        return Autoencoder(network.coder(spec, self.bottleneck))


MODULES: dict[str, type[ModuleConfig]] = {
    "denoiser": DenoiserConfig,
    "noisy-classifier": NoisyClassifierConfig,
    "clip": ClipConfig,
    "autoencoder": AutoencoderConfig,
}

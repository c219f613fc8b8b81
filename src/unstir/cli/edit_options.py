"""The options of ``unstir edit``, one dataclass for each of its commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from unstir.cli.sample import DrawOptions
from unstir.editing import ByBelief, ByGradient, ByModel, ByReplacement, ByResampling, Method
from unstir.errors import UserError


@dataclass(frozen=True)
class EditOptions(DrawOptions):
    """What to edit and how. Conditions are given by name, e.g. --label 3; without one there is no label."""

    image: str = ""
    """The picture to edit. For other data than pictures: a .npy of one sample, in the data's units."""
    n: int = 1
    """How many results."""
    out: str = ""
    """A file, whose ending decides the format, or a folder for one file a result. Default: a picture in the run folder."""
    compare: bool = False
    """Put what was given before the results."""


@dataclass(frozen=True)
class ConditionalOptions(EditOptions):
    """How to make the rest agree with what is known."""

    method: Literal["model", "repaint", "replacement", "gradient", "belief"] = "repaint"
    """repaint: every step several times, until all agrees; replacement: once, fast; gradient: through the network, slow; belief: in what
    is believed at every step, for consistency models."""
    resamplings: int = 10
    """Of repaint: how often to walk every stretch of the way."""
    jump: int = 1
    """Of repaint: how many steps make a stretch."""
    gradient_scale: float = 4.0
    """Of gradient: how hard to pull."""

    def chosen(self) -> Method:
        """The method with its own options.

        Raises:
            UserError: a number of repetitions or steps that is not positive.
        """
        if self.resamplings < 1 or self.jump < 1:
            raise UserError("--resamplings and --jump must be at least 1")
        return _METHODS[self.method](self)


_METHODS: dict[str, Callable[[ConditionalOptions], Method]] = {
    "repaint": lambda options: ByResampling(options.resamplings, options.jump),
    "replacement": lambda options: ByReplacement(),
    "gradient": lambda options: ByGradient(options.gradient_scale),
    "model": lambda options: ByModel(),
    "belief": lambda options: ByBelief(),
}


@dataclass(frozen=True)
class InpaintOptions(ConditionalOptions):
    """Fill a part of a picture so that it fits the rest, which is kept exactly."""

    method: Literal["model", "repaint", "replacement", "gradient", "belief"] = "repaint"
    """model: as it was trained to (the default, where it was: unstir train glide-inpaint); belief: in what is believed at every step (the
    default of consistency models); else repaint: every step several times, until all agrees; replacement: once, fast; gradient: through the
    network, slow."""
    mask: str = ""
    """A picture, white where to fill; or a .npy, not 0 where to fill."""


@dataclass(frozen=True)
class ImageToImageOptions(EditOptions):
    """Make new pictures that resemble a given one, which may be as crude as a few strokes."""

    strength: float = 0.5
    """0: the picture itself, 1: one that has nothing to do with it."""


@dataclass(frozen=True)
class InterpolateOptions(EditOptions):
    """Walk from one picture to another. With --out FILE.gif it is an animation."""

    to: str = ""
    """The other picture."""
    n: int = 9
    """How many pictures, both ends among them."""
    method: Literal["ddim", "ddpm", "embedding"] = "ddim"
    """ddim: between the latents that the model gives them; embedding: also between the vectors that a CLIP gives them (the default of unclip
    runs); ddpm: between the two under the same noise."""
    strength: float = 0.5
    """Of ddpm: how much noise; more leaves the middle more freedom, and changes the ends."""


@dataclass(frozen=True)
class VariationOptions(EditOptions):
    """Make other pictures that show what a given one shows, as a CLIP sees it. For runs of unstir train unclip."""

    n: int = 8
    """How many results."""
    keep: float = 0.0
    """How much of the picture's own noise is kept as well: 0 none, 1 all, which is the picture itself."""


@dataclass(frozen=True)
class RestyleOptions(EditOptions):
    """Turn a picture from what one caption says to what another one says. For runs of unstir train unclip."""

    to_text: str = ""
    """Caption of what it should become."""
    from_text: str = ""
    """Caption of what it is. Default: the nearest of those that the CLIP knows."""
    strength: float = 0.4
    """How far to turn: 0 is the picture itself; more than about 0.5 keeps little of it."""
    n: int = 1
    """1: only the end; more: so many steps of the way."""


@dataclass(frozen=True)
class ColorizeOptions(ConditionalOptions):
    """Give a grey picture colours. Of a picture in colours only the grey is used."""

    method: Literal["repaint", "replacement", "gradient", "belief"] = "replacement"
    """replacement: once, fast; repaint: every step several times; gradient: through the network; belief: for consistency models."""


@dataclass(frozen=True)
class UpscaleOptions(ConditionalOptions):
    """Make a picture larger. A run that was trained to enlarge (unstir train cascade) does so with pictures of any size if its network is a
    U-Net; any other draws one of its own size whose smaller copy is the given picture, exactly."""

    method: Literal["model", "replacement", "repaint", "gradient", "belief"] = "replacement"
    """model: as it was trained to (the default, where it was); else replacement: held to the picture at every step; repaint: every step
    several times; gradient: through the network; belief: for consistency models."""
    level: float = 0.0
    """Of model: noise on the picture that is given, 0 to 1: the more, the more freedom."""
    factor: int = 2
    """Of the other methods: how many times larger."""

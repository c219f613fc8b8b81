"""A trained model, ready to sample: a Denoiser with the recipe it was trained by and the data it was trained on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unstir.cascade import check_below
from unstir.clip import WANTED, Clip
from unstir.codec import IDENTITY, Codec
from unstir.conditioning.asked import default_captions, default_labels, in_turn, rows_asked
from unstir.conditioning.derived import LowRes
from unstir.data import Condition, DataSpec
from unstir.denoiser import Denoiser, NetDenoiser
from unstir.drawn import captions_read_by_others, completed
from unstir.errors import UserError, did_you_mean
from unstir.guidance import LogProb, OnlyKnown
from unstir.networks.controlnet import ControlNet
from unstir.noisy_classifier import NoisyClassifier
from unstir.others import other
from unstir.recipes import Guides, Recipe, SamplingConfig
from unstir.recipes.distillation import check_guidance
from unstir.recipes.recipe import Around
from unstir.recipes.serial import entry
from unstir.samplers import GRIDS, SAMPLERS
from unstir.sampling import Grid, SampleNoise, Sampler, Step, end, trajectory
from unstir.showcase import showcase
from unstir.trained import Fetch, Trained, check_fit, check_same_space, no_runs

_DERIVED_SEED = 0xDE21F  # keeps the noise on a sample's conditions apart from its own


class Model:
    """A denoiser, what it was trained on and how.

    All samples that go in or come out are of the data, in model units; only ``trajectory`` walks in the space in which the denoiser works,
    from which ``decode`` leads to the data. Most denoisers work on the data themselves, and the two are the same.

    Args:
        denoiser: with the averaged weights; ``model.denoiser`` is the fourth word of the library, use it anywhere.
        spec: shape, units and conditions of the data. ``latent_spec`` describes what the denoiser works on.
        recipe: its ``sampling`` section holds the defaults of ``sample``.
        fetch: loads the other runs that sampling settings may name, to be guided by.
        codec: what stands between the data and the denoiser.
    """

    def __init__(
        self,
        denoiser: NetDenoiser,
        spec: DataSpec,
        recipe: Recipe,
        fetch: Fetch = no_runs,
        codec: Codec = IDENTITY,
    ) -> None:
        self.denoiser = denoiser.eval()
        self.spec = spec
        self.latent_spec = codec.latent_spec(spec)
        self.codec = codec
        self.recipe = recipe
        self.fetch = fetch
        self.cache: dict[str, Any] = {}
        """What else is loaded of other runs (``unstir.others``)."""
        self._fetched: dict[str, Trained] = {}

    @classmethod
    def of(cls, trained: Trained) -> Model:
        """The model of a run that trained a denoiser."""
        assert isinstance(trained.module, NetDenoiser)
        return cls(trained.module, trained.spec, trained.recipe, trained.fetch, trained.codec)

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    def to(self, device: torch.device | str) -> Model:
        """Moves the weights."""
        self.denoiser.to(device)
        self.codec.to(device)
        self._fetched.clear()
        self.cache.clear()
        return self

    def encode(self, x: Tensor) -> Tensor:
        """(B, *spec.shape) samples in model units -> (B, *latent_spec.shape), what the denoiser works on, where the model is."""
        return self.codec.encode(x.to(self.device, torch.float32))

    def decode(self, z: Tensor) -> Tensor:
        """(B, *latent_spec.shape) what the denoiser works on -> (B, *spec.shape) samples in model units. Gradients go through it."""
        return self.codec.decode(z, self.spec)

    # ---- guidance ----------------------------------------------------------------------------------------------------

    def fetched(self, name: str) -> Trained:
        """Another run's, loaded once.

        Raises:
            UserError: no such run, or of data that do not fit this model's.
        """
        if name not in self._fetched:
            trained = self.fetch(name, self.device)
            theirs = trained.spec
            if isinstance(
                trained.module, Clip
            ):  # which reads captions by itself, and nothing else that the model is told
                theirs = dataclasses.replace(theirs, conditions={})
            check_same_space(name, trained.codec, self.codec, self.spec)
            check_fit(name, theirs, self.spec)
            self._fetched[name] = trained
        return self._fetched[name]

    def guided(self, settings: SamplingConfig, around: Around | None = None) -> Denoiser:
        """The denoiser with these settings' guidance around it, in the order that ``SamplingConfig.guide`` tells.

        Args:
            around: puts something more around it, inside of clipping: ``lambda d: FunctionGuidance(d, loss)``.

        Raises:
            UserError: a run to be guided by that does not exist, is of another kind, or does not fit this model.
        """
        if settings.control_strength != 1 and not isinstance(self.denoiser.network, ControlNet):
            raise UserError(
                "this model has no control whose strength could be set (unstir train controlnet --base RUN)"
            )
        check_guidance(self.recipe, self.spec, settings)
        bad = self._bad(settings.autoguidance) if settings.autoguidance else None
        log_prob = self._log_prob(self._classifier(settings.classifier)) if settings.classifier else None
        similarity = self._log_prob(self._clip(settings.clip_model)) if settings.clip_model else None
        return settings.guide(self.denoiser, self.latent_spec, Guides(bad, log_prob, similarity, around))

    def _bad(self, name: str) -> Denoiser:
        trained = self.fetched(name)
        if not isinstance(trained.module, NetDenoiser):
            raise UserError(
                f"{name} is not a model that draws samples, so none can be guided away from it; give a run that is"
            )
        for key, theirs in trained.spec.conditions.items():  # the two are shown the same numbers
            ours = self.spec.conditions.get(key, theirs)
            if theirs.seen and ours.seen and (theirs.encoder, theirs.shape) != (ours.encoder, ours.shape):
                raise UserError(
                    f"{name} reads its {key} in another way than this model: train both on one data set with one --data.text"
                )
        return OnlyKnown(trained.module, trained.spec.conditions)

    def _log_prob(self, guide: NoisyClassifier | Clip) -> LogProb:
        return functools.partial(guide.log_prob, process=self.denoiser.process)

    def _classifier(self, name: str) -> NoisyClassifier:
        module = self.fetched(name).module
        if not isinstance(module, NoisyClassifier):
            raise UserError(f"{name} is not a classifier; train one: unstir train classifier --data SOURCE")
        return module

    def _clip(self, name: str) -> Clip:
        module = self.fetched(name).module
        if not isinstance(module, Clip):
            raise UserError(f"{name} is not a CLIP; train one: unstir train clip --data SOURCE")
        return module

    def known(self, settings: SamplingConfig | None = None) -> dict[str, Condition]:
        """What samples can be asked for by: what the model knows, the class that a classifier guides by, the caption that a CLIP does."""
        conditions = dict(self.spec.conditions)
        if settings is not None and settings.classifier:
            label = self._classifier(settings.classifier).label
            conditions.setdefault(label, self.fetched(settings.classifier).spec.conditions[label])
        captions = captions_read_by_others(self, settings or self.recipe.sampling)
        if settings is not None and settings.clip_model:
            clip = self._clip(settings.clip_model)
            captions = {clip.text: clip.caption, **captions}
        seen = {name for name, condition in conditions.items() if condition.seen}
        return conditions | {name: c for name, c in captions.items() if name not in seen}

    def below(self, settings: SamplingConfig) -> Model | None:
        """The stage below that draws what this model enlarges, loaded once; None where none is named.

        Raises:
            UserError: no such run, or one that draws something else than smaller samples of this model's data.
        """
        name, derived = settings.low_res_from, self.recipe.derived
        if not name or not isinstance(derived, LowRes):
            return None
        factor = derived.factor
        return other(self, name, lambda trained: check_below(name, trained, self.spec, factor))

    # ---- conditions --------------------------------------------------------------------------------------------------

    def condition(self, name: str, settings: SamplingConfig | None = None) -> Condition:
        """What this model can be asked for under this name, with such settings.

        Raises:
            UserError: nothing of that name, with what there is.
        """
        known = self.known(settings)
        seen = {key: value for key, value in known.items() if value.seen}
        if name in known and name not in seen:
            raise UserError(
                f"this model was trained without its data's captions, so it takes no '{name}' (--data.text reads them)"
            )
        if name not in seen:
            there = did_you_mean(name, seen) if seen else "it was trained without conditions"
            raise UserError(f"this model takes no condition '{name}'; {there}")
        return seen[name]

    def captions(
        self, given: Mapping[str, Any], settings: SamplingConfig, seed: int, indices: Sequence[int]
    ) -> dict[str, list[str]]:
        """By the name of each condition that is a text: the captions that these samples are asked for by, "" where by none.

        Where nobody asked for anything they are those of the data that its description keeps, as ``settings.labels`` says. A caption that
        was given as numbers is not known here.
        """
        known = self.known(settings)
        asked = {name for name, value in given.items() if value is not None}
        said = any(known[name].kind == "class" or known[name].made for name in asked & known.keys())
        how = (
            "none" if said else settings.labels
        )  # a caption that comes by itself would contradict the class, or the picture
        texts = {name: c for name, c in known.items() if c.kind == "text" and c.seen}
        return {
            name: (in_turn(given[name], indices) or [""] * len(indices))
            if name in asked
            else default_captions(condition, how, seed, indices)
            for name, condition in texts.items()
        }

    def conditions(
        self, given: Mapping[str, Any], settings: SamplingConfig, seed: int, indices: Sequence[int]
    ) -> dict[str, Tensor]:
        """The conditions of these samples as the denoiser is told them: ``asked``; and what was not given and other models draw: of a stage of
        a cascade what it is to enlarge, with noise on it; of unCLIP's decoder the embedding of a caption.
        """
        rows = self.asked(given, settings, seed, indices)
        rows = completed(self, rows, given, settings, seed, indices)
        rows = self.recipe.derived.at_sampling(rows, self.noise(seed ^ _DERIVED_SEED, indices))
        return self.codec.told(rows, self.spec)

    def asked(
        self, given: Mapping[str, Any], settings: SamplingConfig, seed: int, indices: Sequence[int]
    ) -> dict[str, Tensor]:
        """What these samples are asked for by: what was given; and where nothing was, labels and captions as the settings say.

        Of a model that knows both, labels that nobody asked for are none: they would contradict the captions, or the vector of a picture.
        """
        captions = self.captions(given, settings, seed, indices)
        asked = captions | {name: value for name, value in given.items() if value is not None}
        rows = {name: rows_asked(name, self.condition(name, settings), value, indices) for name, value in asked.items()}
        if settings.clip_model:
            rows[WANTED] = self._wanted(self._clip(settings.clip_model), given, captions)
        known = self.known(settings)
        how = "none" if captions or any(known[name].made for name in asked) else settings.labels
        for name, condition in known.items():
            if condition.kind == "class" and name not in rows:
                rows[name] = default_labels(condition, how, seed, indices)
        return {name: value.to(self.device) for name, value in rows.items()}

    def _wanted(self, clip: Clip, given: Mapping[str, Any], captions: Mapping[str, list[str]]) -> Tensor:
        """The captions as the CLIP that guides understands them, which may be in other letters than the model does."""
        if given.get(clip.text) is not None and not in_turn(given[clip.text], [0]):
            raise UserError(f"a CLIP guides by words: give {clip.text} as captions, not as an encoder's numbers")
        return clip.understood(captions[clip.text])

    def showcase(
        self, columns: int = 0, settings: SamplingConfig | None = None
    ) -> tuple[int, dict[str, Tensor | npt.NDArray[np.str_]]]:
        """(how many samples, their labels or captions) that show what the model can do: some of every class, at most 16 classes, or of 16
        captions of the data.

        Args:
            columns: samples of each class; by default as many as a picture of this kind of data holds well.
            settings: of sampling; by default the recipe's.
        """
        return showcase(self.known(settings or self.recipe.sampling), self.spec.kind, columns)

    # ---- sampling ----------------------------------------------------------------------------------------------------

    def noise(self, seed: int, indices: Sequence[int]) -> SampleNoise:
        """The random numbers of these samples. All stages of a cascade are given one seed, and each has numbers of its own: were a
        stage's noise that of the stage below, it would know what it enlarges from it.
        """
        rng = SampleNoise(seed, indices)
        if isinstance(self.recipe.derived, LowRes):
            rng.draws = self.spec.dimensions << 32  # a stage never draws so often, and no two have samples of one size
        return rng

    def settings(
        self,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        grid: str | Grid | None = None,
        **others: Any,
    ) -> SamplingConfig:
        """The recipe's sampling settings with these changed.

        Args:
            others: any other fields of ``SamplingConfig``.

        Raises:
            UserError: an unknown sampler or grid, or a number of steps that is not positive.
        """
        changes: dict[str, Any] = dict(others)
        if sampler is not None:
            changes["sampler"] = entry("sampler", SAMPLERS, sampler) if isinstance(sampler, str) else sampler
        if grid is not None:
            changes["grid"] = entry("grid", GRIDS, grid) if isinstance(grid, str) else grid
        if steps is not None:
            if steps < 1:
                raise UserError(f"the number of steps must be positive, not {steps}")
            changes["steps"] = steps
        if guidance_scale is not None:
            changes["guidance_scale"] = guidance_scale
        return dataclasses.replace(self.recipe.sampling, **changes)

    def trajectory(
        self,
        indices: Sequence[int],
        settings: SamplingConfig | None = None,
        *,
        seed: int = 0,
        guide: Around | None = None,
        **cond: Any,
    ) -> Iterator[Step]:
        """Every step of the way from noise to these samples, where the denoiser works; ``decode`` makes data of any of them. The loop behind
        ``sample``.

        Args:
            indices: the samples' numbers; sample i depends on (seed, i) alone.
            settings: by default the recipe's.
            guide, cond: as for ``sample``.
        """
        settings = settings or self.recipe.sampling
        conditions = self.conditions(cond, settings, seed, indices)
        process = self.denoiser.process
        times = settings.times(process)
        rng = self.noise(seed, indices)
        x = process.prior_sample(rng.normal(self.latent_spec.shape).to(self.device), times[0])
        yield from trajectory(self.guided(settings, guide), settings.sampler, times, x, rng, conditions)

    def batches(
        self,
        n: int,
        settings: SamplingConfig,
        *,
        seed: int = 0,
        batch_size: int = 64,
        guide: Around | None = None,
        **cond: Any,
    ) -> Iterator[Tensor]:
        """Samples 0 .. n - 1 in batches, in model units, (b, *shape) on the CPU."""
        for start in range(0, n, batch_size):
            indices = range(start, min(start + batch_size, n))
            yield self.decode(end(self.trajectory(indices, settings, seed=seed, guide=guide, **cond))).cpu()

    def sample(
        self,
        n: int,
        *,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        batch_size: int = 64,
        guide: Around | None = None,
        **cond: Any,
    ) -> Tensor:
        """Draws samples.

        Args:
            n: how many.
            sampler: a name in SAMPLERS or a Sampler; like steps and guidance_scale by default what the recipe recommends.
            steps: of the sampler.
            guidance_scale: of classifier-free guidance; 1 is off.
            seed: sample i depends on (seed, i) alone, not on n or batch_size.
            batch_size: how many at a time.
            guide: puts guidance of one's own around the denoiser, such as ``lambda d: FunctionGuidance(d, loss)``; of a model in latents
                the loss is shown these, and ``model.decode`` makes data of them.
            cond: by name: a class's name or number, a vector, a caption, or a list of them to be taken in turn. Any field of
                ``SamplingConfig`` may be given here too: ``classifier="runs/classifier", classifier_scale=3.0``.

        Returns:
            (n, *shape): pictures in [-1, 1], everything else in the data's own units.

        Raises:
            UserError: an unknown sampler, condition or class.
        """
        fields = {field.name for field in dataclasses.fields(SamplingConfig)} - self.spec.conditions.keys()
        others = {name: cond.pop(name) for name in fields & cond.keys()}
        settings = self.settings(sampler, steps, guidance_scale, **others)
        x = torch.cat(list(self.batches(n, settings, seed=seed, batch_size=batch_size, guide=guide, **cond)))
        return x if self.spec.kind == "image" else self.spec.in_units(x)

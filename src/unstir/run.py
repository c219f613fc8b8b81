"""A run: the folder that holds all of a model's life, and loading a model from it.

recipe.toml          everything needed to rebuild it
model.safetensors    averaged weights, for sampling
checkpoints/         for exact resumption
metrics.jsonl        a line every few steps
samples/             pictures along the way (of a denoiser, of an autoencoder)
autoencoder/         what its latents are of (of a run that works in latents)
accuracy.json        how often it is right (of a classifier)
retrieval.json       how often it finds the caption of a picture (of a CLIP)
fidelity.json        how well it gives back what it was given (of an autoencoder)
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import tomli_w
import torch

from unstir.codec import Codec
from unstir.codecs import kept_codec
from unstir.data import DataSpec
from unstir.errors import UserError, did_you_mean
from unstir.model import Model
from unstir.recipes import RECIPES, DenoiserConfig, Recipe
from unstir.recipes.serial import override, to_dict
from unstir.trained import Trained
from unstir.training.checkpoint import Checkpoints, write_atomically
from unstir.training.devices import autocast_dtype, best_device

FORMAT = 1


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null."""
    return {key: value for key, value in values.items() if value is not None}


class Run:
    """The paths and files of one run folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def recipe_file(self) -> Path:
        return self.folder / "recipe.toml"

    @property
    def weights_file(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    @property
    def accuracy_file(self) -> Path:
        return self.folder / "accuracy.json"

    @property
    def retrieval_file(self) -> Path:
        return self.folder / "retrieval.json"

    @property
    def fidelity_file(self) -> Path:
        return self.folder / "fidelity.json"

    def exists(self) -> bool:
        """Whether this folder is a run."""
        return self.recipe_file.is_file()

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """An existing run.

        Raises:
            UserError: if the folder is not one.
        """
        run = cls(folder)
        if run.exists():
            return run
        path = run.folder
        if not path.exists():
            siblings = [p.name for p in path.parent.iterdir() if cls(p).exists()] if path.parent.is_dir() else []
            hint = f"; {did_you_mean(path.name, siblings)}" if siblings else ""
            raise UserError(f"there is no run folder {path}{hint}")
        if (path / "chain.toml").is_file():
            raise UserError(f"the last stage of {path} is not trained yet; go on with it: unstir train --resume {path}")
        raise UserError(f"{path} is not a run folder: it holds no recipe.toml. 'unstir train' makes run folders.")

    # ---- the recipe --------------------------------------------------------------------------------------------------

    def write_recipe(self, name: str, recipe: Recipe, spec: DataSpec, about_data: dict[str, Any]) -> None:
        """Writes recipe.toml: the recipe, and what the data were."""
        import unstir

        contents = {
            "format": FORMAT,
            "unstir": unstir.__version__,
            "recipe": name,
            **to_dict(recipe),
            "data_set": _numbers({**about_data, "spec": spec.to_dict()}),
        }
        write_atomically(self.recipe_file, lambda file: tomli_w.dump(contents, file))

    def _contents(self) -> dict[str, Any]:
        try:
            with self.recipe_file.open("rb") as file:
                return tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{self.recipe_file} is not a valid recipe: {error}") from error

    def read_recipe(self) -> tuple[str, Recipe, DataSpec]:
        """The recipe's name, the recipe and the data's description.

        Raises:
            UserError: a recipe.toml that is damaged, or of a newer version.
        """
        contents = self._contents()
        try:
            format_, name = contents.pop("format"), contents.pop("recipe")
            version, data_set = contents.pop("unstir"), contents.pop("data_set")
            spec = DataSpec.from_dict(data_set["spec"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{self.recipe_file} is not a valid recipe: {error} is missing or damaged") from error
        if format_ > FORMAT:
            raise UserError(
                f"{self.folder} was written by unstir {version}, which is newer than this one: upgrade unstir"
            )
        try:
            return name, override(RECIPES.get(name, Recipe()), contents), spec
        except UserError as error:
            raise UserError(f"{self.recipe_file}: {error}") from error

    def data_set(self) -> dict[str, Any]:
        """What the data were: source, name, count, fingerprint."""
        return dict(self._contents().get("data_set", {}))

    # ---- the weights -------------------------------------------------------------------------------------------------

    def write_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Writes model.safetensors, from a module's state dict."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        data = safetensors.torch.save(tensors, metadata={"format": "pt"})
        write_atomically(self.weights_file, lambda file: file.write(data))

    def _weights(self) -> dict[str, torch.Tensor]:
        if not self.weights_file.is_file():
            raise UserError(f"{self.folder} has no model.safetensors yet: it was never trained as far as a checkpoint")
        try:
            weights: dict[str, torch.Tensor] = safetensors.torch.load_file(self.weights_file)
        except (safetensors.SafetensorError, RuntimeError, OSError) as error:
            raise self._damaged(error) from error
        return weights

    def _damaged(self, error: Exception) -> UserError:
        return UserError(
            f"{self.weights_file} cannot be loaded: {str(error).splitlines()[0]}\n"
            f"'unstir train --resume {self.folder}' writes it anew"
        )

    def trained(self, device: torch.device | str | None = None, step: int | None = None) -> Trained:
        """What was trained, whatever it is, with its averaged weights.

        Args:
            step: of the checkpoint whose weights to take; by default the newest.

        Raises:
            UserError: no weights yet, damaged ones, no such checkpoint, or no such device.
        """
        _, recipe, spec = self.read_recipe()
        weights = self._weights() if step is None else Checkpoints(self.checkpoints, 1).at(step)["averaged"]
        device = torch.device(device) if device is not None else best_device()
        codec = self.codec(recipe, spec)
        module = recipe.denoiser.build(recipe.network, recipe.process, codec.latent_spec(spec)).eval()
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            raise self._damaged(error) from error
        module.autocast = autocast_dtype(recipe.training.precision, device)
        try:
            return Trained(module.to(device), spec, recipe, self.fetch, codec.to(device))
        except (AssertionError, RuntimeError) as error:  # PyTorch's ways of saying that there is no such device
            raise UserError(f"cannot use the device '{device}': {str(error).splitlines()[0]}") from error

    def codec(self, recipe: Recipe, spec: DataSpec) -> Codec:
        """What stands between this run's data and what it trained, on the CPU.

        Raises:
            UserError: an autoencoder that is gone, or is another one than the run was trained with.
        """
        facts = self.data_set().get("latents", {})
        return kept_codec(self.folder, recipe.autoencoder, facts, spec, self.fetch, torch.device("cpu"))

    def model(self, device: torch.device | str | None = None) -> Model:
        """The trained model, with its averaged weights.

        Raises:
            UserError: no weights yet, damaged ones, or the run trained something that draws no samples.
        """
        _, recipe, _ = self.read_recipe()
        if not isinstance(recipe.denoiser, DenoiserConfig):
            raise UserError(
                f"{self.folder} holds no model that draws samples; 'unstir info {self.folder}' says what it is and how to use it"
            )
        return Model.of(self.trained(device))

    def fetch(self, name: str, device: torch.device) -> Trained:
        """What another run trained, that this run's settings name: as seen from this run's folder, or else from the current one.

        Raises:
            UserError: not a run folder, or one without weights.
        """
        inside = os.path.normpath(self.folder / name)  # ../steps-16 is beside a folder that may not be there yet
        return fetch(inside if is_run(inside) else name, device)

    # ---- the record --------------------------------------------------------------------------------------------------

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line cut short by a crash is left out."""
        if not self.metrics_file.is_file():
            return []
        rows = []
        for line in self.metrics_file.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def forget_metrics_after(self, step: int) -> None:
        """Drops lines of steps that were lost in a crash and will be trained again."""
        rows = [row for row in self.metrics() if row["step"] <= step]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(self.metrics_file, lambda file: file.write(text.encode()))

    def log(self, row: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl."""
        try:
            with self.metrics_file.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise UserError(
                f"could not write {self.metrics_file}: {error.strerror}; the last checkpoint is kept"
            ) from error


def is_run(name: str) -> bool:
    """Whether RUN, or the RUN of RUN@STEP, is a run folder."""
    before = name.rpartition("@")[0]
    return Run(name).exists() or (bool(before) and Run(before).exists())


def named(name: str) -> tuple[Run, int | None]:
    """RUN, or RUN@STEP for a run as it was at that step's checkpoint -> (the run, the step).

    Raises:
        UserError: not a run folder.
    """
    folder, at, step = name.rpartition("@")
    if at and step.isdecimal() and not Run(name).exists():
        return Run.open(folder), int(step)
    return Run.open(name), None


def fetch(name: str, device: torch.device) -> Trained:
    """What a run trained: RUN, or RUN@STEP for the averaged weights as they were at that step's checkpoint.

    Raises:
        UserError: not a run folder, or one without such weights.
    """
    run, step = named(name)
    return run.trained(device, step)


def load(folder: str | Path, device: torch.device | str | None = None) -> Model:
    """Loads a trained model from a run folder: ``unstir.load("runs/demo").sample(16)``.

    Raises:
        UserError: not a run folder, or one without weights.
    """
    return Run.open(folder).model(device)

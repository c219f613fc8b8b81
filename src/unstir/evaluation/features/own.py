"""The features of a small classifier that is trained on the data's own labels: they tell apart what the data's owner does.

It is trained once for a data set, in a minute or two, always in the same way, on nine tenths of the labelled samples; how many
of the rest it gets right is part of the space's name. The weights are kept in the cache.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor, nn

from unstir.data import Dataset, DataSpec
from unstir.data.cache import digest, key_of
from unstir.data.contents import Array
from unstir.data.order import indices
from unstir.errors import UserError
from unstir.evaluation.features.simple import as_tensor, check_kind
from unstir.evaluation.features.space import Features, FeatureSpace
from unstir.evaluation.samples import order, rows_of
from unstir.networks.classifier import Classifier, ClassifierConfig
from unstir.objectives import Batch
from unstir.objectives.classification import ClassificationObjective
from unstir.sampling import SampleNoise
from unstir.training.checkpoint import write_atomically
from unstir.training.config import LinearDecay, MuonConfig, TrainingConfig
from unstir.training.devices import autocast_dtype, keep_freed_memory
from unstir.training.loop import Loop, TrainingState

VERSION = 1  # of the network, its training and what it is shown: another number trains anew
SEED = 0
NETWORK = ClassifierConfig()
OBJECTIVE = ClassificationObjective()
SEEN, EPOCHS = 216_000, 40
"""It sees so many samples, but none more often than so many times."""
BATCH = 128
HELD_OUT = 10  # one of so many samples
LEAST = 20  # labelled samples
ANNOUNCE = 50  # steps after which it says how long it will take


@dataclass(frozen=True)
class About:
    """What is known of a trained classifier.

    Args:
        accuracy: share of the held-out samples that it gets right.
        trained, held_out: numbers of samples.
        digest: of the file of its weights.
    """

    accuracy: float
    trained: int
    held_out: int
    digest: str = ""


class Own(FeatureSpace):
    """What the classifier's last layer sees, and its classes' probabilities; in fp32.

    Args:
        network: trained.
        spec: of the data.
        about: its record.
        device: to compute on.
    """

    def __init__(self, network: Classifier, spec: DataSpec, about: About, device: torch.device) -> None:
        self.network = network.to(device).requires_grad_(False).eval()
        self.network.autocast = None
        self.spec = spec
        self.about = about
        self.device = device
        self.name = f"own, accuracy {about.accuracy:.3f}"
        self.fingerprint = key_of("own", VERSION, about.digest)

    @torch.no_grad()
    def __call__(self, x: Array) -> Features:
        vectors = self.network.features(as_tensor(x, self.spec).to(self.device))  # (B, D)
        return Features(vectors, self.network.head(vectors).softmax(1))  # (B, K)


def own(dataset: Dataset, device: torch.device, cache: Path) -> FeatureSpace:
    """For ``FEATURES``: trains the classifier, or finds it in the cache.

    Raises:
        UserError: points, or data without (enough) labels.
    """
    check_kind("own", dataset, ["image", "signal", "volume"])
    samples = labelled(dataset)
    settings = [asdict(part) for part in (NETWORK, OBJECTIVE, plan(len(samples.train)))]
    key = key_of("own", VERSION, dataset.fingerprint, samples.label, settings)
    weights, record = (cache / "features" / f"own-{key}{suffix}" for suffix in (".safetensors", ".json"))
    with torch.random.fork_rng([]):
        torch.manual_seed(SEED)
        network = NETWORK.build(dataset.spec, dataset.spec.conditions[samples.label].size)
    about = _read(network, weights, record)
    if about is None:
        about = _train(network, samples, device)
        write_atomically(weights, lambda file: file.write(safetensors.torch.save(_plain(network))))
        about = About(about.accuracy, about.trained, about.held_out, digest(weights))
        text = json.dumps({**asdict(about), "data": dataset.name, "fingerprint": dataset.fingerprint}, indent=2)
        write_atomically(record, lambda file: file.write(text.encode()))
    return Own(network, dataset.spec, about, device)


def _plain(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def _read(network: Classifier, weights: Path, record: Path) -> About | None:
    """Puts the cached weights into the network; None where there are none, or they are damaged."""
    try:
        values = json.loads(record.read_text("utf-8"))
        about = About(*(values[name] for name in ("accuracy", "trained", "held_out", "digest")))
        if digest(weights) != about.digest:
            return None
        network.load_state_dict(safetensors.torch.load_file(weights))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError):
        return None
    return about


@dataclass(frozen=True)
class Labelled:
    """The samples whose class is known, in two parts.

    Args:
        dataset: that they are of.
        label: the condition's name.
        train, held_out: rows of the data set.
    """

    dataset: Dataset
    label: str
    train: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]

    def batch(self, rows: npt.NDArray[np.int64]) -> Batch:
        """These samples, rounded as files hold them, as the classifier sees them."""
        values = np.asarray(self.dataset.conditions[self.label])[rows]
        x = as_tensor(rows_of(self.dataset, rows), self.dataset.spec)
        return Batch(x, {OBJECTIVE.label: torch.from_numpy(values)})


def labelled(dataset: Dataset) -> Labelled:
    """The part to train on and the part held out, at random, always the same.

    Raises:
        UserError: no labels, too few, or all the same.
    """
    from unstir.evaluation.features import DEFAULTS

    label = next((name for name, condition in dataset.spec.conditions.items() if condition.named), None)
    other = f"use --features {DEFAULTS[dataset.spec.kind]}"
    if label is None:
        raise UserError(
            f"--features own trains a classifier on class labels, and {dataset.name} comes without; {other}"
        )
    values = np.asarray(dataset.conditions[label])
    rows = order(len(dataset))
    rows = rows[values[rows] >= 0]
    classes = len(np.unique(values[rows]))
    if len(rows) < LEAST or classes < 2:
        raise UserError(
            f"--features own needs at least {LEAST} labelled samples of 2 classes, and {dataset.name} has {len(rows)} of {classes}; {other}"
        )
    held = len(rows) // HELD_OUT
    return Labelled(dataset, label, rows[held:], rows[:held])


class _Alone:
    """What the loop asks of an Accelerator, for this process alone: the others of a group wait meanwhile, or have it already."""

    num_processes, process_index = 1, 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def prepare(self, module: nn.Module) -> nn.Module:
        return module.to(self.device)

    def no_sync(self, module: nn.Module) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]


def plan(count: int) -> TrainingConfig:
    """How the classifier is trained on so many samples: one cycle of the learning rate."""
    batch = min(BATCH, count)
    return TrainingConfig(
        steps=max(1, min(SEEN, EPOCHS * count) // batch),
        batch_size=batch,
        learning_rate=3e-3,
        warmup=0.1,
        decay=LinearDecay(0.1),
        optimizer=MuonConfig(lr_scale=2.0),
        seed=SEED,
    )


def _train(network: Classifier, samples: Labelled, device: torch.device) -> About:
    """Trains the network in place; -> how good it got."""
    config = plan(len(samples.train))
    if device.type == "cpu":
        keep_freed_memory()
    network.to(device).autocast = autocast_dtype(config.precision, device)

    def draw(step: int, positions: list[int], rng: SampleNoise) -> Batch:
        return samples.batch(samples.train[indices(len(samples.train), config.batch_size, step, SEED)[positions]])

    state = TrainingState(network, config)
    _say(f"training a classifier on {len(samples.train):,} labelled samples of {samples.dataset.name}, once")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # the loop seeds the global generator
        for progress in Loop(state, OBJECTIVE, draw, config, _Alone(device)):
            if progress.step == ANNOUNCE:
                _say(f"about {progress.seconds / (progress.step - 1) * (config.steps or 0):.0f} s")
    accuracy = _accuracy(network, samples, device)
    _say(f"it is right about {accuracy:.1%} of {len(samples.held_out):,} samples that were held out")
    return About(accuracy, len(samples.train), len(samples.held_out))


@torch.no_grad()
def _accuracy(network: Classifier, samples: Labelled, device: torch.device) -> float:
    """Share of the held-out samples that it gets right, in fp32 as it judges."""
    network.eval().autocast = None
    right = 0
    for start in range(0, len(samples.held_out), 500):
        batch = samples.batch(samples.held_out[start : start + 500])
        right += int((network(batch.x.to(device)).argmax(1).cpu() == batch.cond[OBJECTIVE.label]).sum())
    return right / len(samples.held_out)


def _say(text: str) -> None:
    print(f"features own: {text}", file=sys.stderr, flush=True)

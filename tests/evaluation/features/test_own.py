"""The classifier of the data's own labels: that it learns, keeps, and does not judge what it should not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from unstir.data import DataConfig, Dataset, load
from unstir.data.builtin import FASHION_FOLDER
from unstir.errors import UserError
from unstir.evaluation.features import feature_space
from unstir.evaluation.features import own as module
from unstir.evaluation.features.own import Own, labelled
from unstir.evaluation.frechet import frechet_distance
from unstir.evaluation.moments import Moments
from unstir.evaluation.samples import rows_of
from unstir.networks.classifier import ClassifierConfig
from unstir.sampling import mix_seed

CPU = torch.device("cpu")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network and a training of seconds."""
    monkeypatch.setattr(module, "SEEN", 6000)
    monkeypatch.setattr(module, "BATCH", 64)
    monkeypatch.setattr(module, "NETWORK", ClassifierConfig((8, 16, 32)))


def space(dataset: Dataset, cache: Path) -> Own:
    found = feature_space("own", dataset, CPU, cache)
    assert isinstance(found, Own)
    return found


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(DataConfig(source="digits"))


@pytest.mark.usefixtures("short")
def test_it_learns_and_says_how_well(digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The share of digits that it gets right is recounted here from its features, on what it has not seen."""
    found = space(digits, tmp_path)
    parts = labelled(digits)
    assert (len(parts.train), len(parts.held_out)) == (1618, 179)
    assert sorted([*parts.train, *parts.held_out]) == list(range(1797))
    features = found(rows_of(digits, parts.held_out))
    truth = np.asarray(digits.conditions["label"])[parts.held_out]
    assert features.probabilities is not None
    right = float((features.probabilities.argmax(1).numpy() == truth).mean())
    assert found.about.accuracy == right > 0.9
    assert found.name == f"own, accuracy {right:.3f}"
    torch.testing.assert_close(features.probabilities.sum(1), torch.ones(179))
    logits = features.vectors @ found.network.head.weight.T + found.network.head.bias
    torch.testing.assert_close(features.probabilities, logits.softmax(1))
    assert f"right about {right:.1%} of 179 samples" in capsys.readouterr().err


@pytest.mark.usefixtures("short")
def test_the_second_time_is_from_the_cache(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = space(digits, tmp_path)
    x = rows_of(digits, np.arange(10))
    with monkeypatch.context() as patch:
        patch.setattr(module, "_train", lambda *_: pytest.fail("it was trained once more"))
        second = space(digits, tmp_path)
        assert (second.name, second.fingerprint) == (first.name, first.fingerprint)
        torch.testing.assert_close(second(x).vectors, first(x).vectors, rtol=0, atol=0)
    (weights,) = (tmp_path / "features").glob("own-*.safetensors")
    record = json.loads(weights.with_suffix(".json").read_text())
    assert (record["data"], record["fingerprint"], record["held_out"]) == ("digits", digits.fingerprint, 179)
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # one bit of a weight
    torch.manual_seed(123)  # whatever the caller did before
    third = space(digits, tmp_path)  # trained anew, and always in the same way
    assert third.fingerprint == first.fingerprint
    torch.testing.assert_close(third(x).vectors, first(x).vectors, rtol=0, atol=0)


@pytest.mark.usefixtures("short")
def test_other_weights_have_another_fingerprint(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = space(digits, tmp_path)
    monkeypatch.setattr(module, "EPOCHS", 1)
    assert space(digits, tmp_path).fingerprint != first.fingerprint
    assert len(list((tmp_path / "features").glob("own-*.safetensors"))) == 2


@pytest.mark.usefixtures("short")
def test_training_leaves_the_callers_random_numbers_alone(digits: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(mix_seed(7) >> 1)
    expected = torch.rand(3)
    torch.manual_seed(mix_seed(7) >> 1)
    space(digits, tmp_path)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


@pytest.mark.usefixtures("short")
def test_worse_pictures_are_farther_away(digits: Dataset, tmp_path: Path) -> None:
    """Real < slightly noisy < noisy < upside down or of one class alone. What is measured is rounded as in files."""
    found = space(digits, tmp_path)
    rows = np.random.default_rng(0).permutation(len(digits))
    x = rows_of(digits, rows)
    half, rest = x[:900], x[900:]
    noise = np.random.default_rng(1).normal(size=half.shape)
    noisy = [np.clip(half + s * noise, 0, 255).astype(np.uint8) for s in (20, 60)]
    one_class = half[np.asarray(digits.conditions["label"])[rows[:900]] == 3]
    reference = Moments.of(found(rest).vectors)
    distances = [
        frechet_distance(Moments.of(found(y).vectors), reference) for y in (half, *noisy, half[:, ::-1].copy())
    ]
    assert distances == sorted(distances)
    assert distances[3] > 20 * distances[0]
    assert frechet_distance(Moments.of(found(one_class).vectors), reference) > 20 * distances[0]


@pytest.mark.usefixtures("short")
def test_signals(tmp_path: Path) -> None:
    """Classes that differ in frequency alone, some samples without a class."""
    rng = np.random.default_rng(0)
    y = rng.integers(-1, 3, size=700)
    t = np.arange(80) / 80
    x = np.sin(2 * np.pi * ((3 + 5 * y)[:, None] * t + rng.random((700, 1)))) + 0.3 * rng.normal(size=(700, 80))
    np.savez(tmp_path / "s.npz", x=x.astype(np.float32)[..., None], y=y)
    data = load(DataConfig(source=str(tmp_path / "s.npz")))
    assert data.spec.kind == "signal"
    found = space(data, tmp_path)
    assert found.about.trained + found.about.held_out == (y >= 0).sum()
    assert found.about.accuracy > 0.95


def test_what_cannot_be_learnt_from(digits: Dataset, tmp_path: Path) -> None:
    unlabelled = load(DataConfig(source="digits", labels=False))
    grouped = load(DataConfig(source="digits", labels=False, groups=4))
    same = dataclasses.replace(digits, conditions={"label": np.full(1797, 3)})
    few = dataclasses.replace(digits, conditions={"label": np.where(np.arange(1797) < 15, np.arange(1797) % 3, -1)})
    for data, expected in (
        (unlabelled, "digits comes without; use --features efficientnet-lite0"),
        (grouped, "comes without"),
        (same, "has 1797 of 1"),
        (few, "has 15 of 3"),
    ):
        with pytest.raises(UserError, match=expected) as error:
            space(data, tmp_path)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "features").exists()


def test_how_long_it_learns() -> None:
    whole, tiny = module.plan(54_000), module.plan(18)
    assert whole.steps == module.SEEN // module.BATCH
    assert (tiny.batch_size, tiny.steps) == (18, module.EPOCHS)


@pytest.mark.slow
@pytest.mark.skipif(not FASHION_FOLDER.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist(tmp_path: Path) -> None:
    """As it is used; a minute or so on two cores. Pictures of the test set, which nobody has seen, are told as well."""
    found = space(load(DataConfig(source="fashion-mnist")), tmp_path)
    assert found.about.accuracy > 0.92
    test = load(DataConfig(source="fashion-mnist", split="test"))
    parts: list[Any] = [found(rows_of(test, rows)).probabilities for rows in np.arange(10_000).reshape(20, 500)]
    right = (torch.cat(parts).argmax(1).numpy() == np.asarray(test.conditions["label"])).mean()
    assert right > 0.915
    safetensors.torch.load_file(next((tmp_path / "features").glob("own-*.safetensors")))

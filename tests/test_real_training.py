"""Training for real, a minute each: that what comes out is what went in, by a measure that knows nothing of diffusion.

`make test-all` runs these; `make test` leaves them out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import unstir
from unstir.data import DataConfig, load

pytestmark = pytest.mark.slow


def train(recipe: str, data: str, out: Path, *length: str) -> None:
    """In a process of its own, on all cores: the tests' one is held to one thread, and PyTorch never quite gets over that."""
    words = ["train", recipe, "--data", data, "--out", str(out), *length]
    subprocess.run([sys.executable, "-m", "unstir", *words], check=True, stdout=subprocess.DEVNULL)


def test_generated_digits_are_what_was_asked_for(tmp_path: Path) -> None:
    """A classifier trained on real digits recognises the generated ones; chance is 10 %."""
    from sklearn.linear_model import LogisticRegression

    train("quick", "digits", tmp_path / "r", "--training.minutes", "1")
    data = load(DataConfig(source="digits"))
    real = data.batch(np.arange(len(data)))[0].flatten(1).numpy()
    judge = LogisticRegression(max_iter=2000).fit(real, data.conditions["label"])
    drawn = unstir.load(tmp_path / "r").sample(200, label=list(range(10)), batch_size=200).flatten(1).numpy()
    accuracy = (judge.predict(drawn) == np.arange(200) % 10).mean()
    assert accuracy > 0.9
    # Not copies: a typical sample is further from its nearest real digit than 0, and no further than real digits are.
    apart = np.sqrt(((drawn[:, None] - real[None]) ** 2).sum(-1)).min(1)
    among = np.sqrt(((real[:200, None] - real[None, 200:]) ** 2).sum(-1)).min(1)
    assert 0.2 * np.median(among) < np.median(apart) < 2.0 * np.median(among)


def test_a_noisy_classifier_knows_digits_and_guides_by_them(tmp_path: Path) -> None:
    """It is right where there is little noise, and an unconditional model guided by it draws what was asked for."""
    from sklearn.linear_model import LogisticRegression

    train("classifier", "digits", tmp_path / "c", "--training.minutes", "0.8")
    record = json.loads((tmp_path / "c" / "accuracy.json").read_text())
    assert record["levels"]["0.03"] > 0.95
    assert record["levels"]["0.3"] > 0.9
    assert record["levels"]["10"] < 0.5
    train("quick", "digits", tmp_path / "r", "--training.minutes", "0.8", "--data.no-labels", "--data.groups", "0")
    data = load(DataConfig(source="digits"))
    real = data.batch(np.arange(len(data)))[0].flatten(1).numpy()
    judge = LogisticRegression(max_iter=2000).fit(real, data.conditions["label"])
    model = unstir.load(tmp_path / "r")
    shares = []
    for scale in (0.0, 1.0, 3.0):
        drawn = model.sample(
            200, label=list(range(10)), batch_size=200, classifier=str(tmp_path / "c"), classifier_scale=scale
        )
        shares.append((judge.predict(drawn.flatten(1).numpy()) == np.arange(200) % 10).mean())
    assert shares[0] < 0.3  # chance is 10 %
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.8


def test_a_swiss_roll_is_a_spiral(tmp_path: Path) -> None:
    """Samples lie on the spiral, and all of the spiral has samples."""
    train("swiss-roll", "swiss-roll", tmp_path / "r", "--training.steps", "3000")
    data = load(DataConfig(source="swiss-roll"))
    drawn = data.spec.to_model(unstir.load(tmp_path / "r").sample(1000, batch_size=1000).numpy()).numpy()
    real = data.batch(np.arange(2000))[0].numpy()
    apart = np.sqrt(((drawn[:, None] - real[None]) ** 2).sum(-1))
    assert np.percentile(apart.min(1), 95) < 0.1  # the arms are about 0.9 apart, in standard deviations
    assert np.percentile(apart.min(0), 95) < 0.15


def test_heartbeats_have_the_shape_of_heartbeats(tmp_path: Path, shared_data: Path) -> None:
    """Mean and spread over the beat, at every instant and in both leads, are those of the recording."""
    source = str(shared_data / "ecg_mitbih100_beats256.npz")
    train("ecg", source, tmp_path / "r", "--training.minutes", "2")
    data = load(DataConfig(source=source))
    drawn = data.spec.to_model(np.moveaxis(unstir.load(tmp_path / "r").sample(200, label="N").numpy(), 1, -1)).numpy()
    normal = np.flatnonzero(np.asarray(data.conditions["label"]) == 0)
    real = data.batch(normal)[0].numpy()
    for statistic, alike in ((np.mean, 0.95), (np.std, 0.5)):
        ours, theirs = statistic(drawn, axis=0), statistic(real, axis=0)
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > alike
        assert np.abs(ours - theirs).mean() < theirs.std()

"""A Model that knows captions: what samples are asked for, by whom, and what they become. Its network reads them to the letter."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unstir.data import DataConfig, Dataset, load
from unstir.denoiser import NetDenoiser
from unstir.errors import UserError
from unstir.evaluation.nll import conditions_of
from unstir.evaluation.samples import DataSource, RunSource, conditions_like, order
from unstir.model import Model
from unstir.processes import EDM
from unstir.recipes import RECIPES
from unstir.trained import Trained

LEFT, RIGHT = "left", "right side"


class Reader(nn.Module):
    """Believes in x_0 = (-1, 4) where the caption is "left", (1, 10) where it is "right side", (0, 0) where there is none: from its
    first letter and the number of its letters. Two more for class 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, c_noise: Tensor, text: Tensor, label: Tensor | None = None) -> Tensor:
        side = (text[:, 0] == ord("r")).float() - (text[:, 0] == ord("l")).float()  # (B,)
        letters = (text != -1).sum(1).float()  # (B,)
        if label is not None:
            side = side + 2 * (label == 1)  # (B,)
        return torch.stack([side, letters], 1) + self.weight  # (B, 2)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "points.npz"
    text = np.array([LEFT, RIGHT])[np.arange(40) % 2]
    text[9::10] = ""
    np.savez(path, x=np.random.default_rng(0).normal(3, 2, (40, 2)), y=np.arange(40) % 3, text=text)
    return path


def read(file: Path, labels: bool = False, text: str = "bytes") -> Dataset:
    return load(DataConfig(source=str(file), labels=labels, text=text))


def made_for(dataset: Dataset) -> Model:
    return Model(NetDenoiser(Reader(), EDM(), "x_0"), dataset.spec, RECIPES["swiss-roll"])


@pytest.fixture(scope="module")
def model(file: Path) -> Model:
    return made_for(read(file))


def believed(model: Model, x_0: list[list[float]]) -> Tensor:
    """In the data's units."""
    return model.spec.in_units(torch.tensor(x_0))


def test_samples_are_what_their_captions_say(model: Model) -> None:
    left, right, nothing = [-1.0, 4.0], [1.0, 10.0], [0.0, 0.0]
    for text, expected in (
        (RIGHT, [right] * 5),
        ([LEFT, RIGHT], [left, right, left, right, left]),
        (np.array([RIGHT, "", LEFT]), [right, nothing, left, right, nothing]),
        ("  left\n", [left] * 5),
        ("right side, and far more than fits", [right] * 5),  # cut to what the data's longest has
        (None, [left, right, left, right, left]),  # nobody asked: the data's own in turn
    ):
        x = model.sample(5, text=text, steps=4, batch_size=2)
        torch.testing.assert_close(x, believed(model, expected), rtol=1e-4, atol=1e-4)
    x = model.sample(3, steps=4, labels="none")
    torch.testing.assert_close(x, believed(model, [nothing] * 3), rtol=1e-4, atol=1e-4)


def test_guidance_moves_away_from_no_caption(model: Model) -> None:
    """u + 2.5 (c - u) of exact beliefs."""
    x = model.sample(2, text=[LEFT, RIGHT], steps=4, guidance_scale=2.5)
    torch.testing.assert_close(x, believed(model, [[-2.5, 10.0], [2.5, 25.0]]), rtol=1e-4, atol=1e-4)


def test_a_worse_model_must_read_captions_in_the_same_way(model: Model) -> None:
    """Autoguidance shows both the same numbers; exact beliefs: bad + 3 (good - bad)."""

    def guided_by(length: int) -> Model:
        text = dataclasses.replace(model.spec.conditions["text"], shape=(length,))
        bad = NetDenoiser(Reader(), EDM(), "x_0")
        nn.init.ones_(bad.network.weight)  # type: ignore[arg-type]
        trained = Trained(bad, dataclasses.replace(model.spec, conditions={"text": text}), model.recipe)
        return Model(model.denoiser, model.spec, model.recipe, lambda name, device: trained)

    x = guided_by(10).sample(1, text=LEFT, steps=4, autoguidance="bad", autoguidance_scale=3.0)
    torch.testing.assert_close(x, believed(model, [[-3.0, 2.0]]), rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match=r"bad reads its text in another way than this model"):
        guided_by(9).sample(1, text=LEFT, steps=4, autoguidance="bad")


def test_a_caption_is_encoded_as_in_training(model: Model, file: Path) -> None:
    dataset, settings, rows = read(file), model.recipe.sampling, [0, 1, 9]
    asked = model.conditions({"text": [dataset.captions[row] for row in rows]}, settings, 0, range(3))["text"]
    assert torch.equal(asked, dataset.batch(np.array(rows))[1]["text"])
    assert torch.equal(model.conditions({"text": asked}, settings, 0, range(3))["text"], asked)


def test_captions_that_nobody_gave(model: Model) -> None:
    settings = model.recipe.sampling
    assert model.captions({}, settings, 0, range(3)) == {"text": [LEFT, RIGHT, LEFT]}
    assert model.captions({}, model.settings(labels="none"), 0, range(2)) == {"text": ["", ""]}
    uniform = [model.captions({}, model.settings(labels="uniform"), 0, [i])["text"][0] for i in range(40)]
    assert uniform == model.captions({}, model.settings(labels="uniform"), 0, range(40))["text"]
    assert 8 < uniform.count(LEFT) < 32
    count, shown = model.showcase()
    assert count == len(shown["text"]) == 2 * (2000 // 16)
    assert shown["text"][[0, -1]].tolist() == [LEFT, RIGHT]
    assert model.showcase(columns=3)[1]["text"].tolist() == [LEFT] * 3 + [RIGHT] * 3


def test_classes_and_captions_never_contradict_each_other(file: Path) -> None:
    both = made_for(read(file, labels=True))
    settings = both.recipe.sampling

    def told(**given: object) -> tuple[list[int], list[str]]:
        label = both.conditions(given, settings, 0, range(2))["label"].tolist()
        return label, both.captions(given, settings, 0, range(2))["text"]

    assert told() == ([-1, -1], [LEFT, RIGHT])
    assert told(label=1) == ([1, 1], ["", ""])
    assert told(text=LEFT) == ([-1, -1], [LEFT, LEFT])
    assert told(text=LEFT, label=[0, 1]) == ([0, 1], [LEFT, LEFT])
    x = both.sample(2, label=[0, 1], steps=4)
    torch.testing.assert_close(x, believed(both, [[0.0, 0.0], [2.0, 0.0]]), rtol=1e-4, atol=1e-4)


def test_captions_that_are_not_read_cannot_be_asked_for(file: Path) -> None:
    unread = made_for(read(file, labels=True, text=""))
    with pytest.raises(
        UserError, match=r"trained without its data's captions, so it takes no 'text' \(--data.text reads"
    ):
        unread.condition("text")
    with pytest.raises(UserError, match="no condition 'txt'; did you mean text"):
        made_for(read(file, labels=True)).condition("txt")


def test_evaluation_asks_for_the_datas_own_captions(model: Model, file: Path) -> None:
    dataset = read(file, labels=True, text="")  # as the command reads it
    rows, numbers = order(40), [3, 45, 0, 17]
    found = conditions_like(dataset, model.known())
    assert found == {"text": [dataset.captions[row] for row in rows]}
    source = RunSource("r", model, model.settings(steps=4), 0, dataset)
    captions = [dataset.captions[rows[i % 40]] for i in numbers]
    assert source.captions(numbers) == captions
    meant = {LEFT: [-1.0, 4.0], RIGHT: [1.0, 10.0], "": [0.0, 0.0]}
    np.testing.assert_allclose(
        source.draw(numbers), believed(model, [meant[c] for c in captions]), rtol=1e-4, atol=1e-4
    )
    assert DataSource(dataset).captions(numbers[:1]) == captions[:1]
    by_settings = RunSource("r", model, model.settings(steps=4), 0)
    assert by_settings.captions([0, 1]) == [LEFT, RIGHT]


def test_of_other_data_only_the_captions_mean_the_same(file: Path) -> None:
    both, dataset = made_for(read(file, labels=True)), read(file, labels=True, text="")
    own = RunSource("r", both, both.settings(steps=4), 0, dataset)
    other = RunSource("r", both, both.settings(steps=4), 0, dataset, other=True)
    numbers = range(12)
    assert own.captions(numbers) == other.captions(numbers)
    labels = np.asarray(dataset.conditions["label"])[order(40)[:12]]
    shift = believed(both, [[2.0, 0.0]]) - believed(both, [[0.0, 0.0]])
    difference = torch.from_numpy(own.draw(numbers) - other.draw(numbers)).float()
    torch.testing.assert_close(difference, torch.from_numpy(labels == 1)[:, None] * shift, rtol=1e-3, atol=1e-3)


def test_likelihood_is_told_the_captions(model: Model, file: Path) -> None:
    dataset = read(file, text="")
    given = conditions_of(dataset, model.spec)
    assert list(given) == ["text"]
    rows = torch.tensor([9, 0])
    asked = model.conditions({"text": ["", LEFT]}, model.recipe.sampling, 0, [0, 1])["text"]
    assert torch.equal(given["text"][rows], asked)

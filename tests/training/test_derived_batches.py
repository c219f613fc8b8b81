"""Training batches with conditions that are computed from their samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unstir.conditioning.derived import DERIVED, LowRes
from unstir.data import DataConfig, load
from unstir.objectives import Batch
from unstir.recipes import RECIPES
from unstir.run import Run
from unstir.sampling import SampleNoise
from unstir.training.devices import engine
from unstir.training.draw import Draw
from unstir.training.session import Session

DIGITS = load(DataConfig(source="digits"))


def draw(derived: str, *positions: int, flip: bool = False) -> Batch:
    chosen = DERIVED[derived]()
    always = chosen.described(DIGITS.spec).always
    drawing = Draw(DIGITS, 16, 0, flip, derived=chosen, always=always)
    return drawing(3, list(positions), SampleNoise(7, positions))


@pytest.mark.parametrize("derived", sorted(DERIVED.keys() - {"image-embedding"}))  # which needs a CLIP: test_unclip.py
def test_a_batch_has_what_its_samples_say(derived: str) -> None:
    batch = draw(derived, *range(8))
    expected = DERIVED[derived]().training(batch.x, SampleNoise(7, range(8)))
    assert batch.cond.keys() == {"label", *expected}
    for name, value in expected.items():
        torch.testing.assert_close(batch.cond[name], value, equal_nan=True)
    assert batch.always == ({"low_res", "low_res_level"} if derived == "low-res" else set())
    part = draw(derived, 5, 2)  # on another process, say
    for name, value in part.cond.items():
        torch.testing.assert_close(value, batch.cond[name][[5, 2]], equal_nan=True)


def test_what_is_mirrored_is_mirrored_first() -> None:
    batch = draw("edges", *range(8), flip=True)
    torch.testing.assert_close(
        batch.cond["edges"], DERIVED["edges"]().training(batch.x, SampleNoise(7, range(8)))["edges"]
    )
    assert not torch.equal(batch.x, draw("edges", *range(8)).x)


def test_a_session_trains_with_them(tmp_path: Path) -> None:
    """What the network is shown in the first step."""
    quick = RECIPES["quick"]
    recipe = replace(
        quick,
        derived=LowRes(max_level=0.3),
        network=replace(quick.network, channels=8, middle=1, head_channels=8),  # type: ignore[call-arg]
        training=replace(quick.training, steps=1, batch_size=8),
        objective=replace(quick.objective, dropout=0.9),  # type: ignore[call-arg]
    )
    session = Session(Run(tmp_path), "x", recipe, DIGITS, engine())
    assert session.spec.conditions["low_res"].shape == (1, 8, 8)
    shown: list[dict[str, torch.Tensor]] = []
    session.denoiser.network.register_forward_pre_hook(
        lambda module, args, kwargs: shown.append(kwargs), with_kwargs=True
    )
    for _ in session:
        pass
    assert not shown[0]["low_res"].isnan().any(), "it is never dropped out"
    assert 0 < float(shown[0]["low_res_level"].max()) < 0.3
    assert (shown[0]["label"] == -1).any()

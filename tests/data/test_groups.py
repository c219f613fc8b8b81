"""Groups found in data without labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from unstir.data import DataConfig, DataSpec, load
from unstir.data.groups import with_groups
from unstir.model import Model
from unstir.recipes import RECIPES


def blobs(folder: Path, weights: tuple[int, ...] = (300, 200, 100)) -> tuple[str, np.ndarray]:
    """Well separated blobs, shuffled, and which blob each sample is of."""
    rng = np.random.default_rng(0)
    blob = rng.permutation(np.repeat(np.arange(len(weights)), weights))
    x = 20.0 * np.eye(len(weights), 5)[blob] + rng.standard_normal((len(blob), 5))
    np.save(folder / "x.npy", x.astype(np.float32))
    return str(folder / "x.npy"), blob


def test_the_groups_are_the_blobs(tmp_path: Path) -> None:
    source, blob = blobs(tmp_path)
    dataset = load(DataConfig(source=source, kind="points", groups=3))
    group = dataset.conditions["group"]
    pairs = set(zip(blob.tolist(), np.asarray(group).tolist(), strict=True))
    assert len(pairs) == 3  # one group for each blob, and no sample astray
    condition = dataset.spec.conditions["group"]
    assert sorted(condition.frequencies) == [100 / 600, 200 / 600, 300 / 600]
    assert not condition.named
    again = load(DataConfig(source=source, kind="points", groups=3))
    assert np.array_equal(again.conditions["group"], group)
    assert again.fingerprint == load(DataConfig(source=source, kind="points")).fingerprint  # the data are the same


def test_not_where_there_are_classes_or_few_samples(tmp_path: Path) -> None:
    assert set(load(DataConfig(source="moons", groups=8)).spec.conditions) == {"label"}
    assert set(load(DataConfig(source="moons", groups=8, labels=False)).spec.conditions) == {"group"}
    source, _ = blobs(tmp_path, (60, 30))
    dataset = load(DataConfig(source=source, kind="points"))
    assert with_groups(dataset, 8) is dataset  # 90 samples are not two groups of 50
    assert load(DataConfig(source=source, kind="points", groups=0)).spec.conditions == {}


def test_the_spec_keeps_them(tmp_path: Path) -> None:
    source, _ = blobs(tmp_path)
    spec = load(DataConfig(source=source, kind="points", groups=3)).spec
    assert DataSpec.from_dict(spec.to_dict()) == spec


def test_a_sample_gets_a_group_in_the_data_s_proportions(tmp_path: Path) -> None:
    source, _ = blobs(tmp_path)
    spec = load(DataConfig(source=source, kind="points", groups=3)).spec
    recipe = RECIPES["swiss-roll"]
    model = Model(recipe.denoiser.build(recipe.network, recipe.process, spec), spec, recipe)
    drawn = model.conditions({}, recipe.sampling, 0, range(6000))["group"]
    shares = torch.bincount(drawn, minlength=3) / 6000
    torch.testing.assert_close(shares, torch.tensor(spec.conditions["group"].frequencies).float(), atol=0.02, rtol=0)
    assert torch.equal(model.conditions({}, recipe.sampling, 0, [7])["group"], drawn[7:8])
    none = model.conditions({}, replace(recipe.sampling, labels="none"), 0, range(4))["group"]
    assert none.tolist() == [-1] * 4
    assert model.conditions({"group": 2}, recipe.sampling, 0, range(2))["group"].tolist() == [2, 2]
    assert model.showcase() == (2000, {})  # nobody knows the groups, so no picture has a row for each

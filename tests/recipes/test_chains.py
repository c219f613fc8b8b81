"""Recipes of several stages: their sizes, their settings, and the file that keeps them."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from torch import nn

from unstir.cli.chain import settled, train_stages, words_of
from unstir.conditioning.derived import LowRes
from unstir.errors import UserError
from unstir.recipes import RECIPES
from unstir.recipes.chains import CHAINS, stages_of, with_sizes
from unstir.stages import FILE, read_stages, stage_name, write_stages

CASCADES = [name for name in CHAINS if isinstance(RECIPES[name].derived, LowRes)]


def test_an_unclip_is_a_clip_a_prior_and_a_decoder() -> None:
    stages = stages_of("unclip")
    assert list(stages) == ["clip", "prior", ""]
    last = Path("run")
    assert last / stages[""].derived.clip == last / "clip"  # type: ignore[attr-defined]
    assert last / stages[""].sampling.prior == last / "prior"
    assert (last / "prior" / stages["prior"].vectors).resolve() == (last / "clip").resolve()
    words = "--training.steps 7 --network.channels 32 --sampling.steps 5 --data.size 8 --clip.network.channels 16 --prior.network.width 32"
    found = settled(stages, [*words.split(), "--training.minutes", "20", "--data", "emoji"], "x")
    assert [recipe.training.minutes for recipe in found.values()] == [6.0, 4.0, 10.0]
    assert {(recipe.training.steps, recipe.data.size, recipe.data.source) for recipe in found.values()} == {
        (7, (8,), "emoji")
    }
    assert [found[name].network.channels for name in ("clip", "")] == [16, 32]  # type: ignore[attr-defined]
    assert found["prior"].network.width == 32  # type: ignore[attr-defined]
    assert found["prior"].sampling == stages["prior"].sampling
    sized = with_sizes(found, (8, 8))
    assert {recipe.data.size for recipe in sized.values()} == {(8, 8)}


@pytest.mark.parametrize("name", CASCADES)
def test_every_stage_enlarges_the_one_below(name: str) -> None:
    stages = stages_of(name)
    assert list(stages)[-1] == ""
    assert stages[""] == RECIPES[name]
    below = None
    for folder, recipe in stages.items():
        assert isinstance(recipe.derived, LowRes) == (below is not None)
        if below is not None:
            inside = Path("run") / folder / recipe.sampling.low_res_from
            assert inside == Path("run") / below, "where the stage says that the one below is"
        assert recipe.training.minutes is not None
        below = folder


def test_sizes_go_down_by_each_stage_s_factor() -> None:
    stages = stages_of("cascade")
    stages[""] = replace(stages[""], data=replace(stages[""].data, groups=8))
    three = {"a": stages["base"], "b": replace(stages[""], derived=LowRes(factor=4)), "": stages[""]}
    sized = with_sizes(three, (33, 20))
    assert [recipe.data.size for recipe in sized.values()] == [(5, 3), (17, 10), (33, 20)]
    assert list(sized) == list(three)
    assert [recipe.data.groups for recipe in sized.values()] == [32, 0, 0]


TYPED = "--training.steps 7 --base.network.channels 16 --network.channels 32 --derived.level 0.2 --data.size 8 12"
OF_BASE = "--training.steps 7 --network.channels 16 --data.size 8 12"
OF_LAST = "--training.steps 7 --network.channels 32 --derived.level 0.2 --data.size 8 12"


def test_options_for_all_and_for_one() -> None:
    stages, words = stages_of("cascade"), TYPED.split()
    assert words_of("base", stages, words) == OF_BASE.split()
    assert words_of("", stages, words) == OF_LAST.split()
    both = settled(stages, [*words, "--data", "digits"], "x")
    assert both["base"].network.channels == 16  # type: ignore[attr-defined]
    assert both[""].network.channels == 32  # type: ignore[attr-defined]
    assert both[""].derived == replace(RECIPES["cascade"].derived, level=0.2)  # type: ignore[type-var]
    assert {recipe.data.source for recipe in both.values()} == {"digits"}
    assert {recipe.training.steps for recipe in both.values()} == {7}
    with pytest.raises(UserError, match=r"unknown option --network\.chanels"):
        settled(stages, ["--base.network.chanels", "3"], "x")


def test_minutes_are_shared_out() -> None:
    stages = stages_of("cascade")
    uneven = {"base": replace(stages["base"], training=replace(stages["base"].training, minutes=1.0)), "": stages[""]}
    found = settled(uneven, ["--training.minutes", "8"], "x")
    assert [recipe.training.minutes for recipe in found.values()] == [2.0, 6.0]
    own = settled(uneven, ["--training.minutes=8", "--base.training.minutes", "5"], "x")
    assert [recipe.training.minutes for recipe in own.values()] == [5.0, 6.0]
    with pytest.raises(UserError, match=r"--training\.minutes takes a number, not 'many'"):
        settled(stages, ["--training.minutes", "many"], "x")


def test_a_config_file_is_for_all_but_for_what_enlarges(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        '[derived]\nname = "low-res"\nlevel = 0.3\n[sampling]\nlow_res_from = "base"\nsteps = 5\n[training]\nseed = 9\n'
    )
    found = settled(stages_of("cascade"), ["--config", str(file)], "x")
    assert found["base"].sampling.low_res_from == ""
    assert found["base"].derived == CHAINS["cascade"]["base"].derived
    assert found[""].derived.level == 0.3  # type: ignore[attr-defined]
    assert {(recipe.sampling.steps, recipe.training.seed) for recipe in found.values()} == {(5, 9)}


@pytest.mark.parametrize("name", CHAINS)
def test_the_file_of_stages(name: str, tmp_path: Path) -> None:
    stages = with_sizes(stages_of(name), (32, 32))
    write_stages(tmp_path, name, stages)
    assert read_stages(tmp_path) == (name, stages)
    assert read_stages(tmp_path / "elsewhere") is None
    assert [stage_name(name, folder) for folder in stages] == [*(f"{name}-{folder}" for folder in CHAINS[name]), name]
    (tmp_path / FILE).write_text("format = 1\nrecipe = 3\n")
    with pytest.raises(UserError, match="damaged"):
        read_stages(tmp_path)
    (tmp_path / FILE).write_text('format = 99\nrecipe = "x"\nstages = []\n')
    with pytest.raises(UserError, match="newer"):
        read_stages(tmp_path)


def test_what_a_stage_trained_is_let_go_before_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[weakref.ref[nn.Module]] = []

    def train(accelerator: Accelerator, *_: Any, **__: Any) -> int:
        gc.collect()
        assert not any(stage() for stage in trained), "two stages' weights at once would have to fit into a GPU"
        module = nn.Linear(2, 2)
        accelerator.prepare(module)
        trained.append(weakref.ref(module))
        return 0

    monkeypatch.setattr("unstir.cli.train.train_with", train)
    train_stages(Accelerator(cpu=True), tmp_path, "cascade", stages_of("cascade"))
    assert len(trained) == 2

"""Retrieval of captions by a CLIP that is known to be right: of pictures that show them, of others, and of nobody's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from letters import LETTERS, letters_clip

from unstir.data import DataConfig, Dataset, load
from unstir.errors import UserError
from unstir.evaluation.retrieval import CaptionJudge, Retrieval, Watched
from unstir.evaluation.samples import Array, DataSource, SampleSource, order
from unstir.processes import EDM
from unstir.recipes import RECIPES
from unstir.trained import Trained

CPU = Accelerator(cpu=True)


def dataset(folder: Path, name: str, shown: str, said: list[str] | None) -> Dataset:
    """Points that show these letters, and say those."""
    rng = np.random.default_rng(len(shown))
    x = np.eye(4)[[LETTERS.index(letter) for letter in shown]] + 0.1 * rng.normal(size=(len(shown), 4))
    columns = {} if said is None else {"text": np.array(said)}
    np.savez(folder / f"{name}.npz", x=x.astype(np.float32), **columns)
    return load(DataConfig(source=str(folder / f"{name}.npz")))


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return dataset(tmp_path, "data", "abcd" * 15, [*"abcd" * 15])


def judge(data: Dataset, known: str = "", limit: int = 100) -> CaptionJudge:
    """Perfect: the captions' letters lie where the points of these letters do."""
    return CaptionJudge("clip", Trained(letters_clip(EDM()), data.spec, RECIPES["clip"]), data, limit, known)


def retrieved(judge: CaptionJudge, source: SampleSource, n: int, batch_size: int = 7) -> Retrieval:
    return judge.judge(judge.watch(source, n), CPU, batch_size, None)


def test_samples_that_show_their_captions(data: Dataset, tmp_path: Path) -> None:
    # Half of the samples show what they say, a quarter of them say nothing.
    samples = dataset(tmp_path, "samples", "abcd" * 10, [*"abcd" * 5, *"badc" * 2, *"bad", *[""] * 9])
    found = retrieved(judge(data), DataSource(samples), 40)
    assert (found.n, found.distinct, found.told) == (31, 4, True)
    assert found.samples == {1: pytest.approx(20 / 31), 5: 1.0}
    assert (found.real, found.real_n) == ({1: 1.0, 5: 1.0}, 40)
    assert found.chance == {1: 0.25, 5: 1.0}
    assert found.error(1) == pytest.approx((20 / 31 * 11 / 31 / 31) ** 0.5)
    assert found.shuffled[1] < 0.6
    name, text = found.rows()[0]
    assert name == "retrieval[clip, top 1 of 4 captions, n=31]"
    assert text.startswith("0.645 ± 0.09   (real data: 1.000, shuffled captions: 0.")
    assert found.warnings() == []
    plain = found.to_json()
    assert (plain["value"], plain["n"], plain["captions"], plain["judge"]) == (found.samples[1], 31, 4, "clip")
    assert plain["real"] == {"top": {"1": 1.0, "5": 1.0}, "n": 40}
    assert plain["chance"] == {"1": 0.25, "5": 1.0}


def test_shuffled_captions_are_a_permutation_of_the_samples_own(data: Dataset) -> None:
    source = DataSource(data)
    found = retrieved(judge(data), source, 60)
    said = source.captions(range(60))
    dealt = np.random.Generator(np.random.PCG64([0x5CAF, 60])).permutation(60)
    assert found.shuffled[1] == pytest.approx(np.mean([said[i] == said[dealt[i]] for i in range(60)]))
    assert found.samples[1] == 1.0


def test_samples_without_captions_are_held_against_the_data_s(data: Dataset, tmp_path: Path) -> None:
    silent = dataset(tmp_path, "silent", "aaaaaaaa", None)
    found = retrieved(judge(data, known="the data"), DataSource(silent), 8)
    share = np.mean([data.captions[row] == "a" for row in order(60)[:8]])
    assert found.samples[1] == pytest.approx(share)
    assert not found.told
    assert len(found.warnings()) == 2
    assert "not drawn for the captions" in found.warnings()[0]
    assert "was trained on the data itself" in found.warnings()[1]


def test_captions_that_the_data_do_not_have_compete_too(data: Dataset, tmp_path: Path) -> None:
    samples = dataset(tmp_path, "samples", "ab", ["a", "bd"])
    found = retrieved(judge(data, limit=2), DataSource(samples), 2)
    first = list(dict.fromkeys(data.captions[row] for row in order(60)))[:2]
    assert found.distinct == len({*first, "a", "bd"})


def test_drawn_once_whoever_else_looks(data: Dataset) -> None:
    class Counting(DataSource):
        drawn: list[int]

        def draw(self, numbers: object) -> Array:
            self.drawn += list(numbers)  # type: ignore[call-overload]
            return super().draw(numbers)  # type: ignore[arg-type]

    source = Counting(data)
    source.drawn = []
    watched = judge(data).watch(source, 20)
    np.testing.assert_array_equal(watched.draw([3, 5]), DataSource(data).draw([3, 5]))
    vectors = watched.everyones(CPU, 7, "")
    assert sorted(source.drawn) == list(range(20))
    by_hand = judge(data).look(DataSource(data).draw(range(20)))
    torch.testing.assert_close(vectors, by_hand)


def test_bytes_become_model_units(tmp_path: Path) -> None:
    """A picture is shown to the CLIP as training showed it, whatever the order of its axes in the file."""
    x = np.random.default_rng(0).integers(0, 256, (5, 8, 10, 3), dtype=np.uint8)  # (N, H, W, C)
    np.savez(tmp_path / "p.npz", x=x, text=np.array([*"abcda"]))
    pictures = load(DataConfig(source=str(tmp_path / "p.npz")))
    clip = letters_clip(EDM())
    seen = []

    class Flat(torch.nn.Module):
        def forward(self, x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
            seen.append((x, c_noise))
            return x.flatten(1)[:, :4]

    clip.network.pictures.network = Flat()
    one = CaptionJudge("clip", Trained(clip, pictures.spec, RECIPES["clip"]), pictures, 10)
    one.look(DataSource(pictures).draw([2, 4]))
    x_0, level = seen[-1]
    torch.testing.assert_close(x_0, pictures.samples(order(5)[[2, 4]]))
    assert level.tolist() == [-2.5, -2.5]  # no noise


def test_what_cannot_be_judged_is_told(data: Dataset, tmp_path: Path) -> None:
    silent = dataset(tmp_path, "silent", "abcd", None)
    with pytest.raises(UserError, match=r"neither .* has any"):
        judge(silent).watch(DataSource(silent), 4)
    with pytest.raises(UserError, match="holds 4 samples, fewer than -n 9"):
        judge(data).watch(DataSource(silent), 9)
    np.save(tmp_path / "deep.npy", np.zeros((4, 7), np.float32) + np.arange(4)[:, None])
    deep = load(DataConfig(source=str(tmp_path / "deep.npy")))
    with pytest.raises(UserError, match=r"deep(\.npy)? holds points of shape 7.*cannot be compared"):
        judge(data).watch(DataSource(deep), 4)
    with pytest.raises(UserError, match=r"deep(\.npy)? holds points of shape 7.*cannot be compared"):
        CaptionJudge("clip", Trained(letters_clip(EDM()), data.spec, RECIPES["clip"]), deep, 9).watch(
            DataSource(data), 4
        )
    with pytest.raises(UserError, match="is not a CLIP"):
        CaptionJudge("run", Trained(torch.nn.Identity(), data.spec, RECIPES["clip"]), data, 10)  # type: ignore[arg-type]
    assert isinstance(judge(data).watch(DataSource(data), 3), Watched)

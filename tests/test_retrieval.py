"""Ranks against sorting, and what a guesser gets against counting."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from unstir.retrieval import caption_ranks, chance, picture_ranks, shares


def test_ranks_are_places_in_the_sorted_list() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randn(30, 12, generator=generator)
    own = torch.randperm(30, generator=generator) % 12
    order = similarity.argsort(1, descending=True)
    by_sorting = [order[i].tolist().index(int(own[i])) for i in range(30)]
    assert caption_ranks(similarity, own).tolist() == by_sorting
    for caption, rank in enumerate(picture_ranks(similarity, own).tolist()):
        ranked = [int(own[i]) == caption for i in similarity[:, caption].argsort(descending=True)]
        assert rank == ranked.index(True)


def test_what_is_equal_counts_against_it() -> None:
    own = torch.tensor([0, 1, 2, 2])
    nothing = torch.zeros(4, 3)
    assert caption_ranks(nothing, own).tolist() == [2, 2, 2, 2]
    assert picture_ranks(nothing, own).tolist() == [3, 3, 2]
    perfect = torch.nn.functional.one_hot(own).float()
    assert shares(caption_ranks(perfect, own)) == {1: 1.0, 5: 1.0}
    assert shares(picture_ranks(perfect, own)) == {1: 1.0, 5: 1.0}


@pytest.mark.parametrize(("of", "right", "k"), [(6, 1, 1), (6, 2, 1), (6, 2, 3), (6, 5, 2), (4, 1, 5), (3, 3, 1)])
def test_chance_by_counting(of: int, right: int, k: int) -> None:
    draws = list(itertools.combinations(range(of), min(k, of)))
    hit = sum(any(one < right for one in draw) for draw in draws) / len(draws)
    assert chance(of, [right], [k])[k] == pytest.approx(hit)
    assert chance(of, [right, of], [k])[k] == pytest.approx((hit + 1) / 2)


def test_a_random_space_finds_as_much_as_a_guesser() -> None:
    generator = torch.Generator().manual_seed(0)
    own = torch.arange(3000) % 50
    pictures, captions = torch.randn(3000, 16, generator=generator), torch.randn(50, 16, generator=generator)
    similarity = pictures @ captions.mT
    for k, share in shares(caption_ranks(similarity, own)).items():
        p = k / 50
        assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / 3000)
    expected = chance(3000, [60] * 50)
    for k, share in shares(picture_ranks(similarity, own)).items():
        assert abs(share - expected[k]) < 5 * math.sqrt(expected[k] * (1 - expected[k]) / 50)

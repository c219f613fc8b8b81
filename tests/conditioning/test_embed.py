"""Embeddings of conditions: the null is what an absent condition is, vectors may be known in part, and sums are sums."""

from __future__ import annotations

import pytest
import torch

from unstir.conditioning import ClassEmbedding, ConditionEmbedding, VectorEmbedding, drop, is_null, null_like
from unstir.data.spec import Condition

NAN = float("nan")


def test_nulls() -> None:
    assert torch.equal(null_like(torch.tensor([3, 4])), torch.tensor([-1, -1]))
    assert null_like(torch.zeros(2, 3)).isnan().all()
    vectors = torch.tensor([[NAN, 1.0], [NAN, NAN], [0.0, 0.0]])
    assert is_null(vectors).tolist() == [False, True, False]  # known in part is not null
    assert is_null(torch.tensor([-1, 0])).tolist() == [True, False]


def test_drop_replaces_whole_samples_by_their_null() -> None:
    dropped = torch.tensor([True, False])
    assert drop(torch.tensor([5, 6]), dropped).tolist() == [-1, 6]
    vectors = drop(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), dropped)
    assert vectors[0].isnan().all()
    assert vectors[1].tolist() == [3.0, 4.0]


def test_every_class_has_a_row_and_so_has_the_null() -> None:
    embedding = ClassEmbedding(3, 4)
    rows = embedding(torch.tensor([-1, 0, 1, 2]))
    assert len(rows.unique(dim=0)) == 4
    with pytest.raises(IndexError):
        embedding(torch.tensor([3]))
    with pytest.raises(IndexError):
        embedding(torch.tensor([-2]))


def test_a_missing_entry_is_told_from_a_zero_and_hides_nothing_else() -> None:
    embedding = VectorEmbedding(2, 8)
    whole, partly, zero = embedding(torch.tensor([[1.0, 2.0], [1.0, NAN], [1.0, 0.0]]))
    assert not torch.allclose(partly, zero)
    assert not torch.allclose(partly, whole)
    # By hand: the entry is 0 and its indicator 1.
    torch.testing.assert_close(partly, embedding.layers(torch.tensor([1.0, 0.0, 0.0, 1.0])))


def test_missing_entries_give_the_gradients_of_zeros() -> None:
    embedding, same = VectorEmbedding(2, 8), VectorEmbedding(2, 8)
    same.load_state_dict(embedding.state_dict())
    embedding(torch.tensor([[NAN, NAN], [1.0, NAN]])).sum().backward()
    same.layers(torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]])).sum().backward()  # as told by hand
    for p, q in zip(embedding.parameters(), same.parameters(), strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, q.grad)


CONDITIONS = {"label": Condition("class", 3), "size": Condition("vector", 2), "caption": Condition("text", 0)}


def test_the_sum_of_all_conditions_with_null_for_the_absent() -> None:
    embedding = ConditionEmbedding(CONDITIONS, 4)
    c_noise, label = torch.zeros(2), torch.tensor([0, 2])
    of_class, of_vector = embedding.parts  # in the order of the conditions; captions have none
    expected = of_class(label) + of_vector(torch.full((2, 2), NAN))
    torch.testing.assert_close(embedding(c_noise, {"label": label}), expected)
    torch.testing.assert_close(embedding(c_noise, {"label": label, "size": torch.full((2, 2), NAN)}), expected)


def test_captions_are_left_out_and_unknown_names_are_not() -> None:
    embedding = ConditionEmbedding(CONDITIONS, 4)
    c_noise = torch.zeros(2)
    torch.testing.assert_close(embedding(c_noise, {"caption": torch.ones(2)}), embedding(c_noise, {}))
    with pytest.raises(ValueError, match="lable"):
        embedding(c_noise, {"lable": torch.zeros(2)})


@pytest.mark.parametrize("name", ["type", "training", "parts", "a.b", "", "x"])
def test_data_may_call_a_condition_what_it_likes(name: str) -> None:
    embedding = ConditionEmbedding({name: Condition("class", 2)}, 4)
    a, b = embedding(torch.zeros(2), {name: torch.tensor([0, 1])})
    assert not torch.equal(a, b)


def test_conditions_are_read_in_the_precision_of_the_weights() -> None:
    embedding = ConditionEmbedding({"v": Condition("vector", 2)}, 4).double()
    given = embedding(torch.zeros(1, dtype=torch.float64), {"v": torch.tensor([[1.0, NAN]])})
    assert given.dtype == torch.float64
    assert embedding(torch.zeros(1, dtype=torch.float64), {}).dtype == torch.float64

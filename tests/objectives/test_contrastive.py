"""The contrast of a batch against InfoNCE written out, and what the objective shows its CLIP."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from letters import letters_clip
from torch import Tensor

from unstir.clip import Clip
from unstir.errors import UserError
from unstir.objectives import Batch, LogNormal
from unstir.objectives.contrastive import ContrastiveObjective, contrastive_loss, same_captions
from unstir.processes import VP
from unstir.sampling import SampleNoise

LOGITS = torch.tensor(
    [[2.0, -1.0, 0.5, 0.1], [0.0, 3.0, 1.0, -2.0], [1.0, 1.5, -2.0, 0.3], [0.2, 0.4, 0.6, 0.8]], dtype=torch.float64
)


def info_nce(logits: list[list[float]], captions: str) -> list[float]:
    """Each pair's share, in plain loops."""
    n, found = len(logits), []
    for i in range(n):
        mates = [j for j in range(n) if captions[j] == captions[i]]
        row = sum(math.exp(logits[i][j]) for j in range(n))
        column = sum(math.exp(logits[j][i]) for j in range(n))
        of_row = -sum(math.log(math.exp(logits[i][j]) / row) for j in mates) / len(mates)
        of_column = -sum(math.log(math.exp(logits[j][i]) / column) for j in mates) / len(mates)
        found.append((of_row + of_column) / 2)
    return found


@pytest.mark.parametrize("captions", ["abcd", "abca", "aabb", "aaaa"])
def test_it_is_the_symmetric_info_nce(captions: str) -> None:
    same = torch.tensor([[a == b for b in captions] for a in captions])
    found = contrastive_loss(LOGITS, same)
    assert found.tolist() == pytest.approx(info_nce(LOGITS.tolist(), captions), rel=1e-10)


def test_different_captions_are_the_paper_s_labels() -> None:
    labels = torch.arange(4)
    both = [torch.nn.functional.cross_entropy(logits, labels, reduction="none") for logits in (LOGITS, LOGITS.mT)]
    torch.testing.assert_close(contrastive_loss(LOGITS, torch.eye(4, dtype=torch.bool)), (both[0] + both[1]) / 2)


def test_a_perfect_space_costs_the_entropy_of_the_captions_alone() -> None:
    same = torch.tensor([[a == b for b in "aab"] for a in "aab"])
    loss = contrastive_loss(1000 * same.double(), same)
    assert loss.tolist() == pytest.approx([math.log(2), math.log(2), 0.0])


def test_captions_are_the_same_where_their_tensors_are() -> None:
    nan = torch.nan
    features = torch.tensor([[[1.0, 2.0], [nan, nan]], [[1.0, 2.0], [nan, nan]], [[1.0, 2.0], [0.0, 0.0]]])
    groups = [[True, True, False], [True, True, False], [False, False, True]]
    assert same_captions(features).tolist() == groups
    tokens = torch.tensor([[5, -1, -1], [5, -1, -1], [5, 5, -1]])
    assert same_captions(tokens).tolist() == groups


class Recording(Clip):
    """Remembers what it was shown."""

    asked: list[tuple[Tensor, Tensor]]

    def forward(self, x_t: Tensor, t: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append((x_t, t))
        return super().forward(x_t, t, text)


def test_it_is_shown_noised_pictures_and_a_share_of_clean_ones() -> None:
    plain = letters_clip(VP())
    clip = Recording(plain.network, VP(), plain.caption)
    clip.asked = []
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    text = torch.randint(97, 101, (64, 3), generator=torch.Generator().manual_seed(1))
    times = LogNormal(0.0, 1.0)
    loss = ContrastiveObjective(times, clean=0.3)(clip, Batch(x, {"text": text}), SampleNoise(0, range(64)))
    replay = SampleNoise(0, range(64))
    t = times.quantile(VP(), (torch.arange(64) + replay.uniform()) / 64)
    clean = replay.uniform() < 0.3
    t = torch.where(clean, 0.0, t)
    x_t = VP().add_noise(x, t, replay.normal_like(x))
    torch.testing.assert_close(clip.asked[0][1], t)
    torch.testing.assert_close(clip.asked[0][0], x_t)
    assert torch.equal(x_t[clean], x[clean])
    assert 10 < int(clean.sum()) < 30
    pictures, captions = plain(x_t, t, text)
    logits = (pictures @ captions.mT).detach()
    keys = [str(row) for row in text.tolist()]
    letters = "".join(chr(65 + sorted(set(keys)).index(key)) for key in keys)
    assert loss.total.tolist() == pytest.approx(info_nce(logits.tolist(), letters), rel=1e-4)
    nearest = [keys[int(row.argmax())] == key for row, key in zip(logits, keys)]
    assert loss.parts["accuracy"].tolist() == np.array(nearest, float).tolist()
    assert loss.parts["scale"].tolist() == pytest.approx([3.0] * 64, rel=1e-5)
    assert loss.log_snr is not None
    assert torch.equal(loss.log_snr.isinf(), clean)


def test_out_of_range() -> None:
    with pytest.raises(UserError, match="clean pictures must lie"):
        ContrastiveObjective(clean=1.5)

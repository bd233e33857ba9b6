"""Block advantages by hand, against a plain-Python oracle, and as relations."""

import pytest
import torch
from oracles import group_advantages

from repo_verl.advantages import block_advantages
from repo_verl.config import RepoConfig
from repo_verl.trainer.minibatches import plan_advantages


def test_one_right_of_four_by_hand():
    # mean 1/4; variance (9/16 + 3/16) / 3 = 1/4, std 1/2: (3/4) / (1/2) = 1.5 and -0.5
    got = block_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64), torch.zeros(4).long(), eps=0.0)
    assert got.tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], rel=1e-12)
    assert block_advantages(torch.tensor([1.0, 0, 0, 0]), torch.zeros(4).long(), eps=0.5)[0].item() == 0.75


def test_blocks_do_not_mix_and_may_interleave():
    scores = torch.tensor([1.0, 0.0, 0.0, 0.5, 1.0, 0.25], dtype=torch.float64)
    blocks = torch.tensor([7, 3, 7, 3, 7, 3])
    got = block_advantages(scores, blocks)
    assert got[blocks == 7].tolist() == pytest.approx(group_advantages([1.0, 0.0, 1.0], 1e-6), rel=1e-12)
    assert got[blocks == 3].tolist() == pytest.approx(group_advantages([0.0, 0.5, 0.25], 1e-6), rel=1e-12)


def test_equal_scores_and_single_rows_give_exactly_zero():
    # the float32 standard deviation of 8 times 0.7 is not 0
    scores = torch.tensor([0.7] * 8 + [1.0])
    assert (block_advantages(scores, torch.tensor([0] * 8 + [1])) == 0).all()


def test_without_the_standard_deviation():
    got = block_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.zeros(4).long(), norm_by_std=False)
    assert got.tolist() == [0.75, -0.25, -0.25, -0.25]


def test_permuting_rows_permutes_advantages_and_shifting_scores_does_nothing():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(24, generator=generator, dtype=torch.float64)
    blocks = torch.arange(24) % 3
    order = torch.randperm(24, generator=generator)
    whole = block_advantages(scores, blocks)
    assert torch.allclose(block_advantages(scores[order], blocks[order]), whole[order], rtol=1e-12)
    assert torch.allclose(block_advantages(scores + 5, blocks), whole, rtol=1e-9)


def test_split_and_mixed_against_the_oracle():
    fresh, replayed = [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0]
    arguments = (torch.tensor(fresh).double(), [0] * 4, torch.tensor(replayed).double(), [0] * 3, True)
    on, off = plan_advantages(RepoConfig(advantage="split"), *arguments)
    assert on.tolist() == pytest.approx(group_advantages(fresh, 1e-6), rel=1e-12)
    assert off.tolist() == pytest.approx(group_advantages(replayed, 1e-6), rel=1e-12)
    on, off = plan_advantages(RepoConfig(advantage="mixed"), *arguments)
    both = group_advantages(fresh + replayed, 1e-6)
    assert [*on.tolist(), *off.tolist()] == pytest.approx(both, rel=1e-12)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"\(2,\) and block_ids \(3,\)"):
        block_advantages(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"rows \[1\] are not finite"):
        block_advantages(torch.tensor([0.0, float("nan")]), torch.zeros(2))

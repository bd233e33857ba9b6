"""Metric formulas by hand."""

import math

import pytest
import torch

from repo_verl.metrics import (
    count_effective,
    count_skipped,
    effective_share,
    mean_and_max,
    mean_and_std,
    spread_share,
    worker_metrics,
    zero_share,
)


def report(**values):
    keys = (
        "fresh_tokens fresh_clipped_low fresh_clipped_high rows tokens ratio_sum ratio_max clipped_low clipped_high "
        "weight_sum weight_square_sum gradient_square_sum loss_replayed loss_fresh nonfinite_rows"
    ).split()
    return {**dict.fromkeys(keys, 0.0), **values}


def test_effective_prompts_counts_prompts_not_rows():
    advantages, blocks = torch.tensor([1.0, -1.0, 0.0, 0.0, 0.5]), torch.tensor([0, 0, 1, 1, 2])
    assert effective_share(advantages, blocks, 4) == 0.5
    assert effective_share(torch.zeros(0), torch.zeros(0), 0) == 0.0
    assert zero_share(advantages) == pytest.approx(0.4) and zero_share(torch.zeros(0)) == 0.0


def test_prompts_whose_scores_differ_are_those_with_an_advantage():
    from repo_verl.advantages import block_advantages

    scores, blocks = torch.tensor([0.7, 1.0, 0.7, 0.7, 0.0, 0.7, -1.0]), torch.tensor([0, 1, 0, 0, 2, 1, 3])
    assert spread_share(scores, blocks, 4) == 0.25, "only prompt 1; prompts 2 and 3 have one row each"
    assert spread_share(scores[:0], blocks[:0], 0) == 0.0
    drawn = torch.Generator().manual_seed(0)
    for _ in range(50):
        scores = torch.randint(0, 2, (24,), generator=drawn).float() * 0.45
        blocks = torch.randint(0, 8, (24,), generator=drawn)
        blocks[:8] = torch.arange(8)
        assert spread_share(scores, blocks, 8) == effective_share(block_advantages(scores, blocks), blocks, 8)


def test_means_over_mini_batches_and_rows():
    first = report(fresh_tokens=10, fresh_clipped_low=1, rows=2, tokens=4, ratio_sum=5, ratio_max=2, clipped_high=1,
                   weight_sum=3, weight_square_sum=5, gradient_square_sum=9, loss_fresh=1,
                   loss_replayed=-1, nonfinite_rows=1.5)  # fmt: skip
    second = report(fresh_tokens=30, ratio_max=1, loss_fresh=3)
    got = worker_metrics([first, second], ranks=2)
    assert got["loss_fresh"] == 2 and got["loss_replayed"] == -0.5
    assert got["clip_low_fresh"] == pytest.approx(1 / 40) and got["clip_high_replayed"] == pytest.approx(1 / 4)
    assert got["ratio_mean_replayed"] == 1.25 and got["ratio_max_replayed"] == 2
    assert got["ess_replayed"] == pytest.approx(9 / (2 * 5))
    assert got["grad_norm_replayed"] == pytest.approx(math.sqrt(9 * 2 / 2))
    assert got["nonfinite_rows"] == 3
    pruned = worker_metrics([first, second], 2, pruned_fresh_tokens=20, pruned_replayed_tokens=12)
    assert pruned["clip_low_fresh"] == pytest.approx(1 / 50) and pruned["clip_high_replayed"] == pytest.approx(1 / 10)
    assert pruned["ratio_mean_replayed"] == 1.25, "of the rows that were not pruned"


def test_equal_weights_have_a_full_effective_sample_size():
    assert worker_metrics([report(rows=8, weight_sum=8 * 0.3, weight_square_sum=8 * 0.09)], 1)["ess_replayed"] == (
        pytest.approx(1.0)
    )


def test_without_replay_everything_is_zero():
    got = worker_metrics([report(fresh_tokens=4)], ranks=1)
    assert all(value == 0 for value in got.values())


def test_effective_steps_leave_out_zero_and_skipped_gradients():
    assert count_effective([0.5, 0.0, math.nan, math.inf, 1e-9]) == 2
    assert count_skipped([0.5, 0.0, math.nan, math.inf, 1e-9]) == 2


def test_summaries_of_values():
    assert mean_and_std("x", [1.0, 3.0]) == {"x_mean": 2.0, "x_std": 1.0}
    assert mean_and_max("x", [1, 2]) == {"x_mean": 1.5, "x_max": 2.0}
    assert mean_and_std("x", []) == {"x_mean": 0.0, "x_std": 0.0} and mean_and_max("x", [])["x_max"] == 0.0

"""Rows are balanced over ranks by verl's own measure of work, attention included: 24576 · tokens + tokens², by hand."""

import itertools

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.contract

PROMPT = 1000
RESPONSES = [39_000, 33_000, 23_000, 19_000, 10_000, 1_000]
"""Response tokens: rows of 40, 34, 24, 20, 11 and 2 thousand tokens."""

WORK = [2_583_040_000, 1_991_584_000, 1_165_824_000, 891_520_000, 391_336_000, 53_152_000]
"""By hand: 24576 * 40000 + 40000**2 = 983,040,000 + 1,600,000,000, and so on."""


def halves(values):
    """The two halves whose sums are closest, by trying all."""
    whole = set(range(len(values)))
    options = (set(one) for one in itertools.combinations(whole, len(whole) // 2) if 0 in one)
    best = min(options, key=lambda half: abs(2 * sum(values[i] for i in half) - sum(values)))
    return [best, whole - best]


def planned(fresh, prune=False, **changes):
    """The update of one prompt with the first ``fresh`` rows as fresh ones and the rest replayed, on two ranks."""
    from repo_verl.config import RepoConfig
    from repo_verl.replay import Selection
    from repo_verl.trainer.minibatches import UpdateShape
    from repo_verl.trainer.retrieval import plan_step
    from repo_verl.trainer.rollouts import FreshRows

    masks = [torch.ones(size, dtype=torch.int64) for size in RESPONSES]
    masks[0][100:] = 0  # a tool wrote nearly all of it: no tokens of the loss, but work all the same
    scores = [1.0, 0.0, 0.5, 1.0, 0.25, 0.0]
    keys = [f"u_{number}_0" for number in range(fresh)]
    rows = FreshRows(
        keys=keys, tags=[{}] * fresh, blocks=[0] * fresh, prompt_keys=["k"],
        prompt_ids=[np.zeros(PROMPT, dtype=np.int32)], responses=masks[:fresh], masks=masks[:fresh],
        tokens=[int(mask.sum()) for mask in masks[:fresh]], scores=torch.tensor(scores[:fresh]),
        parts=[{}] * fresh, statuses=[""] * fresh,
    )  # fmt: skip
    numbers = np.arange(fresh, len(RESPONSES))
    lengths = np.array([RESPONSES[i] for i in numbers], dtype=np.int64)
    ones = np.ones(len(numbers), dtype=np.int64)
    selection = Selection("k", numbers, np.array(scores[fresh:]), ones, ones, lengths, np.minimum(lengths, 50))
    shape = UpdateShape(
        **{
            "prompts": 1, "rows": fresh, "num_mini_batches": 1, "ranks": 2, "micro_batch_rows": None,
            "loss_agg_mode": "seq-mean-token-mean", **changes,
        }
    )  # fmt: skip
    return plan_step(RepoConfig(), shape, prune, keys, rows, [selection]).plan


def test_the_measure_is_verls_by_hand():
    from repo_verl.trainer.queue_rows import padding_row
    from repo_verl.trainer.retrieval import PAD_LENGTH, row_workloads

    assert row_workloads([PROMPT + size for size in RESPONSES]) == WORK
    assert row_workloads([2]) == [49_156] and PAD_LENGTH == padding_row(1)["input_ids"].numel() == 2


@pytest.mark.parametrize("fresh", [3, 4])
def test_ranks_get_the_same_work_and_not_the_same_tokens(fresh):
    """By tokens 40 + 24 + 2 and 34 + 20 + 11; by work the rank with the longest row gets 20 instead of 24."""
    assert halves([PROMPT + size for size in RESPONSES]) == [{0, 2, 5}, {1, 3, 4}]
    assert halves(WORK) == [{0, 3, 5}, {1, 2, 4}]
    order = planned(fresh).layout.order
    assert sorted(map(sorted, (order[:3], order[3:]))) == [[0, 3, 5], [1, 2, 4]]


def test_fresh_and_replayed_rows_are_balanced_as_verl_balances_a_batch():
    """The same rows as one fresh batch: verl's own reordering, from the tags' ``seq_len``, is the one of the layout."""
    from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions

    seq_len = torch.tensor([PROMPT + size for size in RESPONSES])
    shares = get_seqlen_balanced_partitions(calculate_workload(seq_len), k_partitions=2, equal_size=True)
    assert planned(3).layout.order == tuple(itertools.chain(*shares))


def test_a_padding_row_counts_as_next_to_nothing():
    """Five kept rows on two ranks: 40 + 11 and the padding row, 34 + 20 + 2; by tokens 40 + 11 + 2 and 34 + 20."""
    from repo_verl.trainer.layout import PAD

    order = planned(3, prune=True).layout.order  # fresh scores 1, 0, 0.5: the advantage of row 2 is 0
    assert sorted(map(sorted, (order[:3], order[3:]))) == [[PAD, 0, 4], [1, 3, 5]]


def test_mini_batches_are_spread_by_the_same_measure():
    """The sums of a prompt's rows' work: neither its tokens nor the work of a row of so many."""
    from verl.utils.seqlen_balancing import get_seqlen_balanced_partitions

    from repo_verl.trainer.layout import spread_blocks
    from repo_verl.trainer.retrieval import row_workloads

    sizes = [[40_000], [5_125] * 8, [36_000], [4_375] * 8]
    starts = [0, *itertools.accumulate(map(len, sizes))]
    blocks = [tuple(range(a, b)) for a, b in itertools.pairwise(starts)]
    tokens = [sum(block) for block in sizes]
    assert halves(tokens) == halves(row_workloads(tokens)) == [{0, 2}, {1, 3}], "76,000 tokens each"
    work = [2_583_040_000, 1_217_741_000, 2_180_736_000, 1_013_285_000]
    assert halves(work) == [{0, 3}, {1, 2}]
    rows = row_workloads(list(itertools.chain(*sizes)))
    found = spread_blocks(blocks, rows, 2, get_seqlen_balanced_partitions)
    together = [[number for number, block in enumerate(blocks) if set(block) <= set(rows)] for rows in found]
    assert sorted(together) == [[0, 3], [1, 2]]

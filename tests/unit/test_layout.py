"""Where rows go: prompts stay whole, mini-batches and ranks get equal row counts, every row appears once."""

import pytest
import torch
from oracles import group_advantages

from repo_verl.config import RepoConfig
from repo_verl.trainer.layout import PAD, Block, plan_layout
from repo_verl.trainer.plan import UpdateShape, plan_update


def greedy(workloads, parts, equal_size):
    """A stand-in for verl's partition: largest first, to the part with the least, at equal sizes."""
    shares = [[] for _ in range(parts)]
    for index in sorted(range(len(workloads)), key=lambda i: -workloads[i]):
        open_shares = [s for s in shares if not equal_size or len(s) < len(workloads) // parts]
        min(open_shares, key=lambda s: sum(workloads[i] for i in s)).append(index)
    return shares


def ragged(sizes, seed=0):
    """Blocks with (fresh, replayed) sizes, fresh rows numbered first, and lengths."""
    fresh_total = sum(fresh for fresh, _ in sizes)
    blocks, fresh_at, replay_at = [], 0, fresh_total
    for fresh, replayed in sizes:
        blocks.append(Block(tuple(range(fresh_at, fresh_at + fresh)), tuple(range(replay_at, replay_at + replayed))))
        fresh_at, replay_at = fresh_at + fresh, replay_at + replayed
    lengths = torch.randint(3, 40, (replay_at,), generator=torch.Generator().manual_seed(seed)).tolist()
    return blocks, lengths


def verl_mini_batches(layout, ranks, mini_batches):
    """Cut the order as verl does: equal chunks to ranks, each cut into equal mini-batches."""
    per_rank = len(layout.order) // ranks
    size = layout.mini_batch_rows // ranks
    chunks = [layout.order[r * per_rank : (r + 1) * per_rank] for r in range(ranks)]
    return [[chunk[m * size : (m + 1) * size] for chunk in chunks] for m in range(mini_batches)]


@pytest.mark.parametrize("multiple", [1, 3])
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("mini_batches", [1, 2, 4])
@pytest.mark.parametrize(
    "sizes",
    [[(8, 8)] * 8, [(8, 8), (8, 0)] * 4, [(8, 4), (8, 16), (8, 0), (8, 1)] * 2, [(8, 0)] * 8, [(8, 3)] * 5],
)
def test_layout_keeps_prompts_whole_and_counts_equal(sizes, mini_batches, ranks, multiple):
    blocks, lengths = ragged(sizes)
    layout = plan_layout(blocks, lengths, mini_batches, ranks, multiple, greedy)
    real = [row for row in layout.order if row != PAD]
    assert sorted(real) == list(range(len(lengths)))
    assert len(layout.order) == mini_batches * layout.mini_batch_rows
    assert layout.mini_batch_rows % (ranks * multiple) == 0
    cut = verl_mini_batches(layout, ranks, mini_batches)
    for number, shares in enumerate(cut):
        inside = {row for share in shares for row in share if row != PAD}
        members = [b for b in range(len(blocks)) if set(blocks[b].rows) & inside]
        assert members == list(layout.mini_batches[number])
        assert inside == {row for b in members for row in blocks[b].rows}
        assert {len(share) for share in shares} == {layout.mini_batch_rows // ranks}
        assert len(members) <= -(-len(blocks) // mini_batches)
    positions = {number: [] for number in range(mini_batches)}
    for position in range(len(layout.order)):
        positions[layout.mini_batch_at(position)].append(layout.order[position])
    assert all(sorted(positions[m]) == sorted(row for share in cut[m] for row in share) for m in range(mini_batches))


def test_the_common_row_count_is_the_largest_rounded_up():
    blocks, lengths = ragged([(4, 4), (4, 0), (4, 3), (4, 0)])
    layout = plan_layout(blocks, lengths, 4, 2, 3, greedy)
    assert layout.mini_batch_rows == 12  # 8 rows, rounded up to a multiple of 2 ranks times 3


def test_a_row_in_two_blocks_is_refused():
    with pytest.raises(ValueError, match="hold one twice"):
        plan_layout([Block((0, 1), ()), Block((1,), ())], [3, 3, 3], 1, 1, 1, greedy)


SHAPE = UpdateShape(
    prompts=2, rows=8, num_mini_batches=2, ranks=2, rows_multiple=1, loss_agg_mode="seq-mean-token-mean"
)


def plan(config=None, shape=SHAPE, replayed_blocks=(0, 0, 2)):
    blocks = [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    tokens = [3] * 16 + list(range(2, 2 + len(replayed_blocks)))
    scores = torch.tensor([1.0, 0, 0, 0] * 4 + [1.0, 0.0, 1.0][: len(replayed_blocks)], dtype=torch.float64)
    lengths = [token + 5 for token in tokens]
    return plan_update(config or RepoConfig(), shape, blocks, lengths, tokens, scores, replayed_blocks, greedy)


def test_plan_by_hand():
    got = plan()
    assert got.replayed_advantages.tolist() == pytest.approx([*group_advantages([1.0, 0.0], 1e-6), 0.0])
    # λ / (P G_off |o|) with P = 2: block 0 holds two rows of 2 and 3 tokens, block 2 one row of 4
    assert got.weights.tolist() == pytest.approx([1 / (2 * 2 * 2), 1 / (2 * 2 * 3), 1 / (2 * 1 * 4)])
    assert got.scales == (1.0, 1.0)
    together = [got.row_mini_batch[row] for row in (0, 1, 2, 3, 16, 17)]
    assert len(set(together)) == 1


def test_authors_normalisation_scales_each_mini_batch_by_its_own_rows():
    got = plan(RepoConfig(normalize="rows"), replayed_blocks=(0, 0, 0))
    number = got.row_mini_batch[16]
    assert got.scales[number] == pytest.approx(8 / 11) and got.scales[1 - number] == 1.0
    assert got.weights.tolist() == pytest.approx([1 / 11 / 2, 1 / 11 / 3, 1 / 11 / 4])


def test_token_mean_counts_the_tokens_and_prompts_of_its_own_mini_batch():
    shape = UpdateShape(**{**SHAPE.__dict__, "loss_agg_mode": "token-mean"})
    got = plan(shape=shape, replayed_blocks=(0, 0, 0))
    assert got.weights.tolist() == pytest.approx([1 * 1 / 2 / (2 + 3 + 4)] * 3)


def test_the_coefficient_scales_weights_alone():
    whole, half = plan(), plan(RepoConfig(off_policy_coef=0.5))
    assert torch.equal(half.weights * 2, whole.weights)
    assert torch.equal(half.fresh_advantages, whole.fresh_advantages) and half.scales == whole.scales

"""Where rows go: prompts stay whole, mini-batches and ranks get equal row counts, every row appears once."""

import pytest
import torch
from oracles import group_advantages

from repo_verl.config import RepoConfig
from repo_verl.trainer.layout import PAD, choose_micro_batch, place_rows, spread_blocks
from repo_verl.trainer.minibatches import UpdateRows, UpdateShape, plan_update


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
        blocks.append((*range(fresh_at, fresh_at + fresh), *range(replay_at, replay_at + replayed)))
        fresh_at, replay_at = fresh_at + fresh, replay_at + replayed
    lengths = torch.randint(3, 40, (replay_at,), generator=torch.Generator().manual_seed(seed)).tolist()
    return blocks, lengths


def verl_mini_batches(layout, ranks, mini_batches):
    """Cut the order as verl does: equal chunks to ranks, each cut into equal mini-batches."""
    per_rank = len(layout.order) // ranks
    size = layout.mini_batch_rows // ranks
    chunks = [layout.order[r * per_rank : (r + 1) * per_rank] for r in range(ranks)]
    return [[chunk[m * size : (m + 1) * size] for chunk in chunks] for m in range(mini_batches)]


@pytest.mark.parametrize("micro", [None, 3, 5])
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("mini_batches", [1, 2, 4])
@pytest.mark.parametrize("pruned", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(
    "sizes",
    [[(8, 8)] * 8, [(8, 8), (8, 0)] * 4, [(8, 4), (8, 16), (8, 0), (8, 1)] * 2, [(8, 0)] * 8, [(8, 3)] * 5],
)
def test_layout_keeps_prompts_whole_and_counts_equal(sizes, mini_batches, ranks, micro, pruned):
    blocks, lengths = ragged(sizes)
    members = spread_blocks(blocks, lengths, mini_batches, greedy)
    owner = {row: number for number, block in enumerate(blocks) for row in block}
    assert sorted(row for rows in members for row in rows) == list(range(len(lengths)))
    whole = [{owner[row] for row in rows} for rows in members]
    assert sum(len(numbers) for numbers in whole) == len(blocks), "a prompt lies in one mini-batch"
    assert max(len(numbers) for numbers in whole) <= -(-len(blocks) // mini_batches)

    left_out = set(torch.randperm(len(lengths))[: int(pruned * len(lengths))].tolist())
    kept = [[row for row in rows if row not in left_out] for rows in members]
    layout = place_rows(kept, lengths, ranks, micro, greedy)
    assert sorted(row for row in layout.order if row != PAD) == sorted(set(range(len(lengths))) - left_out)
    assert len(layout.order) == mini_batches * layout.mini_batch_rows and layout.mini_batch_rows >= ranks
    cut = verl_mini_batches(layout, ranks, mini_batches)
    for number, shares in enumerate(cut):
        assert {row for share in shares for row in share if row != PAD} == set(kept[number])
        assert {len(share) for share in shares} == {layout.mini_batch_rows // ranks}
    positions = {number: [] for number in range(mini_batches)}
    for position in range(len(layout.order)):
        positions[layout.mini_batch_at(position)].append(layout.order[position])
    assert all(sorted(positions[m]) == sorted(row for share in cut[m] for row in share) for m in range(mini_batches))
    share, most = layout.mini_batch_rows // ranks, max(1, -(-max(len(rows) for rows in kept) // ranks))
    if micro is None:
        assert layout.micro_batch_rows is None and share == most
    else:
        assert layout.micro_batch_rows <= micro and share % layout.micro_batch_rows == 0
        passes = share // layout.micro_batch_rows
        assert passes == -(-most // micro), "as few passes as the micro-batch size allows"
        assert share - most < passes, "and fewer padding rows than passes"


def test_rows_of_a_padded_pass_lie_by_length_and_padding_last():
    layout = place_rows([[0, 1, 2, 3, 4]], [5, 9, 7, 9, 2], 1, 3, greedy, padded=True)
    assert layout.order == (1, 3, 2, 0, 4, PAD) and layout.micro_batch_rows == 3


def test_micro_batches_that_pad_little_where_padding_costs():
    assert [choose_micro_batch(18, 4, padded) for padded in (False, True)] == [4, 3], "5 passes of 4, or 6 of 3"
    assert [choose_micro_batch(200, 64, padded) for padded in (False, True)] == [50, 50]
    assert [choose_micro_batch(5, 8, padded) for padded in (False, True)] == [5, 5]
    assert [choose_micro_batch(7, 6, padded) for padded in (False, True)] == [4, 4], "7 of 7 is over 6; 2 x 4 pads one"
    assert [choose_micro_batch(13, 1, padded) for padded in (False, True)] == [1, 1]
    for rows in range(1, 60):
        for most in range(1, 20):
            size = choose_micro_batch(rows, most, True)
            sizes = range(-(-min(most, rows) // 2), min(most, rows) + 1)
            assert 1 <= size <= most and -rows % size <= min(
                -rows % other for other in sizes if 2 * other >= most or rows <= most
            )


def test_an_update_without_rows_is_one_padding_row_a_rank():
    assert place_rows([[], []], [5, 5], 2, 4, greedy).order == (PAD,) * 4


def test_a_row_in_two_blocks_is_refused():
    with pytest.raises(ValueError, match="hold one twice"):
        spread_blocks([(0, 1), (1,)], [3, 3, 3], 1, greedy)


SHAPE = UpdateShape(
    prompts=2, rows=8, num_mini_batches=2, ranks=2, micro_batch_rows=None, loss_agg_mode="seq-mean-token-mean"
)


def plan(config=None, shape=SHAPE, replayed_blocks=(0, 0, 2), prune=False):
    blocks = [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    tokens = [3] * 16 + list(range(2, 2 + len(replayed_blocks)))
    scores = torch.tensor([1.0, 0, 0, 0] * 4 + [1.0, 0.0, 1.0][: len(replayed_blocks)], dtype=torch.float64)
    lengths = [token + 5 for token in tokens]
    rows = UpdateRows(blocks, replayed_blocks, lengths, tokens, scores)
    return plan_update(config or RepoConfig(), shape, rows, prune, greedy)


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


@pytest.mark.parametrize("normalize", ["group", "rows"])
@pytest.mark.parametrize("mode", ["seq-mean-token-mean", "token-mean", "token-sum"])
@pytest.mark.parametrize("advantage", ["split", "mixed"])
def test_pruning_leaves_rows_out_and_everything_else_as_it_was(normalize, mode, advantage):
    shape = UpdateShape(**{**SHAPE.__dict__, "loss_agg_mode": mode})
    config = RepoConfig(normalize=normalize, advantage=advantage)
    whole, pruned = plan(config, shape), plan(config, shape, prune=True)
    for name in ("weights", "fresh_advantages", "replayed_advantages"):
        assert torch.equal(getattr(whole, name), getattr(pruned, name)), name
    for name in ("scales", "fresh_tokens", "row_mini_batch"):
        assert getattr(whole, name) == getattr(pruned, name), name
    assert whole.fresh_tokens == (24, 24), "8 rows of 3 tokens a mini-batch"
    advantages = [*whole.fresh_advantages.tolist(), *whole.replayed_advantages.tolist()]
    assert pruned.kept == tuple(value != 0 for value in advantages) and all(whole.kept)
    assert pruned.kept.count(False) == (1 if advantage == "split" else 0), "the single replayed row of block 2"
    assert sorted(row for row in pruned.layout.order if row != PAD) == [i for i, kept in enumerate(pruned.kept) if kept]


@pytest.mark.parametrize("advantage", ["split", "mixed"])
def test_only_an_advantage_of_exactly_zero_is_pruned(advantage):
    """Without division by the std an advantage is as small as its score: here 2**-41 at least, and never 0."""
    tiny = 2.0**-40
    shape = UpdateShape(**{**SHAPE.__dict__, "prompts": 3, "num_mini_batches": 1, "norm_by_std": False})
    scores = torch.tensor([0.0, tiny, 0.5, 0.5, 1.0, 0.0, 0.0, tiny, 0.0, 0.0], dtype=torch.float64)
    rows = UpdateRows([0, 0, 1, 1, 2, 2], [0, 0, 2, 2], [5] * 10, [3] * 10, scores)
    got = plan_update(RepoConfig(advantage=advantage), shape, rows, True, greedy)
    flat = {"split": [2, 3, 8, 9], "mixed": [2, 3]}[advantage]
    assert [row for row, kept in enumerate(got.kept) if not kept] == flat
    assert got.fresh_advantages[:2].tolist() == [-tiny / 2, tiny / 2]
    assert sorted(row for row in got.layout.order if row != PAD) == [row for row in range(10) if row not in flat]


def test_fresh_rows_alone_stay_in_verls_own_mini_batches():
    rows = UpdateRows(
        [0] * 4 + [1] * 4, [], [5] * 8, [3] * 8, torch.tensor([1.0, 1, 1, 1, 1, 0, 0, 0]),
        stock_mini_batches=[0, 1] * 4,
    )  # fmt: skip
    shape = UpdateShape(**{**SHAPE.__dict__, "ranks": 1})
    got = plan_update(RepoConfig(), shape, rows, True, greedy)
    assert got.row_mini_batch == (0, 1) * 4 and got.fresh_tokens == (12, 12)
    assert got.layout.order == (4, 6, 5, 7) and got.fresh_advantages[4:].tolist() == pytest.approx(
        [1.5, -0.5, -0.5, -0.5], rel=1e-5
    )

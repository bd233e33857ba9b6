"""The replay objective against loops over tokens, in every aggregation, and as sums over parts."""

import math

import pytest
import torch
from oracles import token_surrogate

from repo_verl.losses import (
    AGGREGATION_MODES,
    clipped_surrogate,
    group_row_weights,
    uniform_row_weights,
    weighted_objective,
)

LOW, HIGH = 0.2, 0.28


def make_rows(sizes, seed=0, width=7, empty=False):
    """Rows of random log-probs; ``sizes`` are rows a block. Lengths vary; with ``empty`` the first row has no token."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(sizes)
    blocks = torch.tensor([b for b, size in enumerate(sizes) for _ in range(size)])
    lengths = torch.randint(1, width + 1, (total,), generator=generator)
    if empty and total:
        lengths[0] = 0
    mask = torch.arange(width) < lengths.unsqueeze(1)
    old = -torch.rand(total, width, generator=generator, dtype=torch.float64)
    new = old + 0.5 * torch.randn(total, width, generator=generator, dtype=torch.float64)
    advantages = torch.randn(total, 1, generator=generator, dtype=torch.float64).expand(total, width)
    return new, old, advantages, mask, lengths, blocks


def oracle_objective(rows, prompts, mode, coef, normalize, fresh_rows, fresh_tokens, factor, dual):
    """J_off of the design, with loops: λ/P Σ_prompts m(block), or every row (token) alike."""
    new, old, advantages, mask, lengths, blocks = rows
    total_rows, total_tokens = fresh_rows + len(lengths), fresh_tokens + int(lengths.sum())
    replayed_blocks = sorted(set(blocks.tolist()))
    objective = 0.0
    for i in range(len(lengths)):
        tokens = [
            token_surrogate(new[i, t].item(), old[i, t].item(), advantages[i, t].item(), LOW, HIGH, dual)
            for t in range(mask.shape[1])
            if mask[i, t]
        ]
        if not tokens:
            continue
        group = sum(1 for b in blocks.tolist() if b == blocks[i].item())
        whole, share = math.fsum(tokens), coef / prompts / group
        by_row = {
            "seq-mean-token-mean": whole / len(tokens),
            "seq-mean-token-sum": whole,
            "seq-mean-token-sum-norm": whole / factor,
        }
        if mode == "token-sum":
            objective += coef * whole
        elif mode == "token-mean" and normalize == "group":
            objective += coef * len(replayed_blocks) / prompts * whole / int(lengths.sum())
        elif mode == "token-mean":
            objective += coef * whole / total_tokens
        else:
            objective += (share if normalize == "group" else coef / total_rows) * by_row[mode]
    return objective


def package_objective(rows, weights, dual=None, part=slice(None)):
    new, old, advantages, mask, _, _ = rows
    surrogate = clipped_surrogate(new[part], old[part], advantages[part], LOW, HIGH, dual)
    return weighted_objective(surrogate.value, mask[part], weights[part])


def make_weights(rows, prompts, mode, coef, normalize, fresh_rows, fresh_tokens, factor):
    lengths, blocks = rows[4], rows[5]
    if normalize == "group":
        return group_row_weights(lengths, blocks, prompts, mode, coef, factor)
    return uniform_row_weights(lengths, fresh_rows, fresh_tokens, mode, coef, factor)[0]


@pytest.mark.parametrize("dual", [None, 1.5])
@pytest.mark.parametrize("normalize", ["group", "rows"])
@pytest.mark.parametrize("mode", AGGREGATION_MODES)
@pytest.mark.parametrize("sizes", [(8, 8), (4, 4), (8, 4, 3), (0, 8), (1,)])
def test_objective_equals_the_loop_and_is_a_sum_over_parts(sizes, mode, normalize, dual):
    rows = make_rows(sizes, seed=sum(sizes), empty=len(sizes) == 3)
    arguments = (4, mode, 0.7, normalize, 32, 150, 11.0)
    weights = make_weights(rows, *arguments)
    expected = oracle_objective(rows, *arguments, dual)
    whole = package_objective(rows, weights, dual).item()
    assert whole == pytest.approx(expected, rel=1e-12, abs=1e-15)
    for ranks in (2, 4):
        for micro in (1, 3):
            parts = [range(len(weights))[rank::ranks] for rank in range(ranks)]
            pieces = [list(part)[i : i + micro] for part in parts for i in range(0, len(part), micro)]
            total = math.fsum(package_objective(rows, weights, dual, piece).item() for piece in pieces)
            assert total == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_paper_weights_by_hand():
    # two prompts with replay of four, G_off 2 and 1, λ 0.5: 0.5/(4·2·len), 0.5/(4·1·len)
    lengths, blocks = torch.tensor([2, 4, 5]), torch.tensor([0, 0, 3])
    got = group_row_weights(lengths, blocks, 4, "seq-mean-token-mean", 0.5)
    assert got.tolist() == pytest.approx([0.5 / 16, 0.5 / 32, 0.5 / 20], rel=1e-15)
    got = group_row_weights(lengths, blocks, 4, "token-mean", 0.5)
    assert got.tolist() == pytest.approx([0.5 * 2 / 4 / 11] * 3, rel=1e-15)


def test_the_authors_weights_halve_the_fresh_term_at_8_and_8():
    weights, scale = uniform_row_weights(torch.full((8,), 5), 8, 40, "seq-mean-token-mean", 1.0)
    assert scale == 0.5
    assert weights.tolist() == pytest.approx([1 / 16 / 5] * 8, rel=1e-15)
    assert uniform_row_weights(torch.full((16,), 5), 8, 40, "seq-mean-token-mean", 1.0)[1] == pytest.approx(1 / 3)
    assert uniform_row_weights(torch.full((4,), 5), 8, 40, "token-mean", 1.0)[1] == pytest.approx(40 / 60)
    assert uniform_row_weights(torch.full((4,), 5), 8, 40, "token-sum", 1.0)[1] == 1.0
    assert uniform_row_weights(torch.zeros(0).long(), 8, 40, "seq-mean-token-mean", 1.0)[1] == 1.0


def test_surrogate_by_hand():
    old = torch.zeros(1, 5, dtype=torch.float64)
    ratio = torch.tensor([[0.5, 1.0, 1.5, 0.5, 1.5]], dtype=torch.float64)
    advantages = torch.tensor([[1.0, 1.0, 1.0, -1.0, -1.0]], dtype=torch.float64)
    got = clipped_surrogate(ratio.log(), old, advantages, 0.2, 0.3)
    assert got.value[0].tolist() == pytest.approx([0.5, 1.0, 1.3, -0.8, -1.5])
    assert got.clipped_low[0].tolist() == [False, False, False, True, False]
    assert got.clipped_high[0].tolist() == [False, False, True, False, False]
    far = clipped_surrogate(old + 50, old, -torch.ones_like(old), 0.2, 0.3, clip_ratio_c=3.0)
    assert far.value[0, 0].item() == -3.0 and far.ratio[0, 0].item() == pytest.approx(math.exp(20))


def test_gradient_is_zero_where_a_bound_cuts_and_r_a_elsewhere():
    old = torch.zeros(1, 4, dtype=torch.float64)
    new = torch.tensor([[math.log(0.5), math.log(1.1), math.log(1.5), math.log(0.5)]], dtype=torch.float64)
    new.requires_grad_(True)
    advantages = torch.tensor([[1.0, 1.0, 1.0, -1.0]], dtype=torch.float64)
    surrogate = clipped_surrogate(new, old, advantages, 0.2, 0.2)
    weighted_objective(surrogate.value, torch.ones(1, 4).bool(), torch.tensor([2.0])).backward()
    assert new.grad[0].tolist() == pytest.approx([1.0, 2.2, 0.0, 0.0])


def test_masked_tokens_count_for_nothing_even_when_not_finite():
    value = torch.tensor([[1.0, float("nan")], [2.0, 3.0]])
    mask = torch.tensor([[True, False], [True, True]])
    assert weighted_objective(value, mask, torch.tensor([1.0, 10.0])).item() == 51.0
    assert weighted_objective(value, torch.zeros(2, 2).bool(), torch.ones(2)).item() == 0.0


def test_shapes_and_modes_are_checked():
    with pytest.raises(ValueError, match="must have one shape"):
        clipped_surrogate(torch.zeros(1, 2), torch.zeros(1, 3), torch.zeros(1, 2), 0.2, 0.2)
    with pytest.raises(ValueError, match="loss_agg_mode='mean' is unknown"):
        group_row_weights(torch.tensor([1]), torch.tensor([0]), 1, "mean", 1.0)

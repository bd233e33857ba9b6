"""The whole objective through verl's own loss and micro-batching, against loops over tokens, in float64."""

import math

import pytest
import torch
from oracles import group_advantages, token_surrogate
from pairwise import product_cases

pytestmark = pytest.mark.contract

PROMPTS, N = 4, 8
LOW, HIGH, FRESH_DUAL = 0.2, 0.28, 3.0
MODES = ("token-mean", "token-sum", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm")
FACTOR = 24.0
NORMALIZE, DYNAMIC = ("group", "rows"), (False, True)
FLAT = ((), (0,), (0, 1), (0, 1, 2, 3))
"""Blocks whose rows all have one score."""
SIZES = {"8+8": (8, 8, 8, 8), "8+4": (4, 4, 4, 4), "8+0": (0, 0, 0, 0), "mixed": (8, 0, 4, 1)}


def make_rows(replayed, seed=0):
    """Rows of one mini-batch: fresh ones first. Each has a block, tokens, a mask, log-probs and a score."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for origin, sizes in ((0, (N,) * PROMPTS), (1, replayed)):
        for block, size in enumerate(sizes):
            for _ in range(size):
                tokens = int(torch.randint(1, 9, (1,), generator=generator))
                mask = torch.ones(tokens, dtype=torch.int64)
                if tokens > 4:
                    mask[2] = 0  # a token that a tool wrote
                old = -torch.rand(tokens, generator=generator, dtype=torch.float64)
                new = old + 0.4 * torch.randn(tokens, generator=generator, dtype=torch.float64)
                score = float(torch.randint(0, 3, (1,), generator=generator)) / 2
                rows.append({"origin": origin, "block": block, "mask": mask, "old": old, "new": new, "score": score})
    return rows


def oracle(rows, mode, normalize, advantage, coef, dual):
    """-J by loops over prompts, rows and tokens."""
    groups = {}
    for number, row in enumerate(rows):
        groups.setdefault((row["block"], None if advantage == "mixed" else row["origin"]), []).append(number)
    given = [0.0] * len(rows)
    for members in groups.values():
        for number, value in zip(members, group_advantages([rows[m]["score"] for m in members], 1e-6), strict=True):
            given[number] = value
    sums, lengths = [], []
    for row, value in zip(rows, given, strict=True):
        tokens = [
            token_surrogate(new, old, value, LOW, HIGH, FRESH_DUAL if row["origin"] == 0 else dual)
            for new, old, kept in zip(row["new"].tolist(), row["old"].tolist(), row["mask"].tolist(), strict=True)
            if kept
        ]
        sums.append(math.fsum(tokens))
        lengths.append(len(tokens))
    fresh = [i for i, row in enumerate(rows) if row["origin"] == 0]
    replayed = [i for i, row in enumerate(rows) if row["origin"] == 1]
    fresh_tokens, replayed_tokens = sum(lengths[i] for i in fresh), sum(lengths[i] for i in replayed)
    divisor = {"seq-mean-token-mean": None, "seq-mean-token-sum": 1.0, "seq-mean-token-sum-norm": FACTOR}
    if mode == "token-sum":
        return -math.fsum(sums[i] for i in fresh) - coef * math.fsum(sums[i] for i in replayed)
    if mode == "token-mean":
        on, off = math.fsum(sums[i] for i in fresh), math.fsum(sums[i] for i in replayed)
        if normalize == "rows":
            return -(on + coef * off) / (fresh_tokens + replayed_tokens)
        share = len({rows[i]["block"] for i in replayed}) / PROMPTS
        return -on / fresh_tokens - (coef * share * off / replayed_tokens if replayed else 0.0)
    row_value = [sums[i] / (divisor[mode] or lengths[i]) for i in range(len(rows))]
    if normalize == "rows":
        total = math.fsum(row_value[i] for i in fresh) + coef * math.fsum(row_value[i] for i in replayed)
        return -total / len(rows)
    objective = 0.0
    for block in range(PROMPTS):
        own = [i for i in fresh if rows[i]["block"] == block]
        again = [i for i in replayed if rows[i]["block"] == block]
        objective += math.fsum(row_value[i] for i in own) / len(own)
        objective += coef * math.fsum(row_value[i] for i in again) / len(again) if again else 0.0
    return -objective / PROMPTS


def package(rows, mode, normalize, advantage, coef, dual, ranks, dynamic, prune=False, reported=None):
    """The same through plan_update, verl's micro-batches and repo_loss; the mean over ranks of sums over micro-batches.

    Returns the loss, and the gradient with respect to every row's log-probs; ``reported`` is filled with the metrics of
    all ranks, as verl aggregates them.
    """
    from verl.utils.seqlen_balancing import get_seqlen_balanced_partitions
    from verl.workers.config import FSDPActorConfig

    from repo_verl.config import RepoConfig
    from repo_verl.trainer.minibatches import UpdateRows, UpdateShape, plan_update

    actor = FSDPActorConfig(
        strategy="fsdp2", rollout_n=N, ppo_micro_batch_size_per_gpu=4, clip_ratio_low=LOW, clip_ratio_high=HIGH,
        clip_ratio_c=FRESH_DUAL, loss_agg_mode=mode, loss_scale_factor=FACTOR if mode.endswith("norm") else None,
    )  # fmt: skip
    shape = UpdateShape(
        prompts=PROMPTS, rows=PROMPTS * N, num_mini_batches=1, ranks=ranks, micro_batch_rows=None if dynamic else 4,
        loss_agg_mode=mode, scale_factor=FACTOR,
    )  # fmt: skip
    fresh = [row for row in rows if row["origin"] == 0]
    plan = plan_update(
        RepoConfig(normalize=normalize, advantage=advantage, off_policy_coef=coef),
        shape,
        UpdateRows(
            blocks=[row["block"] for row in fresh],
            replayed_blocks=[row["block"] for row in rows if row["origin"] == 1],
            workloads=[2 + len(row["mask"]) for row in rows],
            tokens=[int(row["mask"].sum()) for row in rows],
            scores=torch.tensor([row["score"] for row in rows], dtype=torch.float64),
        ),
        prune,
        get_seqlen_balanced_partitions,
    )
    advantages = torch.cat((plan.fresh_advantages, plan.replayed_advantages)).tolist()
    weights = [0.0] * len(fresh) + plan.weights.tolist()
    pad = {
        "origin": 2,
        "mask": torch.zeros(1, dtype=torch.int64),
        "old": torch.zeros(1, dtype=rows[0]["old"].dtype),
        "new": torch.zeros(1, dtype=rows[0]["new"].dtype),
    }
    placed = [
        (
            {**rows[i], "advantage": advantages[i], "weight": weights[i]}
            if i >= 0
            else {**pad, "advantage": 0.0, "weight": 0.0}
        )
        for i in plan.layout.order
    ]
    leaves = [row["new"].clone().requires_grad_(True) for row in placed]
    share, metrics = len(placed) // ranks, []
    losses = [
        rank_loss(actor, dual, placed[r * share : (r + 1) * share], leaves[r * share : (r + 1) * share],
                  plan, ranks, sum(int(row["mask"].sum()) for row in placed if row["origin"] == 0), dynamic, metrics)
        for r in range(ranks)
    ]  # fmt: skip
    if reported is not None:
        reported.update(
            {key: type(one).aggregate_dp([found[key] for found in metrics]) for key, one in metrics[0].items()}
        )
    loss = sum(losses) / ranks
    loss.backward()
    gradients = {i: leaf.grad for i, leaf in zip(plan.layout.order, leaves, strict=True) if i >= 0}
    return loss.item(), [gradients.get(i) for i in range(len(rows))]


def rank_loss(actor, dual, placed, leaves, plan, ranks, fresh_tokens, dynamic, reported):
    """Sum of the micro-batches' losses of one rank, cut by verl; their metrics are appended to ``reported``."""
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu
    from verl.workers.engine.utils import prepare_micro_batches

    from repo_verl.trainer.worker_loss import repo_loss

    def nested(values):
        return torch.nested.as_nested_tensor(list(values), layout=torch.jagged)

    ids = [torch.full((len(row["mask"]),), 7) for row in placed]
    data = TensorDict(
        {
            "prompts": nested(torch.tensor([5, 6]) for _ in placed),
            "responses": nested(ids),
            "input_ids": nested(torch.cat((torch.tensor([5, 6]), row)) for row in ids),
            "response_mask": nested(row["mask"] for row in placed),
            "old_log_probs": nested(row["old"] for row in placed),
            "advantages": nested(row["advantage"] * row["mask"].double() for row in placed),
            "repo_origin": torch.tensor([row["origin"] for row in placed]),
            "repo_weight": torch.tensor([row["weight"] for row in placed], dtype=torch.float64),
            "repo_fresh_scale": torch.full((len(placed),), plan.scales[0], dtype=torch.float64),
            "repo_fresh_tokens": torch.full((len(placed),), plan.fresh_tokens[0]),
            "number": torch.arange(len(placed)),
        },
        batch_size=len(placed),
    )
    tu.assign_non_tensor(
        data, use_dynamic_bsz=dynamic, max_token_len_per_gpu=30, sp_size=1, dp_size=ranks,
        micro_batch_size_per_gpu=plan.layout.micro_batch_rows or 4,
        batch_num_tokens=fresh_tokens, global_batch_size=PROMPTS * N,
    )  # fmt: skip
    micro_batches, _ = prepare_micro_batches(data)
    total, metrics = torch.zeros((), dtype=torch.float64), []
    for micro in micro_batches:
        # the model's output has a log-prob a position; the one before a token is the token's
        edge = torch.zeros(1, dtype=leaves[0].dtype)
        output = nested(torch.cat((edge, leaves[i], edge)) for i in micro["number"].tolist())
        loss, found = repo_loss(actor, dual, {"log_probs": output}, micro)
        total = total + loss
        metrics.append(found)
    assert len(set(map(frozenset, metrics))) == 1, "every micro-batch reports the same keys"
    whole = {key: one.init_list() for key, one in metrics[0].items()}
    for found in metrics:
        for key, one in found.items():
            whole[key].extend(one)
    reported.append(whole)
    return total


@pytest.mark.parametrize("normalize, mode, ranks, dynamic", product_cases(NORMALIZE, MODES, (1, 2, 4), DYNAMIC))
def test_objective_equals_the_loops(normalize, mode, ranks, dynamic):
    for name, replayed in SIZES.items():
        for advantage in ("split", "mixed"):
            for coef, dual in ((1.0, None), (0.3, 1.7)):
                rows = make_rows(replayed, seed=len(name))
                expected = oracle(rows, mode, normalize, advantage, coef, dual)
                got, _ = package(rows, mode, normalize, advantage, coef, dual, ranks, dynamic)
                assert got == pytest.approx(expected, rel=1e-6), (name, advantage, coef)


@pytest.mark.parametrize("mode", ["seq-mean-token-mean", "token-mean"])
def test_gradients_do_not_depend_on_ranks_or_micro_batches(mode):
    rows = make_rows(SIZES["mixed"], seed=3)
    _, whole = package(rows, mode, "group", "split", 1.0, None, 1, False)
    for ranks, dynamic in ((1, True), (2, False), (4, True)):
        _, parts = package(rows, mode, "group", "split", 1.0, None, ranks, dynamic)
        for one, other in zip(whole, parts, strict=True):
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-15)
    assert sum(float(gradient.abs().sum()) for gradient in whole[PROMPTS * N :]) > 0, "replayed rows have a gradient"


def test_zero_advantages_of_the_fresh_rows_leave_the_replay_term_alone():
    rows = make_rows(SIZES["8+8"], seed=5)
    for row in rows:
        row["score"] = 1.0 if row["origin"] == 0 else row["score"]
    loss, gradients = package(rows, "seq-mean-token-mean", "group", "split", 1.0, None, 1, False)
    assert all(not gradient.any() for gradient in gradients[: PROMPTS * N])
    assert any(gradient.any() for gradient in gradients[PROMPTS * N :])
    assert loss == pytest.approx(oracle(rows, "seq-mean-token-mean", "group", "split", 1.0, None), rel=1e-9)


@pytest.mark.parametrize(
    "normalize, mode, ranks, dynamic, flat", product_cases(NORMALIZE, MODES, (1, 2), DYNAMIC, FLAT)
)
def test_pruned_rows_change_neither_loss_nor_gradient(normalize, mode, ranks, dynamic, flat):
    """In float64: a flat block has one score for its fresh rows, and another for its replayed ones where all are."""
    for advantage in ("split", "mixed"):
        rows = make_rows(SIZES["8+4"], seed=7)
        for row in rows:
            if row["block"] in flat:
                row["score"] = 0.5 if advantage == "mixed" or row["origin"] == 0 or row["block"] else row["score"]
            else:
                row["score"] = float(len(row["mask"]) % 2)
        whole_loss, whole = package(rows, mode, normalize, advantage, 0.7, None, ranks, dynamic)
        loss, pruned = package(rows, mode, normalize, advantage, 0.7, None, ranks, dynamic, prune=True)
        assert loss == pytest.approx(whole_loss, rel=1e-12, abs=1e-15)
        left_out = [i for i, gradient in enumerate(pruned) if gradient is None]
        assert len(left_out) >= 8 * len(flat) and all(not whole[i].any() for i in left_out)
        for one, other in zip(whole, pruned, strict=True):
            assert other is None or torch.allclose(one, other, rtol=1e-12, atol=1e-18)
        if len(flat) < 4:
            assert any(gradient is not None and gradient.any() for gradient in pruned)


CUTS = [(1, False), (2, False), (1, True)]  # ranks, and whether micro-batches are cut by tokens


@pytest.mark.parametrize(("ranks", "dynamic"), CUTS)
@pytest.mark.parametrize("prune", [False, True], ids=["whole", "pruned"])
def test_token_means_are_over_the_kept_rows_or_over_all_rows(ranks, dynamic, prune):
    """The KL estimate is a mean over the kept fresh tokens, the clip fractions are shares of all fresh tokens."""
    rows = make_rows(SIZES["mixed"], seed=11)
    for row in rows:
        if row["origin"] == 0:
            row["score"] = 0.5 if row["block"] in (0, 2) else float(len(row["mask"]) % 2)
    negative = next(row for row in rows if row["block"] == 1 and row["score"] == 0)
    negative["new"] = negative["old"] + 1.5  # a ratio of 4.5, which the dual clip cuts
    fresh = [row for row in rows if row["origin"] == 0]
    kept = [row for row in fresh if not prune or row["block"] in (1, 3)]
    assert 0 < len(kept) < len(fresh) or not prune

    def tokens(chosen):
        return [
            (old - new, row)
            for row in chosen
            for old, new, counts in zip(row["old"].tolist(), row["new"].tolist(), row["mask"].tolist(), strict=True)
            if counts
        ]

    advantage = {
        id(row): value
        for block in range(PROMPTS)
        for members in [[row for row in fresh if row["block"] == block]]
        for row, value in zip(members, group_advantages([row["score"] for row in members], 1e-6), strict=True)
    }
    reported = {}
    package(rows, "token-mean", "group", "split", 1.0, None, ranks, dynamic, prune, reported)
    apart = [value for value, _ in tokens(kept)]
    assert reported["actor/ppo_kl"] == pytest.approx(math.fsum(apart) / len(apart), rel=1e-9)
    cut = low = 0
    for value, row in tokens(fresh):
        ratio, given = math.exp(-value), advantage[id(row)]
        cut += max(-given * ratio, -given * min(max(ratio, 1 - LOW), 1 + HIGH)) > -given * ratio
        low += given < 0 and ratio > FRESH_DUAL
    assert cut > 5 and low > 0
    assert reported["actor/pg_clipfrac"] == pytest.approx(cut / len(tokens(fresh)), rel=1e-6)
    assert reported["actor/pg_clipfrac_lower"] == pytest.approx(low / len(tokens(fresh)), rel=1e-6)
    assert reported["repo/fresh_tokens"] * ranks == len(apart)


@pytest.mark.parametrize(("ranks", "dynamic"), CUTS)
def test_effective_sample_size_is_of_the_product_of_a_rows_ratios(ranks, dynamic):
    """w = exp(sum of the log-ratios of a row's unmasked tokens): rows of several lengths, by hand."""
    from repo_verl.metrics import worker_metrics

    rows = make_rows(SIZES["mixed"], seed=2)
    weights = []
    for row in (one for one in rows if one["origin"] == 1):
        gap = zip(row["new"].tolist(), row["old"].tolist(), row["mask"].tolist(), strict=True)
        weights.append(math.exp(math.fsum(new - old for new, old, counts in gap if counts)))
    reported = {}
    package(rows, "seq-mean-token-mean", "group", "split", 1.0, None, ranks, dynamic, reported=reported)
    sums = {key.removeprefix("repo/"): value for key, value in reported.items() if key.startswith("repo/")}
    assert sums["weight_sum"] * ranks == pytest.approx(math.fsum(weights), rel=1e-9)
    expected = math.fsum(weights) ** 2 / (len(weights) * math.fsum(weight**2 for weight in weights))
    assert worker_metrics([sums], ranks)["ess_replayed"] == pytest.approx(expected, rel=1e-9)
    assert 0.2 < expected < 0.9


def test_log_probs_of_half_precision_are_subtracted_exactly():
    """The replay term of rows in bfloat16 is that of the very numbers, to float32's rounding and not bfloat16's."""
    rows = make_rows(SIZES["mixed"], seed=6)
    for row in rows:
        row["old"] = row["old"].bfloat16()
        row["new"] = (row["old"] + 0.1 * row["new"]).bfloat16()
    mode, reported = "seq-mean-token-mean", {}
    package(rows, mode, "group", "split", 1.0, None, 1, False, reported=reported)
    for row in rows:
        row["old"], row["new"] = row["old"].double(), row["new"].double()
    whole, fresh = (oracle(rows, mode, "group", "split", coef, None) for coef in (1.0, 0.0))
    assert abs(whole - fresh) > 1e-3
    assert reported["repo/loss_replayed"] == pytest.approx(whole - fresh, rel=1e-5)

"""Rows of an update of which a given share has an advantage of exactly 0, and their batch for verl's actor worker."""

from __future__ import annotations

import dataclasses
import random
from itertools import product
from typing import Any

import torch

PROMPTS, N = 4, 4
"""Prompts a mini-batch, and rows of each: fresh ones, and as many replayed ones."""

VOCABULARY = 83
MODES = ("seq-mean-token-mean", "token-mean")
OTHER_MODES = ("token-sum", "seq-mean-token-sum", "seq-mean-token-sum-norm")
SHARES = (0, 25, 50, 75, 100)

SCORES = {"live": (1.0, 0.0, 0.0, 0.0), "half": (0.0, 0.5, 0.5, 1.0), "flat": (0.5, 0.5, 0.5, 0.5)}
"""Scores of a block: without a row of advantage 0, with two such rows (also where blocks are joined), of such alone."""

PATTERNS = {
    ("split", 0): ("live live", "live live", "live live", "live live"),
    ("split", 25): ("flat half", "live half", "live live", "live live"),
    ("split", 50): ("flat flat", "half flat", "live half", "live live"),
    ("split", 75): ("flat flat", "flat flat", "half flat", "live half"),
    ("split", 100): ("flat flat", "flat flat", "flat flat", "flat flat"),
    ("mixed", 0): ("live live", "live live", "live live", "live live"),
    ("mixed", 25): ("half half", "half half", "live live", "live live"),
    ("mixed", 50): ("flat flat", "half half", "half half", "live live"),
    ("mixed", 75): ("flat flat", "flat flat", "half half", "half half"),
    ("mixed", 100): ("flat flat", "flat flat", "flat flat", "flat flat"),
}
"""Scores of the fresh and of the replayed rows of four prompts, by kind of advantage and share of zeros in percent."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One combination of settings.

    Attributes:
        dtype: fp32 or fp64, of parameters, forward pass and gradients.
        share: rows whose advantage is 0, percent.
        normalize: RePO's.
        advantage: RePO's.
        mode: verl's ``loss_agg_mode``.
        mini_batches: optimizer steps of the update.
        dynamic: whether verl cuts micro-batches by tokens.
        replay: whether rows are replayed; else the first half of the mini-batches is flat, and the others are live.
        optimizer: SGD, or AdamW with weight decay.
    """

    dtype: str
    share: int
    normalize: str = "group"
    advantage: str = "split"
    mode: str = MODES[0]
    mini_batches: int = 1
    dynamic: bool = False
    replay: bool = True
    optimizer: str = "SGD"

    @property
    def name(self) -> str:
        """What tells it apart from the others."""
        marks = ("dynamic",) * self.dynamic + ("" if self.replay else "no_replay",)
        parts = (self.dtype, f"{self.share}%", self.normalize, self.advantage, self.mode, self.optimizer, *marks)
        return "-".join((*(part for part in parts if part), f"{self.mini_batches}step"))


def every_case() -> list[Case]:
    """All combinations of one optimizer step, and some of two, of micro-batches cut by tokens, and without replay."""
    types, ways = ("fp32", "fp64"), tuple(product(("group", "rows"), ("split", "mixed")))
    cases = [Case(*one, *way, mode) for one in product(types, SHARES) for way in ways for mode in MODES]
    for dtype, way in product(types, ways):
        cases.append(Case(dtype, 50, *way, mode="token-mean", mini_batches=2, dynamic=way[0] == "rows"))
        cases.append(Case(dtype, 25, *way, dynamic=True))
    cases += [Case("fp64", 50, normalize, mode=mode) for mode, normalize in product(OTHER_MODES, ("group", "rows"))]
    for mode, dynamic in product(MODES, (False, True)):
        cases.append(Case("fp64", 50, mode=mode, mini_batches=2, dynamic=dynamic, replay=False))
    cases += [Case("fp32", 100, mini_batches=steps, optimizer="AdamW") for steps in (1, 2)]
    return cases


def draw_rows(case: Case) -> list[dict[str, Any]]:
    """Rows of random tokens, fresh ones first; log-probs under the old policy are those of a uniform one, and noise."""
    rng, generator = random.Random(5), torch.Generator().manual_seed(5)
    patterns = [one.split() for one in PATTERNS[case.advantage, case.share] * case.mini_batches]
    if not case.replay:
        half = len(patterns) // 2
        patterns = [["flat"]] * half + [["live"]] * half
    prompts = [[rng.randrange(5, VOCABULARY) for _ in range(rng.randint(2, 6))] for _ in patterns]
    rows = []
    for origin in range(1 + case.replay):
        for block, pattern in enumerate(patterns):
            for score in SCORES[pattern[origin]]:
                size = rng.randint(3, 16)
                mask = torch.ones(size, dtype=torch.int64)
                if size > 8:
                    mask[3:5] = 0  # tokens that a tool wrote
                noise = 0.5 * torch.randn(size, generator=generator)
                tokens = torch.tensor([rng.randrange(5, VOCABULARY) for _ in range(size)])
                rows.append({
                    "origin": origin, "block": block, "score": score, "prompt": torch.tensor(prompts[block]),
                    "tokens": tokens, "mask": mask, "old": noise - torch.tensor(float(VOCABULARY)).log(),
                })  # fmt: skip
    return rows


def make_plan(case: Case, rows: list[dict[str, Any]], ranks: int, prune: bool, n: int = N, micro_rows: int = 7) -> Any:
    """The update of the rows as the trainer plans it."""
    from verl.utils.seqlen_balancing import get_seqlen_balanced_partitions

    from repo_verl.config import RepoConfig
    from repo_verl.trainer.minibatches import UpdateRows, UpdateShape, plan_update
    from repo_verl.trainer.retrieval import row_workloads

    fresh = [row for row in rows if row["origin"] == 0]
    per_step = len(fresh) // case.mini_batches
    shape = UpdateShape(
        prompts=per_step // n, rows=per_step, num_mini_batches=case.mini_batches, ranks=ranks,
        micro_batch_rows=None if case.dynamic else micro_rows, loss_agg_mode=case.mode, scale_factor=10.0, padded=True,
    )  # fmt: skip
    update = UpdateRows(
        blocks=[row["block"] for row in fresh],
        replayed_blocks=[row["block"] for row in rows if row["origin"] == 1],
        workloads=row_workloads([len(row["prompt"]) + len(row["tokens"]) for row in rows]),
        tokens=[int(row["mask"].sum()) for row in rows],
        scores=torch.tensor([row["score"] for row in rows]),
        stock_mini_batches=[i // per_step for i in range(len(fresh))],
    )
    config = RepoConfig(normalize=case.normalize, advantage=case.advantage, off_policy_coef=0.7)
    return plan_update(config, shape, update, prune, get_seqlen_balanced_partitions)


def actor_data(case: Case, rows: list[dict[str, Any]], plan: Any, rank: int, ranks: int) -> Any:
    """What ``update_actor`` of a rank is given: the fields of the trainer's rows, and its settings for the update."""
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu

    order, layout, fresh = plan.layout.order, plan.layout, len(plan.fresh_advantages)
    advantages = torch.cat((plan.fresh_advantages, plan.replayed_advantages)).tolist()
    weights = [0.0] * fresh + plan.weights.tolist()
    blank = {"prompt": torch.ones(1).long(), "tokens": torch.ones(1).long(), "old": torch.zeros(1), "origin": 2}
    share = len(order) // ranks
    columns: dict[str, list[torch.Tensor]] = {}
    for place in range(rank * share, (rank + 1) * share):
        number, step = order[place], layout.mini_batch_at(place)
        row = rows[number] if number >= 0 else {**blank, "mask": torch.zeros(1).long()}
        ids, mask = torch.cat((row["prompt"], row["tokens"])), row["mask"]
        fields = {
            "prompts": row["prompt"], "responses": row["tokens"], "input_ids": ids,
            "position_ids": torch.arange(len(ids)), "response_mask": mask,
            "loss_mask": mask if row["origin"] == 0 else torch.zeros_like(mask), "old_log_probs": row["old"],
            "advantages": mask.float() * (advantages[number] if number >= 0 else 0.0),
            "repo_origin": torch.tensor(row["origin"]),
            "repo_weight": torch.tensor(weights[number] if number >= 0 else 0.0, dtype=torch.float64),
            "repo_fresh_scale": torch.tensor(plan.scales[step], dtype=torch.float64),
            "repo_fresh_tokens": torch.tensor(plan.fresh_tokens[step]),
        }  # fmt: skip
        for name, value in fields.items():
            columns.setdefault(name, []).append(value)
    data = TensorDict({name: _column(values) for name, values in columns.items()}, batch_size=share)
    extra = {
        "calculate_entropy": False, "distillation_use_topk": False, "distillation_only": False, "epochs": 1,
        "global_batch_size": fresh // case.mini_batches, "mini_batch_size": layout.mini_batch_rows, "seed": 42,
        "dataloader_kwargs": {"shuffle": False}, "temperature": 1.0, "use_dynamic_bsz": case.dynamic,
        "max_token_len_per_gpu": 100,
    }  # fmt: skip
    if layout.micro_batch_rows is not None:
        extra["micro_batch_size_per_gpu"] = layout.micro_batch_rows
    tu.assign_non_tensor(data, **extra)
    return data


def _column(values: list[torch.Tensor]) -> torch.Tensor:
    if values[0].dim() == 0:
        return torch.stack(values)
    return torch.nested.as_nested_tensor(values, layout=torch.jagged)

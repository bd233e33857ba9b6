"""Which rows a step replays: chosen once the fresh scores are known, planned with the fresh rows, read, and counted.

All but the counting happens in the trainer's background thread, beside verl's old log-probs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions

from repo_verl import metrics as formulas
from repo_verl.config import RepoConfig
from repo_verl.replay import PromptReplayBuffer, Record, Selection
from repo_verl.trainer.minibatches import UpdatePlan, UpdateRows, UpdateShape, plan_advantages, plan_update
from repo_verl.trainer.rollouts import FreshRows

GROUP_TOKENS = 1 << 20  # response tokens read and put at a time: the driver holds about 100 bytes for each
PAD_LENGTH = 2  # tokens of a padding row: one of the prompt, one of the response
REWARD_STATUSES = ("timeout", "error", "no_answer", "gold_unparseable")  # those of repo_verl.rewards other than ok


@dataclasses.dataclass(frozen=True)
class Update:
    """The B fresh and N replayed rows of a step; row numbers count fresh rows first."""

    fresh: FreshRows
    selections: Sequence[Selection]  # the buffer's rows that every prompt block replays; empty where none was asked for
    fresh_advantages: torch.Tensor  # (B,) float
    replayed_advantages: torch.Tensor  # (N,) float
    plan: UpdatePlan | None = None  # None where verl's batch is left as it is

    @property
    def replayed_blocks(self) -> list[int]:
        """(N,) prompt block of every replayed row."""
        return [block for block, selection in enumerate(self.selections) for _ in range(len(selection))]

    @property
    def lengths(self) -> list[int]:
        """(B + N,) tokens of every row, prompt and response."""
        prompts = [self.fresh.prompt_ids[block].size for block in self.replayed_blocks]
        responses = self.replayed_values("lengths")
        return self.fresh.lengths + [a + int(b) for a, b in zip(prompts, responses, strict=True)]

    @property
    def tokens(self) -> list[int]:
        """(B + N,) unmasked response tokens of every row."""
        return [*self.fresh.tokens, *map(int, self.replayed_values("counted"))]

    @property
    def kept(self) -> Sequence[bool]:
        """(B + N,) whether each row is part of the update; without a plan nothing is replayed and all are."""
        return self.plan.kept if self.plan else [True] * len(self.fresh.keys)

    @property
    def pruned_tokens(self) -> tuple[int, int]:
        """Unmasked response tokens of pruned rows: of fresh and of replayed ones."""
        left = [0 if kept else count for kept, count in zip(self.kept, self.tokens, strict=True)]
        return sum(left[: len(self.fresh.keys)]), sum(left[len(self.fresh.keys) :])

    def replayed_values(self, name: str) -> list[float]:
        """(N,) a field of :class:`Selection` for every replayed row: ``scores``, ``uses`` (before this replay), ..."""
        return [value for selection in self.selections for value in getattr(selection, name).tolist()]


def choose_rows(buffer: PromptReplayBuffer, fresh: FreshRows, step: int) -> list[Selection]:
    """Choose what every prompt block replays; reads no tokens, counts the uses.

    Strategies draw from the buffer's generator in the order of the prompts' keys (then of the fresh scores), which does
    not depend on the order in which responses finished. An empty selection is of a block that replays nothing.
    """
    scores = fresh.block_scores
    order = sorted(range(len(scores)), key=lambda block: (fresh.prompt_keys[block], scores[block].tolist()))
    chosen = buffer.select_batch([fresh.prompt_keys[b] for b in order], step, [scores[b] for b in order])
    by_block = dict(zip(order, chosen, strict=True))
    return [by_block[block] for block in range(len(scores))]


def plan_step(
    config: RepoConfig,
    shape: UpdateShape,
    prune: bool,
    keys: Sequence[str],
    fresh: FreshRows,
    selections: Sequence[Selection],
) -> Update:
    """Plan the update of a batch; without a plan where nothing is replayed and nothing is to be pruned.

    ``keys`` are those of the whole batch, verl's padding included, in dispatch order; ``fresh`` are its rows, and
    ``selections`` what every prompt block replays. With ``prune``, rows whose advantage is exactly 0 are left out.
    """
    update = Update(fresh, selections, torch.zeros(0), torch.zeros(0))
    scores = torch.tensor(update.replayed_values("scores"), dtype=fresh.scores.dtype)
    rows = UpdateRows(
        blocks=fresh.blocks,
        replayed_blocks=update.replayed_blocks,
        workloads=row_workloads(update.lengths),
        tokens=update.tokens,
        scores=torch.cat((fresh.scores, scores)),
        stock_mini_batches=shape.stock_mini_batches(keys, fresh.keys),
        pad_workload=row_workloads([PAD_LENGTH])[0],
    )
    plan = plan_update(config, shape, rows, prune, get_seqlen_balanced_partitions)
    used = plan if rows.replayed_blocks or not all(plan.kept) else None
    return Update(fresh, selections, plan.fresh_advantages, plan.replayed_advantages, used)


def without_replay(config: RepoConfig, shape: UpdateShape, fresh: FreshRows) -> Update:
    """A step that replays and prunes nothing: ``strategy: none``, or verl's critic warm-up.

    Scores that are not finite, with which plain GRPO goes on, count as numbers.
    """
    none = torch.zeros(0)
    values, _ = plan_advantages(config, torch.nan_to_num(fresh.scores), fresh.blocks, none, [], shape.norm_by_std)
    return Update(fresh, [], values, none)


def row_workloads(lengths: Sequence[int]) -> list[int]:
    """verl's measure of the work of rows, attention included, by which it balances its ranks; from their lengths."""
    return [int(work) for work in calculate_workload(torch.tensor(lengths, dtype=torch.int64)).tolist()]


def read_kept(buffer: PromptReplayBuffer, update: Update) -> Iterator[list[tuple[int, np.ndarray, Record]]]:
    """Read the replayed rows that are part of an update, in groups of about :data:`GROUP_TOKENS` tokens.

    A group has the row number, the prompt ids and the record of every row.
    """
    wanted: list[tuple[int, list[int], Selection]] = []
    first = len(update.fresh.keys)
    for block, selection in enumerate(update.selections):
        index = [i for i in range(len(selection)) if update.kept[first + i]]
        if index:
            wanted.append((block, [first + i for i in index], _subset(selection, index)))
        first += len(selection)
    for group in _groups([int(selection.lengths.sum()) for _, _, selection in wanted]):
        records = buffer.fetch([selection for _, _, selection in wanted[group]])
        yield [
            (row, update.fresh.prompt_ids[block], record)
            for (block, rows, _), found in zip(wanted[group], records, strict=True)
            for row, record in zip(rows, found, strict=True)
        ]


def _groups(tokens: list[int]) -> Iterator[slice]:
    """Neighbours of at most :data:`GROUP_TOKENS` together, at least one in each group."""
    start, held = 0, 0
    for stop, size in enumerate(tokens):
        if stop > start and held + size > GROUP_TOKENS:
            yield slice(start, stop)
            start, held = stop, 0
        held += size
    if tokens:
        yield slice(start, len(tokens))


def _subset(selection: Selection, index: list[int]) -> Selection:
    arrays = {field.name: getattr(selection, field.name) for field in dataclasses.fields(selection)}
    return dataclasses.replace(selection, **{n: array[index] for n, array in arrays.items() if n != "key"})


def step_metrics(
    update: Update, step: int, reports: Sequence[Mapping[str, float]], grad_norms: Sequence[float], ranks: int
) -> dict[str, float]:
    """The metrics of a step that updates the actor, without their prefix ``repo/``.

    ``reports`` are the sums of every optimizer step (:func:`repo_verl.trainer.worker_loss.watched_update`), and
    ``grad_norms`` its gradient norms.
    """
    fresh, lengths, kept, again = update.fresh, update.lengths, update.kept, update.replayed_blocks
    blocks, prompts = torch.tensor(fresh.blocks), len(fresh.prompt_keys)
    everything = torch.cat((update.fresh_advantages.double(), update.replayed_advantages.double()))
    all_blocks = torch.cat((blocks, torch.tensor(again, dtype=blocks.dtype)))
    mini_batches = update.plan.layout.num_mini_batches if update.plan else len(reports)
    pruned = [tokens * (len(reports) // mini_batches) for tokens in update.pruned_tokens]
    return {
        "replayed_rows": len(again),
        "prompts_with_replay": len(set(again)),
        **formulas.mean_and_max("age", [step - fresh_in for fresh_in in update.replayed_values("steps")]),
        **formulas.mean_and_max("uses", [before + 1 for before in update.replayed_values("uses")]),
        **formulas.mean_and_std("score_fresh", fresh.scores.tolist()),
        **formulas.mean_and_std("score_replayed", update.replayed_values("scores")),
        "zero_advantage_share_fresh": formulas.zero_share(update.fresh_advantages),
        "zero_advantage_share_replayed": formulas.zero_share(update.replayed_advantages),
        "effective_prompts_fresh": formulas.spread_share(torch.nan_to_num(fresh.scores), blocks, prompts),
        "effective_prompts_all": formulas.effective_share(everything, all_blocks, prompts),
        "update_tokens": sum(length for length, part in zip(lengths, kept, strict=True) if part),
        "pruned_rows": list(kept).count(False),
        "pruned_tokens": sum(length for length, part in zip(lengths, kept, strict=True) if not part),
        **{f"reward_{status}": fresh.statuses.count(status) for status in REWARD_STATUSES},
        **formulas.worker_metrics(reports, ranks, *pruned),
        "nonfinite_steps": formulas.count_skipped(grad_norms),
    }

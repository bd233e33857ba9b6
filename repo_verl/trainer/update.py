"""One update: what it is planned from, and its batch in TransferQueue."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transfer_queue import KVBatchMeta
from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions

from repo_verl.config import RepoConfig
from repo_verl.trainer import placing
from repo_verl.trainer.fields import FRESH, PADDING, REPLAYED
from repo_verl.trainer.plan import UpdatePlan, UpdateRows, UpdateShape, plan_update
from repo_verl.trainer.retrieval import Placed, Retrieved
from repo_verl.trainer.rows import FreshRows

Tag = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Update:
    """The rows of one update.

    Attributes:
        fresh: the step's own rows.
        retrieved: what every prompt block replays.
        plan: None where verl's batch is left as it is.
    """

    fresh: FreshRows
    retrieved: list[Retrieved]
    plan: UpdatePlan | None

    @property
    def replayed_blocks(self) -> list[int]:
        """(N,) prompt block of every replayed row."""
        return [block for block, one in enumerate(self.retrieved) for _ in one.placed]

    @property
    def replayed_rows(self) -> dict[int, tuple[Placed, torch.Tensor]]:
        """Place in TransferQueue and mask of every replayed row, by row number; rows pruned early have none."""
        rows = [row for one in self.retrieved for row in zip(one.placed, one.masks, strict=True)]
        total = len(self.fresh.keys)
        return {total + i: (at, mask) for i, (at, mask) in enumerate(rows) if at is not None and mask is not None}

    @property
    def lengths(self) -> list[int]:
        """(B + N,) tokens of every row, prompt and response; fresh rows first."""
        return self.fresh.lengths + [
            self.fresh.prompt_ids[block].size + int(size)
            for block, one in enumerate(self.retrieved)
            for size in one.selection.lengths
        ]

    @property
    def pruned_tokens(self) -> tuple[int, int]:
        """Response tokens that count in pruned rows: of fresh and of replayed ones."""
        if self.plan is None:
            return 0, 0
        tokens = [*self.fresh.tokens, *map(int, self.column("counted"))]
        left = [0 if kept else count for kept, count in zip(self.plan.kept, tokens, strict=True)]
        return sum(left[: len(self.fresh.keys)]), sum(left[len(self.fresh.keys) :])

    def column(self, name: str) -> list[float]:
        """(N,) a value of every replayed row: ``scores``, ``steps``, ``uses`` (before this replay) or ``counted``."""
        return [value for one in self.retrieved for value in getattr(one.selection, name).tolist()]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An update that is ready but for verl's own fields.

    Attributes:
        update: the rows and their plan.
        ordered: key and tag of every row in dispatch order; empty without a plan.
        late: replayed rows that were retrieved only after generation.
    """

    update: Update
    ordered: list[Placed]
    late: int


def plan_step(
    config: RepoConfig,
    shape: UpdateShape,
    prune: bool,
    keys: Sequence[str],
    fresh: FreshRows,
    retrieved: list[Retrieved],
) -> Update:
    """Plan the update of a batch; without a plan where nothing is replayed and nothing is to be pruned.

    Args:
        config: RePO's settings.
        shape: verl's.
        prune: leave out rows whose advantage is exactly 0.
        keys: of the whole batch, verl's padding included, in dispatch order.
        fresh: its rows.
        retrieved: what every prompt block replays.
    """
    update = Update(fresh, retrieved, None)
    blocks = update.replayed_blocks
    scores = torch.tensor(update.column("scores"), dtype=fresh.scores.dtype)
    rows = UpdateRows(
        blocks=fresh.blocks,
        replayed_blocks=blocks,
        workloads=row_workloads(update.lengths),
        tokens=[*fresh.tokens, *map(int, update.column("counted"))],
        scores=torch.cat((fresh.scores, scores)),
        stock_mini_batches=stock_mini_batches(keys, fresh.keys, shape),
        pad_workload=row_workloads([placing.PAD_LENGTH])[0],
    )
    plan = plan_update(config, shape, rows, prune, get_seqlen_balanced_partitions)
    return dataclasses.replace(update, plan=plan) if blocks or not all(plan.kept) else update


def row_workloads(lengths: Sequence[int]) -> list[int]:
    """verl's measure of the work of rows, attention included, by which it balances its ranks.

    Args:
        lengths: (N,) tokens of every row, prompt and response, as in verl's tag ``seq_len``.
    """
    return [int(work) for work in calculate_workload(torch.tensor(lengths, dtype=torch.int64)).tolist()]


def update_shape(config: Any, batch_rows: int, ranks: int) -> UpdateShape:
    """verl's settings that shape an update; ``batch_rows`` counts verl's padding."""
    actor = config.actor_rollout_ref.actor
    mini_rows = actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n
    return UpdateShape(
        prompts=actor.ppo_mini_batch_size,
        rows=mini_rows,
        num_mini_batches=batch_rows // mini_rows,
        ranks=ranks,
        micro_batch_rows=None if actor.use_dynamic_bsz else actor.ppo_micro_batch_size_per_gpu,
        loss_agg_mode=actor.loss_agg_mode,
        scale_factor=actor.loss_scale_factor or 1.0,
        norm_by_std=config.algorithm.get("norm_adv_by_std_in_grpo", True),
        padded=not config.actor_rollout_ref.model.get("use_remove_padding", False),
    )


def stock_mini_batches(all_keys: Sequence[str], keys: Sequence[str], shape: UpdateShape) -> list[int]:
    """The mini-batch in which verl would put every row: equal chunks to ranks, each cut into mini-batches.

    Args:
        all_keys: of the whole batch, verl's padding included, in dispatch order.
        keys: of the rows asked for.
        shape: verl's settings.
    """
    share, mini_share = len(all_keys) // shape.ranks, shape.rows // shape.ranks
    place = {key: position for position, key in enumerate(all_keys)}
    return [place[key] % share // mini_share for key in keys]


def place_update(
    partition: str, tags: Mapping[str, Tag], update: Update, pad_token: int, floats: placing.FloatTypes
) -> list[Placed]:
    """Put padding rows and RePO's own fields of every row into TransferQueue.

    Args:
        partition: TransferQueue partition.
        tags: of the fresh rows, by key.
        update: with a plan.
        pad_token: token id of padding rows.
        floats: the dtypes of verl's fields.

    Returns:
        key and tag of every row of the update, in dispatch order.
    """
    plan, fresh = update.plan, update.fresh
    assert plan is not None
    order, total, replayed = plan.layout.order, len(fresh.keys), update.replayed_rows
    blanks = [placing.padding_row(pad_token) for row in order if row < 0]
    pads = iter(zip(*placing.put_rows(partition, blanks, floats), strict=True))
    ordered = []
    for row in order:
        if row < 0:
            ordered.append(next(pads))
        else:
            ordered.append((fresh.keys[row], tags[fresh.keys[row]]) if row < total else replayed[row][0])
    numbers = [plan.layout.mini_batch_at(position) for position in range(len(order))]
    placing.mark_rows(
        partition,
        [key for key, _ in ordered],
        [PADDING if row < 0 else FRESH if row < total else REPLAYED for row in order],
        [float(plan.weights[row - total]) if row >= total else 0.0 for row in order],
        [plan.scales[number] for number in numbers],
        [plan.fresh_tokens[number] for number in numbers],
    )
    return ordered


def finish_update(
    batch: KVBatchMeta, update: Update, ordered: list[Placed], mixed: bool, floats: placing.FloatTypes
) -> KVBatchMeta:
    """Put what depends on verl's own fields, and give the update's batch.

    Args:
        batch: verl's, with advantages.
        update: with a plan.
        ordered: from :func:`place_update`.
        mixed: whether advantages depend on fresh and replayed rows together, so that they are put only now.
        floats: the dtypes of verl's fields.
    """
    assert update.plan is not None
    partition, total, order = batch.partition_id, len(update.fresh.keys), update.plan.layout.order
    replayed, blank = update.replayed_rows, torch.zeros(1)
    floats.learn(batch)
    floats.put_waiting(partition, [key for key, _ in ordered])
    optional = [name for name in placing.OPTIONAL_FIELDS if name in (batch.fields or ())]
    others = [i for i, row in enumerate(order) if not 0 <= row < total]
    placing.put_values(
        partition,
        [ordered[i][0] for i in others],
        [replayed[order[i]][1] if order[i] >= 0 else blank for i in others],
        {name: [placing.OPTIONAL_FIELDS[name]] * len(others) for name in optional},
        floats,
    )
    if mixed and replayed:
        values = update.plan.fresh_advantages.tolist()
        both = {"advantages": values, "returns": values}
        placing.put_values(partition, update.fresh.keys, update.fresh.masks, both, floats)
        again = {"advantages": [float(update.plan.replayed_advantages[row - total]) for row in replayed]}
        keys, masks = [at[0] for at, _ in replayed.values()], [mask for _, mask in replayed.values()]
        placing.put_values(partition, keys, masks, again, floats)
    return KVBatchMeta(
        partition_id=partition,
        keys=[key for key, _ in ordered],
        tags=[tag for _, tag in ordered],
        fields=[*placing.UPDATE_FIELDS, *optional],
        extra_info=batch.extra_info,
    )

"""verl's synchronous V1 trainer with replay.

A subclass that calls verl's methods and adds to them: rows are selected and planned once the fresh advantages are
there, one update runs over fresh and replayed rows, then the fresh rows enter the buffer.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from omegaconf import OmegaConf, open_dict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.debug import marked_timer
from verl.utils.seqlen_balancing import get_seqlen_balanced_partitions

from repo_verl import metrics as formulas
from repo_verl.config import RepoConfig
from repo_verl.replay import PromptReplayBuffer, Record
from repo_verl.trainer import checkpoint, estimator, rows
from repo_verl.trainer.checks import check_config, describe_objective
from repo_verl.trainer.fields import PADDING, REPLAYED, REPORT
from repo_verl.trainer.plan import UpdatePlan, UpdateShape, plan_update
from repo_verl.trainer.step_metrics import step_metrics
from repo_verl.trainer.worker_loss import repo_loss

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

CPU_POLL_INTERVAL = 0.1
"""Seconds between looks at verl's rollout queue on a CPU, where a step is shorter than verl's 2 s."""

TIMERS = ("repo_select", "repo_retrieve", "repo_insert")


class RepoTrainer(PPOTrainerSync):
    """verl's PPOTrainerSync with RePO's replay (arXiv 2506.09340).

    Args:
        config: verl's configuration with the block ``algorithm.repo``.

    Raises:
        RepoConfigError: for settings that RePO can't serve.
    """

    def __init__(self, config: Any) -> None:
        self.repo: RepoConfig = check_config(config)
        self.prompt_replay = PromptReplayBuffer.from_config(self.repo)
        self.effective_steps = 0
        self._fresh: rows.FreshRows | None = None
        estimator.serving = True
        super().__init__(config)
        logger.info(describe_objective(config, self.repo))

    def _build_replay_buffer(self) -> Any:
        queue = super()._build_replay_buffer()
        if self.config.trainer.device == "cpu":
            queue.poll_interval = CPU_POLL_INTERVAL
        return queue

    def _setup(self) -> None:
        super()._setup()
        actor = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
        self.actor_rollout_wg.set_loss_fn(partial(repo_loss, actor, self.repo.clip_ratio_c))

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.repo.active:
            batch = super()._compute_advantage(batch, metrics)
            rows.refuse_unsupported(batch)
            return batch
        with _estimator(self.config.algorithm, "grpo"):
            return super()._compute_advantage(batch, metrics)

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        for name in TIMERS:
            timing_raw.setdefault(name, 0.0)
        batch = super()._step_once(metrics, timing_raw, sample_batch_size)
        if self.repo.active:
            with marked_timer("repo_insert", timing_raw):
                self._insert(self._fresh if self._fresh is not None else rows.read_fresh(batch))
        self._fresh = None
        metrics.update({f"repo/buffer_{k}": v for k, v in self.prompt_replay.stats().items() if k != "prompts"})
        return batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        self._fresh = fresh = rows.read_fresh(batch)
        with marked_timer("repo_select", self.timing_raw):
            replayed = self._select(fresh)
        ages = [self.global_steps - record.step for _, record in replayed]
        uses = [record.uses for _, record in replayed]
        plan = self._plan(batch, fresh, replayed) if replayed else None
        with contextlib.ExitStack() as stack:
            merged = batch
            if plan is not None:
                with marked_timer("repo_retrieve", self.timing_raw):
                    merged, added = self._place(batch, fresh, replayed, plan)
                stack.callback(rows.clear_rows, batch.partition_id, added)
            calls = stack.enter_context(self._watched_update(plan.layout.mini_batch_rows if plan else None))
            super()._update_actor(merged, metrics)
        reports, grad_norms = calls
        self.effective_steps += formulas.count_effective(grad_norms)
        scores = [record.score for _, record in replayed]
        tokens = sum(fresh.lengths) + sum(fresh.prompt_ids[b].size + r.response_ids.size for b, r in replayed)
        metrics.update(step_metrics(fresh, [b for b, _ in replayed], scores, ages, uses, tokens, plan))
        worker = formulas.worker_metrics(reports, self._ranks())
        metrics.update({f"repo/{key}": value for key, value in worker.items()})
        metrics["repo/effective_steps"] = self.effective_steps
        return batch

    def _select(self, fresh: rows.FreshRows) -> list[tuple[int, Record]]:
        """The rows to replay, with the number of their prompt block; each block retrieves for itself."""
        if not self.repo.active:
            return []
        return [
            (block, record)
            for block, key in enumerate(fresh.prompt_keys)
            for record in self.prompt_replay.sample(key, self.global_steps)
        ]

    def _plan(self, batch: KVBatchMeta, fresh: rows.FreshRows, replayed: list[tuple[int, Record]]) -> UpdatePlan:
        prompt_lengths = [fresh.prompt_ids[block].size for block, _ in replayed]
        sizes = [record.response_ids.size for _, record in replayed]
        tokens = [int((mask != 0).sum()) for mask in fresh.masks] + [int(record.mask.sum()) for _, record in replayed]
        scores = torch.tensor([record.score for _, record in replayed], dtype=fresh.scores.dtype)
        return plan_update(
            self.repo,
            self._update_shape(len(batch)),
            fresh.blocks,
            fresh.lengths + [prompt + size for prompt, size in zip(prompt_lengths, sizes, strict=True)],
            tokens,
            torch.cat((fresh.scores, scores)),
            [block for block, _ in replayed],
            get_seqlen_balanced_partitions,
        )

    def _update_shape(self, batch_rows: int) -> UpdateShape:
        actor = self.config.actor_rollout_ref.actor
        mini_rows = actor.ppo_mini_batch_size * self.config.actor_rollout_ref.rollout.n
        return UpdateShape(
            prompts=actor.ppo_mini_batch_size,
            rows=mini_rows,
            num_mini_batches=batch_rows // mini_rows,
            ranks=self._ranks(),
            rows_multiple=1 if actor.use_dynamic_bsz else actor.ppo_micro_batch_size_per_gpu,
            loss_agg_mode=actor.loss_agg_mode,
            scale_factor=actor.loss_scale_factor or 1.0,
            norm_by_std=self.config.algorithm.get("norm_adv_by_std_in_grpo", True),
        )

    def _ranks(self) -> int:
        return int(max(self.actor_rollout_wg._dispatch_info["actor"])) + 1

    def _place(
        self, batch: KVBatchMeta, fresh: rows.FreshRows, replayed: list[tuple[int, Record]], plan: UpdatePlan
    ) -> tuple[KVBatchMeta, list[str]]:
        """Put replayed and padding rows beside the fresh ones; returns the update's batch and the added keys."""
        partition, layout = batch.partition_id, plan.layout
        optional = [name for name in ("rollout_is_weights", "ref_log_prob") if name in (batch.fields or ())]
        if self.repo.advantage == "mixed":
            rows.put_advantages(partition, fresh, plan.fresh_advantages)
        scales = [plan.scales[number] for number in plan.row_mini_batch]
        rows.mark_fresh(partition, fresh.keys, scales[: len(fresh.keys)])
        made = [
            rows.replayed_row(fresh.prompt_ids[block], record, float(advantage), optional)
            for (block, record), advantage in zip(replayed, plan.replayed_advantages, strict=True)
        ]
        keys, tags = rows.put_rows(partition, made, REPLAYED, plan.weights.tolist(), scales[len(fresh.keys) :])
        holes = [position for position, row in enumerate(layout.order) if row < 0]
        blank = [rows.padding_row(self.tokenizer.eos_token_id, optional) for _ in holes]
        blank_scales = [plan.scales[layout.mini_batch_at(position)] for position in holes]
        pad_keys, pad_tags = rows.put_rows(partition, blank, PADDING, [0.0] * len(holes), blank_scales)
        fresh_tags = dict(zip(batch.keys, batch.tags, strict=True))
        placed = [(key, fresh_tags[key]) for key in fresh.keys] + list(zip(keys, tags, strict=True))
        pads = iter(zip(pad_keys, pad_tags, strict=True))
        ordered = [placed[row] if row >= 0 else next(pads) for row in layout.order]
        merged = KVBatchMeta(
            partition_id=partition,
            keys=[key for key, _ in ordered],
            tags=[tag for _, tag in ordered],
            fields=[*rows.UPDATE_FIELDS, *optional],
            extra_info=batch.extra_info,
        )
        return merged, keys + pad_keys

    @contextlib.contextmanager
    def _watched_update(self, mini_batch_rows: int | None) -> Iterator[tuple[list[dict[str, float]], list[float]]]:
        """Around verl's update: set the rows of a mini-batch, and collect what the workers report of each.

        Yields:
            a list of RePO's sums and a list of gradient norms, one entry an optimizer step, filled by the call.
        """
        group, reports, grad_norms = self.actor_rollout_wg, [], []  # type: Any, list[dict[str, float]], list[float]
        stock = group.update_actor

        def update_actor(batch: KVBatchMeta) -> Any:
            if mini_batch_rows is not None:
                batch.extra_info["mini_batch_size"] = mini_batch_rows
            output = stock(batch)
            found = dict(output["metrics"])
            columns = {key: found.pop(key) for key in list(found) if key.startswith(REPORT)}
            names = [key.removeprefix(REPORT) for key in columns]
            reports.extend(dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True))
            grad_norms.extend(found["grad_norm"])
            tu.assign_non_tensor_data(output, "metrics", found)
            return output

        group.update_actor = update_actor
        try:
            yield reports, grad_norms
        finally:
            group.update_actor = stock

    def _insert(self, fresh: rows.FreshRows) -> None:
        for block, records in rows.to_records(fresh, self.global_steps).items():
            self.prompt_replay.add(fresh.prompt_keys[block], fresh.prompt_ids[block], records)

    def _save_checkpoint(self) -> None:
        folder = os.path.join(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}")
        extra = {"effective_steps": self.effective_steps, "fixed": self._fixed_settings()}
        checkpoint.save_state(folder, self.prompt_replay.state_dict(), extra)
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps == 0:
            return
        folder = self._checkpoint_folder()
        found = checkpoint.load_state(folder)
        if found is None:
            logger.warning("RePO: %s has no replay buffer, so it starts empty", folder)
            return
        state, extra = found
        self.effective_steps = int(extra["effective_steps"])
        if self.repo.active:
            checkpoint.refuse_other_settings(extra["fixed"], self._fixed_settings(), folder)
            self.prompt_replay.load_state_dict(state)
            logger.info("RePO: restored %d rows from %s", len(self.prompt_replay), folder)

    def _checkpoint_folder(self) -> str:
        trainer = self.config.trainer
        if trainer.resume_mode == "resume_path":
            return os.path.abspath(trainer.resume_from_path)
        return str(find_latest_ckpt_path(os.path.abspath(trainer.default_local_dir)))

    def _fixed_settings(self) -> dict[str, Any]:
        """What stored log-probs and scores depend on: the temperature and what computes rewards."""
        reward = OmegaConf.to_container(self.config.reward, resolve=True)
        model = reward.pop("reward_model", None) or {}
        reward.pop("num_workers", None)
        return {
            "actor_rollout_ref.rollout.temperature": self.config.actor_rollout_ref.rollout.temperature,
            **{f"reward.{key}": value for key, value in sorted(reward.items())},
            **{f"reward.reward_model.{key}": model.get(key) for key in ("enable", "model_path")},
        }


@contextlib.contextmanager
def _estimator(algorithm: Any, name: str) -> Iterator[None]:
    """Set ``adv_estimator`` for the duration of the block."""
    before = algorithm.adv_estimator
    with open_dict(algorithm):
        algorithm.adv_estimator = name
    try:
        yield
    finally:
        with open_dict(algorithm):
            algorithm.adv_estimator = before

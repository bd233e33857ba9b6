"""verl's V1 trainers with replay.

Subclasses that call verl's methods and add to them: rows to replay are read and put into TransferQueue while the
step's responses are generated, the update is planned as the old log-probs are computed, and the fresh rows enter the
buffer as the update runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass

from repo_verl import metrics as formulas
from repo_verl.config import RepoConfig
from repo_verl.replay import PromptReplayBuffer
from repo_verl.trainer import estimator, guards, identity, placing, rows, seam_check, texts
from repo_verl.trainer.buffer_watch import BufferWatch
from repo_verl.trainer.checkpoint import CheckpointKeeper
from repo_verl.trainer.limits import row_limits
from repo_verl.trainer.retrieval import Placed, Retrieval, chat_encoder, selection_advantages
from repo_verl.trainer.startup_warnings import (
    MEGATRON_NOTICE,
    describe_objective,
    find_date,
    find_doubts,
    pruning_obstacle,
)
from repo_verl.trainer.step_metrics import step_metrics
from repo_verl.trainer.storage import DistributedStore
from repo_verl.trainer.update import Prepared, Update, finish_update, place_update, plan_step, update_shape
from repo_verl.trainer.validation import check_config, refuse_experts
from repo_verl.trainer.worker_loss import repo_loss
from repo_verl.trainer.worker_update import watched_update
from repo_verl.verl_workarounds.logs import log_as_verl
from repo_verl.verl_workarounds.polling import poll_adaptively
from repo_verl.verl_workarounds.watch import Watch, watching

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

TIMERS = (
    *("repo_select", "repo_retrieve", "repo_place", "repo_insert"),
    *("repo_exposed", "repo_exposed_adv", "repo_exposed_update_actor"),
)


class ReplayTrainer(PPOTrainer):
    """RePO's replay (arXiv 2506.09340) for one of verl's trainers, which comes after it among a class's bases.

    Args:
        config: verl's configuration with the block ``algorithm.repo``.

    Raises:
        RepoConfigError: for settings that RePO can't serve.
    """

    asynchronous = False
    """Whether responses are generated beside the steps, so that older model versions may have written a row."""

    def __init__(self, config: Any) -> None:
        log_as_verl()
        seam_check.require_seams()
        self.repo: RepoConfig = check_config(config)
        settings = self.repo if self.repo.active else dataclasses.replace(self.repo, storage="host")
        self._row_store = DistributedStore(settings.storage_processes) if settings.storage == "distributed" else None
        self.prompt_replay = PromptReplayBuffer.from_config(settings, self._row_store)
        self.effective_steps = 0
        self._floats = placing.FloatTypes()
        self._background = ThreadPoolExecutor(1, thread_name_prefix="repo")
        self._planning: Future[Prepared]
        self._clearing: Future[None] | None = None
        self._watch: Watch | None = None
        self._stored, self._prompts, self._evicted = False, 0, 0
        estimator.serving = True
        super().__init__(config)
        logger.info(describe_objective(config, self.repo))
        seam_check.warn_untested()
        self._drift = guards.DriftWatch(self.repo)
        obstacle = pruning_obstacle(config)
        self._prune = self.repo.active and self.repo.prune and obstacle is None
        if self.repo.active and self.repo.prune and obstacle is not None:
            logger.info("RePO: pruning disabled: %s gives zero-advantage rows a gradient", obstacle)

    def fit(self, agent_loop_manager: Any) -> None:
        """Train; verl's loop."""
        ended = False
        try:
            with watching(self, agent_loop_manager) as self._watch:
                super().fit(agent_loop_manager)
            ended = True
        finally:
            self._background.shutdown(wait=ended, cancel_futures=not ended)
            if self._row_store is not None:
                self._row_store.close()

    def _build_replay_buffer(self) -> Any:
        queue = super()._build_replay_buffer()
        poll_adaptively(queue)
        return queue

    def _setup(self) -> None:
        if self.repo.active and self.config.actor_rollout_ref.actor.strategy == "megatron":
            refuse_experts(self.config, omega_conf_to_dataclass(self.config.actor_rollout_ref.model).hf_config)
            logger.warning(MEGATRON_NOTICE)
        super()._setup()
        template_values = self.config.data.get("apply_chat_template_kwargs", None)
        for doubt in self._doubts(template_values):
            logger.warning("RePO: %s", doubt)
        self.actor_rollout_wg.set_loss_fn(self._worker_loss())
        self._buffer_watch = BufferWatch(self.repo, self.steps_per_epoch * self.config.data.train_batch_size)
        encode = chat_encoder(self.tokenizer, template_values)
        advantages = self._replay_advantages()
        self._retrieval = Retrieval(self.prompt_replay, advantages, self._prune, encode, self._floats)

    def _doubts(self, template_values: Any) -> list[str]:
        if not self.repo.active:
            return []
        steps = min(self.total_training_steps, self.steps_per_epoch * self.config.trainer.total_epochs)
        found = find_doubts(self.repo, self.config.actor_rollout_ref.rollout.n, steps, self.steps_per_epoch)
        return [*found, *find_date(self.tokenizer.chat_template, template_values)]

    def _worker_loss(self) -> Any:
        actor = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
        on_nonfinite = self.repo.on_nonfinite if self.repo.active else None
        return partial(repo_loss, actor, self.repo.clip_ratio_c, on_nonfinite=on_nonfinite)

    def _replay_advantages(self) -> Any:
        if self.repo.advantage == "mixed":
            return None
        by_std = self.config.algorithm.get("norm_adv_by_std_in_grpo", True)
        return partial(selection_advantages, eps=self.repo.advantage_eps, norm_by_std=by_std)

    def _submit_batch_to_rollout(self, batch: TensorDict) -> int:
        submitted = super()._submit_batch_to_rollout(batch)
        if self.repo.active and not self.asynchronous:  # else the step that takes them is not known yet
            self._retrieval.expect(list(batch["uid"]), list(batch["raw_prompt"]))
        return int(submitted)

    def on_sample_begin(self) -> None:
        super().on_sample_begin()
        if self.repo.active and self._updates_actor():
            self._retrieval.ahead(self.global_steps)

    def on_step_end(self) -> None:
        super().on_step_end()
        if self._clearing is not None:
            self._clearing.result()

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        if self.repo.active and self.repo.on_nonfinite == "skip":
            with self._exposed():
                batch, metrics["repo/nonfinite_scores"] = rows.leave_out_nonfinite(batch)
        return super()._balance_batch(batch, metrics, *args, **kwargs)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.repo.active:
            with self._exposed("adv"):
                if self._updates_actor():
                    self._planning.result()  # what is wrong with a row is said there
            batch = super()._compute_advantage(batch, metrics)
            with self._exposed("adv"):
                rows.refuse_unsupported(batch, self.processor is not None)
            return batch
        with estimator.selected(self.config.algorithm, "grpo"):
            return super()._compute_advantage(batch, metrics)

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        for name in TIMERS:
            timing_raw.setdefault(name, 0.0)
        self._stored, self._prompts, self._evicted = False, sample_batch_size, 0
        batch = super()._step_once(metrics, timing_raw, sample_batch_size)
        with self._exposed():
            if self.repo.active and not self._stored:  # verl's critic warm-up: no update
                self._store(rows.read_fresh(batch), batch.partition_id)
            self._clearing = self._background.submit(placing.clear_rows, batch.partition_id, self._retrieval.drain())
            for name, seconds in self._retrieval.drain_seconds().items():
                timing_raw[f"repo_{name}"] += seconds
            stats = self.prompt_replay.stats()
            self._buffer_watch.look(stats, self._evicted)
            metrics.update({f"repo/buffer_{k}": v for k, v in stats.items() if k != "prompts"})
            metrics["repo/evicted_prompts"] = self._evicted
        return batch

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self._updates_actor():
            snapshot = KVBatchMeta(partition_id=batch.partition_id, keys=list(batch.keys), tags=list(batch.tags))
            self._planning = self._background.submit(self._prepare, snapshot)
        return super()._compute_old_log_prob(batch, metrics)

    def _prepare(self, batch: KVBatchMeta) -> Prepared:
        """Plan the update and put what it adds, as the old log-probs are computed."""
        begun = time.perf_counter()
        fresh = rows.read_fresh(batch)
        update, late = Update(fresh, [], None), 0
        if self.repo.active:
            bad = guards.not_finite(fresh.scores)
            guards.refuse_scores([rows.describe_row(fresh, row, self.tokenizer) for row in bad], self.global_steps)
            retrieved, late = self._retrieval.take(fresh, self.global_steps)
            shape = update_shape(self.config, len(batch), self._ranks())
            update = plan_step(self.repo, shape, self._prune, batch.keys, fresh, retrieved)
        ordered: list[Placed] = []
        if update.plan is not None:
            tags = dict(zip(batch.keys, batch.tags, strict=True))
            ordered = place_update(batch.partition_id, tags, update, self.tokenizer.eos_token_id, self._floats)
        self.timing_raw["repo_place"] += time.perf_counter() - begun
        return Prepared(update, ordered, late)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        with self._exposed("update_actor"):
            prepared, merged = self._planning.result(), batch
            del self._planning
            update = prepared.update
            if update.plan is not None:
                mixed = self.repo.advantage == "mixed"
                merged = finish_update(batch, update, prepared.ordered, mixed, self._floats)
                self._retrieval.discard(merged.keys)
            storing = self._background.submit(self._store, update.fresh, batch.partition_id)
        try:
            layout = update.plan.layout if update.plan else None
            with watched_update(self.actor_rollout_wg, layout) as (reports, grad_norms):
                super()._update_actor(merged, metrics)
        finally:
            with self._exposed("update_actor"):
                statuses = storing.result()
        with self._exposed("update_actor"):
            self._log_update(prepared, statuses, reports, grad_norms, metrics)
        return batch

    def _store(self, fresh: rows.FreshRows, partition: str) -> list[str]:
        """Insert the fresh rows into the buffer, as the update runs; returns how their rewards came about."""
        begun = time.perf_counter()
        if self.repo.active and self.asynchronous:
            kept, written = texts.read_versioned_texts(partition, fresh, self.global_steps)
        else:
            kept, written = texts.read_texts(partition, fresh.keys), None
        if self.repo.active:
            skip = self.repo.on_nonfinite == "skip"
            rows_by_prompt = texts.to_records(fresh, kept, self.global_steps, skip, written)
            self._evicted = self.prompt_replay.add_batch(rows_by_prompt)
        self._stored = True
        self.timing_raw["repo_insert"] += time.perf_counter() - begun
        return kept.statuses

    def _log_update(
        self,
        prepared: Prepared,
        statuses: list[str],
        reports: list[dict[str, float]],
        grad_norms: list[float],
        metrics: dict,
    ) -> None:
        update = prepared.update
        self.effective_steps += formulas.count_effective(grad_norms)
        metrics.update(step_metrics(update, self.global_steps, statuses))
        mini_batches = update.plan.layout.num_mini_batches if update.plan else len(reports)
        pruned = [tokens * (len(reports) // mini_batches) for tokens in update.pruned_tokens]
        if update.plan is not None and not all(update.plan.kept):
            metrics.pop("actor/entropy_loss", None)  # a sum over kept rows by the count of all rows means nothing
        worker = formulas.worker_metrics(reports, self._ranks(), *pruned)
        metrics.update({f"repo/{key}": value for key, value in worker.items()})
        metrics.setdefault("repo/nonfinite_scores", 0)
        skipped = formulas.count_skipped(grad_norms)
        metrics["repo/nonfinite_steps"] = skipped
        if self.repo.active and self.repo.on_nonfinite == "stop":
            guards.refuse_skipped(skipped, self.global_steps)
        metrics["repo/late_rows"] = prepared.late
        expected = self._prompts * self.config.actor_rollout_ref.rollout.n
        missing = max(0, expected - len(update.fresh.keys) - int(metrics["repo/nonfinite_scores"]))
        metrics["repo/missing_rows"] = missing
        guards.warn_missing(missing, expected, self.global_steps)
        self._drift.look(self.global_steps, worker)
        metrics["repo/effective_steps"] = self.effective_steps

    @contextlib.contextmanager
    def _exposed(self, within: str = "") -> Iterator[None]:
        """Count the block as RePO's own work that nothing runs beside; ``within`` is verl's timer around it, if any."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            for name in ("repo_exposed", f"repo_exposed_{within}") if within else ("repo_exposed",):
                self.timing_raw[name] = self.timing_raw.get(name, 0.0) + seconds

    def _updates_actor(self) -> bool:
        return bool(self.config.trainer.critic_warmup <= self.global_steps)

    def _ranks(self) -> int:
        return int(max(self.actor_rollout_wg._dispatch_info["actor"])) + 1

    def _save_checkpoint(self) -> None:
        if self.asynchronous and self._clearing is not None:
            self._clearing.result()  # verl saves TransferQueue with all that is in it
        quiet = self._watch.undisturbed() if self._watch else contextlib.nullcontext()
        keeping = self._keeper.saving(
            self.global_steps, self.effective_steps, self.prompt_replay, self.actor_rollout_wg
        )
        with quiet, keeping:
            super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        saved = self.repo.active and self.repo.persist
        known = identity.of_run(self.config, self.tokenizer, self.train_dataset) if saved else {}
        sampling = identity.sampling_settings(self.config) if self.asynchronous else None
        limits = row_limits(self.config)
        self._keeper = CheckpointKeeper(self.config.trainer, self.repo, known, sampling, limits)
        folder = self._keeper.find()
        super()._load_checkpoint()
        if folder is not None:
            self.effective_steps = self._keeper.restore(folder, self.prompt_replay)


class RepoTrainer(ReplayTrainer, PPOTrainerSync):
    """verl's PPOTrainerSync with replay; the arguments and errors are those of :class:`ReplayTrainer`."""


class RepoColocateAsyncTrainer(ReplayTrainer, PPOTrainerColocateAsync):
    """verl's PPOTrainerColocateAsync with replay; the arguments and errors are those of :class:`ReplayTrainer`."""

    asynchronous = True


TRAINERS = {"sync": RepoTrainer, "colocate_async": RepoColocateAsyncTrainer}
"""RePO's trainer for each ``trainer.v1.trainer_mode`` that it serves."""

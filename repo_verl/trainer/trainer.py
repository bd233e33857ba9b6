"""verl's V1 trainers with replay: hooks that call verl's methods and add to them.

A step: generate -> score -> [old log-probs || choose, plan, read and put what is replayed] -> advantages ->
[one update || insert the fresh rows into the buffer] -> clear.
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

import torch
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass

from repo_verl import metrics as formulas
from repo_verl.config import RepoConfig
from repo_verl.replay import PromptReplayBuffer
from repo_verl.trainer import estimator, guards, identity, queue_rows, retrieval, rollouts, run_warnings, seams
from repo_verl.trainer.checkpoint import CheckpointKeeper, row_limits
from repo_verl.trainer.minibatches import UpdateShape
from repo_verl.trainer.queue_rows import QueuedUpdate
from repo_verl.trainer.retrieval import Update
from repo_verl.trainer.storage import DistributedStore
from repo_verl.trainer.validation import check_config, refuse_experts
from repo_verl.trainer.worker_loss import repo_loss, watched_update
from repo_verl.verl_workarounds.driver import log_as_verl, poll_adaptively
from repo_verl.verl_workarounds.watch import Watch, watching

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

TIMERS = (
    *("repo_select", "repo_retrieve", "repo_place", "repo_insert"),
    *("repo_exposed", "repo_exposed_adv", "repo_exposed_update_actor"),
)

Prepared = tuple[Update, QueuedUpdate | None]  # no second one where verl's batch is left as it is


class ReplayTrainer(PPOTrainer):
    """RePO's replay (arXiv 2506.09340) for one of verl's trainers, which comes after it among a class's bases.

    Made with verl's configuration, which has the block ``algorithm.repo``; RepoConfigError for one it can't serve.
    """

    # True: responses are generated beside the steps, so older model versions may have written rows
    asynchronous = False

    def __init__(self, config: Any) -> None:
        log_as_verl()
        seams.require_seams()
        self.repo: RepoConfig = check_config(config)
        settings = self.repo if self.repo.active else dataclasses.replace(self.repo, storage="host")
        self._row_store = DistributedStore(settings.storage_processes) if settings.storage == "distributed" else None
        self.prompt_replay = PromptReplayBuffer.from_config(settings, self._row_store)
        self.effective_steps = 0
        self._dtypes: dict[str, torch.dtype] = {}
        self._background = ThreadPoolExecutor(1, thread_name_prefix="repo")
        self._prepared: Future[Prepared]
        self._clearing: Future[None] | None = None
        self._watch: Watch | None = None
        self._prompts, self._evicted = 0, 0
        super().__init__(config)
        logger.info(run_warnings.describe_objective(config, self.repo))
        seams.warn_untested()
        self._drift = run_warnings.DriftWatch(self.repo)
        obstacle = run_warnings.pruning_obstacle(config)
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
            logger.warning(run_warnings.MEGATRON_NOTICE)
        super()._setup()
        self._warn_of_settings()
        self.actor_rollout_wg.set_loss_fn(self._worker_loss())
        epoch = self.steps_per_epoch * self.config.data.train_batch_size
        self._buffer_watch = run_warnings.BufferWatch(self.repo, epoch)

    def _warn_of_settings(self) -> None:
        if not self.repo.active:
            return
        steps = min(self.total_training_steps, self.steps_per_epoch * self.config.trainer.total_epochs)
        given = self.config.data.get("apply_chat_template_kwargs", None)
        responses = self.config.actor_rollout_ref.rollout.n
        schedule = run_warnings.find_doubts(self.repo, responses, steps, self.steps_per_epoch)
        for doubt in (*schedule, *run_warnings.find_date(self.tokenizer.chat_template, given)):
            logger.warning("RePO: %s", doubt)

    def _worker_loss(self) -> Any:
        actor = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
        on_nonfinite = self.repo.on_nonfinite if self.repo.active else None
        return partial(repo_loss, actor, self.repo.clip_ratio_c, on_nonfinite=on_nonfinite)

    def on_step_end(self) -> None:
        super().on_step_end()
        if self._clearing is not None:
            self._clearing.result()

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        if self.repo.active and self.repo.on_nonfinite == "skip":
            with self._timed("repo_exposed"):
                batch, metrics["repo/nonfinite_scores"] = queue_rows.leave_out_nonfinite(batch)
        return super()._balance_batch(batch, metrics, *args, **kwargs)

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        for name in TIMERS:
            timing_raw.setdefault(name, 0.0)
        self._prompts, self._evicted = sample_batch_size, 0
        batch = super()._step_once(metrics, timing_raw, sample_batch_size)
        with self._timed("repo_exposed"):
            if self._prepares():
                update, queued = self._prepared.result()
                del self._prepared
                if not self._updates_actor():  # verl's critic warm-up
                    self._store(update.fresh, batch.partition_id)
                added = [] if queued is None else list(queued.added)
                self._clearing = self._background.submit(queue_rows.clear_rows, batch.partition_id, added)
            stats = self.prompt_replay.stats()
            self._buffer_watch.look(stats, self._evicted)
            metrics.update({f"repo/buffer_{k}": v for k, v in stats.items() if k != "prompts"})
            metrics["repo/evicted_prompts"] = self._evicted
        return batch

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self._prepares():
            snapshot = KVBatchMeta(partition_id=batch.partition_id, keys=list(batch.keys), tags=list(batch.tags))
            self._prepared = self._background.submit(self._prepare, snapshot)
        return super()._compute_old_log_prob(batch, metrics)

    def _prepare(self, batch: KVBatchMeta) -> Prepared:
        """Choose what is replayed, plan the update and put its rows, beside the old log-probs."""
        with self._timed("repo_place"):
            fresh = rollouts.read_fresh(batch)
            if self.repo.active:
                guards.refuse_scores(fresh.list_nonfinite(self.tokenizer), self.global_steps)
            shape = UpdateShape.of(self.config, len(batch), self._ranks())
            if not (self.repo.active and self._updates_actor()):
                return retrieval.without_replay(self.repo, shape, fresh), None
            with self._timed("repo_select", taken_off="repo_place"):
                selections = retrieval.choose_rows(self.prompt_replay, fresh, self.global_steps)
            update = retrieval.plan_step(self.repo, shape, self._prune, batch.keys, fresh, selections)
            if update.plan is None:
                return update, None
            queued = QueuedUpdate(batch.partition_id, update, self._dtypes)
            with self._timed("repo_retrieve", taken_off="repo_place"):
                for group in retrieval.read_kept(self.prompt_replay, update):
                    queued.put_replayed(group)
            queued.put_padding_and_fields(self.tokenizer.eos_token_id)
            return update, queued

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if not self.repo.active:
            with estimator.selected(self.config.algorithm, "grpo"):
                return super()._compute_advantage(batch, metrics)
        with self._timed("repo_exposed", "repo_exposed_adv"):
            update, _ = self._prepared.result()  # what is wrong with a row is said there
        with estimator.handing(batch.keys, update.fresh.keys, update.fresh_advantages):
            batch = super()._compute_advantage(batch, metrics)
        with self._timed("repo_exposed", "repo_exposed_adv"):
            rollouts.refuse_unsupported(batch, self.processor is not None)
        return batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        exposed = ("repo_exposed", "repo_exposed_update_actor")
        with self._timed(*exposed):
            update, queued = self._prepared.result()
            merged = batch if queued is None else queued.make_batch(batch)
            storing = self._background.submit(self._store, update.fresh, batch.partition_id)
        try:
            layout = update.plan.layout if update.plan else None
            with watched_update(self.actor_rollout_wg, layout) as (reports, grad_norms):
                super()._update_actor(merged, metrics)
        finally:
            with self._timed(*exposed):
                storing.result()
        with self._timed(*exposed):
            self._log_update(update, reports, grad_norms, metrics)
        return batch

    def _store(self, fresh: rollouts.FreshRows, partition: str) -> None:
        """Insert the fresh rows into the buffer, as the update runs."""
        if self.repo.active:
            with self._timed("repo_insert"):
                behavior = rollouts.read_behavior(partition, fresh, self.global_steps, self.asynchronous)
                skip = self.repo.on_nonfinite == "skip"
                records = rollouts.to_records(fresh, behavior, self.global_steps, skip)
                self._evicted = self.prompt_replay.add_batch(records)

    def _log_update(
        self, update: Update, reports: list[dict[str, float]], grad_norms: list[float], metrics: dict
    ) -> None:
        step, skipped_scores = self.global_steps, int(metrics.setdefault("repo/nonfinite_scores", 0))
        found = retrieval.step_metrics(update, step, reports, grad_norms, self._ranks())
        metrics.update({f"repo/{key}": value for key, value in found.items()})
        if found["pruned_rows"]:
            metrics.pop("actor/entropy_loss", None)  # a sum over kept rows by the count of all rows means nothing
        self.effective_steps += formulas.count_effective(grad_norms)
        metrics["repo/effective_steps"] = self.effective_steps
        expected = self._prompts * self.config.actor_rollout_ref.rollout.n
        missing = max(0, expected - len(update.fresh.keys) - skipped_scores)
        metrics["repo/missing_rows"] = missing
        run_warnings.warn_missing(missing, expected, step)
        if self.repo.active and self.repo.on_nonfinite == "stop":
            guards.refuse_skipped(int(found["nonfinite_steps"]), step)
        self._drift.look(step, found)

    @contextlib.contextmanager
    def _timed(self, *timers: str, taken_off: str = "") -> Iterator[None]:
        """Count the block's seconds under timers of RePO's, and take them off the one that the block lies in.

        ``repo_exposed`` is RePO's own work that nothing runs beside; ``repo_exposed_x`` is its part in verl's timer x.
        """
        begun = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            for name in timers:
                self.timing_raw[name] += seconds
            if taken_off:
                self.timing_raw[taken_off] -= seconds

    def _prepares(self) -> bool:
        return self.repo.active or self._updates_actor()

    def _updates_actor(self) -> bool:
        return bool(self.config.trainer.critic_warmup <= self.global_steps)

    def _ranks(self) -> int:
        return int(max(self.actor_rollout_wg._dispatch_info["actor"])) + 1

    def _save_checkpoint(self) -> None:
        if self.asynchronous and self._clearing is not None:
            self._clearing.result()  # verl saves TransferQueue with all that is in it
        quiet = self._watch.undisturbed() if self._watch else contextlib.nullcontext()
        state = self.global_steps, self.effective_steps, self.prompt_replay
        with quiet, self._keeper.saving(*state, self.actor_rollout_wg):
            super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        saved = self.repo.active and self.repo.persist
        known = identity.of_run(self.config, self.tokenizer, self.train_dataset) if saved else {}
        sampling = identity.sampling_settings(self.config) if self.asynchronous else None
        self._keeper = CheckpointKeeper(self.config.trainer, self.repo, known, sampling, row_limits(self.config))
        folder = self._keeper.find()
        super()._load_checkpoint()
        if folder is not None:
            self.effective_steps = self._keeper.restore(folder, self.prompt_replay)


class RepoTrainer(ReplayTrainer, PPOTrainerSync):
    """verl's PPOTrainerSync with replay."""


class RepoColocateAsyncTrainer(ReplayTrainer, PPOTrainerColocateAsync):
    """verl's PPOTrainerColocateAsync with replay."""

    asynchronous = True


TRAINERS = {"sync": RepoTrainer, "colocate_async": RepoColocateAsyncTrainer}  # by trainer.v1.trainer_mode

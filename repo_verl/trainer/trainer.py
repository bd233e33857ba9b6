"""verl's synchronous V1 trainer with replay.

A subclass that calls verl's methods and adds to them: rows to replay are read and put into TransferQueue while the
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

from omegaconf import open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass

from repo_verl import metrics as formulas
from repo_verl.config import RepoConfig
from repo_verl.replay import PromptReplayBuffer
from repo_verl.trainer import checkpoint, estimator, placing, rows
from repo_verl.trainer.checks import check_config, describe_objective, pruning_obstacle
from repo_verl.trainer.fields import REPORT
from repo_verl.trainer.layout import Layout
from repo_verl.trainer.logs import log_as_verl
from repo_verl.trainer.polling import poll_adaptively
from repo_verl.trainer.retrieval import Placed, Retrieval, chat_encoder, selection_advantages
from repo_verl.trainer.step_metrics import step_metrics
from repo_verl.trainer.storage import DistributedStore
from repo_verl.trainer.update import Prepared, Update, finish_update, place_update, plan_step, update_shape
from repo_verl.trainer.watch import watching
from repo_verl.trainer.worker_loss import repo_loss

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

TIMERS = ("repo_select", "repo_retrieve", "repo_place", "repo_insert", "repo_exposed")


class RepoTrainer(PPOTrainerSync):
    """verl's PPOTrainerSync with RePO's replay (arXiv 2506.09340).

    Args:
        config: verl's configuration with the block ``algorithm.repo``.

    Raises:
        RepoConfigError: for settings that RePO can't serve.
    """

    def __init__(self, config: Any) -> None:
        log_as_verl()
        self.repo: RepoConfig = check_config(config)
        settings = self.repo if self.repo.active else dataclasses.replace(self.repo, storage="host")
        self._row_store = DistributedStore(settings.storage_processes) if settings.storage == "distributed" else None
        self.prompt_replay = PromptReplayBuffer.from_config(settings, self._row_store)
        self.effective_steps = 0
        self._background = ThreadPoolExecutor(1, thread_name_prefix="repo")
        self._planning: Future[Prepared]
        self._clearing: Future[None] | None = None
        self._stored = False
        estimator.serving = True
        super().__init__(config)
        logger.info(describe_objective(config, self.repo))
        obstacle = pruning_obstacle(config)
        self._prune = self.repo.active and self.repo.prune and obstacle is None
        if self.repo.active and self.repo.prune and obstacle is not None:
            logger.info("RePO: prune is off, since rows of zero advantage have a gradient with %s", obstacle)

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
        super()._setup()
        actor = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
        self.actor_rollout_wg.set_loss_fn(partial(repo_loss, actor, self.repo.clip_ratio_c))
        encode = chat_encoder(self.tokenizer, self.config.data.get("apply_chat_template_kwargs", None))
        self._retrieval = Retrieval(self.prompt_replay, self._replay_advantages(), self._prune, encode)

    def _replay_advantages(self) -> Any:
        if self.repo.advantage == "mixed":
            return None
        by_std = self.config.algorithm.get("norm_adv_by_std_in_grpo", True)
        return partial(selection_advantages, eps=self.repo.advantage_eps, norm_by_std=by_std)

    def _submit_batch_to_rollout(self, batch: TensorDict) -> int:
        submitted = super()._submit_batch_to_rollout(batch)
        if self.repo.active:
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

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.repo.active:
            batch = super()._compute_advantage(batch, metrics)
            with self._exposed():
                rows.refuse_unsupported(batch, self.processor is not None)
            return batch
        with _estimator(self.config.algorithm, "grpo"):
            return super()._compute_advantage(batch, metrics)

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        for name in TIMERS:
            timing_raw.setdefault(name, 0.0)
        self._stored = False
        batch = super()._step_once(metrics, timing_raw, sample_batch_size)
        with self._exposed():
            if self.repo.active and not self._stored:  # verl's critic warm-up: no update
                self._store(rows.read_fresh(batch), batch.partition_id)
            self._clearing = self._background.submit(placing.clear_rows, batch.partition_id, self._retrieval.drain())
            for name, seconds in self._retrieval.drain_seconds().items():
                timing_raw[f"repo_{name}"] += seconds
            metrics.update({f"repo/buffer_{k}": v for k, v in self.prompt_replay.stats().items() if k != "prompts"})
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
            retrieved, late = self._retrieval.take(fresh, self.global_steps)
            shape = update_shape(self.config, len(batch), self._ranks())
            update = plan_step(self.repo, shape, self._prune, batch.keys, fresh, retrieved)
        ordered: list[Placed] = []
        if update.plan is not None:
            tags = dict(zip(batch.keys, batch.tags, strict=True))
            ordered = place_update(batch.partition_id, tags, update, self.tokenizer.eos_token_id)
        self.timing_raw["repo_place"] += time.perf_counter() - begun
        return Prepared(update, ordered, late)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        with self._exposed():
            prepared, merged = self._planning.result(), batch
            del self._planning
            update = prepared.update
            if update.plan is not None:
                merged = finish_update(batch, update, prepared.ordered, self.repo.advantage == "mixed")
                self._retrieval.discard(merged.keys)
            storing = self._background.submit(self._store, update.fresh, batch.partition_id)
        try:
            with self._watched_update(update.plan.layout if update.plan else None) as (reports, grad_norms):
                super()._update_actor(merged, metrics)
        finally:
            with self._exposed():
                statuses = storing.result()
        with self._exposed():
            self._log_update(prepared, statuses, reports, grad_norms, metrics)
        return batch

    def _store(self, fresh: rows.FreshRows, partition: str) -> list[str]:
        """Insert the fresh rows into the buffer, as the update runs; returns how their rewards came about."""
        begun = time.perf_counter()
        texts = rows.read_texts(partition, fresh.keys)
        if self.repo.active:
            self.prompt_replay.add_batch(rows.to_records(fresh, texts, self.global_steps))
        self._stored = True
        self.timing_raw["repo_insert"] += time.perf_counter() - begun
        return texts.statuses

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
        metrics["repo/late_rows"] = prepared.late
        metrics["repo/effective_steps"] = self.effective_steps

    @contextlib.contextmanager
    def _exposed(self) -> Iterator[None]:
        """Count the block as RePO's own work that nothing runs beside."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.timing_raw["repo_exposed"] = self.timing_raw.get("repo_exposed", 0.0) + time.perf_counter() - begun

    def _updates_actor(self) -> bool:
        return bool(self.config.trainer.critic_warmup <= self.global_steps)

    def _ranks(self) -> int:
        return int(max(self.actor_rollout_wg._dispatch_info["actor"])) + 1

    @contextlib.contextmanager
    def _watched_update(self, layout: Layout | None) -> Iterator[tuple[list[dict[str, float]], list[float]]]:
        """Around verl's update: set the rows of mini- and micro-batches, and collect what the workers report.

        Yields:
            a list of RePO's sums and a list of gradient norms, one entry an optimizer step, filled by the call.
        """
        group, reports, grad_norms = self.actor_rollout_wg, [], []  # type: Any, list[dict[str, float]], list[float]
        stock = group.update_actor

        def update_actor(batch: KVBatchMeta) -> Any:
            if layout is not None:
                batch.extra_info["mini_batch_size"] = layout.mini_batch_rows
                if layout.micro_batch_rows is not None:
                    batch.extra_info["micro_batch_size_per_gpu"] = layout.micro_batch_rows
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

    def _save_checkpoint(self) -> None:
        with self._watch.undisturbed():
            self._save_all()

    def _save_all(self) -> None:
        folder = os.path.join(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}")
        extra = {"effective_steps": self.effective_steps, "fixed": checkpoint.fixed_settings(self.config)}
        checkpoint.save_state(folder, self.prompt_replay.state_dict(), extra)
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps == 0:
            return
        folder = checkpoint.step_folder(self.config.trainer)
        found = checkpoint.load_state(folder)
        if found is None:
            logger.warning("RePO: %s has no replay buffer, so it starts empty", folder)
            return
        state, extra = found
        self.effective_steps = int(extra["effective_steps"])
        if self.repo.active:
            checkpoint.refuse_other_settings(extra["fixed"], checkpoint.fixed_settings(self.config), folder)
            self.prompt_replay.load_state_dict(state)
            logger.info("RePO: restored %d rows from %s", len(self.prompt_replay), folder)


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

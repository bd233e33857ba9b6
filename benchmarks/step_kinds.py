"""Makes one run of RePO's trainer alternate steps of several kinds; used by step_ratio.py.

verl imports this module in every process (``VERL_USE_EXTERNAL_MODULES``). ``REPO_STEP_KINDS`` names the kind of every
step, separated by commas:

    grpo_stock    verl's own trainer: its update, its poll of 2 s
    repo_stock    replay without pruning, verl's poll of 2 s
    grpo_pruned   no replay, pruning and our poll (``algorithm.repo.start_step`` never reached)
    repo          RePO's defaults: replay, pruning, our poll
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from repo_verl.plugin import when_imported

STOCK_POLL = 2.0
NEVER = 10**9


def _alternate(module: Any) -> None:
    trainer_class, stock = module.RepoTrainer, module.PPOTrainerSync
    kinds = os.environ["REPO_STEP_KINDS"].split(",")
    ours = {name: getattr(trainer_class, name) for name in ("_build_replay_buffer", "on_train_begin", "_update_actor")}
    names = ("_step_once", "_compute_metrics", "_compute_advantage", "_compute_old_log_prob")
    measured = {name: getattr(trainer_class, name) for name in names}

    def build_queue(self: Any) -> Any:
        queue = ours["_build_replay_buffer"](self)
        self.adaptive = {name: queue.__dict__[name] for name in ("sample", "_sync_metadata_from_transfer_queue")}
        return queue

    def turn_to(self: Any, step: int) -> None:
        self.kind = kinds[step - 1] if step <= len(kinds) else kinds[-1]
        queue = self.replay_buffer
        for name, method in self.adaptive.items():
            queue.__dict__.pop(name, None)
            if not self.kind.endswith("stock"):
                queue.__dict__[name] = method
        queue.poll_interval = STOCK_POLL
        prune = not self.kind.endswith("stock")
        self._prune = prune
        start = NEVER if self.kind.startswith("grpo") else 0
        buffer = self.prompt_replay
        buffer._config = dataclasses.replace(buffer._config, start_step=start)

    def on_train_begin(self: Any) -> None:
        ours["on_train_begin"](self)
        turn_to(self, self.global_steps)

    def compute_metrics(self: Any, batch: Any, metrics: dict, *args: Any, **kwargs: Any) -> Any:
        metrics["step_kind"] = self.kind
        measured["_compute_metrics"](self, batch, metrics, *args, **kwargs)
        turn_to(self, self.global_steps + 1)

    def either(name: str) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.kind == "grpo_stock":
                if name == "_compute_advantage":
                    with module.estimator.selected(self.config.algorithm, "grpo"):
                        return stock._compute_advantage(self, *args, **kwargs)
                return getattr(stock, name)(self, *args, **kwargs)
            return {**ours, **measured}[name](self, *args, **kwargs)

        return method

    trainer_class._build_replay_buffer = build_queue
    trainer_class.on_train_begin = on_train_begin
    trainer_class._compute_metrics = compute_metrics
    for name in ("_step_once", "_update_actor", "_compute_advantage", "_compute_old_log_prob"):
        setattr(trainer_class, name, either(name))
    trainer_class.on_step_end = _unless_stock(trainer_class.on_step_end, stock.on_step_end)


def _unless_stock(ours: Any, stock: Any) -> Any:
    def method(self: Any) -> Any:
        return (stock if self.kind == "grpo_stock" else ours)(self)

    return method


when_imported("repo_verl.trainer.trainer", _alternate)

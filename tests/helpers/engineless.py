"""Steps of verl's trainer on a real TransferQueue, in this process, without an engine: no worker, no vLLM.

verl's own methods run (sampling, balance, old log-probs, advantages, update); the responses and the log-probs of the
"forward pass" are what a test says, and of the update there is only what its batch holds.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transfer_queue as tq
from recorded_run import NoReplicas, compose
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

Row = dict[str, Any]
"""A response: ``ids``, ``log_probs``, ``score``, and ``mask`` where it is not all ones."""

REPORTS = (
    "fresh_tokens fresh_clipped_low fresh_clipped_high rows tokens ratio_sum ratio_max clipped_low clipped_high "
    "weight_sum weight_square_sum gradient_square_sum loss_replayed loss_fresh nonfinite_rows"
).split()


@contextlib.contextmanager
def transfer_queue() -> Iterator[None]:
    """A Ray and a TransferQueue of one storage unit."""
    import ray
    from omegaconf import OmegaConf

    ray.init(address="local", num_cpus=2, object_store_memory=200 * 2**20, include_dashboard=False, log_to_driver=False)
    tq.init(OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}}))
    try:
        yield
    finally:
        tq.close()
        ray.shutdown()


def nested(rows: Any) -> torch.Tensor:
    """A jagged tensor."""
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)


class Responses:
    """Stands in for verl's agent loop manager: puts the rows of ``said`` (by the prompt's text) where vLLM's go."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.said: dict[str, list[Row]] = {}

    def generate_sequences(self, batch: TensorDict) -> None:
        """What verl's agent loop puts for these rows, in the order in which they are listed."""
        step = int(batch["global_steps"])
        for uid, messages in zip(batch["uid"], batch["raw_prompt"], strict=True):
            messages = list(getattr(messages, "data", messages))
            prompt = torch.tensor(
                self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            )
            keys, fields, tags = [], [], []
            for number, row in enumerate(self.said[messages[0]["content"]]):
                ids = torch.tensor(row["ids"])
                mask = torch.tensor(row.get("mask", [1] * len(ids)))
                scores = torch.zeros(len(ids))
                scores[-1] = row["score"]
                keys.append(f"{uid}_{number}_0")
                fields.append(
                    {
                        "prompts": prompt, "responses": ids, "response_mask": mask, "loss_mask": mask,
                        "input_ids": torch.cat((prompt, ids)), "position_ids": torch.arange(len(prompt) + len(ids)),
                        "rollout_log_probs": torch.tensor(row["log_probs"]), "rm_scores": scores, "num_turns": 2,
                        "uid": uid, "multi_modal_inputs": {}, "extra_fields": {"reward_extra_info": {}},
                    }
                )  # fmt: skip
                size = {"prompt_len": len(prompt), "response_len": len(ids)}
                tags.append(
                    {
                        **size, "seq_len": sum(size.values()), "status": "success", "global_steps": step,
                        "min_global_steps": step - 1, "max_global_steps": step - 1,
                    }
                )  # fmt: skip
            if keys:
                data = tu.list_of_dict_to_tensordict(fields)
                tq.kv_batch_put(keys=keys, partition_id="train", fields=data, tags=tags)
            tq.kv_batch_put(keys=[uid], partition_id="train", tags=[{"is_prompt": True, "status": "finished"}])


class Workers:
    """Stands in for verl's actor workers.

    Args:
        ranks: data-parallel size.
        dtype: of the forward pass's log-probs, which are the rows' ``rollout_log_probs`` rounded to it.
    """

    def __init__(self, ranks: int, dtype: torch.dtype) -> None:
        self._dispatch_info = {"actor": list(range(ranks))}
        self.dtype = dtype
        self.updates: list[list[Row]] = []

    def set_loss_fn(self, loss: Callable) -> None: ...

    def compute_log_prob(self, batch: KVBatchMeta) -> KVBatchMeta:
        """Put what the forward pass gives: a log-prob a position, that of a token one before it."""
        names = ["prompts", "rollout_log_probs"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=names)
        whole = []
        for prompt, values in zip(data["prompts"].unbind(), data["rollout_log_probs"].unbind(), strict=True):
            whole.append(torch.cat((torch.zeros(len(prompt) - 1), values, torch.zeros(1))).to(self.dtype))
        fields = {"log_probs": nested(whole), "entropy": nested(torch.ones_like(row) for row in whole)}
        return tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(whole))
        )

    compute_ref_log_prob = compute_log_prob

    def update_actor(self, batch: KVBatchMeta) -> TensorDict:
        """Keep the rows of the update, in dispatch order, as the workers fetch them."""
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=batch.fields)
        tensors = {name: data[name] for name in data.keys() if isinstance(data[name], torch.Tensor)}
        for name, column in tensors.items():  # TransferQueue falls back to another layout where dtypes are mixed
            assert not column.is_nested or column.layout == torch.jagged, f"{name} is no jagged tensor"
        columns = {name: column.unbind() for name, column in tensors.items()}
        rows = [{"key": key, **{n: column[i] for n, column in columns.items()}} for i, key in enumerate(batch.keys)]
        self.updates.append(rows)
        steps = len(rows) // batch.extra_info["mini_batch_size"]
        zeros = {f"repo/{name}": [0.0] * steps for name in REPORTS}
        return tu.get_tensordict({}, {"metrics": {**zeros, "grad_norm": [0.5] * steps, "mfu": [0.0]}})


class Run:
    """A trainer of verl's that goes from step to step.

    Args:
        model: folder of a tokenizer.
        overrides: Hydra overrides of the CPU configuration.
        ranks: data-parallel size.
        dtype: of the forward pass's log-probs.
        cls: the trainer's class; RePO's synchronous one unless given.
    """

    def __init__(
        self, model: Path, overrides: list[str], ranks: int = 1, dtype: torch.dtype = torch.float32, cls: Any = None
    ) -> None:
        from transformers import AutoTokenizer

        from repo_verl.trainer.trainer import RepoTrainer

        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.workers = Workers(ranks, dtype)
        self.responses = Responses(self.tokenizer)
        config = compose([f"actor_rollout_ref.model.path={model}", *overrides])
        self.trainer = _without_engine(cls or RepoTrainer, self)(config)
        self.trainer._setup()
        self._uids = itertools.count()

    def step(self, said: dict[str, list[Row]]) -> tuple[KVBatchMeta, dict[str, Any], dict[str, float]]:
        """One step over these prompts and their responses; verl's batch, metrics and times.

        Rows stay in TransferQueue until :meth:`end_step`.
        """
        trainer, self.responses.said = self.trainer, said
        trainer.global_steps += 1
        trainer.timing_raw = {}
        messages = [[{"role": "user", "content": text}] for text in said]
        uids = [f"u{trainer.global_steps}x{next(self._uids)}" for _ in said]
        prompts = TensorDict(
            {"uid": NonTensorStack(*uids), "raw_prompt": NonTensorStack(*messages)}, batch_size=len(said)
        )
        tu.assign_non_tensor_data(prompts, "global_steps", trainer.global_steps)
        trainer._submit_batch_to_rollout(prompts)
        metrics: dict[str, Any] = {}
        batch = trainer._step_once(metrics, trainer.timing_raw, len(said))
        return batch, metrics, trainer.timing_raw

    def end_step(self, batch: KVBatchMeta) -> None:
        """What verl's loop does behind a step: weights, and TransferQueue is cleared."""
        self.trainer.on_step_end()
        tq.kv_clear(keys=batch.keys, partition_id=batch.partition_id)
        left = tq.kv_list() or {}
        assert not any(left.values()), left


def _without_engine(cls: Any, run: Run) -> Any:
    """A class like ``cls`` over a base of verl's whose set-up starts nothing."""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    def setup(trainer: Any) -> None:
        trainer.tokenizer, trainer.processor = run.tokenizer, None
        trainer.actor_rollout_wg = trainer.ref_policy_wg = run.workers
        trainer.ref_in_actor = False
        trainer.agent_loop_manager, trainer.checkpoint_manager = run.responses, NoReplicas()
        trainer.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[])  # scores come with the rows
        trainer.global_steps, trainer.timing_raw = 0, {}
        trainer.total_training_steps = trainer.steps_per_epoch = 1000
        trainer.curr_step_profile = False

    base = next(one for one in cls.__mro__ if one.__module__.startswith("verl.") and one is not PPOTrainer)
    quiet = type("Engineless", (base,), {"_setup": setup})
    mine = [one for one in cls.__mro__ if one.__module__.startswith("repo_verl.") and one is not cls]
    return type(cls.__name__, (*mine, quiet), {})

"""verl's real trainers fed with recorded rollouts: everything but vLLM.

Ray, TransferQueue, the FSDP2 actor, verl's data loader, advantages, update and metrics run as in a training job; only
the responses come from a recipe (a seeded generator) instead of vLLM, because its batching is not reproducible.
Run as a program in a process of its own (:class:`recorded_jobs.Player`):

    python recorded_run.py < scenarios

where each line of standard input holds {"out": folder, "overrides": [...]} and, if wanted, "drop" or "nan": [[step,
prompt, number], ...] (rows without response, rows with a score of NaN), "flat_after": step, "kill_storage_at": step,
"clock_back_at": step, "stop_before": step, "poisoned_rank": rank, "lag": 1 (a batch's responses are there when the next
batch is submitted, written by two model versions), "by_length": true (a prompt's responses come short ones first, as
from vLLM), "fails": true (the run is expected to raise), "alone": true (in a process and a Ray session of its own; all
others share one of each). Each scenario writes weights.safetensors, metrics.json, left.json (what TransferQueue still
holds), and loss.jsonl.RANK with what the loss was given; one that fails writes error.json instead: the error's class
and text.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import itertools
import json
import logging
import math
import os
import random
import signal
import sys
import time
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from forking import fork

ROOT = Path(__file__).resolve().parents[2]


def rollout(prompt: str, step: int, n: int, vocabulary: int) -> list[dict]:
    """Recorded responses of a prompt in a step: ids of several lengths, and scores that vary by prompt."""
    digest = hashlib.sha256(f"{prompt}/{step}".encode()).digest()
    rng = random.Random(int.from_bytes(digest[:8], "little"))
    kind = rng.random()
    rows = []
    for _ in range(n):
        ids = [rng.randrange(5, vocabulary) for _ in range(rng.randrange(3, 12))]
        score = 0.0 if kind < 0.3 else float(rng.random() < 0.5)
        rows.append({"ids": [*ids, 1], "score": score})
    return rows


def versions_of(number: int, submitted: int, now: int) -> tuple[int, int]:
    """The model versions that wrote the response ``number`` of a prompt.

    The version of the step in which it was submitted, this one and then the current one, or the current one alone.
    """
    return [(submitted - 1, submitted - 1), (submitted - 1, now - 1), (now - 1, now - 1)][number % 3]


def sampled_log_prob(token: int) -> float:
    """What the rollout engine of a run with a lag says of a token."""
    return -1.0 - (token % 8) / 8


class RecordedRollouts:
    """Stands in for verl's agent loop manager: puts recorded rows where vLLM's would go.

    Rows in ``drop``, as (step, prompt, number), are left out, those in ``nan`` have a score of NaN; scores of steps
    after ``flat_after`` are 0; before the responses of a step are there, ``before(step)`` is called. With ``lag``, a
    batch's responses are there when that many more batches were submitted; with ``by_length``, those of a prompt come
    short ones first.
    """

    def __init__(self, tokenizer, n: int, drop=(), nan=(), flat_after=10**9, before=None, lag=0, by_length=False):
        self.tokenizer, self.n, self.drop, self.nan = tokenizer, n, set(drop), set(nan)
        self.flat_after = flat_after
        self.before = before or (lambda step: None)
        self.lag, self.waiting, self.by_length = lag, [], by_length

    def generate_sequences(self, batch) -> None:
        import torch
        import transfer_queue as tq
        from verl.utils.tensordict_utils import list_of_dict_to_tensordict

        now = int(batch["global_steps"])
        self.before(now)
        self.waiting.append(batch)
        if len(self.waiting) <= self.lag:
            return
        batch = self.waiting.pop(0)
        step = int(batch["global_steps"])
        for i in range(len(batch)):
            uid = batch["uid"][i]
            messages = batch["raw_prompt"][i]
            messages = list(getattr(messages, "data", messages))
            text = messages[0]["content"]
            prompts = torch.tensor(
                self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            )
            keys, fields, tags = [], [], []
            rows = list(enumerate(rollout(text, step, self.n, len(self.tokenizer))))
            for number, row in sorted(rows, key=lambda one: len(one[1]["ids"])) if self.by_length else rows:
                if (step, text, number) in self.drop:
                    continue
                responses = torch.tensor(row["ids"])
                mask = torch.ones_like(responses)
                scores = torch.zeros(len(responses))
                scores[-1] = row["score"] if step <= self.flat_after else 0.0
                if (step, text, number) in self.nan:
                    scores[-1] = float("nan")
                engine = [sampled_log_prob(token) if self.lag else -4.0 for token in row["ids"]]
                oldest, newest = versions_of(number, step, now)
                keys.append(f"{uid}_{number}_0")
                fields.append(
                    {
                        "prompts": prompts, "responses": responses, "response_mask": mask, "loss_mask": mask,
                        "input_ids": torch.cat((prompts, responses)),
                        "position_ids": torch.arange(len(prompts) + len(responses)),
                        "rollout_log_probs": torch.tensor(engine),
                        "rm_scores": scores, "num_turns": 2, "uid": uid, "multi_modal_inputs": {},
                        "extra_fields": {
                            "reward_extra_info": {"acc": row["score"], "status": "no_answer" if number == 0 else "ok"}
                        },
                    }
                )  # fmt: skip
                size = {"prompt_len": len(prompts), "response_len": len(responses)}
                tags.append(
                    {
                        **size, "seq_len": sum(size.values()), "status": "success", "global_steps": step,
                        "min_global_steps": oldest, "max_global_steps": newest,
                    }
                )  # fmt: skip
            if keys:
                tq.kv_batch_put(keys=keys, partition_id="train", fields=list_of_dict_to_tensordict(fields), tags=tags)
            tq.kv_batch_put(keys=[uid], partition_id="train", tags=[{"is_prompt": True, "status": "finished"}])


class NoReplicas:
    """Stands in for the checkpoint engine manager: there is no vLLM to sync weights with."""

    def sleep_replicas(self) -> None: ...

    def update_weights(self, global_steps=None) -> None: ...

    def abort_replicas(self) -> None: ...

    def resume_generation_replicas(self) -> None: ...


def recording_loss(inner, path, poisoned, model_output, data, dp_group=None):
    """Runs the loss and appends what it was given and what came out, a JSON line a micro-batch.

    The log-probs of the rank ``poisoned`` are NaN.
    """
    from verl.workers.utils.padding import no_padding_2_padding

    if int(os.environ.get("RANK", 0)) == poisoned:
        model_output = {**model_output, "log_probs": model_output["log_probs"] * math.nan}
    loss, metrics = inner(model_output=model_output, data=data, dp_group=dp_group)
    log_prob = no_padding_2_padding(model_output["log_probs"], data).detach()
    sizes = data["responses"].offsets().diff().tolist()
    entry = {
        "rank": int(os.environ.get("RANK", 0)),
        "loss": loss.item(),
        "log_prob": [log_prob[i, :size].tolist() for i, size in enumerate(sizes)],
        "dp_size": data["dp_size"],
        "batch_num_tokens": data["batch_num_tokens"],
        "global_batch_size": data["global_batch_size"],
    }
    for name in ("prompts", "responses", "response_mask", "old_log_probs", "advantages"):
        entry[name] = [row.tolist() for row in data[name].unbind()]
    for name in ("repo_origin", "repo_weight", "repo_fresh_scale", "repo_fresh_tokens"):
        entry[name] = data[name].tolist() if name in data.keys() else None
    with open(f"{path}.{entry['rank']}", "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    return loss, metrics


def compose(overrides: list[str]):
    """The CPU configuration with overrides, as main_ppo would see it."""
    import verl
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    search = f"hydra.searchpath=[file://{Path(verl.__file__).parent / 'trainer' / 'config'}]"
    with initialize_config_dir(str(ROOT / "recipe" / "repo" / "config"), version_base=None):
        stand_in = ["actor_rollout_ref.rollout.nnodes=1", "actor_rollout_ref.rollout.n_gpus_per_node=1"]
        return hydra_compose("repo_cpu", overrides=[search, *stand_in, *overrides])


def start(config):
    """Ray, unless it runs, TransferQueue and verl's trainer with its actor, without vLLM."""
    import ray
    import transfer_queue as tq
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.trainer.ppo.v1 import get_trainer_cls
    from verl.utils.config import validate_config

    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    if not ray.is_initialized():
        start_ray(config)
    config.transfer_queue.enable = True
    tq.init(config.transfer_queue)
    trainer = get_trainer_cls(config.trainer.v1.trainer_mode)(config=config)
    trainer._enable_hybrid_replicas = False
    trainer._setup()
    trainer.checkpoint_manager = NoReplicas()
    return trainer


def start_ray(config) -> None:
    """Ray as verl's command starts it, for one or two actor workers."""
    import ray
    from omegaconf import OmegaConf
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

    environment = get_ppo_ray_runtime_env(config)
    environment.setdefault("env_vars", {})["TRANSFER_QUEUE_ENABLE"] = "1"
    settings = OmegaConf.to_container(config.ray_kwargs.ray_init, resolve=True)
    settings["runtime_env"] = OmegaConf.to_container(OmegaConf.merge(environment, settings["runtime_env"]))
    ray.init(**{**settings, "num_gpus": 2})
    logging.getLogger("repo_verl").addHandler(logging.StreamHandler())  # verl's command sets up a logger, this does not


def watch_loss(trainer, path: Path, poisoned: int | None = None) -> None:
    """Write down what every worker's loss is given."""
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.utils.losses import ppo_loss

    if hasattr(trainer, "_worker_loss"):
        inner = trainer._worker_loss()
    else:
        inner = partial(ppo_loss, omega_conf_to_dataclass(trainer.config.actor_rollout_ref.actor))
    trainer.actor_rollout_wg.set_loss_fn(partial(recording_loss, inner, str(path), poisoned))


def save_weights(folder: Path, ranks: int) -> None:
    """The actor's whole weights from verl's sharded checkpoint."""
    import torch
    from safetensors.torch import save_file

    shards = [
        torch.load(folder / "checkpoint" / f"model_world_size_{ranks}_rank_{rank}.pt", weights_only=False)
        for rank in range(ranks)
    ]
    whole = {}
    for name in shards[0]:
        pieces = [getattr(shard[name], "_local_tensor", shard[name]) for shard in shards]
        whole[name] = (torch.cat(pieces) if ranks > 1 else pieces[0]).clone().contiguous()
    save_file(whole, folder / "weights.safetensors")


def kill_storage(trainer) -> None:
    """SIGKILL to one of the buffer's storage processes."""
    import ray

    unit = list(trainer._row_store._actors.values())[-1]
    os.kill(ray.get(unit.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)


def turn_clock_back(actor=None, seconds: float = 3600.0) -> None:
    """Makes ``time.time`` of this process an hour early, and a second earlier with every look at it.

    So any duration that is measured with it is negative. Ray's own code, which is C++, keeps the true time.
    """
    true, looks = time.time, itertools.count()
    time.time = lambda: true() - seconds - next(looks)


def turn_clocks_back(trainer) -> None:
    """An hour back in the driver, the actor workers and TransferQueue's processes."""
    import ray
    import transfer_queue.interface as queue

    units = queue._TQ_STORAGE["SimpleStorage"].values()
    actors = [*trainer.actor_rollout_wg.workers, queue._TQ_CONTROLLER, *units]
    ray.get([actor.__ray_call__.remote(turn_clock_back) for actor in actors])
    turn_clock_back()


class Stopped(Exception):
    """The scenario asked for the run to end here."""


def happen(trainer, scenario: dict, step: int) -> None:
    """What a scenario does before a step's responses are there."""
    if step == scenario.get("kill_storage_at"):
        kill_storage(trainer)
    if step == scenario.get("clock_back_at"):
        turn_clocks_back(trainer)
    if step == scenario.get("stop_before"):
        raise Stopped


def train(trainer, scenario: dict, out: Path) -> None:
    """verl's training loop on recorded rollouts; writes the metrics of every step."""
    from verl.utils.tracking import Tracking

    rows = {key: [tuple(item) for item in scenario.get(key, [])] for key in ("drop", "nan")}
    rollouts = RecordedRollouts(
        trainer.tokenizer, trainer.config.actor_rollout_ref.rollout.n, **rows,
        flat_after=scenario.get("flat_after", 10**9), before=partial(happen, trainer, scenario),
        lag=scenario.get("lag", 0), by_length=scenario.get("by_length", False),
    )  # fmt: skip
    logged: list[dict] = []
    stock_log = Tracking.log
    Tracking.log = lambda self, data, step: logged.append({"step": step, **data})
    try:
        with contextlib.suppress(Stopped):
            trainer.fit(rollouts)
    finally:
        Tracking.log = stock_log
        (out / "metrics.json").write_text(json.dumps(logged, default=float))


def run(scenario: dict) -> None:
    """Train with recorded rollouts and write what came out."""
    import transfer_queue as tq

    out = Path(scenario["out"])
    config = compose(scenario["overrides"])
    try:
        trainer = start(config)
        watch_loss(trainer, out / "loss.jsonl", scenario.get("poisoned_rank"))
        train(trainer, scenario, out)
        if scenario.get("fails"):
            raise AssertionError(f"{out} was to fail")
    except Exception as error:
        if not scenario.get("fails") or isinstance(error, AssertionError):
            raise
        (out / "error.json").write_text(json.dumps({"name": type(error).__name__, "text": str(error)}))
    else:
        left = tq.kv_list() or {}
        (out / "left.json").write_text(json.dumps({partition: list(keys) for partition, keys in left.items()}))
        trainer.actor_rollout_wg.save_checkpoint(str(out / "checkpoint"), None, trainer.global_steps)
        save_weights(out, config.trainer.n_gpus_per_node)
    tq.close()
    end_actors()


def end_actors() -> None:
    """Kill every actor and give back every placement group, so that the session can serve another trainer."""
    import ray
    from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

    worker = ray._private.worker.global_worker.core_worker
    for number, actor in ray._private.state.actors().items():
        if actor["State"] != "DEAD":
            worker.kill_actor(ray.ActorID(bytes.fromhex(number)), True)
    for number, group in placement_group_table().items():
        if group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(number))))


def run_session(orders: Connection) -> None:
    """Run the scenarios that arrive, in one Ray session with a fork server of its own, and answer when each has ended.

    Args:
        orders: closed by the other side when there are no more.
    """
    import ray

    from repo_verl.cpu.node import start

    start()
    with contextlib.suppress(EOFError):
        while True:
            run(orders.recv())
            orders.send(0)
    ray.shutdown()


def start_session() -> Connection:
    """A forked process that runs scenarios: Ray's library serves one session a process."""
    ours, theirs = Pipe()

    def work():
        ours.close()
        run_session(theirs)

    fork(work)
    theirs.close()
    return ours


def serve() -> None:
    """Run the scenarios of standard input, a JSON object a line; a line of standard output for each: 0, or 1."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    shared = None
    for line in sys.stdin:
        scenario = json.loads(line)
        alone, status = scenario.get("alone", False), 1
        if alone or shared is None:
            session = start_session()
        else:
            session = shared
        with contextlib.suppress(EOFError, OSError):
            session.send(scenario)
            status = session.recv()
        if alone or status:
            session.close()
        if not alone:
            shared = None if status else session
        print(status, file=answers, flush=True)
    if shared is not None:
        shared.close()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


if __name__ == "__main__":
    os.environ["VERL_PLATFORM"] = "cpu"
    importlib.import_module("verl.trainer.ppo.v1")
    importlib.import_module("repo_verl.trainer.trainer")
    serve()

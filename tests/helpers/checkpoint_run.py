"""Kill-and-resume rounds of the buffer and the trainer's hook, with verl's real checkpoint code, without Ray or vLLM.

A child process has verl's real actor worker (FSDP2, AdamW, scheduler), data loader, ``_save_checkpoint`` and
``_load_checkpoint``, and RePO's trainer around them. Every step draws prompts, replays and stores recorded rows, takes
an optimizer step and saves. The parent kills it (SIGKILL) at random instants, half of them inside a save, starts it
again and compares what it resumed with the same step of a run that nobody disturbed. Run as a program:

    python checkpoint_run.py MODEL DATA FOLDER ROUNDS SEED

which writes FOLDER/rounds.json: a list with an entry a round.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import os
import random
import shutil
import signal
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from engine_update import free_port
from forking import fork
from recorded_run import compose, rollout

STEPS = 40
SETTINGS = [
    "algorithm.adv_estimator=repo", "algorithm.repo.strategy=random", "algorithm.repo.min_size=4",
    "algorithm.repo.num_replay=3", "algorithm.repo.capacity=8", "data.train_batch_size=4", "data.shuffle=True",
    "actor_rollout_ref.rollout.n=4", "trainer.total_epochs=100", "data.dataloader_num_workers=0",
    "actor_rollout_ref.actor.optim.lr=1e-3", "actor_rollout_ref.actor.optim.lr_scheduler_type=cosine",
]  # fmt: skip


class LocalActor:
    """Stands in for verl's worker group: its one worker lives in this process."""

    def __init__(self, config):
        from verl.workers.engine_workers import ActorRolloutRefWorker

        os.environ.update(
            RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(free_port()),
        )  # fmt: skip
        torch.set_num_threads(1)
        self.worker = ActorRolloutRefWorker(config=config.actor_rollout_ref, role="actor")
        self.worker.init_model()
        self.engine = self.worker.actor.engine

    def save_checkpoint(self, *args, **kwargs):
        self.worker.save_checkpoint(*args, **kwargs)

    def load_checkpoint(self, *args, **kwargs):
        self.worker.load_checkpoint(*args, **kwargs)

    def step(self, number: int) -> None:
        """One optimizer step on a gradient that depends on its number alone."""
        generator = torch.Generator().manual_seed(number)
        for one in self.engine.module.parameters():
            one.grad = torch.zeros_like(one)
            local = one.grad.to_local()
            local.copy_(torch.randn(local.shape, generator=generator))
        self.engine.optimizer.step()
        self.engine.optimizer.zero_grad()
        self.engine.lr_scheduler.step()


def make_trainer(config):
    """RePO's trainer with verl's real tokenizer, data loader and actor, and nothing else."""
    from repo_verl.trainer.trainer import RepoTrainer

    trainer = RepoTrainer(config)
    trainer._init_tokenizer()
    trainer._init_dataloader()
    trainer.use_critic = False
    trainer.actor_rollout_wg = LocalActor(config)
    trainer._load_checkpoint()
    return trainer


def train_step(trainer) -> None:
    """One step: prompts, replay, insertion and an optimizer step."""
    from repo_verl.replay import Record, prompt_key

    trainer.global_steps += 1
    step = trainer.global_steps
    batch = trainer._next_train_batch()
    prompts = [list(getattr(messages, "data", messages)) for messages in list(batch["raw_prompt"])]
    ids = [
        np.asarray(trainer.tokenizer.apply_chat_template(one, add_generation_prompt=True, return_dict=False), np.int32)
        for one in prompts
    ]
    keys = [prompt_key(one) for one in ids]
    trainer.prompt_replay.select_batch(keys, step)
    items = []
    for key, one, messages in zip(keys, ids, prompts, strict=True):
        made = rollout(messages[0]["content"], step, 4, len(trainer.tokenizer))
        rows = [Record.create(r["ids"], [-0.5 * (i + 1) for i in range(len(r["ids"]))], r["score"], step) for r in made]
        items.append((key, one, rows))
    trainer.prompt_replay.add_batch(items)
    trainer.actor_rollout_wg.step(step)
    trainer.effective_steps += step % 3


def digest(trainer) -> dict:
    """What a resumed run must have in common with one that was never stopped."""
    state = trainer.prompt_replay.state_dict()
    rows = hashlib.sha256()
    for name, array in sorted(state["arrays"].items()):
        rows.update(name.encode() + array.tobytes())
    weights = hashlib.sha256()
    engine = trainer.actor_rollout_wg.engine
    for one in engine.module.parameters():
        weights.update(one.detach().to_local().numpy().tobytes())
        for value in engine.optimizer.state[one].values():
            weights.update(getattr(value, "_local_tensor", value).numpy().tobytes())
    return {
        "step": trainer.global_steps,
        "buffer": rows.hexdigest(),
        "rng": json.dumps(state["meta"]["rng"], sort_keys=True),
        "rows": len(trainer.prompt_replay),
        "weights": weights.hexdigest(),
        "lr": engine.lr_scheduler.get_last_lr(),
        "effective_steps": trainer.effective_steps,
    }


def train(settings: list[str], journal: Path, last: int, stay: bool = False) -> None:
    """Resume, and train to the last step, saving every step; says in the journal where it is, and when.

    With ``stay`` it does not end by itself: whoever is to be killed must be there, however fast the machine is.
    """
    with journal.open("a", encoding="utf-8", buffering=1) as file:

        def say(event: str, **values) -> None:
            file.write(json.dumps({"event": event, "at": time.monotonic(), **values}) + "\n")

        trainer = make_trainer(compose(settings))
        say("resumed", **(digest(trainer) if trainer.global_steps else {"step": 0}))
        while trainer.global_steps < last:
            train_step(trainer)
            say("saving", step=trainer.global_steps)
            trainer._save_checkpoint()
            say("saved", **digest(trainer))
        if stay:
            say("done")
            signal.pause()


def read(journal: Path) -> list[dict]:
    """Whole lines of the journal."""
    text = journal.read_text() if journal.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_for(journal: Path, event: str, after: int, child: int, seconds: float = 120.0) -> None:
    """Until the journal has the event at or behind line ``after``, or the child is done or has ended."""
    end = time.monotonic() + seconds
    while not any(line["event"] in (event, "done") for line in read(journal)[after:]):
        if time.monotonic() > end:
            raise TimeoutError(f"no {event} in {journal} after {seconds} s")
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.002)


def seconds_of(journal: Path) -> tuple[float, float]:
    """What a save and a step with its save take here: the medians of a run that nobody disturbed."""
    at = {event: [line["at"] for line in read(journal) if line["event"] == event] for event in ("saving", "saved")}
    saves = [after - before for before, after in zip(at["saving"], at["saved"], strict=True)]
    steps = [after - before for before, after in itertools.pairwise(at["saved"])]
    return statistics.median(saves), statistics.median(steps)


def play_round(settings: list[str], journal: Path, rng: random.Random, in_save: bool, longest: float) -> dict:
    """Start or resume the run, kill it at most ``longest`` seconds later, and tell what happened."""
    before = read(journal)
    child = fork(partial(train, settings, journal, STEPS, stay=True))
    wait_for(journal, "resumed", len(before), child)
    for _ in range(rng.randrange(1, 4) if in_save else rng.randrange(7)):
        known = read(journal)
        if known[-1]["event"] != "done":
            wait_for(journal, "saving" if in_save else "saved", len(known), child)
    time.sleep(rng.uniform(0, longest))
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    new = read(journal)[len(before) :]
    return {"in_save": in_save, "status": status, "before": before, "new": new}


def main(model: Path, data: Path, folder: Path, rounds: int, seed: int) -> None:
    """The undisturbed run, then the rounds."""
    importlib.import_module("verl.trainer.ppo.v1")
    importlib.import_module("verl.workers.engine_workers")
    importlib.import_module("repo_verl.trainer.trainer")
    common = [f"actor_rollout_ref.model.path={model}", f"data.train_files={data}", f"data.val_files={data}", *SETTINGS]
    whole = folder / "whole"
    child = fork(partial(train, [*common, f"trainer.default_local_dir={whole}"], folder / "whole.jsonl", STEPS))
    if os.waitpid(child, 0)[1]:
        sys.exit("the undisturbed run failed")
    save, step = seconds_of(folder / "whole.jsonl")
    rng, results = random.Random(seed), []
    place, journal = folder / "killed", folder / "killed.jsonl"
    keep = 1
    for number in range(rounds):
        settings = [*common, f"trainer.default_local_dir={place}", f"trainer.max_actor_ckpt_to_keep={keep}"]
        in_save = number % 2 == 0
        result = play_round(settings, journal, rng, in_save, longest=save if in_save else step)
        results.append(result)
        saved = [line["step"] for line in read(journal) if line["event"] == "saved"]
        if saved and saved[-1] >= STEPS - 5:  # near its end: another run, that keeps another number of checkpoints
            child = fork(partial(train, settings, journal, STEPS))
            result["end"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            for name, kept in (("buffers", "prompt_replay"), ("actors", "actor")):
                result[name] = sorted(path.parent.name for path in place.glob(f"global_step_*/{kept}"))
            shutil.rmtree(place)
            journal.unlink()
            keep = keep % 3 + 1
    (folder / "rounds.json").write_text(json.dumps(results))


if __name__ == "__main__":
    os.environ["VERL_PLATFORM"] = "cpu"
    main(*(Path(one) for one in sys.argv[1:4]), *(int(one) for one in sys.argv[4:6]))

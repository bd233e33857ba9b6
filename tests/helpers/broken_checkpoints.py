"""Damaged, foreign and unwritable checkpoints, met by RePO's trainer with verl's real checkpoint code.

A short run (:mod:`checkpoint_run`, without Ray and vLLM) saves three steps. Every case takes a copy, does something to
it, and starts the run again with other settings. Run as a program:

    python broken_checkpoints.py FOLDER

which writes FOLDER/results.json: a list of attempts for every case, each with what was resumed and how far it went,
or the error.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from checkpoint_run import SETTINGS, digest, make_trainer, train_step
from forking import fork
from recorded_run import compose
from tiny_model import make_tiny_model, write_prompts

NEWNS, NEWUSER = 0x00020000, 0x10000000
READ_ONLY, REMOUNT, RECURSIVE, PRIVATE = 1, 32, 16384, 1 << 18
PROMPTS = [f"{i}+{i}=?" for i in range(12)]


def attempt(settings: list[str], last: int, out: Path) -> None:
    """Resume and train to a step, saving every step; what came of it is appended to a file."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("repo_verl").addHandler(handler)
    result: dict = {}
    try:
        trainer = make_trainer(compose(settings))
        result["resumed"] = digest(trainer) if trainer.global_steps else {"step": 0, "rows": len(trainer.prompt_replay)}
        while trainer.global_steps < last:
            train_step(trainer)
            trainer._save_checkpoint()
            result["saved"] = trainer.global_steps
    except Exception as error:
        result["error"] = {"name": type(error).__name__, "text": str(error)}
    result["said"] = said
    with out.open("a") as file:
        file.write(json.dumps(result) + "\n")


def in_child(work: Callable[[], None]) -> None:
    """Do work in a forked process and wait for it."""
    if os.waitpid(fork(work), 0)[1]:
        sys.exit(f"{work} failed")


def mount(source: str, target: Path | str, kind: str, flags: int, options: str) -> None:
    """mount(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [one.encode() for one in (source, str(target), kind)]
    if libc.mount(*arguments, ctypes.c_ulong(flags), options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


def own_mounts() -> None:
    """Give this process mounts of its own, which end with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(NEWNS | (NEWUSER if user else 0)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    mount("none", "/", "none", RECURSIVE | PRIVATE, "")


def full_disk(settings: list[str], run: Path, out: Path) -> None:
    """A disk of 3 MiB, which the buffer finds full; then the same with more room."""
    own_mounts()
    run.mkdir()
    mount("tmpfs", run, "tmpfs", 0, "size=3m")
    in_child(partial(attempt, settings, 30, out))
    mount("tmpfs", run, "tmpfs", REMOUNT, "size=40m")
    in_child(partial(attempt, settings, 12, out))


def full_disk_for_verl(settings: list[str], run: Path, out: Path) -> None:
    """The same without a saved buffer, so that verl meets the full disk."""
    full_disk([*settings, "algorithm.repo.persist=False"], run, out)


def read_only(settings: list[str], run: Path, out: Path) -> None:
    """A folder that becomes read-only, and writable again."""
    own_mounts()
    run.mkdir()
    mount("tmpfs", run, "tmpfs", 0, "size=40m")
    in_child(partial(attempt, settings, 2, out))
    mount("tmpfs", run, "tmpfs", REMOUNT | READ_ONLY, "")
    in_child(partial(attempt, settings, 4, out))
    mount("tmpfs", run, "tmpfs", REMOUNT, "")
    in_child(partial(attempt, settings, 4, out))


def cut(run: Path, pattern: str, size: int = 100) -> None:
    """Cut a file of the last checkpoint short."""
    (found,) = (run / "global_step_3").glob(pattern)
    os.truncate(found, size)


def flip(run: Path, pattern: str) -> None:
    """Change a bit of a file of the last checkpoint."""
    (found,) = (run / "global_step_3").glob(pattern)
    content = bytearray(found.read_bytes())
    content[len(content) // 2] ^= 1
    found.write_bytes(content)


def forget_repo(run: Path) -> None:
    """Leave of the last checkpoint what GRPO would have saved."""
    shutil.rmtree(run / "global_step_3" / "prompt_replay")
    (run / "global_step_3" / "repo_checkpoint.json").unlink()


def shuffled_tokenizer(folder: Path) -> Path:
    """The tiny model with the ids of two characters exchanged."""
    model = make_tiny_model(folder)
    file = model / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(content))
    return model


def wider_model(folder: Path) -> Path:
    """The tiny model with eight more token ids than its tokenizer."""
    from transformers import AutoModelForCausalLM

    model = make_tiny_model(folder)
    loaded = AutoModelForCausalLM.from_pretrained(model)
    loaded.resize_token_embeddings(loaded.config.vocab_size + 8)
    loaded.save_pretrained(model)
    return model


def cases(base: Path) -> dict[str, tuple[Callable[[Path], None], list[str]]]:
    """What is done to the copy, and the settings of the run that meets it."""
    other_data = write_prompts(base / "other.parquet", [*PROMPTS[:-1], "9+9=?!"])
    other_files = [f"data.train_files={other_data}"]

    def nothing(run: Path) -> None: ...

    return {
        "whole": (nothing, []),
        "actor_cut": (partial(cut, pattern="actor/model_*"), []),
        "data_cut": (partial(cut, pattern="data.pt"), []),
        "tracker_torn": (lambda run: (run / "latest_checkpointed_iteration.txt").write_text(""), []),
        "buffer_flipped": (partial(flip, pattern="prompt_replay/rows-*"), []),
        "meta_flipped": (partial(flip, pattern="prompt_replay/meta.json"), []),
        "meta_gone": (lambda run: (run / "global_step_3" / "prompt_replay" / "meta.json").unlink(), []),
        "grpo": (forget_repo, []),
        "not_persisted": (nothing, ["algorithm.repo.persist=False"]),
        "smaller": (nothing, ["algorithm.repo.capacity=3", "algorithm.repo.min_size=3"]),
        "shorter": (nothing, ["data.max_response_length=3"]),
        "larger": (nothing, ["algorithm.repo.capacity=32"]),
        "narrow": (nothing, ["algorithm.repo.log_prob_dtype=bfloat16"]),
        "other_tokenizer": (nothing, [f"actor_rollout_ref.model.path={shuffled_tokenizer(base / 'shuffled')}"]),
        "other_vocabulary": (nothing, [f"actor_rollout_ref.model.path={wider_model(base / 'wider')}"]),
        "other_temperature": (nothing, ["actor_rollout_ref.rollout.temperature=0.5"]),
        "other_data": (nothing, other_files),
        "other_data_empty": (nothing, [*other_files, "algorithm.repo.persist=False"]),
    }


def main(base: Path) -> None:
    """Every case, one after the other."""
    model = make_tiny_model(base / "model")
    data = write_prompts(base / "train.parquet", PROMPTS)
    for module in ("verl.trainer.ppo.v1", "verl.workers.engine_workers", "repo_verl.trainer.trainer"):
        importlib.import_module(module)
    common = [f"actor_rollout_ref.model.path={model}", f"data.train_files={data}", f"data.val_files={data}", *SETTINGS]

    def settings(run: Path) -> list[str]:
        return [*common, f"trainer.default_local_dir={run}"]

    in_child(partial(attempt, settings(base / "first"), 3, base / "first.jsonl"))
    for name, (damage, changes) in cases(base).items():
        run = base / name
        shutil.copytree(base / "first", run)
        damage(run)
        in_child(partial(attempt, [*settings(run), *changes], 4, base / f"{name}.jsonl"))
    for name in ("actor_cut", "buffer_flipped"):
        before = ["trainer.resume_mode=resume_path", f"trainer.resume_from_path={base / name / 'global_step_2'}"]
        in_child(partial(attempt, [*settings(base / name), *before], 4, base / f"{name}.jsonl"))
    for work in (full_disk, full_disk_for_verl, read_only):
        run = base / work.__name__
        in_child(partial(work, settings(run), run, base / f"{work.__name__}.jsonl"))
    results = {file.stem: [json.loads(line) for line in file.read_text().splitlines()] for file in base.glob("*.jsonl")}
    (base / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    os.environ["VERL_PLATFORM"] = "cpu"
    with contextlib.suppress(KeyboardInterrupt):
        main(Path(sys.argv[1]))

"""A whole training job (verl's command, with vLLM) whose processes can be found, killed and counted.

Every process of a run inherits an environment variable of the run's own, so that nothing is left uncounted.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from tiny_model import make_tiny_model, write_prompts

ROOT = Path(__file__).resolve().parents[2]
MARK = "REPO_FAULT_RUN"

TITLES = {
    "driver": "ray::TaskRunnerV1", "actor worker": "ray::WorkerDict", "vllm server": "ray::vLLMHttpServer",
    "reward worker": "ray::RewardLoopWorker", "agent loop worker": "ray::AgentLoopWorkerTQ",
    "TransferQueue controller": "ray::TransferQueueController",
    "TransferQueue storage unit": "ray::SimpleStorageUnit", "judge": "from repo_verl.rewards.judge import main",
}  # fmt: skip


def saved_rows(step_folder: Path) -> int:
    """Rows of the buffer that a checkpoint holds."""
    meta = json.loads((step_folder / "prompt_replay" / "meta.json").read_text())
    return sum(shard["rows"] for shard in meta["shards"])


def wait_for(found: Callable[[], object], seconds: float, what: str) -> float:
    """Wait until something is true; seconds that it took."""
    begun = time.monotonic()
    while not found():
        assert time.monotonic() - begun < seconds, f"{what}: not in {seconds} s"
        time.sleep(0.1)
    return time.monotonic() - begun


class Run:
    """One start of a job.

    Args:
        folder: for checkpoints (kept between runs), log and metrics.
        number: of the run in its job.
        overrides: of the configuration.
        ray_folder: short path for Ray's session.
    """

    def __init__(self, folder: Path, number: int, overrides: list[str], ray_folder: Path) -> None:
        self.mark, self.checkpoints = f"{folder.name}-{number}-{os.getpid()}", folder / "checkpoints"
        self.log, self.metrics = folder / f"log{number}", folder / f"metrics{number}.jsonl"
        environment = {
            **os.environ, MARK: self.mark, "VERL_PLATFORM": "cpu", "VERL_FILE_LOGGER_PATH": str(self.metrics),
            "RAY_TMPDIR": str(ray_folder), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", str(ROOT / "recipe/repo/config"),
                    "--config-name", "repo_cpu", f"trainer.default_local_dir={self.checkpoints}", *overrides,
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, cwd=folder, start_new_session=True,
            )  # fmt: skip

    def output(self) -> str:
        """What the user sees."""
        return self.log.read_text(errors="replace")

    def saved_step(self) -> int:
        """The step of the last finished checkpoint, 0 without one."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self.checkpoints / "latest_checkpointed_iteration.txt").read_text())
        return 0

    def steps(self) -> list[int]:
        """The steps that this run logged."""
        if not self.metrics.exists():
            return []
        return [json.loads(line)["step"] for line in self.metrics.read_text().splitlines() if line.endswith("}")]

    def processes(self) -> Iterator[psutil.Process]:
        """All processes of the run."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    yield process

    def find(self, kind: str) -> list[psutil.Process]:
        """The processes of a kind: a key of TITLES, ``vllm engine`` or ``main``."""
        if kind == "main":
            return [psutil.Process(self.process.pid)]
        if kind == "vllm engine":
            return [self._engine()]
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if TITLES[kind] in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def _engine(self) -> psutil.Process:
        """vLLM's engine: what multiprocessing started for the server, forked by the CPU backend's fork server."""
        forked = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                parent = process.parent()
                is_fork = parent is not None and "repo_verl.cpu.fork_server" in " ".join(parent.cmdline())
                if is_fork and "ray::" not in " ".join(process.cmdline()):
                    forked.append((process.num_threads(), process.pid, process))
        return max(forked)[2]  # the others track multiprocessing's resources, with a thread each

    def kill(self, kind: str) -> list[int]:
        """SIGKILL to the processes of a kind; their ids."""
        killed = [process.pid for process in self.find(kind)]
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return killed

    def end(self) -> None:
        """Kill whatever is left."""
        for _ in range(3):
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()
        self.process.wait()


class Job:
    """Runs of one command in one folder, each resumed from the checkpoints of the one before.

    Args:
        folder: for everything.
        ray_folder: short path for Ray's sessions.
        steps: training steps.
    """

    def __init__(self, folder: Path, ray_folder: Path, steps: int) -> None:
        self.folder, self.ray_folder = folder, ray_folder
        self.runs: list[Run] = []
        model = make_tiny_model(folder / "model", hidden=128)  # heads of 32, the smallest that vLLM serves on a CPU
        data = write_prompts(folder / "train.parquet", [f"{i}+{i}=?" for i in range(64)])
        self.overrides = [
            f"actor_rollout_ref.model.path={model}", f"data.train_files={data}", f"data.val_files={data}",
            "data.max_response_length=12", f"trainer.total_training_steps={steps}", "trainer.total_epochs=100000",
            "trainer.save_freq=1", "algorithm.repo.min_size=4", "algorithm.repo.num_replay=4",
            f"reward.custom_reward_function.path={ROOT}/tests/helpers/fault_reward.py",
            "reward.custom_reward_function.name=compute_score", "trainer.max_actor_ckpt_to_keep=3",
        ]  # fmt: skip

    def start(self) -> Run:
        """Start the command once more."""
        self.runs.append(Run(self.folder, len(self.runs), self.overrides, self.ray_folder))
        return self.runs[-1]

    def end(self) -> None:
        """Kill whatever is left of all runs."""
        for run in self.runs:
            run.end()


def restored(run: Run) -> tuple[int, int] | None:
    """Rows that a run restored and the step of the checkpoint; None if it says nothing."""
    found = re.search(r"RePO: restored (\d+) rows from \S*global_step_(\d+)", run.output())
    return (int(found[1]), int(found[2])) if found else None

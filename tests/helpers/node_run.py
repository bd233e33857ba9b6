"""Ray clusters of two nodes on this machine, started by the scripts of ``run_scripts/multinode``, and training there.

Every process that a :class:`Machine` starts inherits an environment variable of its own, by which all are found again.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from tiny_model import make_tiny_model, write_prompts

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "run_scripts" / "multinode"
STUBS = ROOT / "tests" / "helpers" / "slurm"
MARK = "REPO_NODE_RUN"
FLAGS = "--num-cpus=8 --object-store-memory=100000000 --min-worker-port=0 --max-worker-port=0"
WATCH = """
import json, sys
import ray
from ray.util.state import list_actors
ray.init(address=sys.argv[1], log_to_driver=False)
print("ACTORS" + json.dumps([[one.class_name, one.name, one.node_id] for one in list_actors(limit=1000)]))
"""


def free_ports(count: int) -> list[int]:
    """The first of so many ports in a row that nobody listens on now, and the others."""
    while True:
        first = 20000 + secrets.randbelow(10000)  # below those that the kernel gives out itself
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("", port))
            return list(range(first, first + count))


class Machine:
    """This machine as two nodes with one worker each.

    Args:
        folder: for model, data, output and logs.
    """

    def __init__(self, folder: Path) -> None:
        import ray

        self.folder, self.output, self.mark = folder, folder / "output", secrets.token_hex(8)
        self.ray_folder = Path(tempfile.mkdtemp(prefix="rn", dir="/tmp"))  # a socket's path has 107 bytes at most
        self.host = ray.util.get_node_ip_address()
        self.port, self.dashboard, self.agents, *_ = free_ports(4)
        model = make_tiny_model(folder / "model", hidden=128)  # heads of 32, the smallest that vLLM serves on a CPU
        data = write_prompts(folder / "train.parquet", [f"{i}+{i}=?" for i in range(4)])
        self.environment = {
            **os.environ, MARK: self.mark, "PATH": f"{STUBS}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_TMPDIR": str(self.ray_folder), "RAY_AUTH_TOKEN": secrets.token_hex(16), "STUB_HOST": self.host,
            "STUB_AGENT_PORT": str(self.agents), "RAY_PORT": str(self.port), "RAY_START_ARGS": FLAGS,
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{self.dashboard}", "VERL_PLATFORM": "cpu",
            "CONFIG_NAME": "repo_cpu", "NUM_GPUS": "1", "OMP_NUM_THREADS": "1", "MODEL": str(model),
            "TRAIN_FILE": str(data), "OUTPUT": str(self.output), "PROMPTS": "4", "SAMPLES": "4", "MAX_PROMPT": "64",
            "MAX_RESPONSE": "12", "EPOCHS": "1000", "SAVE_FREQ": "1", "WAIT_S": "240",
        }  # fmt: skip
        self.overrides = [
            "algorithm.repo.min_size=4", "algorithm.repo.num_replay=4",
            f"reward.custom_reward_function.path={ROOT}/tests/helpers/fault_reward.py",
            "trainer.experiment_name=two nodes", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
        ]  # fmt: skip

    def start(self, log: str, *command: str, **variables: str) -> subprocess.Popen:
        """Start a command in the repository's root; it writes into a log."""
        with (self.folder / log).open("wb") as file:
            return subprocess.Popen(
                command, cwd=ROOT, env={**self.environment, **variables}, stdout=file, stderr=file,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def start_nodes(self, workers: int = 1) -> list[subprocess.Popen]:
        """A head and workers, as a user of a plain cluster starts them."""
        address = {"RAY_ADDRESS": f"{self.host}:{self.port}"}
        script, started = str(SCRIPTS / "ray_node.sh"), []
        for number, role in enumerate(["head", *["worker"] * workers]):
            flags = [f"--dashboard-port={self.dashboard}"] if role == "head" else []
            agent = f"--dashboard-agent-listen-port={self.agents + number}"
            command = ["bash", script, role, *FLAGS.split(), agent, *flags]
            started.append(self.start(f"{role}.log", *command, **address))
        self._wait_for_dashboard(120)
        return started

    def _wait_for_dashboard(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.dashboard)).close()
                return
            except ConnectionRefusedError:
                assert time.monotonic() < end, self.logs()
                time.sleep(0.5)

    def actors(self) -> list[list[str]]:
        """Class, name and node of every actor that the plain cluster has seen."""
        done = subprocess.run(
            [sys.executable, "-c", WATCH, f"{self.host}:{self.port}"],
            env={**self.environment, "RAY_AUTH_MODE": "token"}, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        return json.loads(done.stdout.split("ACTORS")[1])

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(
            f"--- {one.name}\n{one.read_text(errors='replace')[-3000:]}" for one in self.folder.glob("*.log")
        )

    def steps(self) -> dict[int, dict]:
        """The metrics of every step that has any."""
        lines = [line for one in sorted(self.output.glob("metrics*.jsonl")) for line in one.read_text().splitlines()]
        return {row["step"]: row["data"] for row in map(json.loads, lines) if "repo/replayed_rows" in row["data"]}

    def processes(self) -> Iterator[psutil.Process]:
        """Everything that was started here and is still there."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    yield process

    def left(self, seconds: float) -> list[str]:
        """The commands of processes that are still there after so many seconds."""
        end = time.monotonic() + seconds
        while (names := [" ".join(one.cmdline())[:150] for one in self.processes()]) and time.monotonic() < end:
            time.sleep(0.5)
        return names

    def end(self) -> None:
        """Kill whatever is left."""
        for _ in range(3):
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()
        shutil.rmtree(self.ray_folder, ignore_errors=True)

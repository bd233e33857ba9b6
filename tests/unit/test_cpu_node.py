"""What starts a node of a Ray cluster on a CPU: the environment of its command, and a fork server that ends with it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

TELL = "import json, os; print(json.dumps(dict(os.environ)))"


def start(*command, **variables):
    inherited = {"REPO_VERL_CPU_FORK_SOCKET": "/gone/socket", "REPO_VERL_CPU_PYTHON": "/gone/python"}
    return subprocess.run(
        [sys.executable, "-m", "repo_verl.cpu.node", *command],
        env={**os.environ, **inherited, **variables}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_command_has_the_environment_of_a_cpu_run_and_a_server_of_its_own():
    done = start(sys.executable, "-c", TELL)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["VERL_PLATFORM"] == "cpu" and seen["VERL_ENGINE_DEVICE"] == "cuda"
    folder = Path(seen["REPO_VERL_CPU_FORK_SOCKET"]).parent
    assert folder == Path(seen["REPO_VERL_CPU_PYTHON"]).parent != Path("/gone")
    end = time.monotonic() + 90
    while folder.exists():  # the server removes it when it ends, which it does with the command
        assert time.monotonic() < end, f"the server of {folder} outlived its node"
        time.sleep(0.2)


def test_without_a_server_workers_run_this_interpreter():
    done = start(sys.executable, "-c", TELL, REPO_VERL_CPU_FORK="0")
    seen = json.loads(done.stdout)
    assert seen["REPO_VERL_CPU_PYTHON"] == sys.executable and "REPO_VERL_CPU_FORK_SOCKET" not in seen


def test_the_status_is_the_commands():
    assert start(sys.executable, "-c", "raise SystemExit(7)", REPO_VERL_CPU_FORK="0").returncode == 7


def test_no_command_is_one_sentence():
    done = start()
    assert done.returncode == 1 and done.stderr.startswith("no command: python -m repo_verl.cpu.node ray start --block")

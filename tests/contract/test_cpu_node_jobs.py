"""A node of a Ray cluster on a CPU serves one job after another: the first from its fork server."""

import subprocess
import sys

import pytest
from node_run import Machine

pytestmark = [pytest.mark.contract, pytest.mark.serial, pytest.mark.full]

JOB = """
import os, sys
import ray
ray.init(address=sys.argv[1], runtime_env={"py_executable": "$REPO_VERL_CPU_PYTHON"}, log_to_driver=False)

@ray.remote
def look():
    return ray.get_runtime_context().get_job_id(), "vllm" in sys.modules

worker, forked = ray.get(look.remote(), timeout=240)
print("JOB", worker == ray.get_runtime_context().get_job_id(), worker, forked)
"""


def test_two_jobs_one_after_the_other(tmp_path):
    machine = Machine(tmp_path)
    try:
        machine.start_nodes(workers=0)
        said = []
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", JOB, f"{machine.host}:{machine.port}"], timeout=280, check=False,
                env={**machine.environment, "RAY_AUTH_MODE": "token"}, capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, str(said) + done.stdout + done.stderr + machine.logs()
            said.append(done.stdout.split("JOB")[1].split())
        assert [(same, forked) for same, _, forked in said] == [("True", "True"), ("True", "False")], said
        assert said[0][1] != said[1][1]
    finally:
        machine.end()

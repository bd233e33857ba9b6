"""Two runs on one machine, each with a Ray of its own: weights must not go from one to the other's vLLM."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import make_tiny_model

pytestmark = [pytest.mark.contract, pytest.mark.full]

PROGRAM = Path(__file__).resolve().parents[1] / "helpers" / "weight_socket_names.py"


ESTIMATORS = ("repo", "grpo", "grpo")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the ends of clusters that live at the same time say, one cluster for each of ESTIMATORS."""
    base = tmp_path_factory.mktemp("sockets")
    model = make_tiny_model(base / "model")
    clusters = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(model), estimator], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=(base / f"{number}.log").open("w"), text=True, cwd=base,
            env={
                **os.environ, "VERL_PLATFORM": "cpu",
                "PYTHONPATH": os.pathsep.join([str(PROGRAM.parent), os.environ.get("PYTHONPATH", "")]),
            },
        )
        for number, estimator in enumerate(ESTIMATORS)
    ]  # fmt: skip
    lines = [cluster.stdout.readline() for cluster in clusters]
    for number, cluster in enumerate(clusters):
        cluster.communicate("\n", timeout=60)
        assert cluster.returncode == 0, (base / f"{number}.log").read_text()[-3000:]
    return [json.loads(line) for line in lines]


def test_ray_gives_all_jobs_one_id(names):
    """Which is why verl's own name, by the job alone, is not enough."""
    assert {one["job"] for one in names} == {"01000000"}


def test_the_two_ends_of_a_run_agree(names):
    for one in names:
        assert one["sender"] == one["receiver"]


def test_three_clusters_name_three_sockets(names):
    """Of any estimator on the CPU backend; test_plugin_hooks.py has what other platforms do."""
    assert len({one["sender"] for one in names}) == 3
    assert all(one["sender"].startswith("ipc:///tmp/rl-colocate-zmq-01000000.") for one in names)


def test_workers_of_repo_alone_have_the_variable_that_names_sockets_on_other_platforms(names):
    assert [one["marked"] for one in names] == ["1", None, None]

"""Training on two Ray nodes, two raylets on this machine: by ``slurm.sh``, then resumed by ``ray job submit``."""

import json
import signal

import pytest
from node_run import STUBS, Machine

pytestmark = pytest.mark.e2e

FIRST, LAST = 3, 4
START_S = 420


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    made = Machine(tmp_path_factory.mktemp("nodes"))
    yield made
    made.end()


def saved(machine, step):
    """Rows and use counts of the buffer that a checkpoint holds."""
    meta = json.loads(
        (machine.output / "checkpoints" / f"global_step_{step}" / "prompt_replay" / "meta.json").read_text()
    )
    return sum(shard["rows"] for shard in meta["shards"])


def test_slurm_script_trains_on_two_nodes(machine):
    job = machine.start(
        "slurm.log", str(STUBS / "sbatch"), "--nodes=2", "--gpus-per-node=1", "run_scripts/multinode/slurm.sh",
        *machine.overrides, f"trainer.total_training_steps={FIRST}",
    )  # fmt: skip
    assert job.wait(START_S) == 0, machine.logs()
    steps = machine.steps()
    assert sorted(steps) == [1, 2, 3]
    assert [steps[step]["repo/replayed_rows"] for step in (1, 2, 3)] == [0, 16, 16], "4 prompts replay 4 rows each"
    assert steps[3]["repo/buffer_rows"] == 3 * 16 == saved(machine, 3)
    folder = machine.output / "checkpoints" / "global_step_3" / "actor"
    assert sorted(one.name for one in folder.glob("model_*")) == [
        f"model_world_size_2_rank_{rank}.pt" for rank in (0, 1)
    ]
    assert machine.left(30) == [], "the nodes end with the job"


def test_ray_job_resumes_on_a_plain_cluster_of_two_nodes(machine):
    nodes = machine.start_nodes()
    job = machine.start(
        "job.log", "bash", "run_scripts/multinode/ray_job.sh", *machine.overrides,
        f"trainer.total_training_steps={LAST}", NUM_NODES="2", JOB_VARIABLES="OMP_NUM_THREADS",
    )  # fmt: skip
    assert job.wait(START_S) == 0, machine.logs()
    assert f"RePO: restored {3 * 16} rows from" in (machine.folder / "job.log").read_text(), machine.logs()
    steps = machine.steps()
    assert sorted(steps) == [1, 2, 3, 4]
    assert steps[4]["repo/replayed_rows"] == 16 and steps[4]["repo/age_max"] == 1
    assert saved(machine, 4) == 4 * 16
    actors = machine.actors()
    workers = {node for kind, _, node, _ in actors if kind == "WorkerDict"}
    assert len(workers) == 2 == len([one for one in actors if one[0] == "WorkerDict"]), actors
    assert {node for kind, _, node, _ in actors if kind == "vLLMHttpServer"} == workers, actors
    units = [
        node for _, name, node, _ in actors if (name or "").startswith("repo_storage_") and "controller" not in name
    ]
    assert len(units) == 2 and set(units) == workers, actors
    for node in nodes:
        node.send_signal(signal.SIGTERM)
    assert machine.left(60) == []

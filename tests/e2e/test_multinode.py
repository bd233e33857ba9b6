"""Training on two Ray nodes, two raylets on this machine: by ``slurm.sh``, then resumed by ``ray job submit``."""

import json
import re
import signal

import pytest
from node_run import STUBS, Machine

pytestmark = [pytest.mark.e2e, pytest.mark.full]

FIRST, LAST = 2, 3
START_S = 420


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    made = Machine(tmp_path_factory.mktemp("nodes"))
    yield made
    made.end()


def saved(machine, step):
    """Rows of the buffer that a checkpoint holds."""
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
    assert sorted(steps) == [1, 2]
    assert [steps[step]["repo/replayed_rows"] for step in (1, 2)] == [0, 16], "4 prompts replay 4 rows each"
    assert steps[2]["repo/buffer_rows"] == 2 * 16 == saved(machine, 2)
    folder = machine.output / "checkpoints" / "global_step_2" / "actor"
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
    said = (machine.folder / "job.log").read_text()
    assert f"RePO: restored {2 * 16} rows from" in said and "no fork server" not in said, machine.logs()
    steps = machine.steps()
    assert sorted(steps) == [1, 2, 3]
    assert steps[3]["repo/replayed_rows"] == 16 and steps[3]["repo/age_max"] == 1
    assert saved(machine, 3) == 3 * 16
    placed = {}
    for kind, name, node in machine.actors():
        placed.setdefault("buffer" if re.match(r"repo_storage_\d", name) else kind.rpartition(".")[2], []).append(node)
    assert len(placed["WorkerDict"]) == 2 == len(set(placed["WorkerDict"])), placed
    for kind in ("buffer", "vLLMHttpServer"):
        assert sorted(placed[kind]) == sorted(placed["WorkerDict"]), placed
    for node in nodes:
        node.send_signal(signal.SIGTERM)
    assert machine.left(60) == []

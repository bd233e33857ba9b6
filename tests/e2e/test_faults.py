"""Processes of a whole run (verl's command, with vLLM) are killed at random points of a step.

The run ends soon with one sentence and leaves nothing behind, and the same command resumes from the last finished
checkpoint with the buffer that it holds. The runs are one job: the run that resumes after a victim is the one in which
the next victim is killed, so that nine kills take ten starts.
"""

import json
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
from fault_run import Job, restored, saved_rows, wait_for
from recorded_jobs import RecordedJobs

pytestmark = [pytest.mark.e2e, pytest.mark.full]

STEPS = 36
START_S, END_S, STEP_S = 300, 30, 60

NAMES = {
    "actor worker": r"actor worker 0 of 1",
    "vllm server": r"vllm server 0 of 1",
    "vllm engine": r"the engine process of vllm server 0 of 1",
    "reward worker": r"reward worker 0 of 1",
    "agent loop worker": r"agent loop worker 0 of 1",
    "TransferQueue storage unit": r"TransferQueue storage unit 0 of 1",
    "TransferQueue controller": r"TransferQueue controller 0 of 1",
}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    ray_folder = Path(tempfile.mkdtemp(prefix="rf", dir="/tmp"))  # a socket's path has 107 bytes at most
    made = Job(tmp_path_factory.mktemp("faults"), ray_folder, STEPS)
    made.start()
    yield made
    made.end()
    shutil.rmtree(ray_folder, ignore_errors=True)


def train_on(run, steps):
    """Wait until a run has saved so many more steps."""
    first = run.saved_step()
    wait_for(lambda: run.process.poll() is not None or run.saved_step() >= first + steps, START_S, "steps")
    assert run.process.poll() is None, run.output()[-3000:]


def random_moment(victim):
    time.sleep(random.Random(victim).uniform(0, 2))


def check_resumed(run, step, checkpoints):
    """A run has the buffer of a step's checkpoint and goes on after that step."""
    wait_for(lambda: run.process.poll() is not None or run.steps(), START_S, "a step after resuming")
    assert restored(run) == (saved_rows(checkpoints / f"global_step_{step}"), step), run.output()[-3000:]
    assert run.steps()[0] == step + 1


@pytest.mark.parametrize("victim", [*NAMES, "driver", "main"])
def test_a_killed_process_ends_the_run_and_the_same_command_resumes(job, victim):
    run = job.runs[-1]
    train_on(run, 2)
    random_moment(victim)
    assert run.kill(victim)
    took = wait_for(lambda: run.process.poll() is not None, END_S, f"the end of the run without its {victim}")
    left = wait_for(lambda: not list(run.processes()), END_S, "the end of its processes")
    print(f"{victim}: ended after {took:.1f} s, the last process {left:.1f} s later")
    step = run.saved_step()
    if victim == "main":
        assert run.process.returncode == -signal.SIGKILL
    else:
        assert run.process.returncode > 0
    if victim in NAMES:
        sentence = f"WorkerDiedError: {NAMES[victim]} died in step "
        told = run.output().rpartition(sentence)[2].split("\n")[0]
        died_in, _, rest = told.partition("; ")
        assert int(died_in) in (step, step + 1), run.output()[-3000:]
        assert rest == f"restart the same command, it resumes from global_step_{step}."
    check_resumed(job.start(), step, run.checkpoints)


def test_killed_judges_cost_no_score_and_the_job_ends(job):
    run = job.runs[-1]
    for moment in range(3):
        train_on(run, 1)
        random_moment(f"judge {moment}")
        assert run.kill("judge")
    wait_for(lambda: run.process.poll() is not None, STEP_S + STEPS * 5, "the end of the job")
    assert run.process.returncode == 0, run.output()[-3000:]
    logged = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [line["step"] for line in logged] == list(range(run.steps()[0], STEPS + 1))
    for line in logged:
        found = {name: line["data"][f"repo/reward_{name}"] for name in ("error", "timeout", "no_answer")}
        assert not any(found.values()), found
        assert 0 < line["data"]["repo/score_fresh_mean"] < 1
    wait_for(lambda: not list(run.processes()), END_S, "the end of its processes")


def test_a_clock_that_goes_back_an_hour_changes_no_number(player, tmp_path):
    """``time.time`` of the driver, the actor workers and TransferQueue jumps in the middle of step 4 of 6."""
    common = [
        "actor_rollout_ref.actor.ppo_mini_batch_size=4", "trainer.total_epochs=6", "algorithm.repo.min_size=4",
        "algorithm.repo.strategy=full",
    ]  # fmt: skip
    jobs = RecordedJobs(player, tmp_path, [f"{i}+{i}=?" for i in range(4)], 4, 4, common)
    jobs.add("true", [], alone=True)
    jobs.add("back", [], alone=True, clock_back_at=4)
    status, output = jobs.play(timeout=300)
    assert status == 0, output[-3000:]
    true, back = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("true", "back"))
    assert len(true) == len(back) == 6
    assert [line["repo/age_max"] for line in back] == [0, 1, 2, 3, 4, 4]
    for one, other in zip(true, back, strict=True):
        assert set(one) == set(other)
        for key, value in other.items():
            if key.startswith("timing_") or "perf/" in key:
                assert 0 <= value < 1e7, f"{key}={value}"
            else:
                assert repr(value) == repr(one[key]), key  # NaN too
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("true", "back")]
    assert weights[0] == weights[1]

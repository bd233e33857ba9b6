"""SIGKILL at random instants of training and saving: what a finished checkpoint held is there, and training goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import make_tiny_model, write_prompts

pytestmark = [pytest.mark.e2e, pytest.mark.full]

HELPERS = Path(__file__).resolve().parents[1] / "helpers"
ROUNDS, SEED = 40, 6


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Every round, and the undisturbed run's states by step."""
    base = tmp_path_factory.mktemp("killed")
    model = make_tiny_model(base / "model")
    data = write_prompts(base / "train.parquet", [f"{i}+{i}=?" for i in range(12)])
    log = base / "log"
    with log.open("w") as file:
        arguments = [model, data, base, ROUNDS, SEED]
        done = subprocess.run(
            [sys.executable, str(HELPERS / "checkpoint_run.py"), *map(str, arguments)],
            stdout=file, stderr=subprocess.STDOUT, cwd=base, env={**os.environ, "VERL_PLATFORM": "cpu"}, check=False,
        )  # fmt: skip
    assert done.returncode == 0, log.read_text()[-6000:]
    whole = [json.loads(line) for line in (base / "whole.jsonl").read_text().splitlines()]
    states = {line["step"]: line for line in whole if line["event"] == "saved"}
    return json.loads((base / "rounds.json").read_text()), states


def same(line, state):
    return all(line[key] == state[key] for key in state if key not in ("event", "at"))


def test_every_round_was_killed_and_every_run_resumed(played):
    rounds, _ = played
    assert len(rounds) == ROUNDS
    assert all(one["status"] == -9 for one in rounds), [one["status"] for one in rounds]
    assert all(one["new"][0]["event"] == "resumed" for one in rounds)


def test_kills_hit_saves_and_steps(played):
    rounds, _ = played
    last = [one["new"][-1]["event"] for one in rounds]
    assert last.count("saving") >= 8 and last.count("saved") + last.count("resumed") >= 4, last


def test_no_row_of_a_finished_checkpoint_is_lost(played):
    rounds, states = played
    lost, resumed = 0, 0
    for one in rounds:
        finished = [line["step"] for line in one["before"] if line["event"] == "saved"]
        step = one["new"][0]["step"]
        assert step >= max(finished, default=0), (step, finished)
        if step:
            resumed += 1
            lost += states[step]["rows"] - one["new"][0]["rows"]
            assert same(one["new"][0], states[step]), (one["new"][0], states[step])
    assert lost == 0 and resumed >= ROUNDS * 3 // 4


def test_steps_after_a_resume_are_those_of_the_undisturbed_run(played):
    rounds, states = played
    saved = [line for one in rounds for line in one["new"] if line["event"] == "saved"]
    assert len(saved) > ROUNDS
    assert all(same(line, states[line["step"]]) for line in saved)


def test_runs_that_were_killed_end_and_keep_no_buffer_without_its_actor(played):
    ended = [one for one in played[0] if "end" in one]
    assert ended, "no run came near its end"
    for one in ended:
        assert one["end"] == 0 and one["buffers"] == one["actors"] and "global_step_40" in one["buffers"]

"""The gradient of an update is the same on 1 and on 2 data-parallel processes, through verl's real FSDP2 actor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from engine_gradients import REPLAYED, cases
from safetensors.torch import load_file
from tiny_model import make_tiny_model

pytestmark = pytest.mark.contract

PROGRAM = Path(__file__).resolve().parents[1] / "helpers" / "engine_gradients.py"
TOLERANCE = 1e-5
PROMPTS, FRESH = 4, 16


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Where the gradients of every case lie."""
    folder = tmp_path_factory.mktemp("gradients")
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), str(make_tiny_model(folder / "model")), str(folder)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return folder


def norm(tensors):
    return sum(float(one.double().square().sum()) for one in tensors) ** 0.5


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_two_processes_have_the_gradient_of_one(results, case):
    facts = [json.loads((results / f"{ranks}.json").read_text())[case.name] for ranks in (1, 2)]
    one, two = (load_file(results / f"{ranks}-{case.name}.safetensors") for ranks in (1, 2))
    for fact in facts:
        assert [fact["replayed"].count(block) for block in range(PROMPTS)] == list(REPLAYED)
        assert fact["steps"] == case.mini_batches and fact["rows"] == (FRESH + sum(REPLAYED)) * case.mini_batches
        # of 16 fresh rows 4 + 2 have advantage 0, of 11 replayed ones 4 + 2
        assert fact["placed"] == fact["kept"] == (10 + 5) * case.mini_batches
    assert facts[1]["padding"] > 0, "15 rows a mini-batch don't divide by two"
    assert one.keys() == two.keys() and len(one) == case.mini_batches * len({name.partition(".")[2] for name in one})
    for step in range(case.mini_batches):
        names = [name for name in one if name.startswith(f"{step}.")]
        size = norm(one[name] for name in names)
        assert size > 1e-3, "a gradient"
        assert norm(two[name] - one[name] for name in names) <= TOLERANCE * size
        for name in names:
            assert norm([two[name] - one[name]]) <= TOLERANCE * norm([one[name]]), name

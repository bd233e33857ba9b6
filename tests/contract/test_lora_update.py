"""A RePO update of LoRA adapters through verl's FSDP2 actor: the gradient of the loops, whole and pruned."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import make_tiny_model

pytestmark = pytest.mark.contract

PROGRAM = Path(__file__).resolve().parents[1] / "helpers" / "lora_update.py"
UPDATES = [f"{ranks}-{kind}" for ranks in (1, 2) for kind in ("whole", "pruned")]


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """How far every parameter moved, by update."""
    from safetensors.torch import load_file

    folder = tmp_path_factory.mktemp("lora")
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), str(make_tiny_model(folder / "model")), str(folder)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return {name: load_file(folder / f"{name}.safetensors") for name in (*UPDATES, "oracle")}


@pytest.mark.parametrize("name", UPDATES)
def test_adapters_move_along_the_gradient_of_the_loops(moved, name):
    wanted, found = moved["oracle"], moved[name]
    assert {one for one in found if "lora_" in one} == set(wanted) and len(wanted) == 28
    size = sum(float(one.square().sum()) for one in wanted.values()) ** 0.5
    apart = sum(float((found[one].double() - wanted[one]).square().sum()) for one in wanted) ** 0.5
    assert size > 0.1 and apart <= 1e-4 * size
    assert all(bool(one.any()) for one in wanted.values()), "A and B have a gradient"


@pytest.mark.parametrize("name", UPDATES)
def test_weights_under_the_adapters_stay(moved, name):
    still = [one for key, one in moved[name].items() if "lora_" not in key]
    assert len(still) == 21 and not any(bool(one.any()) for one in still)

"""One batch through the actor on a GPU (FSDP2, bf16, flash attention) beside the CPU in float32; docs/gpu.md."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gpu_stack import make_model

pytestmark = pytest.mark.gpu

PROGRAM = Path(__file__).resolve().parents[1] / "helpers" / "gpu_update.py"
NORM, ANGLE = 0.05, 0.99
"""bf16 has 8 bits: relative tolerance of norms, and least cosine between the two directions."""


def update(device, model, out):
    run = subprocess.run(
        [sys.executable, str(PROGRAM), device, str(model), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def updates(device, tmp_path_factory):
    """The device's updates and the CPU's."""
    folder = tmp_path_factory.mktemp("update")
    model = make_model(folder / "model", "small" if device == "cuda" else "cpu")
    return {name: update(name, model, folder / f"{name}.json") for name in {device, "cpu"}}


def cosine(one, other):
    import torch

    return float(torch.nn.functional.cosine_similarity(torch.tensor(one).double(), torch.tensor(other).double(), dim=0))


@pytest.mark.parametrize("name", ["replay", "pruned", "off"])
def test_update_is_the_cpus_within_bf16(updates, device, name):
    found, wanted = updates[device][name], updates["cpu"][name]
    assert found["loss"] == pytest.approx(wanted["loss"], rel=NORM, abs=0.01)
    assert found["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=NORM)
    assert wanted["moved"] > 0 and cosine(found["vector"], wanted["vector"]) > ANGLE


def test_pruning_changes_nothing_on_the_device(updates, device):
    whole, pruned = updates[device]["replay"], updates[device]["pruned"]
    assert pruned["grad_norm"] == pytest.approx(whole["grad_norm"], rel=NORM)
    assert cosine(whole["vector"], pruned["vector"]) > ANGLE


def test_batch_without_replay_is_grpos_on_the_device(updates, device):
    """The same loss on the same rows; on a GPU, backward passes add in no fixed order."""
    off, grpo = updates[device]["off"], updates[device]["grpo"]
    assert off["loss"] == grpo["loss"]
    assert off["grad_norm"] == pytest.approx(grpo["grad_norm"], rel=1e-3)
    assert cosine(off["vector"], grpo["vector"]) > 0.9999

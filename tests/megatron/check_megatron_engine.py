"""RePO's update under verl's Megatron engine: the same parameters and reports as under FSDP2, pruned and unpruned.

Not collected by pytest (the name), since it needs Megatron-Core: ``bash run_scripts/test_megatron.sh`` runs it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from megatron_update import CASES, LAYOUTS, UPDATES
from tiny_model import make_tiny_model

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-5
ENGINES = [name for name in LAYOUTS if name != "fsdp2"]
NAMES = [f"{case.name}-{'pruned' if prune else 'whole'}" for case, prune in UPDATES]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """What every engine gave. The vocabulary is even, so that two processes can share it."""
    from transformers import LlamaForCausalLM

    out = tmp_path_factory.mktemp("megatron")
    model = make_tiny_model(out / "model", layers=4)
    larger = LlamaForCausalLM.from_pretrained(model)
    larger.resize_token_embeddings(84)
    larger.save_pretrained(model)
    paths = [str(HERE), str(HERE.parent / "helpers"), str(HERE.parents[1])]
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(HERE / "megatron_update.py"), str(model), str(out)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return out


def parameters(folder, engine, number):
    from safetensors.torch import load_file

    name = "model/model" if engine is None else f"{engine}-{number}"
    return {name: value.double() for name, value in load_file(folder / f"{name}.safetensors").items()}


def distance(ones, others):
    """Norm of the difference of two sets of parameters with the same names."""
    assert ones.keys() == others.keys()
    return sum(float((ones[name] - others[name]).square().sum()) for name in ones) ** 0.5


@pytest.mark.parametrize("number", range(len(UPDATES)), ids=NAMES)
@pytest.mark.parametrize("engine", ENGINES)
def test_update_ends_where_fsdp2_ends(folder, engine, number):
    wanted, found = parameters(folder, "fsdp2", number), parameters(folder, engine, number)
    moved = distance(wanted, parameters(folder, None, None))
    assert distance(wanted, found) <= TOLERANCE * moved
    assert (moved == 0.0) == (UPDATES[number][0].share == 100)


@pytest.mark.parametrize("number", range(len(UPDATES)), ids=NAMES)
@pytest.mark.parametrize("engine", ENGINES)
def test_workers_report_what_fsdp2_reports(folder, engine, number):
    """Sums are means over data-parallel ranks, as verl makes them; the driver multiplies."""
    wanted, found = (json.loads((folder / f"{name}.json").read_text())[number] for name in ("fsdp2", engine))
    ranks, means = found["size"], ("repo/loss_fresh", "repo/loss_replayed", "repo/ratio_max")
    assert ranks == (2 if "data2" in engine else 1)
    assert len(wanted["grad_norm"]) == UPDATES[number][0].mini_batches
    keys = [key for key in wanted if key.startswith(("repo/", "actor/", "loss", "grad_norm"))]
    assert {"repo/rows", "repo/fresh_tokens", "actor/pg_loss", "actor/pg_clipfrac", "grad_norm"} <= set(keys)
    for key in keys:
        factor = 1 if key in means or not key.startswith("repo/") else ranks
        assert [factor * value for value in found[key]] == pytest.approx(wanted[key], rel=1e-4, abs=1e-6), key


def test_pruned_updates_leave_rows_out(folder):
    rows = [one["repo/rows"] for one in json.loads((folder / "data2_pipeline2.json").read_text())]
    for number in range(0, 2 * len(CASES), 2):
        assert sum(rows[number + 1]) < sum(rows[number])

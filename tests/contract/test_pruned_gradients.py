"""Rows of zero advantage left out of an update: the same parameters after it, through verl's real FSDP2 actor."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from engine_rows import every_case
from pairwise import pairwise
from tiny_model import make_tiny_model

pytestmark = pytest.mark.contract

PROGRAM = Path(__file__).resolve().parents[1] / "helpers" / "engine_update.py"
TOLERANCE = {"fp32": 1e-5, "fp64": 1e-10}
RANKS = (1, 2)


def cases(optimizer):
    """Every case of an optimizer on 1 and on 2 data-parallel processes; of SGD's, the default tier runs few."""
    chosen = [(ranks, case) for ranks in RANKS for case in every_case() if case.optimizer == optimizer]
    by_values = {(ranks, *dataclasses.astuple(case)): (ranks, case) for ranks, case in chosen}
    few = set(pairwise(list(by_values)))
    return pytest.mark.parametrize(
        "ranks, case",
        [
            pytest.param(*one, id=f"{one[0]}-{one[1].name}", marks=[] if values in few else [pytest.mark.full])
            for values, one in by_values.items()
        ],
    )


@pytest.fixture(scope="module")
def results(request, tmp_path_factory):
    """What every selected case gave, by its name."""
    tests = [one.callspec.params for one in request.session.items if one.path == request.path]
    names = [f"{test['ranks']}-{test['case'].name}" for test in tests]
    folder = tmp_path_factory.mktemp("engine")
    (folder / "names.json").write_text(json.dumps(names))
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), str(make_tiny_model(folder / "model")), str(folder)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    found = [one for ranks in RANKS for one in json.loads((folder / f"{ranks}.json").read_text())]
    return {one["name"]: one for one in found}


@cases("SGD")
def test_pruned_update_ends_at_the_same_parameters(results, ranks, case):
    result = results[f"{ranks}-{case.name}"]
    whole, pruned = result["moved"]
    if case.share == 100:
        assert whole == pruned == 0.0, "no gradient, so the parameters are as they were"
    else:
        assert whole > 0.01 * result["size"], "a step that shows"
        assert result["apart"] <= TOLERANCE[case.dtype] * whole
        assert all(result["clipped"][: 4 if case.replay else 2]), (
            "the bounds cut fresh and replayed tokens on both sides"
        )
    assert result["steps"] == [case.mini_batches] * 2
    for one, other in zip(*result["grad_norm"], strict=True):
        assert other == pytest.approx(one, rel=TOLERANCE[case.dtype], abs=0)
    for name in ("loss", "actor/pg_clipfrac"):  # verl sums them up in float32
        assert result[name][1] == pytest.approx(result[name][0], rel=1e-5, abs=1e-6)
    assert result["kept"] == result["rows"] * (100 - case.share) // 100
    assert result["tokens"][1] < result["tokens"][0] or case.share == 0


@cases("AdamW")
def test_update_without_a_row_left_still_decays_weights(results, ranks, case):
    result = results[f"{ranks}-{case.name}"]
    assert result["kept"] == 0 and result["steps"] == [case.mini_batches] * 2
    assert result["grad_norm"] == [[0.0] * case.mini_batches] * 2
    assert result["apart"] == 0.0
    assert result["off_decay"] <= 1e-4 * result["moved"][1], "lr * weight_decay of every parameter, in every step"

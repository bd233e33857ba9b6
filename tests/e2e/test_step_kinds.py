"""The cost benchmarks' run of four kinds of steps by turns, whole: each kind does what its name says."""

import argparse
import importlib
import math
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.full]

PROMPTS, N = 4, 8
BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture(scope="module")
def programs():
    sys.path.insert(0, BENCHMARKS)
    try:
        yield importlib.import_module("gpu_truth"), importlib.import_module("step_ratio")
    finally:
        sys.path.remove(BENCHMARKS)


@pytest.fixture(scope="module")
def steps(programs, tmp_path_factory):
    """One round, as gpu_truth.py and step_ratio.py take it, after the warm-up."""
    options = argparse.Namespace(device="cpu", size="small", prompts=PROMPTS, tokens=16, rounds=1)
    return programs[0].run(tmp_path_factory.mktemp("kinds"), options)


def test_each_kind_is_what_its_name_says(steps):
    kinds = {step["step_kind"]: step for step in steps}
    assert list(kinds) == ["grpo_stock", "repo_stock", "grpo_pruned", "repo"]
    assert not [key for key in kinds["grpo_stock"] if key.startswith(("repo/", "timing_s/repo_"))], "verl's own step"
    ours = [kinds[name] for name in ("repo_stock", "grpo_pruned", "repo")]
    assert [step["repo/replayed_rows"] for step in ours] == [PROMPTS * N, 0, PROMPTS * N]
    for step, pruned in zip(ours, (False, True, True), strict=True):
        empty = step["repo/zero_advantage_share_fresh"] * PROMPTS * N
        empty += step["repo/zero_advantage_share_replayed"] * step["repo/replayed_rows"]
        assert step["repo/pruned_rows"] == pytest.approx(empty if pruned else 0)
    tokens = [step["repo/update_tokens"] for step in ours]
    assert kinds["grpo_stock"]["perf/total_num_tokens"] == pytest.approx(tokens[0] / 2), "every prompt is replayed"


def test_the_summary_counts_every_kind(steps, programs):
    truth, ratios = programs
    found = {**truth.throughput(steps), **ratios.summarise(steps)}
    assert found["rounds"] == 1
    medians = {name: float(str(value).split()[0]) for name, value in found.items()}
    assert all(math.isfinite(value) for value in medians.values())
    by_kind = {step["step_kind"]: step["timing_s/step"] for step in steps}
    for name, (one, other) in ratios.PAIRS.items():
        assert medians[f"{name}_step"] == pytest.approx(by_kind[one] / by_kind[other], abs=1e-3)
    assert all(medians[f"update_tokens_a_second_{kind}"] > 0 for kind in ratios.KINDS)

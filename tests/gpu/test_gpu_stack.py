"""verl + vLLM + FSDP2 + bf16 + flash attention on a GPU, whole runs; docs/gpu.md."""

import math

import pytest
from gpu_stack import make_model, settings, train

pytestmark = pytest.mark.gpu

STEPS = {"cuda": 20, "cpu": 3}
PROMPTS, FIRST_REPLAY = 8, 3
"""8 responses a prompt and step, 16 before a prompt replays: the third step is the first that replays."""


@pytest.fixture(scope="module")
def runs(device, tmp_path_factory):
    """What RePO's run and the two runs without replay logged."""
    folder = tmp_path_factory.mktemp("stack")
    model = make_model(folder / "model", "small" if device == "cuda" else "cpu")
    common = settings(device, folder, model, PROMPTS, 256 if device == "cuda" else 16)
    arms = {
        "repo": (["algorithm.adv_estimator=repo"], STEPS[device]),
        "off": (["algorithm.adv_estimator=repo", "algorithm.repo.strategy=none"], 2),
        "grpo": (["algorithm.adv_estimator=grpo"], 2),
    }
    return {name: train(device, folder / name, [*common, *own], steps) for name, (own, steps) in arms.items()}


def test_every_step_is_logged_and_finite(runs, device):
    assert [step["training/global_step"] for step in runs["repo"]] == list(range(1, STEPS[device] + 1))
    for step in runs["repo"]:
        bad = {key: value for key, value in step.items() if isinstance(value, float) and not math.isfinite(value)}
        assert not bad
        assert step["repo/nonfinite_rows"] == step["repo/nonfinite_steps"] == 0
        assert step["actor/grad_norm"] > 0


def test_rows_are_replayed_from_the_third_visit_on(runs):
    replayed = [step["repo/replayed_rows"] for step in runs["repo"]]
    assert replayed[: FIRST_REPLAY - 1] == [0] * (FIRST_REPLAY - 1)
    assert replayed[FIRST_REPLAY - 1 :] == [8 * PROMPTS] * (len(replayed) - FIRST_REPLAY + 1)
    for step in runs["repo"][FIRST_REPLAY - 1 :]:
        assert 0.5 < step["repo/ratio_mean_replayed"] < 2.0 and 0 < step["repo/ess_replayed"] <= 1.0


def test_memory_stays_within_the_device(runs, device):
    import torch

    peak = max(step["actor/perf/max_memory_reserved_gb"] for step in runs["repo"])
    assert peak > 0
    if device == "cuda":
        assert peak < torch.cuda.get_device_properties(0).total_memory / 2**30


def test_without_replay_the_run_is_grpos_but_for_its_metrics(runs):
    """Generation on a GPU is not reproducible, so values are compared on one batch in test_gpu_update.py."""
    names = [{key for step in runs[arm] for key in step if "repo" not in key} for arm in ("off", "grpo")]
    assert names[0] == names[1]
    assert all(step["repo/replayed_rows"] == step["repo/buffer_rows"] == 0 for step in runs["off"])
    assert not any(key.startswith("repo/") for step in runs["grpo"] for key in step)

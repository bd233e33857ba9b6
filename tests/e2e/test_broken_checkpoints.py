"""Checkpoints that are cut short, damaged, foreign or can't be written: one sentence, or the run goes on correctly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.full]

HELPERS = Path(__file__).resolve().parents[1] / "helpers"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What came of every attempt, by case."""
    base = tmp_path_factory.mktemp("broken")
    log = base / "log"
    with log.open("w") as file:
        done = subprocess.run(
            [sys.executable, str(HELPERS / "broken_checkpoints.py"), str(base)],
            stdout=file, stderr=subprocess.STDOUT, cwd=base, env={**os.environ, "VERL_PLATFORM": "cpu"}, check=False,
        )  # fmt: skip
    assert done.returncode == 0, log.read_text()[-6000:]
    return json.loads((base / "results.json").read_text())


def only(results, name):
    (found,) = results[name]
    return found


def test_a_whole_one_is_resumed(results):
    first, found = only(results, "first"), only(results, "whole")
    assert first["saved"] == 3 and found["resumed"]["step"] == 3 and found["saved"] == 4
    assert found["resumed"]["rows"] == 48
    assert any("restored 48 rows from" in line for line in found["said"])


def refused(found, name, *parts):
    assert "resumed" not in found and found["error"]["name"] == name, found
    for part in parts:
        assert part in found["error"]["text"], found["error"]["text"]
    assert "\n" not in found["error"]["text"] and found["error"]["text"].count(". ") == 0


@pytest.mark.parametrize(
    ("case", "name", "parts"),
    [
        ("actor_cut", "CheckpointError", ["actor/model_world_size_1_rank_0.pt has 100 of", "global_step_2."]),
        ("data_cut", "CheckpointError", ["data.pt has 100 of", "trainer.resume_from_path="]),
        ("meta_gone", "CheckpointError", ["prompt_replay/meta.json is missing", "trainer.resume_from_path="]),
        ("buffer_flipped", "BufferFilesError", ["rows-00000.safetensors has the checksum"]),
        ("meta_flipped", "BufferFilesError", ["meta.json"]),
        ("other_tokenizer", "RepoConfigError", ["the tokenizer='", "persist=false"]),
        ("other_vocabulary", "RepoConfigError", ["the model's vocabulary=", "persist=false"]),
        ("other_temperature", "RepoConfigError", ["temperature=0.5 differs from 1.0"]),
        ("other_data", "RepoConfigError", ["the content of data.train_files='", "persist=false"]),
    ],
)  # fmt: skip
def test_what_is_refused(results, case, name, parts):
    refused(results[case][0], name, *parts)


@pytest.mark.parametrize("case", ["actor_cut", "buffer_flipped"])
def test_the_checkpoint_before_resumes(results, case):
    _, found = results[case]
    assert found["resumed"]["step"] == 2 and found["resumed"]["rows"] == 32 and found["saved"] == 4


def test_a_torn_tracker_is_mended(results):
    found = only(results, "tracker_torn")
    assert found["resumed"] == only(results, "whole")["resumed"] and found["saved"] == 4
    assert any("was torn (b'') and now names the last finished checkpoint" in line for line in found["said"])


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("grpo", "global_step_3 has no replay buffer, so it starts empty"),
        ("not_persisted", "algorithm.repo.persist=false, so the replay buffer starts empty"),
        ("other_data_empty", "algorithm.repo.persist=false, so the replay buffer starts empty"),
    ],
)
def test_what_starts_with_an_empty_buffer(results, case, sentence):
    found = only(results, case)
    assert found["resumed"]["step"] == 3 and found["resumed"]["rows"] == 0 and found["saved"] == 4
    assert any(sentence in line for line in found["said"])
    assert found["resumed"]["weights"] == only(results, "whole")["resumed"]["weights"]


def test_a_smaller_capacity_keeps_the_newest(results):
    whole, found = only(results, "whole"), only(results, "smaller")
    assert (
        whole["resumed"]["rows"] == 48 and found["resumed"]["rows"] == 36
    )  # 12 prompts with 4 rows each after 3 steps
    assert any("capacity=3, where the buffer was saved with 8: the 12 oldest" in line for line in found["said"])


def test_rows_that_are_longer_than_the_run_takes_are_left_out(results):
    found = only(results, "shorter")
    assert found["resumed"]["step"] == 3 and found["resumed"]["rows"] == 0, "recorded responses have 4 tokens or more"
    assert any("48 saved rows are left out, " in line and "48 over data.max_response" in line for line in found["said"])


def test_a_larger_capacity_and_other_log_probs_are_migrated(results):
    larger, narrow = only(results, "larger"), only(results, "narrow")
    assert larger["resumed"]["rows"] == narrow["resumed"]["rows"] == 48 and larger["saved"] == narrow["saved"] == 4
    assert any("capacity=32, where the buffer was saved with 8: all rows are kept" in line for line in larger["said"])
    assert any("stored log-probs are converted" in line for line in narrow["said"])


@pytest.mark.parametrize("case", ["full_disk", "full_disk_for_verl"])
def test_a_full_disk_stops_the_run_and_the_last_checkpoint_resumes(results, case):
    full, after = results[case]
    assert full["error"]["name"] == "CheckpointError" and full["saved"] >= 2
    text = full["error"]["text"]
    assert f"step {full['saved'] + 1} could not be saved below" in text and "fix the cause (a full disk, " in text
    assert f"global_step_{full['saved']}:" in text
    assert after["resumed"]["step"] == full["saved"] and after["saved"] == 12 and "error" not in after
    assert after["resumed"]["rows"] == (min(full["saved"] * 16, 12 * 8) if case == "full_disk" else 0)
    assert ("the replay buffer needs" in text) == (case == "full_disk"), text


def test_a_read_only_folder_stops_the_run_and_the_last_checkpoint_resumes(results):
    first, refusal, after = results["read_only"]
    assert first["saved"] == 2 and refusal["resumed"]["step"] == 2 and "saved" not in refusal
    text = refusal["error"]["text"]
    assert refusal["error"]["name"] == "CheckpointError" and "Read-only file system" in text
    assert "step 3 could not be saved below" in text and "global_step_2:" in text
    assert after["resumed"] == refusal["resumed"] and after["saved"] == 4

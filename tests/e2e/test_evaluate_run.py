"""A tiny model on the seven real benchmarks with vLLM on the CPU: killed, resumed, and equal to a run that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from repo_verl.cpu.tiny import build_model, build_tokenizer

pytestmark = [pytest.mark.e2e, pytest.mark.full, pytest.mark.shared_data]

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
LIMIT = 12
"""Problems of each benchmark: the whole takes minutes on two cores."""


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    inputs = [str(DATA), f"minerva={DATA / 'minerva/QwenLM__Qwen2.5-Math__test.jsonl'}"]
    inputs.append(f"gsm8k={DATA / 'gsm8k/openai__grade-school-math__test.jsonl'}")
    command = [sys.executable, "-m", "data_prep", "benchmarks", "--output", str(folder), "--quiet"]
    subprocess.run([*command, *(part for text in inputs for part in ("--input", text))], check=True)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    build_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def command(model, benchmarks, output):
    return [
        sys.executable, "-m", "repo_verl.cli", "evaluate", "--model", str(model), "--benchmarks", str(benchmarks),
        "--output", str(output), "--limit", str(LIMIT), "--samples", "1", "aime24=2", "--max-tokens", "4",
        "--max-num-seqs", "1", "--dtype", "float32",
    ]  # fmt: skip


def lines(output):
    return [
        line for path in sorted((output / "completions").glob("*.jsonl")) for line in path.read_bytes().splitlines()
    ]


def contents(output):
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_killed_and_resumed_it_is_the_run_that_was_not(benchmarks, model, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = subprocess.run(command(model, benchmarks, whole), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(lines(whole)) == 7 * LIMIT
    process = subprocess.Popen(
        command(model, benchmarks, broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not (broken / "completions").is_dir() or len(lines(broken)) < 7 * LIMIT // 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = contents(broken)
    kept = lines(broken)
    assert 7 * LIMIT // 2 <= len(kept) < 7 * LIMIT and "metrics.json" not in finished
    again = subprocess.run(command(model, benchmarks, broken), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    after = contents(broken)
    for name, content in finished.items():
        if name.endswith(".jsonl"):
            assert after[name].startswith(content), "finished problems are never written again"
    assert len(lines(broken)) == 7 * LIMIT
    assert after == contents(whole)
    rows = pq.read_table(broken / "completions.parquet").to_pylist()
    keys = [(row["benchmark"], row["problem"], row["sample"]) for row in rows]
    assert len(keys) == len(set(keys)) == 8 * LIMIT, "two samples on aime24, one elsewhere"
    content = json.loads((broken / "metrics.json").read_text())
    assert list(content["benchmarks"]) == ["math500", "amc23", "olympiadbench", "minerva", "aime24", "aime25", "gsm8k"]
    assert content["benchmarks"]["aime24"]["samples"] == 2 and content["benchmarks"]["gsm8k"]["mean_tokens"] <= 4
    third = subprocess.run(command(model, benchmarks, broken), capture_output=True, text=True, check=False)
    assert third.returncode == 0 and contents(broken) == after, "nothing is left to generate"
    assert "vllm" not in third.stderr.lower(), "the model is not loaded"
    other = subprocess.run(
        [*command(model, benchmarks, broken), "--top-k", "5"], capture_output=True, text=True, check=False
    )
    assert other.returncode == 1 and "made with top_k=50, now it is 5: take another --output" in other.stderr

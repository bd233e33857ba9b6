"""The whole stack on one device: a model made on the spot, verl's command, and what it logged.

``cuda`` is verl's default stack: vLLM, FSDP2, bf16, flash attention. ``cpu`` runs the same code on the CPU backend in
float32, to see that all but the device works. ``REPO_VERL_ATTENTION=sdpa`` takes PyTorch's attention and padded rows on
a GPU without the package flash-attn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {"cuda": "repo_gpu", "cpu": "repo_cpu"}
SIZES = {
    "cpu": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256},
    "small": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 768},
    "1.5b": {
        "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
        "intermediate_size": 8960,
    },
}  # fmt: skip
"""Llamas with random weights, heads of 32 (the least that vLLM knows on a CPU), 64 and 128; ``1.5b``: Qwen2.5-1.5B's
blocks."""


def make_model(folder: Path, size: str) -> Path:
    """Write a model of a size and the byte tokenizer, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from repo_verl.cpu.tiny import build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=4096, initializer_range=0.02, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **SIZES[size],
    )  # fmt: skip
    LlamaForCausalLM(config).float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def attention(device: str) -> list[str]:
    """Settings of attention: verl's default on a GPU, which is flash attention on packed rows."""
    chosen = os.environ.get("REPO_VERL_ATTENTION", "flash_attention_2" if device == "cuda" else "sdpa")
    model = "actor_rollout_ref.model"
    named = f"++{model}.override_config.attn_implementation={chosen}"
    return [named, f"{model}.use_remove_padding={chosen != 'sdpa'}"]


def settings(device: str, folder: Path, model: Path, prompts: int, tokens: int) -> list[str]:
    """One GPU, ``prompts`` prompts that come back in every step, 8 responses of at most ``tokens`` tokens."""
    from tiny_model import write_prompts

    data = write_prompts(folder / "prompts.parquet", [f"{number}+{number}=?" for number in range(prompts)])
    return [
        *attention(device), f"actor_rollout_ref.model.path={model}", f"data.train_files={data}",
        f"data.val_files={data}", f"data.train_batch_size={prompts}", "data.max_prompt_length=32",
        f"data.max_response_length={tokens}", f"actor_rollout_ref.actor.ppo_mini_batch_size={prompts}",
        "actor_rollout_ref.rollout.n=8", "data.shuffle=False",
        f"reward.custom_reward_function.path={ROOT / 'benchmarks/coin_reward.py'}",
        "reward.custom_reward_function.name=compute_score", "trainer.n_gpus_per_node=1", "trainer.nnodes=1",
        "trainer.val_before_train=False", "trainer.test_freq=-1", "trainer.save_freq=-1", "trainer.logger=[file]",
        "trainer.total_epochs=100000", f"trainer.default_local_dir={folder / 'checkpoints'}",
    ]  # fmt: skip


def train(device: str, folder: Path, arguments: list[str], steps: int, **environment: str) -> list[dict[str, Any]]:
    """Run verl's command; what it logged of every step.

    Raises:
        RuntimeError: with the end of the log, if it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", str(ROOT / "recipe/repo/config"),
        "--config-name", CONFIG[device], f"hydra.run.dir={folder}", *arguments, f"trainer.total_training_steps={steps}",
    ]  # fmt: skip
    metrics, log = folder / "metrics.jsonl", folder / "train.log"
    platform = {"VERL_PLATFORM": "cpu"} if device == "cpu" else {}
    variables = {**os.environ, **platform, "VERL_FILE_LOGGER_PATH": str(metrics), **environment}
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=variables, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"verl ended with {done.returncode}; the end of {log}:\n{log.read_text()[-3000:]}")
    found = [json.loads(line)["data"] for line in metrics.read_text().splitlines()]
    return [step for step in found if "timing_s/step" in step]

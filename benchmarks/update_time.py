"""Time of an update without its rows of zero advantage, over that of the whole update, for several shares of such rows.

One data-parallel process of verl's real actor worker (FSDP2) on the CPU, with a Qwen2 model of 30 M parameters: one
mini-batch of 12 fresh and 12 replayed rows with responses of 256 tokens, AdamW. Both updates start from the same
parameters and are timed in turn.

    python benchmarks/update_time.py [PAIRS]
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import write_result

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

PROMPTS, N, RESPONSE, MICRO_ROWS = 2, 6, 256, 6
VOCABULARY, HIDDEN, LAYERS = 1024, 512, 7
SHARES = {"0": (0, 0), "25": (3, 3), "50": (6, 6), "75": (9, 9), "quickstart": (3, 1)}
"""Rows of zero advantage: of the 12 fresh and of the 12 replayed ones. The quickstart has about 25 % and 6 %."""

SETTINGS = ["actor_rollout_ref.actor.optim.lr=1e-6"]


def make_model(folder: Path) -> int:
    """Write a random Qwen2 model with the tests' tokenizer under ``folder``; returns its number of parameters."""
    from tiny_model import make_tiny_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    make_tiny_model(folder)  # for its tokenizer
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=4 * HIDDEN, num_hidden_layers=LAYERS,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=512, tie_word_embeddings=False,
        pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).float()
    model.save_pretrained(folder)
    return sum(one.numel() for one in model.parameters())


def draw_rows(zeros: tuple[int, int]) -> list[dict[str, Any]]:
    """Rows of one length; as many of the fresh and of the replayed ones as asked for have an advantage of 0."""
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    prompts = [torch.tensor([rng.randrange(5, VOCABULARY) for _ in range(16)]) for _ in range(PROMPTS)]
    rows = []
    for origin, count in enumerate(zeros):
        for block in range(PROMPTS):
            for score in block_scores(min(max(count - block * N, 0), N)):
                rows.append({
                    "origin": origin, "block": block, "score": score, "prompt": prompts[block],
                    "tokens": torch.randint(5, VOCABULARY, (RESPONSE,), generator=generator),
                    "mask": torch.ones(RESPONSE, dtype=torch.int64),
                    "old": 0.3 * torch.randn(RESPONSE, generator=generator) - torch.tensor(float(VOCABULARY)).log(),
                })  # fmt: skip
    return rows


def block_scores(zeros: int) -> list[float]:
    """Scores of a block of which so many rows (all, or at most ``N - 2``) have an advantage of 0: the mean is 0.5."""
    live = N - zeros
    return [0.5] * zeros + ([0.25] * (live - 1) + [0.5 + 0.25 * (live - 1)] if live else [])


def measure(actor: Any, zeros: tuple[int, int], pairs: int) -> dict[str, Any]:
    """Time the update of a share of zeros, whole and pruned in turn."""
    from engine_rows import Case, actor_data, make_plan

    case, rows = Case("fp32", 0), draw_rows(zeros)
    plans = [make_plan(case, rows, 1, prune, N, MICRO_ROWS) for prune in (False, True)]
    assert sum(plans[1].kept) == len(rows) - sum(zeros)
    seconds: list[list[float]] = [[], []]
    processor: list[list[float]] = [[], []]
    for number in range(pairs):
        for which in (0, 1) if number % 2 else (1, 0):
            data = actor_data(case, rows, plans[which], 0, 1)
            actor.reset()
            begun, used = time.perf_counter(), time.process_time()
            actor.worker.update_actor(data)
            seconds[which].append(time.perf_counter() - begun)
            processor[which].append(time.process_time() - used)
    ratios = [pruned / whole for whole, pruned in zip(*seconds, strict=True)]
    processor_ratios = [pruned / whole for whole, pruned in zip(*processor, strict=True)]
    share = sum(plans[1].kept) / len(rows)
    found = {
        "tokens_left": share,
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "ratio_less_share": round(statistics.median(ratios) - share, 3),
        "whole_median_s": round(statistics.median(seconds[0]), 2),
        "pruned_median_s": round(statistics.median(seconds[1]), 2),
        "processor_ratio_median": round(statistics.median(processor_ratios), 3),
        "padding_rows": sum(row < 0 for row in plans[1].layout.order),
    }
    print(zeros, found, flush=True)
    return found


def main(pairs: int) -> None:
    """Measure every share and write the result."""
    os.environ.update(
        VERL_PLATFORM="cpu", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1"
    )
    from engine_update import Actor, free_port

    os.environ["MASTER_PORT"] = str(free_port())
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        parameters = make_model(Path(folder))
        actor = Actor(Path(folder), SETTINGS)
    actor.use_loss("seq-mean-token-mean")
    measure(actor, SHARES["75"], 1)  # warms up
    found = {name: measure(actor, zeros, pairs) for name, zeros in SHARES.items()}
    print(f"\n{'zero rows':>12} {'tokens left':>12} {'ratio':>7} {'min':>7} {'max':>7} {'whole s':>8} {'pruned s':>8}")
    for name, one in found.items():
        print(
            f"{name:>12} {one['tokens_left']:>12.3f} {one['ratio_median']:>7.3f} {one['ratio_min']:>7.3f} "
            f"{one['ratio_max']:>7.3f} {one['whole_median_s']:>8.2f} {one['pruned_median_s']:>8.2f}"
        )
    settings = {
        "parameters": parameters, "fresh_rows": PROMPTS * N, "replayed_rows": PROMPTS * N, "response_tokens": RESPONSE,
        "micro_batch_rows": MICRO_ROWS, "pairs": pairs, "threads": torch.get_num_threads(), "optimizer": "AdamW",
    }  # fmt: skip
    write_result("update_time", {**settings, **{f"zero_{name}": one for name, one in found.items()}})
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)

r"""Makes the tiny base models of laptop runs and CI.

``python -m repo_verl.cpu.tiny --task arithmetic --data arithmetic_warmup.parquet --output DIR --seed 0`` writes a model
and its tokenizer that vLLM and verl load: a small Llama that answers in ``\boxed{}`` and is right often enough, and
wrong often enough, that reinforcement learning has something to learn from.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from repo_verl.atomic_files import write_atomically
from repo_verl.cpu import tiny_warmup
from repo_verl.cpu.tiny_model import build_model, build_tokenizer

logger = logging.getLogger("repo_verl.cpu.tiny")

TARGETS = {"arithmetic": (0.15, 0.40), "yes-no": (0.20, 0.60), "golds": (0.02, 0.50)}
SAMPLES = 256


@dataclass(frozen=True)
class TinyOptions:
    """What to make.

    Attributes:
        task: ``arithmetic`` learns the gold answers; ``yes-no`` learns to box one of Yes, No, True, False; ``golds``
            learns to box one of the data's gold answers, whichever the prompt.
        data: a verl parquet file. Arithmetic trains on all rows but 256, and measures on those.
        output: folder of model, tokenizer and ``tiny.json``.
        seed: of weights, batches and samples.
        target: lowest and highest accuracy, as shares; None for the task's own.
        max_seconds: when to give up.
        threads: of torch; another number may round differently. One is quickest beside other work.
    """

    task: str
    data: Path
    output: Path
    seed: int = 0
    target: tuple[float, float] | None = None
    max_seconds: float = 300.0
    threads: int = 1
    band: tuple[float, float] = dataclasses.field(init=False)
    """The target in effect."""

    def __post_init__(self) -> None:
        """Raises: ValueError naming key, value and remedy."""
        if self.task not in TARGETS:
            raise ValueError(f"task={self.task!r} is unknown; use {', '.join(TARGETS)}")
        low, high = self.target or TARGETS[self.task]
        object.__setattr__(self, "band", (low, high))
        if not 0.0 <= low < high <= 1.0:
            raise ValueError(f"target={low, high} must be two shares, the lower first, as in 0.15 0.40")
        if self.threads < 1:
            raise ValueError(f"threads={self.threads} must be 1 or more")


def make_tiny(options: TinyOptions) -> dict[str, Any]:
    """Builds, warms up and saves a tiny model; returns the content of ``tiny.json``.

    Raises: ValueError if the data has too few rows, OSError if it cannot be read, RuntimeError if the warm-up does not
        end inside the target.
    """
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    examples = tiny_warmup.read_examples(pq.read_table(options.data).to_pylist(), tokenizer)
    train, held_out = split_examples(examples, options)
    answers = {
        "arithmetic": lambda _: tiny_warmup.gold_answers,
        "yes-no": tiny_warmup.word_sampler,
        "golds": tiny_warmup.gold_sampler,
    }[options.task](train)
    recipe = tiny_warmup.Recipe(batch_size=64 if options.task == "arithmetic" else 16, max_seconds=options.max_seconds)
    result = tiny_warmup.warm_up(model, tokenizer, train, held_out, answers, options.band, options.seed, recipe)
    options.output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    content = {
        "task": options.task,
        "seed": options.seed,
        "target": list(options.band),
        "steps": result.steps,
        "loss": round(result.loss, 4),
        "seconds": round(result.seconds, 1),
        **dataclasses.asdict(result.measured),
        "samples": len(held_out),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "data": options.data.name,
        "threads": options.threads,
        "torch": torch.__version__,
    }
    write_atomically(options.output / "tiny.json", json.dumps(content, indent=2) + "\n")
    return content


def split_examples(
    examples: list[tiny_warmup.Example], options: TinyOptions
) -> tuple[list[tiny_warmup.Example], list[tiny_warmup.Example]]:
    """(to learn from, to measure on): disjoint for arithmetic; else the same prompts, whose own golds are not learned.

    Raises: ValueError if there are too few rows, naming the file.
    """
    if options.task != "arithmetic":
        if not examples:
            raise ValueError(f"{options.data}: has no rows")
        return examples, examples * -(-SAMPLES // len(examples))
    if len(examples) < 2 * SAMPLES:
        raise ValueError(
            f"{options.data}: has {len(examples)} rows, want {2 * SAMPLES} or more; make them with "
            "`python -m data_prep arithmetic --warmup-size 6000 --output DIR`"
        )
    shuffled = random.Random(options.seed).sample(examples, len(examples))
    return shuffled[SAMPLES:], shuffled[:SAMPLES]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; 0 if the model is made, 2 with one line on stderr if not."""
    parser = argparse.ArgumentParser(prog="python -m repo_verl.cpu.tiny", description=__doc__)
    parser.add_argument("--task", required=True, choices=sorted(TARGETS))
    parser.add_argument("--data", required=True, type=Path, metavar="FILE.parquet")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, nargs=2, metavar=("LOW", "HIGH"), help="accuracy, as shares")
    parser.add_argument("--max-seconds", type=float, default=300.0, help="when to give up")
    parser.add_argument("--threads", type=int, default=1, help="of torch; 1 is quickest beside other work")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        content = make_tiny(TinyOptions(**vars(arguments)))
    except (ValueError, OSError, RuntimeError) as error:
        sys.stderr.write(f"repo_verl.cpu.tiny: {error}\n")
        return 2
    logger.info("%s", json.dumps(content))
    return 0


if __name__ == "__main__":
    sys.exit(main())

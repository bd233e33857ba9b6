r"""Makes the tiny base models of laptop runs and CI.

``python -m repo_verl.cpu.tiny --task arithmetic --data arithmetic_warmup.parquet --output DIR --seed 0`` writes a model
and its tokenizer that vLLM and verl load: a small Llama that answers in ``\boxed{}`` and is right often enough, and
wrong often enough, that reinforcement learning has something to learn from.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from repo_verl.atomic_files import write_atomically
from repo_verl.cpu.tiny_warmup import BOX, Example, read_examples, sampler, warm_up

logger = logging.getLogger("repo_verl.cpu.tiny")

PAD, EOS, USER, ASSISTANT = "<pad>", "<eos>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<eos>"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TARGETS = {"arithmetic": (0.15, 0.40), "yes-no": (0.20, 0.60), "golds": (0.02, 0.50)}
SAMPLES = 256


def build_tokenizer() -> PreTrainedTokenizerFast:
    r"""A tokenizer of the 256 bytes, four special tokens and ``\boxed{`` as one token.

    No text is unknown to it, TeX and other scripts included, and none is changed by encoding and decoding. The box is
    one token so that the few tokens of a response are about the answer, not about its frame.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={byte: number for number, byte in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([PAD, EOS, USER, ASSISTANT])
    backend.add_tokens([AddedToken(BOX, normalized=False, special=False)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=EOS,
        additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.padding_side = "left"
    return tokenizer


def build_model(
    tokenizer: PreTrainedTokenizerFast, hidden_size: int = 128, layers: int = 3, heads: int = 4
) -> LlamaForCausalLM:
    """A Llama in float32 with fresh weights, drawn from torch's global generator.

    Its vocabulary is exactly the tokenizer's: vLLM masks ids beyond the tokenizer and the trainer does not, so that
    spare rows would make the two disagree about probabilities. The weights start at a standard deviation of
    1/sqrt(hidden_size): with the usual 0.02, meant for wide models, warm-up took several times as many steps.
    ``hidden_size`` is a multiple of ``2 * heads``.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=4096,
        initializer_range=hidden_size**-0.5,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).float()
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True, temperature=1.0
    )
    return model


def make_tiny(
    task: str,
    data: Path,
    output: Path,
    seed: int = 0,
    target: Sequence[float] | None = None,
    max_seconds: float = 300.0,
) -> dict[str, Any]:
    """Build, warm up and save a tiny model, with one thread of torch: another number may round differently.

    Args:
        task: ``arithmetic`` learns the gold answers; ``yes-no`` learns to box one of Yes, No, True, False; ``golds``
            learns to box one of the data's gold answers, whichever the prompt.
        data: a verl parquet file. Arithmetic trains on all rows but 256, and measures on those.
        output: folder of model, tokenizer and ``tiny.json``.
        seed: of weights, batches and samples.
        target: lowest and highest accuracy, as shares; None for the task's own.
        max_seconds: when to give up.

    Returns: the content of ``tiny.json``.

    Raises: ValueError for an unknown task, a target that is no band or data of too few rows, OSError if the data
        cannot be read, RuntimeError if the warm-up does not end inside the target.
    """
    if task not in TARGETS:
        raise ValueError(f"task={task!r} is unknown; use {', '.join(TARGETS)}")
    low, high = target or TARGETS[task]
    if not 0.0 <= low < high <= 1.0:
        raise ValueError(f"target={low, high} must be two shares, the lower first, as in 0.15 0.40")
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    examples = read_examples(pq.read_table(data).to_pylist(), tokenizer)
    train, held_out = split_examples(examples, task, data, seed)
    answers, batch_size = sampler(task, train), 64 if task == "arithmetic" else 16
    result = warm_up(model, tokenizer, train, held_out, answers, (low, high), seed, batch_size, max_seconds)
    output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    content = {
        "task": task,
        "seed": seed,
        "target": [low, high],
        **result,
        "samples": len(held_out),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "data": data.name,
        "torch": torch.__version__,
    }
    write_atomically(output / "tiny.json", json.dumps(content, indent=2) + "\n")
    return content


def split_examples(
    examples: list[Example], task: str, data: Path, seed: int = 0
) -> tuple[list[Example], list[Example]]:
    """(to learn from, to measure on): disjoint for arithmetic; else the same prompts, whose own golds are not learned.

    Raises: ValueError if there are too few rows, naming the file.
    """
    if task != "arithmetic":
        if not examples:
            raise ValueError(f"{data}: has no rows")
        return examples, examples * -(-SAMPLES // len(examples))
    if len(examples) < 2 * SAMPLES:
        raise ValueError(
            f"{data}: has {len(examples)} rows, want {2 * SAMPLES} or more; make them with "
            "`python -m data_prep arithmetic --warmup-size 6000 --output DIR`"
        )
    shuffled = random.Random(seed).sample(examples, len(examples))
    return shuffled[SAMPLES:], shuffled[:SAMPLES]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if the model is made, 2 with one line on stderr if not."""
    parser = argparse.ArgumentParser(prog="python -m repo_verl.cpu.tiny", description=__doc__)
    parser.add_argument("--task", required=True, choices=sorted(TARGETS))
    parser.add_argument("--data", required=True, type=Path, metavar="FILE.parquet")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, nargs=2, metavar=("LOW", "HIGH"), help="accuracy, as shares")
    parser.add_argument("--max-seconds", type=float, default=300.0, help="when to give up")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        content = make_tiny(**vars(arguments))
    except (ValueError, OSError, RuntimeError) as error:
        sys.stderr.write(f"repo_verl.cpu.tiny: {error}\n")
        return 2
    logger.info("%s", json.dumps(content))
    return 0


if __name__ == "__main__":
    sys.exit(main())

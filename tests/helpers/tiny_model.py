"""A tiny random model with a character tokenizer, made on the spot."""

from __future__ import annotations

import string
from pathlib import Path

CHARACTERS = string.digits + string.ascii_letters + "+-*/=?.,:;()[]{}\\ \n"
SPECIAL = ("<pad>", "<eos>", "<unk>", "<|user|>", "<|assistant|>")
VOCABULARY = len(SPECIAL) + len(CHARACTERS)
"""Ids of the tokenizer."""


def make_tiny_model(folder: Path, seed: int = 0, hidden: int = 32, layers: int = 2) -> Path:
    """Write model and tokenizer under ``folder`` and return it."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *CHARACTERS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        additional_special_tokens=list(SPECIAL[3:]),
    )  # fmt: skip
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=256, tie_word_embeddings=False,
        pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_prompts(path: Path, prompts: list[str]) -> Path:
    """Write a parquet file in verl's schema; the ground truth is the prompt's number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "data_source": "synthetic",
            "prompt": [{"role": "user", "content": prompt}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(number)},
            "extra_info": {"split": "train", "index": number},
        }
        for number, prompt in enumerate(prompts)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path

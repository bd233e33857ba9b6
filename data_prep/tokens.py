"""How long a prompt is for a model."""

from __future__ import annotations

from collections.abc import Callable

from data_prep.schema import Row


def prompt_counter(tokenizer: str) -> Callable[[Row], int]:
    """A function that counts a row's prompt as verl will tokenize it: chat template and generation prompt included.

    Args:
        tokenizer: folder or hub name, as for ``AutoTokenizer.from_pretrained``.
    """
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer)

    def count(row: Row) -> int:
        text = loaded.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        return len(loaded(text, add_special_tokens=False)["input_ids"])

    return count

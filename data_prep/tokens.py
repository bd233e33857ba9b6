"""How long a prompt is for a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from data_prep.hub import is_reachable
from data_prep.schema import Row


def prompt_counter(tokenizer: str) -> Callable[[Row], int]:
    """A function that counts a row's prompt as verl will tokenize it: chat template and generation prompt included.

    Args:
        tokenizer: folder or hub name, as for ``AutoTokenizer.from_pretrained``.

    Raises: ValueError naming --tokenizer if it cannot be loaded or has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        local = Path(tokenizer).exists() or not is_reachable()
        loaded = AutoTokenizer.from_pretrained(tokenizer, local_files_only=local)
        loaded.apply_chat_template([{"role": "user", "content": "1"}], add_generation_prompt=True, tokenize=False)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"--tokenizer {tokenizer}: cannot be used ({type(error).__name__}: {reason}); pass the folder or the hub "
            "name of a model with a chat template"
        ) from error

    def count(row: Row) -> int:
        text = loaded.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        return len(loaded(text, add_special_tokens=False)["input_ids"])

    return count

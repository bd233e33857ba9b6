"""LoRA checkpoints: verl's merger leaves the adapter beside the base model's weights; here it is added to them.

    python -m repo_verl.evaluate.adapter FOLDER

runs in a process of its own, so that its memory is given back before vLLM starts.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

ADAPTER = "lora_adapter"
"""Folder of the adapter in what verl's merger writes."""


def fold(folder: Path) -> None:
    """Add ``folder/lora_adapter`` to the weights of ``folder``, in float32, and remove it; their type stays.

    Args:
        folder: what verl's merger wrote for a LoRA checkpoint.

    Raises:
        ValueError: if the checkpoint does not say by how much the adapter counts (``lora_alpha``).
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = json.loads((folder / ADAPTER / "adapter_config.json").read_text())
    if not settings["lora_alpha"]:
        raise ValueError(
            f"lora_alpha={settings['lora_alpha']} in {folder / ADAPTER}: the checkpoint has no lora_train_meta.json, "
            "so nothing says how much its adapter counts; write that file with r and lora_alpha beside its shards."
        )
    kept = AutoConfig.from_pretrained(folder).dtype or torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, folder / ADAPTER).merge_and_unload(safe_merge=True)
    merged.to(kept).save_pretrained(folder)
    shutil.rmtree(folder / ADAPTER)


if __name__ == "__main__":
    fold(Path(sys.argv[1]))

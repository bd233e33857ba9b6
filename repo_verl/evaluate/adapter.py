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


def merge_adapter(folder: Path) -> None:
    """Add ``folder/lora_adapter`` to the weights of ``folder``, in float32, and remove it; their type stays.

    The new folder is written beside the old one and takes its place when it is whole, so that a repeat after a crash
    adds nothing twice.

    Raises:
        ValueError: if the checkpoint does not have the scale of the adapter (``lora_alpha``), or the adapter is
            not one of this model.
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = json.loads((folder / ADAPTER / "adapter_config.json").read_text())
    if not settings["lora_alpha"]:
        raise ValueError(
            f"lora_alpha={settings['lora_alpha']} in {folder / ADAPTER}: the checkpoint has no lora_train_meta.json, "
            "so the scale of its adapter is unknown; write that file with r and lora_alpha beside its shards."
        )
    kept = AutoConfig.from_pretrained(folder).dtype or torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(model, folder / ADAPTER)
    saved = load_file(folder / ADAPTER / "adapter_model.safetensors").keys()
    unmatched = sorted(saved ^ get_peft_model_state_dict(adapted).keys())
    if unmatched:  # peft warns, and leaves such weights as they are
        raise ValueError(f"{unmatched[0]} of {folder / ADAPTER} has no counterpart: name the adapter's own model.")
    whole, base = (folder.with_name(f"{folder.name}.{part}") for part in ("whole", "base"))
    shutil.rmtree(whole, ignore_errors=True)
    shutil.copytree(folder, whole, ignore=shutil.ignore_patterns(ADAPTER, "*.safetensors", "*.safetensors.index.json"))
    adapted.merge_and_unload(safe_merge=True).to(kept).save_pretrained(whole)
    folder.rename(base)
    whole.rename(folder)
    shutil.rmtree(base)


if __name__ == "__main__":
    try:
        merge_adapter(Path(sys.argv[1]).resolve())
    except ValueError as error:
        sys.exit(str(error))

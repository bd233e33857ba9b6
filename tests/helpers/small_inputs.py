"""What a run is named by before it starts: prompts and a model's dimensions, and configurations with changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write_inputs(folder: Path) -> tuple[Path, Path]:
    """A training file of 8 prompts and a folder that looks like a tiny Llama; both paths."""
    data, model = folder / "train.parquet", folder / "model"
    pq.write_table(pa.table({"prompt": list(range(8))}), data)
    model.mkdir()
    (model / "model.safetensors").touch()
    dims = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 128}
    (model / "config.json").write_text(json.dumps({**dims, "vocab_size": 300, "model_type": "llama"}))
    return data, model


def set_paths(config: dict[str, Any], values: Mapping[str, Any], separator: str) -> dict[str, Any]:
    """Set values of nested dicts by path, in place; returns the configuration."""
    for path, value in values.items():
        *parents, last = path.split(separator)
        node = config
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return config

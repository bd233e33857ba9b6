"""Dimensions of dense decoder models, from a ``config.json`` or, for models on the hub, from the table below."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Dims:
    """Dimensions of a dense decoder with a gated MLP, as Hugging Face's configurations name them.

    Attributes:
        hidden: width of the residual stream.
        layers: decoder layers.
        heads: attention heads.
        kv_heads: key and value heads.
        head_dim: width of a head.
        intermediate: width of the MLP.
        vocab: rows of the embedding.
        tied: whether the output layer is the embedding.
        qkv_bias: whether query, key and value have biases (Qwen2).
        qk_norm: whether queries and keys are normalised, one weight a head dimension each (Qwen3).
        context: positions, ``max_position_embeddings``; 0 where that is not known.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    qkv_bias: bool = True
    qk_norm: bool = False
    context: int = 0

    @property
    def query(self) -> int:
        """Width of all queries of a token."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of all keys of a token, and of all values."""
        return self.kv_heads * self.head_dim


KNOWN: dict[str, Dims] = {
    "Qwen/Qwen2.5-0.5B": Dims(896, 24, 14, 2, 64, 4864, 151936, True, context=32768),
    "Qwen/Qwen2.5-Math-1.5B": Dims(1536, 28, 12, 2, 128, 8960, 151936, True, context=4096),
    "Qwen/Qwen2.5-Math-7B": Dims(3584, 28, 28, 4, 128, 18944, 152064, False, context=4096),
    "Qwen/Qwen3-1.7B": Dims(2048, 28, 16, 8, 128, 6144, 151936, True, qkv_bias=False, qk_norm=True, context=40960),
}
"""The run scripts' models, from their public ``config.json``."""


def read_dims(config: Mapping[str, Any]) -> Dims:
    """Dimensions from the contents of a ``config.json``.

    Raises:
        KeyError: naming a missing dimension.
    """
    heads = int(config["num_attention_heads"])
    kind = config.get("model_type")
    return Dims(
        hidden=int(config["hidden_size"]),
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
        intermediate=int(config["intermediate_size"]),
        vocab=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", kind in ("qwen2", "qwen3"))),
        qkv_bias=bool(config.get("attention_bias", kind == "qwen2")),
        qk_norm=kind == "qwen3",
        context=int(config.get("max_position_embeddings") or 0),
    )


def is_local(path: str) -> bool:
    """Whether a model's path names a folder and no model of the hub (``name`` or ``owner/name``)."""
    return path.startswith(("/", ".", "~")) or path.count("/") > 1 or Path(path).exists()


def find_dims(path: str) -> Dims | None:
    """Dimensions of the model at a path or of that name; None where neither a file nor the table has them."""
    folders = [Path(path).expanduser()]
    if not is_local(path):
        if path in KNOWN:
            return KNOWN[path]
        home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "hub"
        folders = sorted(home.glob(f"models--{path.replace('/', '--')}/snapshots/*"))
    for folder in folders:
        if (folder / "config.json").is_file():
            try:
                return read_dims(json.loads((folder / "config.json").read_text()))
            except (KeyError, TypeError, ValueError):
                return None
    return None

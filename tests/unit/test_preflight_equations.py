"""The estimates' equations against numbers computed by hand, and parameter counts against the models themselves."""

import json

import pytest

from repo_verl.preflight import equations as eq
from repo_verl.preflight.models import KNOWN, Dims, find_dims, read_dims

# a layer: 4 (4 + 2·2) + 4·4 + 3·4·8 + 2·4 + biases (4 + 2·2) = 48 + 96 + 8 + 8 = 160
TOY = Dims(hidden=4, layers=2, heads=2, kv_heads=1, head_dim=2, intermediate=8, vocab=10, tied=True)


def test_parameters_by_hand():
    assert eq.layer_parameters(TOY) == 160
    assert eq.parameters(TOY) == 2 * 160 + 40 + 4
    untied = Dims(4, 2, 2, 1, 2, 8, 10, False, qkv_bias=False, qk_norm=True)
    assert eq.layer_parameters(untied) == 152 + 2 * 2
    assert eq.parameters(untied) == 2 * 156 + 80 + 4
    # (4 + 4) + 2 (4 + 2) + (4 + 4) + 3 (4 + 8) = 64 a layer and rank
    assert eq.adapter_parameters(TOY, rank=3) == 2 * 3 * 64


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("Qwen/Qwen2.5-0.5B", 494_032_768),
        ("Qwen/Qwen2.5-Math-1.5B", 1_543_714_304),
        ("Qwen/Qwen2.5-Math-7B", 7_615_616_512),
        ("Qwen/Qwen3-1.7B", 1_720_574_976),
    ],
)
def test_parameters_of_the_scripts_models(name, total):
    assert eq.parameters(KNOWN[name]) == total


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-Math-7B", "Qwen/Qwen3-1.7B", "Qwen/Qwen2.5-0.5B"])
def test_parameters_and_adapters_are_those_of_transformers_and_peft(name, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    d = KNOWN[name]
    kind = "qwen3" if d.qk_norm else "qwen2"
    config = AutoConfig.for_model(
        kind, hidden_size=d.hidden, num_hidden_layers=d.layers, num_attention_heads=d.heads, vocab_size=d.vocab,
        num_key_value_heads=d.kv_heads, head_dim=d.head_dim, intermediate_size=d.intermediate,
        tie_word_embeddings=d.tied, max_position_embeddings=d.context,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        assert sum(p.numel() for p in model.parameters()) == eq.parameters(d)
        adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=32, target_modules="all-linear"))
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert trained == eq.adapter_parameters(d, 32)
    config.save_pretrained(tmp_path)
    assert find_dims(str(tmp_path)) == d, "read back from config.json"


def test_states_by_hand():
    assert eq.weight_bytes(100, 20, model_bytes=4, gpus=8) == 60
    assert eq.optimizer_bytes(100, model_bytes=4, gpus=8) == 100
    assert eq.gradient_bytes(100, model_bytes=2, gpus=8) == 25
    assert eq.gathered_bytes(TOY) == 2 * (40 + 2 * 160)
    assert eq.reduced_bytes(TOY, lora=False) == 6 * 160 and eq.reduced_bytes(TOY, lora=True) == 0


def test_passes_by_hand():
    # 6·4 + 2·4 + 2·2 + 4·8 = 68 numbers of 2 bytes a token
    assert eq.layer_activation_bytes(TOY, 3) == 408
    assert eq.activation_bytes(TOY, 3, checkpointing=False) == 2 * 408
    assert eq.activation_bytes(TOY, 3, checkpointing=True) == 2 * 3 * 4 * 2 + 2 * 408
    assert eq.logit_bytes(TOY, 3) == 3 * 2 * 3 * 10
    assert eq.cache_bytes_per_token(TOY, 1) == 2 * 2 * 2 * 2 and eq.cache_bytes_per_token(TOY, 2) == 8
    assert eq.buffer_bytes(10, response_tokens=5, token_bytes=8) == 1000


def test_work_by_hand():
    assert eq.forward_flops(100, 10) == 2000
    assert eq.train_flops(100, 10, lora=False, checkpointing=False) == 6000
    assert eq.train_flops(100, 10, lora=False, checkpointing=True) == 8000
    assert eq.train_flops(100, 10, lora=True, checkpointing=True) == 6000
    # compute rules: 2·100·2·10 / 1000; reading rules: 10·2·100 / 1000
    assert eq.generation_seconds(100, 2, 10, 1, flops=1e3, bandwidth=1e3) == 4
    assert eq.generation_seconds(100, 2, 10, 1, flops=1e6, bandwidth=1e3) == 2
    assert eq.generation_seconds(100, 2, 10, 2, flops=1e6, bandwidth=1e3) == 1


def test_dims_of_a_llama_and_of_files_that_are_none(tmp_path):
    config = dict(
        hidden_size=4,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=8,
        vocab_size=10,
        model_type="llama",
    )
    assert read_dims(config) == Dims(4, 2, 2, 2, 2, 8, 10, False, qkv_bias=False)
    with pytest.raises(KeyError, match="vocab_size"):
        read_dims({key: value for key, value in config.items() if key != "vocab_size"})
    assert find_dims(str(tmp_path / "missing")) is None
    for text in ("{", "[]", json.dumps({"hidden_size": 4})):
        (tmp_path / "config.json").write_text(text)
        assert find_dims(str(tmp_path)) is None


def test_a_model_of_the_hubs_cache_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert find_dims("owner/name") is None
    folder = tmp_path / "hub" / "models--owner--name" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({
        "hidden_size": 4, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2,
        "intermediate_size": 8, "vocab_size": 10, "model_type": "qwen2", "tie_word_embeddings": True,
    }))  # fmt: skip
    assert find_dims("owner/name") == TOY

"""The equations of the estimates, one a function: bytes and seconds from counts. Nothing here was measured on a GPU.

Symbols: P parameters, A those of LoRA's adapters, N GPUs that FSDP shards over, h hidden, q and k the widths of all
queries and keys, f the MLP's, V the vocabulary, L layers, t tokens. docs/run_scripts.md has them in one table.
"""

from __future__ import annotations

from repo_verl.preflight.models import Dims

BF16, FP32 = 2, 4


def layer_parameters(d: Dims) -> int:
    """h(q + 2k) + qh + 3hf + 2h, the biases q + 2k where there are any, two head norms in Qwen3."""
    attention = d.hidden * (d.query + 2 * d.key) + d.query * d.hidden
    extra = (d.query + 2 * d.key) * d.qkv_bias + 2 * d.head_dim * d.qk_norm
    return attention + 3 * d.hidden * d.intermediate + 2 * d.hidden + extra


def vocabulary_parameters(d: Dims) -> int:
    """Vh, twice where the output layer is a matrix of its own."""
    return d.vocab * d.hidden * (1 if d.tied else 2)


def parameters(d: Dims) -> int:
    """P = L layers + vocabulary + the last norm."""
    return d.layers * layer_parameters(d) + vocabulary_parameters(d) + d.hidden


def adapter_parameters(d: Dims, rank: int) -> int:
    """A = L r Σ (in + out) over a layer's seven linear maps (verl's ``target_modules=all-linear``)."""
    attention = (d.hidden + d.query) + 2 * (d.hidden + d.key) + (d.query + d.hidden)
    return d.layers * rank * (attention + 3 * (d.hidden + d.intermediate))


def weight_bytes(total: int, adapters: int, model_bytes: int, gpus: int) -> float:
    """b (P + A) / N: FSDP's shard of the weights, in ``fsdp_config.model_dtype`` (verl's default fp32: b = 4)."""
    return model_bytes * (total + adapters) / gpus


def optimizer_bytes(trained: int, model_bytes: int, gpus: int) -> float:
    """2 b T / N: Adam's two moments of the T trained parameters, in the parameters' precision."""
    return 2 * model_bytes * trained / gpus


def gradient_bytes(trained: int, model_bytes: int, gpus: int) -> float:
    """b T / N: FSDP's shard of the gradients."""
    return model_bytes * trained / gpus


def gathered_bytes(d: Dims) -> float:
    """2 (vocabulary + 2 layers): what FSDP holds whole in bf16: the root, a layer and the one fetched ahead."""
    return BF16 * (vocabulary_parameters(d) + 2 * layer_parameters(d))


def reduced_bytes(d: Dims, lora: bool) -> float:
    """(2 + 4) max(Vh, layer): a unit's gradients, whole in bf16 and on their way between GPUs in fp32; LoRA: 0."""
    return 0.0 if lora else (BF16 + FP32) * max(d.vocab * d.hidden, layer_parameters(d))


def layer_activation_bytes(d: Dims, tokens: int) -> float:
    """2 t (6h + 2q + 2k + 4f): a layer's inner tensors in bf16, the norms' fp32 copies within the 6h."""
    return BF16 * tokens * (6 * d.hidden + 2 * d.query + 2 * d.key + 4 * d.intermediate)


def activation_bytes(d: Dims, tokens: int, checkpointing: bool) -> float:
    """All layers' inner tensors; with gradient checkpointing 2 t h L, their inputs, and one layer's own twice."""
    layer = layer_activation_bytes(d, tokens)
    return BF16 * tokens * d.hidden * d.layers + 2 * layer if checkpointing else d.layers * layer


def logit_bytes(d: Dims, tokens: int) -> float:
    """3 · 2 t V: logits in bf16, their gradient (or softmax, for the entropy) and one more copy."""
    return 3 * BF16 * tokens * d.vocab


def cache_bytes_per_token(d: Dims, tensor_parallel: int) -> float:
    """2 · 2 k L / tp: keys and values of a token in bf16."""
    return 2 * BF16 * d.key * d.layers / tensor_parallel


def buffer_bytes(rows: int, response_tokens: int, token_bytes: int) -> float:
    """rows (8 R + 60): RePO's buffer with every row at its longest; 8 bytes a token, 6 with bf16 log-probs."""
    return rows * (token_bytes * response_tokens + 60.0)


def train_flops(total: int, tokens: int, lora: bool, checkpointing: bool) -> float:
    """6 P t; 4 P t with LoRA (no gradient of the frozen weights); 2 P t more where activations are recomputed."""
    return (6 - 2 * lora + 2 * checkpointing) * float(total) * tokens


def forward_flops(total: int, tokens: int) -> float:
    """2 P t."""
    return 2.0 * total * tokens


def generation_seconds(
    total: int, rows: int, response_tokens: int, tensor_parallel: int, flops: float, bandwidth: float
) -> float:
    """The longer of 2 P t / flops and R · 2 P / (tp · bandwidth): every new token reads all weights.

    Args:
        total: P.
        rows: responses of one engine.
        response_tokens: R, the longest response.
        tensor_parallel: tp, GPUs of an engine.
        flops: reached by one GPU a second.
        bandwidth: bytes a second that one GPU reaches.

    Returns:
        seconds.
    """
    compute = forward_flops(total, rows * response_tokens) / (tensor_parallel * flops)
    return max(compute, response_tokens * BF16 * total / (tensor_parallel * bandwidth))

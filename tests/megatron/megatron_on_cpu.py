"""Megatron-Core without CUDA, for the check of RePO's loss under verl's Megatron engine.

Megatron-Core asks for CUDA by name. Here such a device is the CPU, its generator is the CPU's, and the layers are
Megatron's own ("local") ones instead of Transformer Engine's. What is left as it is: verl's engine and worker,
Megatron's schedules, its tensor- and pipeline-parallel layers, its data-parallel gradient buffers and its optimizer.

Float32 needs verl's configuration to be told so (it knows bfloat16 and float16), and clipping, which asserts CUDA
tensors, is left out: the bound of the checks is never reached.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

NAMES = {
    "input_layernorm.weight": "self_attention.linear_qkv.layer_norm_weight",
    "pre_mlp_layernorm.weight": "mlp.linear_fc1.layer_norm_weight",
}
"""A local layer's norms, and the names of Transformer Engine that mbridge knows."""


class CudaIsCpu(TorchFunctionMode):
    """Makes what is asked for on CUDA on the CPU."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if "cuda" in str(kwargs.get("device")):
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def stay_on_cpu() -> None:
    """Replace what Megatron-Core calls of CUDA, in this process."""
    cuda: Any = torch.cuda
    cuda.current_device = lambda: torch.device("cpu")
    cuda.get_rng_state = lambda *device: torch.get_rng_state()
    cuda.manual_seed = torch.manual_seed
    cuda.synchronize = lambda *device: None
    cuda.is_current_stream_capturing = lambda: False
    torch.nn.Module.cuda = lambda self, device=None: self  # type: ignore[method-assign]  # what the function is for
    torch.Tensor.cuda = lambda self, *device, **options: self  # type: ignore[method-assign]  # likewise
    CudaIsCpu().__enter__()
    import megatron.core.optimizer.optimizer as optimizer
    import megatron.core.tensor_parallel.random as random

    random._set_cuda_rng_state = lambda state, *device, **options: torch.set_rng_state(state)
    random._get_cuda_rng_state = lambda *device, **options: torch.get_rng_state()
    optimizer.clip_grad_by_total_norm_fp32 = lambda *arguments, **options: None


def use_local_layers() -> None:
    """Megatron's own layers and a causal mask; their norms under the names that mbridge knows."""
    import mbridge.core.bridge as bridge
    import mbridge.core.llm_bridge as llm_bridge
    import megatron.core.transformer.dot_product_attention as attention

    spec, name_of = llm_bridge.get_gpt_decoder_block_spec, bridge.Bridge._weight_name_mapping_mcore_to_hf
    attend = attention.DotProductAttention.forward

    def to_hf(self, name):
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        return name_of(self, name)

    def causal(self, query, key, value, attention_mask, *arguments, **options):
        size = query.shape[0]
        mask = torch.ones(1, 1, size, size, dtype=torch.bool).triu(1)  # rows are padded on the right
        return attend(self, query, key, value, mask, *arguments, **options)

    def local(config, use_transformer_engine=True, **options):
        return spec(config, use_transformer_engine=False, **options)

    llm_bridge.get_gpt_decoder_block_spec = local
    bridge.Bridge._weight_name_mapping_mcore_to_hf = to_hf
    attention.DotProductAttention.forward = causal


def allow_float32() -> None:
    """Teach verl's Megatron configuration float32."""
    from verl.workers.config.engine import McoreEngineConfig

    stock = McoreEngineConfig.__post_init__

    def check(self):
        object.__setattr__(self, "dtype", "bfloat16")
        stock(self)
        object.__setattr__(self, "dtype", "float32")

    McoreEngineConfig.__post_init__ = check

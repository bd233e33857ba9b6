"""Environment variables that a CPU run needs, as defaults: a user sets ``VERL_PLATFORM=cpu`` and nothing else."""

import os

DEFAULTS: dict[str, str] = {
    # verl registers its FSDP engines for cuda and npu only; this names the look-up key, not a device.
    "VERL_ENGINE_DEVICE": "cuda",
    # vLLM's key-value cache, GiB. Without it vLLM takes a share of the machine's memory.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # vLLM would bind its threads to cores that verl's own workers use.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Lets vLLM's CPU platform keep the executor `uni`: its worker runs in the engine's process instead of one more.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Without it vLLM's sampler compiles one function with g++ when it first runs, for 10 s.
    "TORCH_COMPILE_DISABLE": "1",
    # TransferQueue asks torch for 8 threads around each call and warns where there are fewer cores.
    "TQ_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


def set_defaults() -> None:
    """Sets each of :data:`DEFAULTS` that the environment doesn't have; Ray's workers and vLLM's engine inherit them."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)

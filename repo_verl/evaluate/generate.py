"""Completions by vLLM, handed over one problem at a time as they finish."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from repo_verl.evaluate import Protocol
from repo_verl.evaluate.benchmarks import Problem
from repo_verl.evaluate.completions import TOO_LONG, Completion


def generate(
    model: str, protocol: Protocol, problems: Sequence[Problem], engine: dict[str, Any] | None = None
) -> Iterator[tuple[Problem, list[Completion]]]:
    """Generate all samples of all problems; yields a problem when its last sample is there.

    Every sample is a request with its own seed. A prompt that leaves no room for a response is not generated: its
    samples are empty, with ``finish`` "prompt_too_long", and count as wrong.

    Args:
        model: hub id or folder.
        protocol: sampling settings.
        problems: what to answer.
        engine: further arguments of ``vllm.LLM``.

    Raises: ValueError if the tokenizer has no chat template.
    """
    device = _prepare_device()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    from vllm import LLM

    llm = LLM(
        model=model,
        dtype=protocol.dtype,
        max_model_len=protocol.max_model_len,
        max_num_seqs=protocol.max_num_seqs,
        seed=protocol.seed,
        # what is in the cache depends on what came before: a resumed run has another history
        enable_prefix_caching=protocol.max_num_seqs != 1,
        **{**device, **(engine or {})},
    )
    tokenizer = llm.get_tokenizer()
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(f"model {model}: its tokenizer has no chat template: save one with the tokenizer.")
    room = llm.llm_engine.model_config.max_model_len
    pending: dict[str, tuple[Problem, int, dict[int, Completion]]] = {}
    for problem in problems:
        ids = tokenizer.apply_chat_template(problem.chat, add_generation_prompt=True, return_dict=False)
        count = protocol.samples_of(problem.benchmark)
        if len(ids) >= room:
            yield problem, [Completion("", 0, TOO_LONG)] * count
            continue
        samples: dict[int, Completion] = {}
        for sample in range(count):
            key = f"{problem.benchmark}/{problem.id}/{sample}"
            params = _params(protocol, problem, sample, room - len(ids))
            llm.llm_engine.add_request(key, {"prompt_token_ids": list(ids)}, params)
            pending[key] = (problem, sample, samples)
    while llm.llm_engine.has_unfinished_requests():
        for output in llm.llm_engine.step():
            if not output.finished:
                continue
            problem, sample, samples = pending.pop(output.request_id)
            response = output.outputs[0]
            samples[sample] = Completion(response.text, len(response.token_ids), str(response.finish_reason))
            if len(samples) == protocol.samples_of(problem.benchmark):
                yield problem, [samples[number] for number in sorted(samples)]


def _prepare_device() -> dict[str, Any]:
    """Arguments of ``vllm.LLM``; without a GPU sets the CPU backend's environment, before vLLM is imported."""
    import torch

    if torch.cuda.is_available():
        return {}
    from repo_verl.cpu import set_defaults

    set_defaults()
    # a prompt read in two pieces would move its seed's generator back, which a CPU generator cannot do
    return {"enable_chunked_prefill": False}


def _params(protocol: Protocol, problem: Problem, sample: int, room: int) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=protocol.temperature,
        top_p=protocol.top_p,
        top_k=protocol.top_k,
        max_tokens=min(protocol.max_tokens, room),
        seed=protocol.seed_of(problem.benchmark, problem.id, sample),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )

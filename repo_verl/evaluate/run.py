"""One evaluation: generate with vLLM what is missing, or read what is there; grade, write."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from repo_verl.atomic_files import write_atomically
from repo_verl.evaluate import Protocol, results
from repo_verl.evaluate.benchmarks import Benchmarks, Problem
from repo_verl.evaluate.completions import TOO_LONG, Completion, Samples, Store, read_file
from repo_verl.evaluate.model import resolve
from repo_verl.secrets import redact


def evaluate(
    model: str, benchmarks: Benchmarks, output: Path, protocol: Protocol, engine: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Evaluate a model and return the content of ``metrics.json``; what an earlier run of the same settings finished
    is not generated again.

    ``model`` is what `resolve` takes, ``engine`` has further arguments of ``vllm.LLM``. ``output`` gets
    ``settings.json``, ``completions/``, ``completions.parquet`` and ``metrics.json``.

    Raises: ValueError for a model or folder that can't be used; what vLLM raises.
    """
    output.mkdir(parents=True, exist_ok=True)
    found = resolve(model, output)
    settings = {
        "model": redact(found.identity), "benchmarks": benchmarks.sha256, "engine": redact(engine or {}),
        **asdict(protocol),
    }  # fmt: skip
    store = Store(output, settings)
    every = [problem for problems in benchmarks.problems.values() for problem in problems]
    for problem in every:
        wanted = protocol.samples_of(problem.benchmark)
        stored = len(store.finished.get((problem.benchmark, problem.id), range(wanted)))
        if stored != wanted:
            raise ValueError(
                f"{store.folder} has {stored} samples of problem {problem.id!r} of {problem.benchmark!r}, want "
                f"{wanted}: delete its line."
            )
    todo = [problem for problem in every if (problem.benchmark, problem.id) not in store.finished]
    if todo:
        with tqdm(total=len(every), initial=len(every) - len(todo), desc="problems", unit="") as progress:
            for problem, samples in generate(found.path, protocol, todo, engine):
                store.add(problem.benchmark, problem.id, samples)
                progress.update()
    return _finish(benchmarks, store.finished, output, settings, protocol.template)


def grade_file(
    file: Path, benchmarks: Benchmarks, output: Path, template: str = "boxed", skip_others: bool = False
) -> dict[str, Any]:
    """Grade completions that exist already, see `read_file`, and return the content of ``metrics.json``."""
    found = read_file(file, benchmarks, skip_others)
    output.mkdir(parents=True, exist_ok=True)
    settings = {"completions": file.name, "benchmarks": benchmarks.sha256, "template": template}
    return _finish(benchmarks, found, output, settings, template)


def _finish(
    benchmarks: Benchmarks, completions: Samples, output: Path, settings: Mapping[str, Any], template: str
) -> dict[str, Any]:
    """Grade all completions and write ``completions.parquet`` and ``metrics.json``, whose content is returned."""
    rows = [
        (problem, number, completion)
        for problems in benchmarks.problems.values()
        for problem in problems
        for number, completion in enumerate(completions[problem.benchmark, problem.id])
    ]
    graded: dict[str, list[results.Graded]] = {}
    for sample in results.grade_all(tqdm(rows, desc="grading", unit=""), template):
        graded.setdefault(sample.problem.benchmark, []).append(sample)
    results.write_completions(graded, output / "completions.parquet")
    content = results.metrics(graded, settings)
    write_atomically(output / "metrics.json", json.dumps(content, indent=2) + "\n")
    return content


def generate(
    model: str, protocol: Protocol, problems: Sequence[Problem], engine: dict[str, Any] | None = None
) -> Iterator[tuple[Problem, list[Completion]]]:
    """Generate all samples of all problems with vLLM; yields a problem when its last sample is there.

    Every sample is a request with its own seed. A prompt that leaves no room for a response is not generated: its
    samples are empty, with ``finish`` "prompt_too_long", and count as wrong.

    Raises: ValueError if the tokenizer has no chat template.
    """
    llm = _load(model, protocol, engine or {})
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    tokenizer = llm.get_tokenizer()
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(f"model {model}: its tokenizer has no chat template: save one with the tokenizer.")
    pending: dict[str, tuple[Problem, int, dict[int, Completion]]] = {}
    for problem in problems:
        ids = tokenizer.apply_chat_template(problem.chat, add_generation_prompt=True, return_dict=False)
        room = llm.llm_engine.model_config.max_model_len - len(ids)
        count = protocol.samples_of(problem.benchmark)
        if room <= 0:
            yield problem, [Completion("", 0, TOO_LONG)] * count
            continue
        samples: dict[int, Completion] = {}
        for sample in range(count):
            key = f"{problem.benchmark}/{problem.id}/{sample}"
            params = SamplingParams(
                temperature=protocol.temperature,
                top_p=protocol.top_p,
                top_k=protocol.top_k,
                max_tokens=min(protocol.max_tokens, room),
                seed=protocol.seed_of(problem.benchmark, problem.id, sample),
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
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


def _load(model: str, protocol: Protocol, engine: dict[str, Any]) -> Any:
    """vLLM's engine; without a GPU the CPU backend's environment is set before vLLM is imported."""
    import torch

    device: dict[str, Any] = {}
    if not torch.cuda.is_available():
        from repo_verl.cpu import set_defaults

        set_defaults()
        # a prompt read in two pieces would move its seed's generator back, which a CPU generator cannot do
        device["enable_chunked_prefill"] = False
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    from vllm import LLM

    return LLM(
        model=model,
        dtype=protocol.dtype,
        max_model_len=protocol.max_model_len,
        max_num_seqs=protocol.max_num_seqs,
        seed=protocol.seed,
        # what is in the cache depends on what came before: a resumed run has another history
        enable_prefix_caching=protocol.max_num_seqs != 1,
        **{**device, **engine},
    )

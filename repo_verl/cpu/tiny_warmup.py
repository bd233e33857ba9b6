r"""The supervised warm-up of a tiny model, and the measurement that stops it."""

from __future__ import annotations

import copy
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from repo_verl.rewards import compute_score

logger = logging.getLogger("repo_verl.cpu.tiny")

BOX = "\\boxed{"
IGNORED = -100
LEARNING_RATE = 2e-3
MAX_NEW_TOKENS = 16
WORDS = ("Yes", "No", "True", "False")


@dataclass(frozen=True)
class Example:
    """A prompt in token ids, generation prompt included, and the gold answer."""

    prompt_ids: list[int]
    gold: str


Sampler = Callable[[Sequence[Example], random.Random], list[str]]
"""The answers to learn for a batch."""


def read_examples(rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """Rows of a verl parquet file as examples."""
    texts = [tokenizer.apply_chat_template(r["prompt"], tokenize=False, add_generation_prompt=True) for r in rows]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [Example(i, row["reward_model"]["ground_truth"]) for i, row in zip(ids, rows, strict=True)]


def sampler(task: str, examples: Sequence[Example]) -> Sampler:
    """What a task learns to answer: in arithmetic the gold answers; else the format, not which prompt wants which.

    In ``golds`` that is a gold of any example, in ``yes-no`` one of four words:

    p(word) = 1/2 * 1/4 + 1/2 * (share of golds of ``examples`` that say so)
    """
    golds = [example.gold for example in examples]
    if task == "arithmetic":
        return lambda batch, rng: [example.gold for example in batch]
    if task == "golds":
        return lambda batch, rng: rng.choices(golds, k=len(batch))
    said = Counter(gold.strip().strip(".").capitalize() for gold in golds)
    weights = [0.5 / len(WORDS) + 0.5 * said[word] / len(golds) for word in WORDS]
    return lambda batch, rng: rng.choices(WORDS, weights=weights, k=len(batch))


def collate(
    examples: Sequence[Example], answers: Sequence[str], tokenizer: PreTrainedTokenizerFast
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Token ids and labels of prompts followed by ``\boxed{answer}<eos>``, padded on the right.

    Returns: ids (B, T) int64; labels (B, T) int64, -100 on prompts and padding.
    """
    responses = tokenizer([f"{BOX}{answer}}}" for answer in answers], add_special_tokens=False)["input_ids"]
    rows = [(e.prompt_ids, r + [tokenizer.eos_token_id]) for e, r in zip(examples, responses, strict=True)]
    ids = [torch.tensor(prompt + response) for prompt, response in rows]
    labels = [torch.tensor([IGNORED] * len(prompt) + response) for prompt, response in rows]
    return pad_sequence(ids, True, tokenizer.pad_token_id), pad_sequence(labels, True, IGNORED)


@torch.no_grad()
def measure(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example], chunk: int = 256
) -> tuple[float, float]:
    """Sample one response per example at temperature 1, ``chunk`` at once, and grade it with ``compute_score``.

    Repeat examples for several samples of each. The tokenizer pads on the left; the model is left in training mode.

    Returns: the share that is right, and the share in a closed box and nothing after.
    """
    model.eval()
    right = boxed = 0.0
    for start in range(0, len(examples), chunk):
        part = examples[start : start + chunk]
        batch = tokenizer.pad({"input_ids": [e.prompt_ids for e in part]}, return_tensors="pt")
        sampling = {"max_new_tokens": MAX_NEW_TOKENS, "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        output = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **sampling)
        texts = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        right += sum(compute_score("tiny", t, e.gold)["score"] for t, e in zip(texts, part, strict=True))
        boxed += sum(t.startswith(BOX) and t.endswith("}") and t.count(BOX) == 1 for t in texts)
    model.train()
    return right / len(examples), boxed / len(examples)


def warm_up(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    train: Sequence[Example],
    held_out: Sequence[Example],
    answers: Sampler,
    target: tuple[float, float],
    seed: int,
    batch_size: int,
    max_seconds: float,
    measure_every: int = 15,
) -> dict[str, Any]:
    """Train a model in place until sampled accuracy is inside the target band and 95% of answers are boxed.

    The aim is a fifth of the way into the band, so that noise of the measurement leaves the model inside. A model that
    went past the band goes back to its last measurement and on with a quarter of the learning rate, which is reached
    after 50 steps. ``target`` is the lowest and highest accuracy, as shares; torch's own generator draws the samples.

    Returns: steps, loss, seconds, accuracy and boxed, as ``tiny.json`` has them.

    Raises: RuntimeError naming accuracy and remedy when the band is not reached in time; ValueError without examples.
    """
    low, high = target
    started, rng = time.monotonic(), random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    rate, before = LEARNING_RATE, copy.deepcopy(model.state_dict())
    model.train()
    for step, batch in enumerate(_batches(train, batch_size, rng), start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, step / 50)
        loss = _train_step(model, optimizer, *collate(batch, answers(batch, rng), tokenizer))
        if step % measure_every:
            continue
        (accuracy, boxed), seconds = measure(model, tokenizer, held_out), time.monotonic() - started
        logger.info("step %d: loss %.3f, accuracy %.3f, boxed %.3f", step, loss, accuracy, boxed)
        if boxed >= 0.95 and low + (high - low) / 5 <= accuracy <= high:
            taken = {"steps": step, "loss": round(loss, 4), "seconds": round(seconds, 1)}
            return {**taken, "accuracy": accuracy, "boxed": boxed}
        if seconds > max_seconds:
            raise RuntimeError(
                f"after {step} steps and {seconds:.0f} s the accuracy is {accuracy:.3f}, target {low}-{high}, "
                f"and {boxed:.3f} are boxed: raise --max-seconds, widen --target, or use easier or harder data"
            )
        if accuracy > high:
            model.load_state_dict(before)
            rate /= 4
        before = copy.deepcopy(model.state_dict())
    raise ValueError("train is empty: no batch can be drawn")


def _train_step(model: Any, optimizer: torch.optim.Optimizer, ids: torch.Tensor, labels: torch.Tensor) -> float:
    """One step on ids and labels (B, T); returns the mean loss of a response token."""
    logits = model(input_ids=ids[:, :-1]).logits
    loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def _batches(examples: Sequence[Example], size: int, rng: random.Random) -> Iterator[list[Example]]:
    """Endless batches: every epoch is the examples in a new order."""
    order: list[int] = []
    while examples:
        while len(order) < size:
            order.extend(rng.sample(range(len(examples)), len(examples)))
        yield [examples[i] for i in order[:size]]
        order = order[size:]

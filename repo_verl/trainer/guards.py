"""What stops a run whose values are not finite: scores, log-probs, advantages, losses, gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from repo_verl.config import PREFIX
from repo_verl.replay import prompt_key
from repo_verl.trainer.layout import FRESH, ORIGIN, PADDING, REPLAYED

NAMED = 3  # rows that a message names; it counts the others
KINDS = {FRESH: "fresh", REPLAYED: "replayed", PADDING: "padding"}
SKIP = f"set {PREFIX}on_nonfinite=skip"


class NonFiniteError(ValueError):
    """A score, log-prob, advantage or loss that is not finite; one sentence naming the rows and the remedy."""


def listed(names: Sequence[str]) -> str:
    """The first few names and how many more there are."""
    more = len(names) - NAMED
    return "; ".join(names[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def not_finite(values: torch.Tensor) -> list[int]:
    """Positions of values that are not finite; ``values`` is (B,)."""
    return torch.nonzero(~torch.isfinite(values)).flatten().tolist()


def refuse_scores(names: Sequence[str], step: int) -> None:
    """Raise NonFiniteError for rows, given by name, whose score is not finite; nothing happens if there is none."""
    if names:
        raise NonFiniteError(
            f"step {step}: the reward function gave a score that is not finite for {len(names)} row(s) "
            f"({listed(names)}): fix it and resume, or {SKIP} to leave such rows out."
        )


def bad_rows(tensors: Mapping[str, torch.Tensor], mask: torch.Tensor) -> dict[int, str]:
    """The rows of which an unmasked token is not finite: row number -> the name of the first such tensor.

    ``tensors`` and ``mask`` (bool) are all (B, T).
    """
    found: dict[int, str] = {}
    for name, values in tensors.items():
        for row in torch.nonzero((~torch.isfinite(values) & mask).any(-1)).flatten().tolist():
            found.setdefault(row, name)
    return found


def stop_update(data: Any, found: Mapping[int, str], loss: float) -> None:
    """Stop an update, in the actor's worker, before a non-finite micro-batch's gradient is used.

    Raises NonFiniteError, naming the rows, if ``found`` by :func:`bad_rows` has some or the loss is not finite.
    """
    if not found and math.isfinite(loss):
        return
    prompts, responses = data["prompts"].unbind(), data["responses"].unbind()
    origin = data[ORIGIN].tolist() if ORIGIN in data.keys() else [FRESH] * len(prompts)
    rows = sorted(found or range(len(prompts)), key=lambda row: origin[row])  # padding last
    names = [
        f"{KINDS[origin[row]]} row of prompt {prompt_key(prompts[row].cpu().numpy())} "
        f"with {responses[row].numel()} response tokens{': ' if found else ''}{found.get(row, '')}"
        for row in rows
    ]
    what = "values are not finite" if found else f"the loss is {loss} (its KL or entropy term)"
    raise NonFiniteError(
        f"the update was stopped before its optimizer step, since {what} in {len(names)} row(s) ({listed(names)}): "
        f"resume from the last checkpoint with a smaller learning rate, or {SKIP} to skip such steps."
    )


def refuse_skipped(steps: int, step: int) -> None:
    """Raise NonFiniteError after an update of which verl skipped steps for their gradient, the loss being finite."""
    if steps:
        raise NonFiniteError(
            f"step {step}: the gradient of {steps} optimizer step(s) was not finite though every loss was, so verl "
            f"skipped them: resume from the last checkpoint with a smaller learning rate, or {SKIP} to count them."
        )

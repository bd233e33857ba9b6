"""What stops or warns a run: values that are not finite, and replayed rows that are too far from the policy."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from repo_verl.config import PREFIX, RepoConfig
from repo_verl.replay import prompt_key
from repo_verl.trainer.layout import FRESH, ORIGIN, PADDING, REPLAYED

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

NAMED = 3
"""Rows that a message names; it counts the others."""

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
    """Stop for rows whose score is not finite.

    Args:
        names: of the rows; nothing happens if there is none.
        step: the training step.

    Raises:
        NonFiniteError: naming the rows.
    """
    if names:
        raise NonFiniteError(
            f"step {step}: the reward function gave a score that is not finite for {len(names)} row(s) "
            f"({listed(names)}): fix it and resume, or {SKIP} to leave such rows out."
        )


def warn_missing(missing: int, expected: int, step: int) -> None:
    """Warn that verl went on without responses whose generation or reward raised.

    Args:
        missing: responses of the step's prompts that are not there; nothing is said if there is none.
        expected: responses that were asked for.
        step: the training step.
    """
    if missing:
        logger.warning(
            "RePO: step %d: %d of %d responses are missing (repo/missing_rows): their generation or reward raised, and "
            "verl goes on without them, which biases the groups that are left; the agent loop's log has the error",
            step, missing, expected,
        )  # fmt: skip


def bad_rows(tensors: Mapping[str, torch.Tensor], mask: torch.Tensor) -> dict[int, str]:
    """The rows of which an unmasked token is not finite, and in which tensor.

    Args:
        tensors: name -> (B, T).
        mask: (B, T) bool.

    Returns:
        row number -> the first such name.
    """
    found: dict[int, str] = {}
    for name, values in tensors.items():
        for row in torch.nonzero((~torch.isfinite(values) & mask).any(-1)).flatten().tolist():
            found.setdefault(row, name)
    return found


def stop_update(data: Any, found: Mapping[int, str], loss: float) -> None:
    """Stop an update, in the actor's worker, before a non-finite micro-batch's gradient is used.

    Args:
        data: the micro-batch.
        found: of :func:`bad_rows`.
        loss: the micro-batch's.

    Raises:
        NonFiniteError: naming the rows, if there are such rows or the loss is not finite.
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
    """Stop after an update of which verl skipped optimizer steps, the loss having been finite.

    Args:
        steps: that were skipped since the norm of their gradient was not finite.
        step: the training step.

    Raises:
        NonFiniteError: if there are any.
    """
    if steps:
        raise NonFiniteError(
            f"step {step}: the gradient of {steps} optimizer step(s) was not finite though every loss was, so verl "
            f"skipped them: resume from the last checkpoint with a smaller learning rate, or {SKIP} to count them."
        )


class DriftWatch:
    """Warns once when replayed rows are too far from the policy, and once when their ESS is too small.

    Args:
        config: ``warn_ratio`` and ``warn_ess``.
        warn: takes the warning.
    """

    def __init__(self, config: RepoConfig, warn: Callable[[str], None] = logger.warning) -> None:
        self._config, self._warn = config, warn
        self._warned: set[str] = set()

    def look(self, step: int, metrics: Mapping[str, float]) -> None:
        """Look at a step's ``ratio_max_replayed`` and ``ess_replayed``; 0 where nothing was replayed."""
        ratio, ess = metrics["ratio_max_replayed"], metrics["ess_replayed"]
        most, least = self._config.warn_ratio, self._config.warn_ess
        if most is not None and ratio > most:
            self._once(
                "ratio", step, f"a replayed token's ratio reached {ratio:.4g}, above {PREFIX}warn_ratio={most:g}", ""
            )
        if least is not None and 0 < ess < least:
            self._once(
                "ess",
                step,
                f"replayed rows have an effective sample size of {ess:.4g} of them, below {PREFIX}warn_ess={least:g}",
                " (sequences of many tokens have a low one even when each token's ratio is near 1)",
            )

    def _once(self, kind: str, step: int, what: str, note: str) -> None:
        if kind in self._warned:
            return
        self._warned.add(kind)
        age = "" if self._config.max_age is None else f" below {self._config.max_age}"
        change = "" if self._config.strategy == "recency" else f" or {PREFIX}strategy=recency"
        self._warn(
            f"RePO: step {step}: {what}{note}: old rows are far from the policy, so set {PREFIX}max_age{age}{change}, "
            f"or {PREFIX}clip_ratio_c to bound rows of negative advantage; this is said once."
        )

"""How long the rows may be that a run trains on, and what is said of saved rows that are longer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repo_verl.config import lookup
from repo_verl.replay.fitting import RowLimits

ACTOR = "actor_rollout_ref.actor."
TOKENS = f"{ACTOR}ppo_max_token_len_per_gpu"


def row_limits(config: Any) -> RowLimits:
    """The longest prompt, response and row that verl's workers take in an update.

    A row must fit into one micro-batch. verl bounds one only where it cuts by tokens (``use_dynamic_bsz``): at
    ``ppo_max_token_len_per_gpu`` times the ranks that share a sequence (``prepare_micro_batches`` in its
    workers/engine/utils.py).

    Args:
        config: verl's whole configuration.
    """
    rollout = "actor_rollout_ref.rollout."
    row = None
    if lookup(config, f"{ACTOR}use_dynamic_bsz", False):
        row = int(lookup(config, TOKENS, 16384)) * _sharing_ranks(config)
    return RowLimits(
        prompt=lookup(config, f"{rollout}prompt_length", lookup(config, "data.max_prompt_length")),
        response=lookup(config, f"{rollout}response_length", lookup(config, "data.max_response_length")),
        row=row,
    )


def _sharing_ranks(config: Any) -> int:
    """Ranks that have a part of each sequence."""
    if lookup(config, f"{ACTOR}strategy") == "megatron":
        return int(lookup(config, f"{ACTOR}megatron.context_parallel_size", 1))
    old = int(lookup(config, f"{ACTOR}ulysses_sequence_parallel_size", 1))  # wins over the other in verl, if above 1
    return old if old > 1 else int(lookup(config, f"{ACTOR}fsdp_config.ulysses_sequence_parallel_size", 1))


def describe_left_out(limits: RowLimits, left_out: Sequence[int]) -> str:
    """A sentence on saved rows that are too long for this run.

    Args:
        limits: of this run.
        left_out: rows left out for their prompt, their response, and both together.
    """
    keys = ("data.max_prompt_length", "data.max_response_length", f"{TOKENS} on all ranks of a sequence")
    values = (limits.prompt, limits.response, limits.row)
    reasons = [f"{n} over {key}={value}" for n, key, value in zip(left_out, keys, values, strict=True) if n]
    return (
        f"{sum(left_out)} saved rows are left out, since they are longer than this run takes ({', '.join(reasons)}): "
        "resume with the former values to keep them"
    )

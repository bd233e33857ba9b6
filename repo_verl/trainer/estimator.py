"""verl's advantage estimator ``repo``: gives the advantages that the step was planned with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from omegaconf import open_dict

from repo_verl.trainer.layout import uid_of

_handed: tuple[list[str], torch.Tensor] | None = None  # by handing(); verl's own trainer hands nothing on


@contextlib.contextmanager
def handing(batch_keys: Sequence[str], keys: Sequence[str], advantages: torch.Tensor) -> Iterator[None]:
    """Have the estimator give the advantages of the plan for the duration of the block.

    ``keys`` and ``advantages``, (B,), are of the fresh rows; the others of verl's ``batch_keys`` are padding.
    """
    global _handed
    row = {key: number for number, key in enumerate(keys)}
    with_padding = torch.cat((advantages, advantages.new_zeros(1)))
    index = torch.tensor([row.get(key, len(keys)) for key in batch_keys])
    _handed = [uid_of(key) for key in batch_keys], with_padding[index]
    try:
        yield
    finally:
        _handed = None


def compute_repo_outcome_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: Any,
    config: Any = None,
    **unused: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns of the fresh rows, in verl's signature: (B, T), a row's advantage on its unmasked tokens.

    Nothing is computed here.

    Raises:
        RuntimeError: where verl's own trainer calls it, which would be GRPO under RePO's name; or for other rows than
            the step was planned with.
    """
    if _handed is None:
        raise RuntimeError(
            "algorithm.adv_estimator=repo reached a trainer that replays nothing: run verl.trainer.main_ppo with "
            "trainer.v1.trainer_mode=sync or colocate_async, or set algorithm.adv_estimator=grpo."
        )
    uids, values = _handed
    if [str(uid) for uid in index] != uids:
        raise RuntimeError(
            "verl asked for the advantages of other rows than the step was planned with: use a tested version of verl."
        )
    advantages = values.unsqueeze(-1) * response_mask
    return advantages, advantages


@contextlib.contextmanager
def selected(algorithm: Any, name: str) -> Iterator[None]:
    """Set ``adv_estimator`` of verl's ``algorithm`` block for the duration of the block."""
    before = algorithm.adv_estimator
    with open_dict(algorithm):
        algorithm.adv_estimator = name
    try:
        yield
    finally:
        with open_dict(algorithm):
            algorithm.adv_estimator = before

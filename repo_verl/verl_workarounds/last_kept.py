"""The last checkpoint stays until the next one is finished.

Works around ``verl/utils/checkpoint/checkpoint_manager.py:191``: where one checkpoint is to be kept, verl removes it as
soon as the actor of the next one is written, before the rest and the tracker file: a kill between them leaves none.
Delete it once verl removes old checkpoints behind its tracker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def two_kept(actor: Any) -> Iterator[None]:
    """Have verl's worker group ``actor`` keep two checkpoints in the block, whatever it is asked to keep."""
    stock = actor.save_checkpoint

    def save_checkpoint(*args: Any, **kwargs: Any) -> Any:
        return stock(*args, **{**kwargs, "max_ckpt_to_keep": 2})

    actor.save_checkpoint = save_checkpoint
    try:
        yield
    finally:
        actor.save_checkpoint = stock

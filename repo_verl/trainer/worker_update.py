"""Around verl's update: the rows of mini- and micro-batches go to the workers, what they report comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from repo_verl.trainer.fields import REPORT
from repo_verl.trainer.layout import Layout


@contextlib.contextmanager
def watched_update(group: Any, layout: Layout | None) -> Iterator[tuple[list[dict[str, float]], list[float]]]:
    """Wrap ``update_actor`` of verl's worker group for the duration of the block.

    Args:
        group: the actor's workers.
        layout: of the update; None where verl's batch is left as it is.

    Yields:
        a list of RePO's sums and a list of gradient norms, one entry an optimizer step, filled by the call.
    """
    reports: list[dict[str, float]] = []
    grad_norms: list[float] = []
    stock = group.update_actor

    def update_actor(batch: KVBatchMeta) -> Any:
        if layout is not None:
            batch.extra_info["mini_batch_size"] = layout.mini_batch_rows
            if layout.micro_batch_rows is not None:
                batch.extra_info["micro_batch_size_per_gpu"] = layout.micro_batch_rows
        output = stock(batch)
        found = dict(output["metrics"])
        columns = {key: found.pop(key) for key in list(found) if key.startswith(REPORT)}
        names = [key.removeprefix(REPORT) for key in columns]
        reports.extend(dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True))
        grad_norms.extend(found["grad_norm"])
        tu.assign_non_tensor_data(output, "metrics", found)
        return output

    group.update_actor = update_actor
    try:
        yield reports, grad_norms
    finally:
        group.update_actor = stock

"""Gradients of one update through verl's real actor worker (FSDP2, gloo), on 1 and on 2 data-parallel processes.

As :mod:`engine_update`, whose actor it runs. Every gradient is taken where the optimizer would use it: after all
micro-batches, verl's reduction over ranks and its clipping (whose bound is out of reach), whole, gathered from all
ranks' shards. The learning rate is 0, so that every optimizer step is taken at the same parameters. Run as a program:

    python engine_gradients.py MODEL_FOLDER FOLDER

which writes FOLDER/RANKS-CASE.safetensors, a tensor "STEP.PARAMETER" each, and FOLDER/RANKS.json, what a case
consisted of, by its name.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from functools import partial
from itertools import product
from pathlib import Path

import torch
from engine_rows import MODES, Case, actor_data, draw_rows, make_plan
from engine_update import Actor, overrides, run_ranks, set_rank

REPLAYED = (4, 0, 4, 3)
"""Rows that each of four prompts replays. Of the patterns of 50 percent zeros, 8 of 26 fresh or replayed rows go."""

OPTIMIZER = ["optimizer=SGD", "lr=0.0", "weight_decay=0.0"]


def cases() -> list[Case]:
    """One and two optimizer steps, both ways to cut micro-batches, both normalisations, two aggregations."""
    ways = product(("group", "rows"), MODES, (False, True), (1, 2))
    return [Case("fp32", 50, way, mode=mode, dynamic=dynamic, mini_batches=steps) for way, mode, dynamic, steps in ways]


def unequal_rows(case: Case) -> list[dict]:
    """The case's rows, of which a prompt replays as many as :data:`REPLAYED` says."""
    rows, seen = [], dict.fromkeys(range(len(REPLAYED) * case.mini_batches), 0)
    for row in draw_rows(case):
        if row["origin"] == 1:
            seen[row["block"]] += 1
            if seen[row["block"]] > REPLAYED[row["block"] % len(REPLAYED)]:
                continue
        rows.append(row)
    return rows


def gradients(actor: Actor, case: Case, ranks: int) -> tuple[dict[str, torch.Tensor], dict]:
    """The whole gradient of every optimizer step, and the rows behind it."""
    found: dict[str, torch.Tensor] = {}

    def keep(*_) -> None:
        for name, one in actor.engine.module.named_parameters():
            found[f"{actor.steps}.{name}"] = one.grad.full_tensor().clone()

    rows = unequal_rows(case)
    plan = make_plan(case, rows, ranks, prune=True)
    actor.use_loss(case.mode)
    hook = actor.engine.optimizer.register_step_pre_hook(keep)
    actor.update(actor_data(case, rows, plan, torch.distributed.get_rank(), ranks))
    hook.remove()
    order = plan.layout.order
    return found, {
        "rows": len(rows), "replayed": [plan_row["block"] for plan_row in rows if plan_row["origin"] == 1],
        "kept": sum(plan.kept), "placed": sum(number >= 0 for number in order), "padding": order.count(-1),
        "steps": actor.steps,
    }  # fmt: skip


def run_rank(model: Path, folder: Path, rank: int, ranks: int, port: int) -> None:
    """Every case on one rank; rank 0 writes the results."""
    from safetensors.torch import save_file

    set_rank(rank, ranks, port)
    actor = Actor(model, overrides("fp32", OPTIMIZER))
    facts = {}
    for case in cases():
        found, facts[case.name] = gradients(actor, case, ranks)
        if rank == 0:
            save_file(found, folder / f"{ranks}-{case.name}.safetensors")
    if rank == 0:
        (folder / f"{ranks}.json").write_text(json.dumps(facts))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    os.environ["VERL_PLATFORM"] = "cpu"
    for module in ("verl.workers.engine_workers", "repo_verl.trainer.worker_loss"):
        importlib.import_module(module)
    run_ranks(partial(run_rank, Path(sys.argv[1]), Path(sys.argv[2])))

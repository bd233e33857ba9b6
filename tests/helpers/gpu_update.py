"""One batch through verl's FSDP2 actor on a device: what is reported and how far the parameters move.

    python gpu_update.py DEVICE MODEL_FOLDER FILE.json

``cuda``: bf16 passes over float32 parameters, flash attention. ``cpu``: float32. Each of the updates begins with the
same parameters: ``replay`` whole and ``pruned``, and a batch without replay under RePO's loss (``off``) and verl's
(``grpo``).
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import torch
from engine_rows import Case, actor_data, draw_rows, make_plan
from engine_update import OPTIMIZERS, SETTINGS, Actor, free_port, overrides
from gpu_stack import attention
from recorded_run import compose

CASE = Case("fp32", 25)
OFF = Case("fp32", 25, replay=False)
STOCK = ("repo_origin", "repo_weight", "repo_fresh_scale", "repo_fresh_tokens")


def make_actor(device: str, model: Path) -> Actor:
    """The actor of a device."""
    optimizer = [f"actor_rollout_ref.actor.optim.{one}" for one in OPTIMIZERS["SGD"]]
    if device == "cpu":
        return Actor(model, overrides("fp32", OPTIMIZERS["SGD"]))
    mixed = "actor_rollout_ref.actor.fsdp_config"
    types = [f"{mixed}.dtype=bfloat16", f"{mixed}.mixed_precision.param_dtype=bf16"]
    return Actor(model, [*SETTINGS, *optimizer, *types, *attention(device)])


def moved(actor: Actor) -> torch.Tensor:
    """How far the parameters have moved, as one vector."""
    pairs = zip(actor.local(), actor.first, strict=True)
    return torch.cat([(now - first).flatten().double().cpu() for now, first in pairs])


def batch(case: Case, rows: list, prune: bool, stock: bool):
    """What ``update_actor`` is given; ``stock``: verl's own batch, without RePO's fields."""
    data = actor_data(case, rows, make_plan(case, rows, 1, prune), 0, 1)
    return data.exclude(*STOCK) if stock else data


def main(device: str, model: Path, out: Path) -> None:
    """Run the updates and write them."""
    from verl.workers.utils.losses import ppo_loss

    os.environ.update(
        RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(free_port()),
    )  # fmt: skip
    compose([])  # the configuration is found before the model is made
    actor = make_actor(device, model)
    results = {}
    for name, case, prune in (
        ("replay", CASE, False),
        ("pruned", CASE, True),
        ("off", OFF, False),
        ("grpo", OFF, False),
    ):
        actor.use_loss(case.mode)
        if name == "grpo":
            actor.worker.set_loss_fn(partial(ppo_loss, actor._losses[case.mode].args[0]))
        metrics = actor.update(batch(case, draw_rows(case), prune, stock=name in ("off", "grpo")))
        vector = moved(actor)
        results[name] = {
            "loss": metrics["loss"], "grad_norm": metrics["grad_norm"], "moved": vector.norm().item(),
            "vector": vector.tolist(),
        }  # fmt: skip
    results["parameters"] = str(actor.local()[0].dtype), str(actor.local()[0].device)
    out.write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    if sys.argv[1] == "cpu":
        os.environ["VERL_PLATFORM"] = "cpu"
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

"""Updates of a LoRA actor through verl's FSDP2 engine, whole and pruned, and their gradient by loops.

    python lora_update.py MODEL_FOLDER FOLDER

writes FOLDER/RANKS-whole.safetensors and -pruned for 1 and 2 data-parallel processes: how far every parameter moved;
and FOLDER/oracle.safetensors: the same from a plain forward pass with the adapters merged into the weights by hand, row
by row and token by token, without verl and peft. FOLDER/checkpoint/actor is verl's checkpoint of two processes before
their updates, FOLDER/merged.safetensors the weights with those adapters.
"""

from __future__ import annotations

import importlib
import os
import sys
from functools import partial
from pathlib import Path

import torch
from engine_rows import PROMPTS, Case, N, actor_data, draw_rows, make_plan
from engine_update import DUAL, HIGH, LOW, OPTIMIZERS, Actor, free_port, overrides
from forking import fork
from oracles import group_advantages

CASE = Case("fp32", 25)
RANK, ALPHA, LR, COEF = 4, 8, 2.0, 0.7
FRESH_DUAL = 3.0
"""verl's ``clip_ratio_c``; of replayed rows it is ``DUAL``."""

LORA = [f"actor_rollout_ref.model.lora_rank={RANK}", f"actor_rollout_ref.model.lora_alpha={ALPHA}"]


def adapter(name: str, shape: torch.Size) -> torch.Tensor:
    """A fixed value of an adapter's matrix; peft begins with B = 0, where A has no gradient."""
    seed = sum(name.encode()) + len(name)
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def set_adapters(actor: Actor, rank: int, ranks: int) -> None:
    """Give the adapters of a sharded module their fixed values."""
    for name, one in actor.engine.module.named_parameters():
        if "lora_" in name:
            one.detach().to_local().copy_(adapter(name, one.shape).chunk(ranks)[rank])
    actor.first = [one.clone() for one in actor.local()]


def run_rank(model: Path, folder: Path, rank: int, ranks: int, port: int) -> None:
    """Both updates on one process; rank 0 writes how far the parameters moved."""
    from safetensors.torch import save_file

    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )  # fmt: skip
    torch.set_num_threads(1)
    actor = Actor(model, [*overrides("fp32", OPTIMIZERS["SGD"]), *LORA])
    set_adapters(actor, rank, ranks)
    if ranks == 2:
        actor.engine.save_checkpoint(str(folder / "checkpoint" / "actor"), global_step=1)
    actor.use_loss(CASE.mode)
    named = dict(actor.engine.module.named_parameters())
    first = {name: one.full_tensor().detach().clone() for name, one in named.items()}
    rows = draw_rows(CASE)
    for prune in (False, True):
        actor.update(actor_data(CASE, rows, make_plan(CASE, rows, ranks, prune), rank, ranks))
        moved = {name: (one.full_tensor().detach() - first[name]).contiguous() for name, one in named.items()}
        if rank == 0:
            save_file(moved, folder / f"{ranks}-{'pruned' if prune else 'whole'}.safetensors")
    torch.distributed.destroy_process_group()


def surrogate(ratio: torch.Tensor, advantage: float, dual: float) -> torch.Tensor:
    """The clipped surrogate of tokens, bounded below where the advantage is negative."""
    value = torch.minimum(ratio * advantage, ratio.clamp(1 - LOW, 1 + HIGH) * advantage)
    return value.clamp(min=dual * advantage) if advantage < 0 else value


def write_oracle(model: Path, names: list[str], folder: Path) -> None:
    """-LR times the gradient of the loss with respect to the adapters, by loops, in float64."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(model).double()
    weights = {name: one.detach() for name, one in plain.named_parameters()}
    leaves, merged = {}, dict(weights)
    for name in (name for name in names if "lora_A" in name):
        target = name.removeprefix("base_model.model.").replace(".lora_A.default", "")
        shapes = (RANK, weights[target].shape[1]), (weights[target].shape[0], RANK)
        pair = [
            adapter(one, torch.Size(shape)).double().requires_grad_(True)
            for one, shape in zip((name, name.replace("lora_A", "lora_B")), shapes, strict=True)
        ]
        leaves |= {name: pair[0], name.replace("lora_A", "lora_B"): pair[1]}
        merged[target] = weights[target] + ALPHA / RANK * pair[1] @ pair[0]
    save_file({name: one.detach().float().contiguous() for name, one in merged.items()}, folder / "merged.safetensors")
    rows, loss = draw_rows(CASE), torch.zeros((), dtype=torch.float64)
    for origin in (0, 1):
        for block in range(PROMPTS):
            members = [row for row in rows if (row["origin"], row["block"]) == (origin, block)]
            advantages = group_advantages([row["score"] for row in members], 1e-6)
            for row, advantage in zip(members, advantages, strict=True):
                ids = torch.cat((row["prompt"], row["tokens"]))
                logits = torch.func.functional_call(plain, merged, (ids[None],)).logits[0, len(row["prompt"]) - 1 : -1]
                new = logits.log_softmax(-1).gather(-1, row["tokens"][:, None])[:, 0]
                values = surrogate((new - row["old"]).exp(), advantage, DUAL if origin else FRESH_DUAL)
                token_mean = (values * row["mask"]).sum() / row["mask"].sum()
                loss = loss - (COEF if origin else 1.0) * token_mean / N / PROMPTS
    loss.backward()
    save_file({name: (-LR * one.grad).contiguous() for name, one in leaves.items()}, folder / "oracle.safetensors")


def main(model: Path, folder: Path) -> None:
    """Run 1 and 2 processes, then the loops."""
    from safetensors.torch import load_file

    importlib.import_module("verl.workers.engine_workers")
    importlib.import_module("repo_verl.trainer.worker_loss")
    for ranks in (1, 2):
        port = free_port()
        children = [fork(partial(run_rank, model, folder, rank, ranks, port)) for rank in range(ranks)]
        statuses = [os.waitpid(child, 0)[1] for child in children]
        if any(statuses):
            sys.exit(f"a process of {ranks} failed")
    torch.set_num_threads(1)
    write_oracle(model, list(load_file(folder / "1-whole.safetensors")), folder)


if __name__ == "__main__":
    os.environ["VERL_PLATFORM"] = "cpu"
    main(Path(sys.argv[1]), Path(sys.argv[2]))

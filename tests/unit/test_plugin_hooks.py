"""Every hook of the plugin by itself, on stand-ins for verl's modules: what it puts in place, and how it fails."""

import copy
import functools
import importlib.machinery
import inspect
import sys
from types import ModuleType, SimpleNamespace

import pytest
from omegaconf import OmegaConf

from repo_verl import import_hooks, plugin
from repo_verl.config import RepoConfigError
from repo_verl.trainer import ground_truth_check, seams
from repo_verl.trainer.validation import is_selected
from repo_verl.verl_workarounds import weight_sockets
from repo_verl.verl_workarounds.weight_sockets import WEIGHT_SOCKETS

REPO = {"algorithm": {"adv_estimator": "repo"}}
GRPO = {"algorithm": {"adv_estimator": "grpo"}}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No failure of another test, and no callback that stays."""
    monkeypatch.setattr(import_hooks, "_callbacks", {})
    before = list(plugin.failures)
    plugin.failures.clear()
    yield
    plugin.failures[:] = before


def hooks():
    """The hooks that other people's processes run, guarded as they are installed."""
    installed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugin, "when_imported", installed.__setitem__)
        patch.setattr(sys, "meta_path", list(sys.meta_path))
        patch.setenv("VERL_PLATFORM", "")
        patch.delenv(plugin.CLUSTER_SOCKETS, raising=False)
        plugin._install()
    return installed


def test_another_run_has_four_hooks_and_none_of_them_is_a_weight_sockets():
    assert sorted(hooks()) == [
        "verl.trainer.ppo.core_algos",
        "verl.trainer.ppo.v1.trainer_colocate_async",
        "verl.trainer.ppo.v1.trainer_sync",
        "verl.utils.config",
    ]


@pytest.mark.parametrize("name", sorted(hooks()))
def test_a_verl_that_is_not_known_is_left_as_it_is_and_stops_repo_alone(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "verl.trainer.ppo.v1.trainer_base", ModuleType("x"))
    module = ModuleType("x")
    before = dict(vars(module))
    hooks()[name](module)
    assert vars(module) == before
    assert len(plugin.failures) == 1
    with pytest.raises(RuntimeError, match="^repo-verl did not load .*so RePO can't run: run `repo-verl check`"):
        plugin.raise_failures()


def validation(stock):
    module = ModuleType("x")
    module.validate_config = stock
    plugin._wrap_validation(module)
    return module.validate_config


@pytest.mark.parametrize("stock", [functools.partial(print), SimpleNamespace, 5])
def test_a_validation_that_is_no_function_is_left_as_it_is(stock):
    assert validation(stock) is stock and isinstance(plugin.failures[0], TypeError)


def test_validation_of_another_estimator_hands_the_call_on_and_loads_nothing(monkeypatch):
    """Whatever the call looks like, on a plugin that failed too."""
    for name in [name for name in sys.modules if name.startswith("repo_verl.") and name != "repo_verl.plugin"]:
        monkeypatch.setitem(sys.modules, name, None)  # importing it again would be an ImportError
    plugin.failures.append(ValueError("x"))
    called = []
    validate = validation(lambda *args, **kwargs: called.append((args, kwargs)) or len(called))
    assert validate(GRPO, True, use_critic=False) == 1 and validate(cfg=GRPO) == 2 and validate() == 3
    assert validate(config=object()) == 4
    assert called == [((GRPO, True), {"use_critic": False}), ((), {"cfg": GRPO}), ((), {}), ((), called[3][1])]


@pytest.mark.parametrize("call", [lambda f: f(REPO), lambda f: f(config=REPO), lambda f: f(use_critic=1, cfg=REPO)])
def test_validation_of_repo_raises_what_failed(call):
    plugin.failures.append(ValueError("no module named numpy"))
    called = []
    with pytest.raises(RuntimeError, match=r"did not load \(ValueError: no module named numpy\)"):
        call(validation(lambda *args, **kwargs: called.append(1)))
    assert called == []


def test_golds_of_another_estimator_are_looked_at_only_where_our_reward_is_named(monkeypatch):
    looked = []
    monkeypatch.setattr(ground_truth_check, "check_golds", looked.append)
    validate = validation(lambda config: "verl's answer")
    ours = {**GRPO, "reward": {"custom_reward_function": {"path": "pkg://repo_verl.rewards"}}}
    theirs = {**GRPO, "reward": {"custom_reward_function": {"path": "my_rewards.py"}}}
    assert [validate(config) for config in (GRPO, theirs, ours)] == ["verl's answer"] * 3
    assert looked == [ours]


def test_a_gold_check_that_breaks_does_not_stop_another_estimator_and_its_verdict_does(monkeypatch, caplog):
    ours = {**GRPO, "reward": {"custom_reward_function": {"path": "pkg://repo_verl.rewards.score"}}}
    validate = validation(lambda config: "verl's answer")

    def broken(config):
        raise KeyError("ours")

    monkeypatch.setattr(ground_truth_check, "check_golds", broken)
    assert validate(ours) == "verl's answer"
    assert "Gold answers not checked, since the check itself failed: KeyError: 'ours'" in caplog.text

    def refuse(config):
        raise RepoConfigError("data.train_files=x")

    monkeypatch.setattr(ground_truth_check, "check_golds", refuse)
    with pytest.raises(RepoConfigError, match="data.train_files=x"):
        validate(ours)
    monkeypatch.setitem(sys.modules, "repo_verl.trainer.ground_truth_check", None)
    assert validate(ours) == "verl's answer", "no check to import"


@pytest.fixture
def stock(monkeypatch):
    """Stands for verl's trainer, with our hook on it, in verl's registry; RePO's trainer is a stand-in too."""

    class Stock:
        def __init__(self, config, more=0):
            self.config, self.more = config, more
            self.times = getattr(self, "times", 0) + 1

    class Ours(Stock):
        pass

    base, trainer = ModuleType("base"), ModuleType("trainer")
    base.TRAINER_REGISTRY = {"sync": Stock}
    trainer.TRAINERS = {"sync": Ours}
    monkeypatch.setitem(sys.modules, "verl.trainer.ppo.v1.trainer_base", base)
    monkeypatch.setitem(sys.modules, "repo_verl.trainer.trainer", trainer)
    monkeypatch.setattr(seams, "require_seams", lambda: None)
    plugin._register_trainer("sync", ModuleType("x"))
    assert base.TRAINER_REGISTRY == {"sync": Stock}, "verl's class, so that verl takes it again"
    return Stock


def test_the_trainer_is_verls_own_class_and_ours_for_repo(stock, monkeypatch):
    made = stock(GRPO, more=3)
    assert type(made) is stock and made.config is GRPO and made.more == 3
    made = stock(config=REPO)
    assert type(made).__name__ == "Ours" and isinstance(made, stock) and made.config is REPO and made.times == 1
    monkeypatch.setitem(sys.modules, "repo_verl.trainer.trainer", None)
    assert type(stock(config=GRPO)) is stock, "nothing of ours is imported"


def test_what_is_set_on_the_registered_class_is_on_its_instances(stock):
    stock.flag = 1
    for config in (GRPO, REPO):
        assert isinstance(stock(config), stock) and stock(config).flag == 1
    assert str(inspect.signature(stock)) == "(config, more=0)"


def test_a_copy_of_a_trainer_is_of_its_class(stock):
    """Copies, as pickles, are made without arguments and not initialized."""
    for made in (stock(GRPO, more=3), stock(REPO, more=3)):
        twin = copy.copy(made)
        assert type(twin) is type(made) and (twin.more, twin.times) == (3, 1)


def test_the_trainer_looks_at_the_seams_before_ours_is_imported(stock, monkeypatch):
    def refuse():
        raise RepoConfigError("a seam is missing")

    monkeypatch.setattr(seams, "require_seams", refuse)
    monkeypatch.setitem(sys.modules, "repo_verl.trainer.trainer", None)
    with pytest.raises(RepoConfigError, match="a seam is missing"):
        stock(REPO)
    assert type(stock(GRPO)) is stock


def test_the_trainer_is_a_class_that_users_may_derive_from(stock):
    class Other:
        def __new__(cls, *args, **kwargs):
            made = super().__new__(cls)
            made.arguments = args, kwargs
            return made

    class Mine(stock):
        pass

    class Both(stock, Other):
        pass

    assert type(Mine(GRPO, 2)) is Mine and Mine(GRPO, 2).more == 2
    assert type(Mine(REPO)) is Mine, "RePO's estimator refuses it"
    assert Both(GRPO, more=2).arguments == ((GRPO,), {"more": 2})


def test_an_own_way_of_verls_class_to_make_instances_stays(stock):
    def own(cls, config, more=0):
        made = object.__new__(cls)
        made.own = more
        return made

    stock.__new__ = staticmethod(own)
    plugin._register_trainer("sync", ModuleType("x"))
    assert (stock(GRPO, 2).own, type(stock(GRPO)) is stock) == (2, True)
    assert (stock(REPO, 2).own, type(stock(REPO)).__name__) == (2, "Ours")


def test_the_trainer_raises_what_failed_for_repo_alone(stock):
    plugin.failures.append(ValueError("x"))
    assert type(stock(GRPO)) is stock
    with pytest.raises(RuntimeError, match=r"did not load \(ValueError: x\)"):
        stock(REPO)


def test_the_estimator_raises_what_failed(monkeypatch):
    """For every trainer of verl that is not made RePO's."""
    module = ModuleType("x")
    registered = {}
    module.register_adv_est = lambda name: functools.partial(registered.__setitem__, name)
    plugin._register_estimator(module)
    assert list(registered) == ["repo"]
    with pytest.raises(RuntimeError, match="reached a trainer that replays nothing"):
        registered["repo"](None, None, index=None)
    plugin.failures.append(ValueError("x"))
    with pytest.raises(RuntimeError, match="did not load"):
        registered["repo"](None, None, index=None)


@pytest.mark.parametrize("variable", [(plugin.CLUSTER_SOCKETS, "1"), ("VERL_PLATFORM", "cpu")])
def test_weight_socket_hooks_are_for_marked_workers_and_the_cpu_backend_and_fail_loudly_there(monkeypatch, variable):
    monkeypatch.delenv(plugin.CLUSTER_SOCKETS, raising=False)
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    plugin.name_sockets_by_cluster()
    assert import_hooks._callbacks == {}
    monkeypatch.setenv(*variable)
    plugin.name_sockets_by_cluster()
    folder = "verl.workers.rollout.vllm_rollout."
    assert sorted(import_hooks._callbacks) == [folder + "vllm_async_server", folder + "vllm_rollout"]
    for (callback,) in import_hooks._callbacks.values():
        with pytest.raises(AttributeError):
            callback(ModuleType("x"))


def test_a_loader_that_takes_no_hook_still_loads(monkeypatch):
    class Loader(importlib.machinery.SourceFileLoader):
        def __setattr__(self, name, value):
            raise TypeError("no hook")

    found = SimpleNamespace(loader=object.__new__(Loader))
    monkeypatch.setattr(import_hooks.importlib.util, "find_spec", lambda name: found)
    import_hooks.when_imported("x.y", lambda module: None)
    assert import_hooks.PostImportFinder().find_spec("x.y", None) is found
    assert str(plugin.failures[0]) == "no hook"


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        (REPO, True),
        (OmegaConf.create(REPO), True),
        (SimpleNamespace(algorithm=SimpleNamespace(adv_estimator="repo")), True),
        (GRPO, False),
        (OmegaConf.create({"algorithm": {"adv_estimator": "???"}}), False),
        ({"algorithm": None}, False),
        ({}, False),
        (None, False),
        ("algorithm", False),
    ],
)
def test_repo_is_asked_for_by_the_estimator(config, asked):
    assert plugin.asks_for_repo(config) is asked
    if isinstance(config, dict):
        assert is_selected(config) is asked


@pytest.mark.parametrize("ray_init", [{}, {"runtime_env": None}, {"runtime_env": {"env_vars": {"A": "b"}}}])
def test_a_run_is_marked_in_the_environment_of_its_workers(ray_init, monkeypatch):
    monkeypatch.setattr(weight_sockets, "find_unknown_end", lambda: None)
    config = OmegaConf.create({"ray_kwargs": {"ray_init": ray_init}})
    OmegaConf.set_struct(config, True)
    weight_sockets.mark_run(config, "X_Y")
    kept = (ray_init.get("runtime_env") or {}).get("env_vars", {})
    assert config.ray_kwargs.ray_init.runtime_env.env_vars == {**kept, "X_Y": "1"}
    config.ray_kwargs.ray_init.runtime_env.env_vars["TRANSFER_QUEUE_ENABLE"] = "1"  # as verl 0.9.0 does


def test_a_run_is_not_marked_where_an_end_is_not_known_or_is_not_vllms(monkeypatch, caplog):
    def mark(engine, unknown):
        monkeypatch.setattr(weight_sockets, "find_unknown_end", lambda: unknown)
        config = OmegaConf.create({"actor_rollout_ref": {"rollout": {"name": engine}}})
        weight_sockets.mark_run(config, "X_Y")
        return "ray_kwargs" in config

    assert not mark("sglang", None) and not mark("sglang", "utils.py") and caplog.text == ""
    assert not mark("vllm", "utils.py") and "names its weight sockets in another way (utils.py)" in caplog.text
    assert mark("vllm", None)


def test_an_end_is_known_by_what_verls_files_say(tmp_path, monkeypatch):
    folder = tmp_path / "workers" / "rollout" / "vllm_rollout"
    folder.mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "verl", SimpleNamespace(__file__=str(tmp_path / "__init__.py")))
    for name, parts in WEIGHT_SOCKETS.items():
        (folder / name).write_text("\n".join(parts))
    assert weight_sockets.find_unknown_end() is None
    for name, parts in WEIGHT_SOCKETS.items():
        for part in parts:
            (folder / name).write_text("\n".join(parts).replace(part, part[:-2]))
            assert weight_sockets.find_unknown_end() == str(folder / name)
        (folder / name).unlink()
        assert weight_sockets.find_unknown_end() == str(folder / name), "no such file"
        (folder / name).write_text("\n".join(parts))

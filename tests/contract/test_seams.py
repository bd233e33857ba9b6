"""The table of seams: complete by what the source uses, true of the verl that is installed, loud when a name goes."""

import ast
import inspect
import logging
from pathlib import Path

import pytest

from repo_verl import versions
from repo_verl.config import RepoConfigError
from repo_verl.trainer import seams
from repo_verl.trainer.seams import list_seams

pytestmark = pytest.mark.contract

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [ROOT / "repo_verl" / name for name in ("trainer", "verl_workarounds")]
SOURCES = [*sorted(path for package in PACKAGES for path in package.glob("*.py")), ROOT / "repo_verl" / "plugin.py"]
FOREIGN = ("verl", "transfer_queue", "ray")
OVERRIDDEN = [seam for seam in list_seams(cpu=False) if seam.overridden]
NOT_SEAMS = {"verl.__file__"}


@pytest.fixture(autouse=True)
def uncached():
    yield
    seams.require_seams.cache_clear()


def imported(tree):
    """Local name -> full name of what a module imports of verl, TransferQueue and Ray."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.split(".")[0], alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def used(path):
    """Full names that a module uses, and the keywords that it calls each with."""
    tree = ast.parse(path.read_text())
    names = {local: full for local, full in imported(tree) if full.split(".")[0] in FOREIGN}
    found = {full: set() for full in names.values()}
    for node in ast.walk(tree):
        call = node if isinstance(node, ast.Call) else None
        node = node.func if call else node
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            full = f"{names[node.value.id]}.{node.attr}"
        elif isinstance(node, ast.Name) and node.id in names:
            full = names[node.id]
        else:
            continue
        keywords = call.keywords if call else []
        found.setdefault(full, set()).update(k.arg for k in keywords if k.arg)
    return found


def known():
    """Full name -> parameters, of the table; modules, classes and what Ray gives every actor class have none."""
    table = {}
    for seam in list_seams(cpu=False):
        table.setdefault(seam.module, ())
        for end in range(1, seam.name.count(".") + 1):
            table.setdefault(f"{seam.module}.{'.'.join(seam.name.split('.')[:end])}", ())
        table[f"{seam.module}.{seam.name}"] = seam.parameters or ()
    actors = [f"transfer_queue.{name}.options" for name in ("controller.TransferQueueController",)]
    actors.append("transfer_queue.storage.SimpleStorageUnit.options")
    return {**table, **dict.fromkeys(actors, ("name", "num_cpus", "scheduling_strategy"))}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_foreign_name_and_keyword_of_the_source_is_in_the_table(path):
    table = known()
    for name, keywords in used(path).items():
        if name in FOREIGN or name in NOT_SEAMS:
            continue
        assert name in table, f"{path.name} uses {name}: add it to repo_verl/trainer/seams.py"
        assert keywords <= set(table[name]), f"{path.name} calls {name} with {keywords}"


def trainer_classes():
    from repo_verl.trainer.trainer import TRAINERS, ReplayTrainer

    return ReplayTrainer, TRAINERS


def test_every_method_that_stands_in_place_of_verls_is_in_the_table_with_its_parameters():
    ours, trainers = trainer_classes()
    for trainer in trainers.values():
        stock = trainer.__mro__[2]
        own = {**vars(ours), **vars(trainer)}
        methods = {name for name, member in own.items() if inspect.isfunction(member) and hasattr(stock, name)}
        listed = {s.name.split(".")[1]: s.parameters for s in OVERRIDDEN if s.name.startswith(stock.__name__ + ".")}
        assert set(listed) == methods
        for name, parameters in listed.items():
            wanted = [p for p in inspect.signature(own[name]).parameters.values()][1:]
            named = [p.name for p in wanted if p.kind is p.POSITIONAL_OR_KEYWORD]
            assert [*named, *(["*"] if len(named) < len(wanted) else [])] == list(parameters), name


def test_every_call_of_verls_own_method_and_every_attribute_of_its_trainer_is_in_the_table():
    tree = ast.parse((ROOT / "repo_verl" / "trainer" / "trainer.py").read_text())
    (ours,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "ReplayTrainer"]
    attributes = [node for node in ast.walk(ours) if isinstance(node, ast.Attribute)]
    called = {n.attr for n in attributes if isinstance(n.value, ast.Call) and ast.unparse(n.value) == "super()"}
    assert called == {text.split("(")[0] for text in seams.OVERRIDDEN}
    of_self = [n for n in attributes if isinstance(n.value, ast.Name) and n.value.id == "self"]
    own = {n.attr for n in of_self if isinstance(n.ctx, ast.Store)} | set(vars(trainer_classes()[0]))
    assert {n.attr for n in of_self} - own <= set(seams.READ)


def test_nothing_is_missing_in_what_is_installed():
    assert [fault for _, fault in seams.look_at_seams() if fault] == []
    seams.require_seams()


def find(seam):
    """The class of a trainer's seam, and where in its bases the method is."""
    owner, name = seam.name.split(".")
    module = __import__(seam.module, fromlist=[owner])
    return next(base for base in getattr(module, owner).__mro__ if name in vars(base)), name


@pytest.mark.parametrize("seam", OVERRIDDEN, ids=lambda seam: seam.name)
def test_a_method_that_verl_renames_or_gives_other_parameters_refuses_repo_in_one_sentence(seam, monkeypatch):
    base, name = find(seam)

    def other(self, something_else):
        pass

    monkeypatch.setattr(base, name, other)
    sentence = rf"^algorithm.adv_estimator=repo can't run with verl {versions.installed('verl')}, .*, since "
    with pytest.raises(RepoConfigError, match=sentence) as refusal:
        seams.require_seams()
    assert f".{name}(something_else) has other parameters than RePO's" in str(refusal.value)
    monkeypatch.undo()
    if name == "__init__":
        return
    monkeypatch.setattr(base, f"{name}_renamed", vars(base)[name], raising=False)
    monkeypatch.delattr(base, name)
    if hasattr(base, name):  # of the base class too, which verl would call
        for parent in base.__mro__[1:]:
            if name in vars(parent):
                monkeypatch.delattr(parent, name)
    with pytest.raises(RepoConfigError, match=sentence) as refusal:
        seams.require_seams()
    assert f".{name} is missing" in str(refusal.value)
    assert str(refusal.value).endswith(f": pip install verl=={versions.TESTED_VERL[-1]}.")


@pytest.mark.parametrize("name", ["_TQ_CONTROLLER", "_TQ_STORAGE"])
def test_a_private_name_of_transfer_queue_that_goes_is_told(name, monkeypatch):
    import transfer_queue.interface as interface

    monkeypatch.delattr(interface, name)
    with pytest.raises(RepoConfigError, match=rf"interface.{name} is missing: pip install transferqueue==0.1.11\.$"):
        seams.require_seams()


def test_verls_trainers_that_are_made_look_at_the_seams_too(monkeypatch):
    """Without verl's validation, as a script of one's own makes them."""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    monkeypatch.delattr(PPOTrainer, "_save_checkpoint")
    for trainer in trainer_classes()[1].values():
        with pytest.raises(RepoConfigError, match="_save_checkpoint is missing"):
            trainer({})


def test_an_untested_version_whose_seams_hold_is_told_once(monkeypatch, caplog):
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    monkeypatch.setattr(PPOTrainer, "__init__", lambda self, config: None)
    config = {"actor_rollout_ref": {"rollout": {"n": 8}}}
    with caplog.at_level(logging.WARNING):
        trainer_classes()[1]["sync"](config)
        assert caplog.text == ""
        installed = versions.installed
        monkeypatch.setattr(versions, "installed", lambda name: "0.10.0" if name == "verl" else installed(name))
        trainer_classes()[1]["sync"](config)
    assert caplog.text.count("RePO: untested: verl 0.10.0 (tested: 0.9.0, 0.9.1); every name") == 1
    assert len(caplog.records) == 1


def test_looking_leaves_the_environment_as_it_was(monkeypatch):
    """vLLM sets variables as it is imported, which the workers of the run would inherit."""
    monkeypatch.setenv("KEPT", "1")
    with seams.unchanged_environment():
        monkeypatch.setenv("KEPT", "2")
        seams.os.environ["NEW_OF_AN_IMPORT"] = "1"
    assert seams.os.environ["KEPT"] == "1" and "NEW_OF_AN_IMPORT" not in seams.os.environ

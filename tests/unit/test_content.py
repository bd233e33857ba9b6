"""A reward function that changed under the same path and name."""

import logging
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from repo_verl.config import RepoConfigError
from repo_verl.trainer import identity
from repo_verl.trainer.identity import content_of, refuse_other_settings, reward_contents

KEY = "the content of reward.custom_reward_function.path"


def config(path=None, **reward):
    base = {
        "custom_reward_function": {"path": path, "name": "f"},
        "reward_model": {"enable": False, "model_path": None},
    }
    return OmegaConf.create({"reward": OmegaConf.merge(base, reward)})


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages on Python's path, and what installs a version of one there."""
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(str(folder))

    def install(version, text="raise RuntimeError('imported')\n", recorded=True):
        package, info = folder / "made_up" / "deep", folder / "made_up-1.dist-info"
        package.mkdir(parents=True, exist_ok=True)
        info.mkdir(exist_ok=True)
        (folder / "made_up" / "__init__.py").write_text(text)
        (package / "__init__.py").write_text(text)
        (package / "score.py").write_text(text)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: made-up-rewards\nVersion: {version}\n")
        (info / "top_level.txt").write_text("made_up\n")
        names = ("made_up/__init__.py", "made_up/deep/__init__.py", "made_up/deep/score.py") if recorded else ()
        (info / "RECORD").write_text("".join(f"{name},sha256=x,9\n" for name in names))

    return install


def test_a_file_is_known_by_its_bytes_and_refused_once_they_change(tmp_path):
    file = tmp_path / "reward.py"
    file.write_text("def f(): return 1\n")
    saved = reward_contents(config(str(file)))
    assert saved == reward_contents(config(f"file://{file}")) == {KEY: content_of(str(file))}
    refuse_other_settings(saved, reward_contents(config(str(file))), "x")
    file.write_text("def f(): return 2\n")
    now = reward_contents(config(str(file)))
    with pytest.raises(RepoConfigError) as caught:
        refuse_other_settings(saved, now, "x")
    said = str(caught.value)
    assert said.startswith(f"{KEY}='sha256 ") and said.count(". ") == 0 and said.endswith("with an empty buffer.")
    assert saved[KEY] in said and now[KEY] in said and "algorithm.repo.persist=false" in said


def test_it_is_part_of_what_a_saved_buffer_must_agree_with(tmp_path, monkeypatch):
    (tmp_path / "reward.py").write_text("1")
    monkeypatch.setattr(identity, "vocabulary_size", lambda model: 9)
    made = config(str(tmp_path / "reward.py"))
    made.actor_rollout_ref = {"rollout": {"temperature": 1.0}, "model": {}}
    known = identity.of_run(made, SimpleNamespace(get_vocab=dict), [1, 2])
    assert known[KEY] == content_of(str(tmp_path / "reward.py"))


def test_a_checkpoint_that_did_not_record_it_loads_and_one_line_says_so(tmp_path, caplog):
    file = tmp_path / "reward.py"
    file.write_text("1")
    current = {"reward.custom_reward_function": {"path": str(file)}, **reward_contents(config(str(file)))}
    with caplog.at_level(logging.INFO):
        refuse_other_settings({"reward.custom_reward_function": {"path": str(file)}}, current, "global_step_3")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"RePO: global_step_3 did not record {KEY}, which is assumed to be unchanged"
    with pytest.raises(RepoConfigError, match="reward.custom_reward_function="):
        refuse_other_settings({"reward.custom_reward_function": {"path": "other.py"}}, current, "x")
    with pytest.raises(RepoConfigError, match="the content of data.train_files='a' differs from None"):
        refuse_other_settings({}, {"the content of data.train_files": "a"}, "x")


def test_an_installed_package_is_known_by_its_version(site):
    site("1.0")
    assert content_of("pkg://made_up.deep") == content_of("pkg://made_up/deep/score") == "made-up-rewards 1.0"
    site("1.0", text="raise RuntimeError('edited')\n")
    assert content_of("pkg://made_up.deep") == "made-up-rewards 1.0"
    site("1.1")
    assert content_of("pkg://made_up.deep") == "made-up-rewards 1.1"


def test_a_package_that_is_not_installed_is_known_by_its_files_and_not_imported(site, tmp_path, monkeypatch):
    """As one that is on PYTHONPATH, installed in editable mode, or hides an installed one of its name."""
    site("1.0", recorded=False)
    first = content_of("pkg://made_up.deep")
    site("2.0", recorded=False)
    assert first == content_of("pkg://made_up.deep") and first.startswith("sha256 ")
    site("2.0", text="raise RuntimeError('edited')\n", recorded=False)
    assert content_of("pkg://made_up.deep") != first
    site("2.0")
    (tmp_path / "work" / "made_up" / "deep").mkdir(parents=True)
    for name in ("__init__.py", "deep/__init__.py"):
        (tmp_path / "work" / "made_up" / name).write_text("raise RuntimeError('imported')\n")
    assert content_of("pkg://made_up.deep") == "made-up-rewards 2.0"
    monkeypatch.syspath_prepend(str(tmp_path / "work"))
    assert content_of("pkg://made_up.deep").startswith("sha256 ")
    assert content_of("pkg://made_up.deep.score") is None and content_of("pkg://not_there.at_all") is None


def test_a_folder_is_known_by_names_and_bytes_of_its_files(tmp_path):
    folder = tmp_path / "rewards"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.py").write_text("ab")
    (folder / "inner" / "rubric.json").write_text("c")
    seen = {content_of(str(folder))}
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.cpython-311.pyc").write_text("x")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("x")
    assert {content_of(str(folder))} == seen, "what Python and git write is no part of it"
    (folder / "inner" / "rubric.json").write_text("d")
    seen.add(content_of(str(folder)))
    (folder / "a.py").rename(folder / "b.py")
    seen.add(content_of(str(folder)))
    assert len(seen) == 3


def test_of_a_large_file_the_size_and_pieces_are_known(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "WHOLE", 1000)
    monkeypatch.setattr(identity, "PIECE", 10)
    file, seen = tmp_path / "model.safetensors", set()
    for values in (b"a" * 2000, b"b" * 2000, b"a" * 2001, b"a" * 1999 + b"b", b"b" + b"a" * 1999):
        file.write_bytes(values)
        seen.add(content_of(str(file)))
    assert len(seen) == 5


def test_paths_that_name_code_or_models_of_the_reward_count(tmp_path):
    for name in ("manager.py", "model"):
        (tmp_path / name).write_text(name)
    made = config(
        reward_manager={"source": "importlib", "name": "M", "module": {"path": str(tmp_path / "manager.py")}},
        reward_model={"enable": True, "model_path": str(tmp_path / "model")},
    )
    assert sorted(reward_contents(made)) == [
        "the content of reward.reward_manager.module.path",
        "the content of reward.reward_model.model_path",
    ]
    made.reward.reward_model.enable = False
    made.reward.reward_manager.source = "register"
    assert reward_contents(made) == {}, "verl reads neither"
    assert reward_contents(config(str(tmp_path / "gone.py"))) == reward_contents(config()) == {}


def test_an_empty_path_is_no_path(monkeypatch, tmp_path):
    """And not the working directory."""
    (tmp_path / "a.py").write_text("a")
    monkeypatch.chdir(tmp_path)
    manager, model = {"source": "importlib", "module": {"path": ""}}, {"enable": True, "model_path": ""}
    assert reward_contents(config("", reward_manager=manager, reward_model=model)) == {}
    assert reward_contents(OmegaConf.create({"reward": {"custom_reward_function": None}})) == {}


def test_a_log_that_the_reward_function_writes_does_not_refuse_a_resume(tmp_path):
    (tmp_path / "reward.py").write_text("1")
    log = tmp_path / "rewards.log"
    log.write_text("a line\n")
    values = {"log_path": str(log), "cache": f"file://{log}"}
    made = config(
        str(tmp_path / "reward.py"), custom_reward_function={"reward_kwargs": values}, reward_kwargs={"path": str(log)}
    )
    saved = reward_contents(made)
    assert list(saved) == [KEY]
    log.write_text("a line\nand one more\n")
    refuse_other_settings(saved, reward_contents(made), "x")

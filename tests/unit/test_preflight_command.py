"""The preflight's command in one process: its arguments as Hydra's, and the configurations that the scripts compose."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_inputs import write_inputs

from repo_verl.preflight import __main__ as command
from repo_verl.preflight.__main__ import compose, other_flags

ROOT = Path(__file__).resolve().parents[2]
CPU = ("--config-dir", str(ROOT / "recipe" / "repo" / "config"), "--config-name", "repo_cpu")
RECORDER = """#!/usr/bin/env bash
[ "$1 $2" != "-m verl.trainer.main_ppo" ] || printf '%s\\0' "${@:3}" >"$RECORD"
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with 8 prompts and a tiny model, and the arguments that name them."""
    data, model = write_inputs(tmp_path)
    for name in ("RAY_ADDRESS", "SKIP_DOUBTS", "VERL_USE_EXTERNAL_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path, (
        f"data.train_files={data}", f"data.val_files={data}", f"actor_rollout_ref.model.path={model}",
    )  # fmt: skip


@pytest.mark.parametrize("address", ["", "head:6379"])
def test_a_cpu_run_of_several_nodes_is_not_refused(place, monkeypatch, capsys, address):
    """The arguments that run_scripts/multinode/train.sh gives verl's command."""
    folder, _ = place
    programs = folder / "bin"
    programs.mkdir()
    (programs / "python").write_text(RECORDER)
    (programs / "python").chmod(0o755)
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "NUM_"))}
    done = subprocess.run(
        ["bash", str(ROOT / "run_scripts" / "multinode" / "train.sh")], capture_output=True, text=True, check=False,
        env={
            **keep, "PATH": f"{programs}:{os.environ['PATH']}", "RECORD": str(folder / "record"), "NUM_NODES": "2",
            "NUM_GPUS": "1", "PROMPTS": "8", "RAY_ADDRESS": "head:6379", "OUTPUT": str(folder / "out"),
            "HOME": str(folder), "MODEL": str(folder / "model"), "TRAIN_FILE": str(folder / "train.parquet"),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    arguments = (folder / "record").read_text().split("\0")[:-1]
    assert "++ray_kwargs.ray_init.num_gpus=null" in arguments and "trainer.nnodes=2" in arguments
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert command.main(arguments) == 0
    assert "error" not in capsys.readouterr().err


def test_what_hydra_knows_of_the_run_can_be_named(place, capsys):
    folder, words = place
    named = ("trainer.default_local_dir='${hydra:runtime.cwd}/ck'", "hydra.run.dir=out", "+x=${hydra:job.name}")
    composed = compose([*CPU, *words, *named, "+y=${hydra:runtime.output_dir}"])
    assert composed.trainer.default_local_dir == f"{folder}/ck" and "hydra" not in composed
    assert (composed.x, composed.y) == ("main_ppo", f"{folder}/out")
    assert command.main([*CPU, *words, *named]) == 0
    assert command.main(["--dry-run", *CPU, *words, *named]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["default_local_dir"] == f"{folder}/ck"


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["--cfg", "job"], "--cfg"), (["--cfg=job", "--resolve"], "--cfg --resolve"), (["-c", "job"], "--cfg"),
        (["-m"], "--multirun"), (["--multi"], "--multirun"), (["--info"], "--info"), (["-i", "all"], "--info"),
        (["-p", "trainer"], "--package"), (["--config-path", "x"], "--config-path"), (["--help"], "--help"),
        (["--hydra-help"], "--hydra-help"), (["--version"], "--version"), (["-sc"], "--shell-completion"),
        (["hydra.mode=MULTIRUN"], "hydra.mode=MULTIRUN"),
    ],
)  # fmt: skip
def test_flags_of_hydra_that_are_no_run_are_left_to_it(words, flag, capsys):
    assert command.main([*CPU, "data.train_batch_size=0", *words]) == 0
    assert capsys.readouterr() == ("", f"preflight: nothing is checked with {flag}\n")


def test_a_run_is_no_other_flag(place):
    assert other_flags([*CPU, "trainer.nnodes=1"]) == other_flags(["-r", "-cn", "x", "hydra.mode=RUN"]) == []
    assert command.main([*CPU, *place[1], "--run"]) == 0


def test_a_refusal_ends_with_the_way_around_it(place, capsys, monkeypatch):
    words = [*CPU, *place[1], "data.train_batch_size=7", "trainer.n_gpus_per_node=2", "trainer.nnodes=2"]
    assert command.main(words) == 1
    *problems, last = capsys.readouterr().err.splitlines()
    assert len(problems) > 1 and all(line.startswith("error: ") for line in problems)
    assert last == "SKIP_PREFLIGHT=1 skips these checks"
    assert command.main([*CPU, *place[1]]) == 0
    assert "SKIP_PREFLIGHT" not in capsys.readouterr().err


def test_a_long_row_is_refused_unless_doubts_are_skipped(place, capsys, monkeypatch):
    actor = "actor_rollout_ref.actor."
    words = [*CPU, *place[1], f"{actor}use_dynamic_bsz=True", f"{actor}ppo_max_token_len_per_gpu=95"]
    assert command.main(words) == 1
    *_, doubt, _, last = capsys.readouterr().err.splitlines()
    assert "ppo_max_token_len_per_gpu=95 is less" in doubt and last == "SKIP_DOUBTS=1 skips these checks"
    monkeypatch.setenv("SKIP_DOUBTS", "1")
    assert command.main(words) == 0
    assert command.main([*words, f"{actor}ppo_mini_batch_size=0"]) == 1, "what is certain is refused all the same"
    assert capsys.readouterr().err.splitlines()[-1] == "SKIP_PREFLIGHT=1 skips these checks"


def test_gpus_that_nobody_counted_are_a_line(place, monkeypatch, capsys):
    """A GPU run on a machine without nvidia-smi, as with other vendors' GPUs."""
    monkeypatch.setenv("PATH", str(place[0]))
    monkeypatch.setattr(command.requirements, "find_version_problems", lambda config: [])
    words = ["--config-dir", CPU[1], "--config-name", "repo_gpu", *place[1], "trainer.n_gpus_per_node=1"]
    words += ["data.train_batch_size=8", "actor_rollout_ref.rollout.n=4"]
    words += ["actor_rollout_ref.actor.ppo_mini_batch_size=8"]
    monkeypatch.setenv("SKIP_DOUBTS", "1")
    status, said = command.main(words), capsys.readouterr().err
    assert status == 0, said
    assert "GPUs not checked, trainer.n_gpus_per_node=1 and 0 seen here: nvidia-smi gave no answer" in said


@pytest.mark.parametrize("words", [["--cfg", "job"], ["trainer.nnodes=x", *CPU[:4]]])
def test_both_commands_are_the_same(place, words, capsys):
    from repo_verl.cli import main

    status = main(["preflight", *words])
    here = capsys.readouterr()
    done = subprocess.run(
        [sys.executable, "-m", "repo_verl.preflight", *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, here.out, here.err) and here.err

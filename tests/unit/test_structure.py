"""Who may import whom (design, section 6), read from the source; YAML and script conventions."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"verl", "ray", "transfer_queue", "vllm", "tensordict"}
KNOW_VERL = ("trainer", "verl_workarounds", "cpu", "plugin", "evaluate")
STANDARD = set(sys.stdlib_module_names) | {"__future__"}

ANYWHERE = {"repo_verl.atomic_files", "repo_verl.safe_text"}  # of the standard library only, and for every module

# module or package prefix -> third-party roots and package modules it may import, the longest prefix rules
ALLOWED = {
    "repo_verl.config": set(),
    "repo_verl.advantages": {"torch"},
    "repo_verl.losses": {"torch", "repo_verl.config"},
    "repo_verl.metrics": {"torch"},
    "repo_verl.atomic_files": set(),
    "repo_verl.safe_text": set(),
    "repo_verl.secrets": set(),
    "repo_verl.step_folders": set(),
    "repo_verl.report": {"jinja2", "matplotlib", "yaml", "repo_verl.report", "repo_verl.secrets"},
    "repo_verl.cli": {"repo_verl.report", "repo_verl.evaluate", "repo_verl.preflight", "repo_verl.versions"},
    "repo_verl.versions": {"packaging"},
    "repo_verl.preflight": {"repo_verl.config", "repo_verl.preflight"},
    "repo_verl.preflight.__main__": {"hydra", "omegaconf", "repo_verl.config", "repo_verl.preflight"},
    "repo_verl.preflight.requirements": {
        "pyarrow", "repo_verl.config", "repo_verl.preflight", "repo_verl.trainer.validation",
        "repo_verl.trainer.seams", "repo_verl.versions", "repo_verl.replay.own_strategy",
    },
    "repo_verl.preflight.resume": {
        "omegaconf", "yaml", "repo_verl.config", "repo_verl.preflight", "repo_verl.secrets",
        "repo_verl.step_folders",
    },
    "repo_verl.evaluate": {
        "numpy", "pyarrow", "tqdm", "torch", "vllm", "peft", "safetensors", "transformers", "repo_verl.evaluate",
        "repo_verl.rewards",
        "repo_verl.cpu.set_defaults", "repo_verl.secrets", "repo_verl.step_folders",
    },
    "repo_verl.evaluate.stats": {"numpy"},
    "repo_verl.evaluate.differences": {"numpy", "repo_verl.evaluate.stats"},
    "repo_verl.replay": {"numpy", "repo_verl.replay", "repo_verl.config"},
    "repo_verl.replay.strategies": {"numpy"},
    "repo_verl.replay.checkpoint": {"numpy", "safetensors", "repo_verl.replay"},
    "repo_verl.replay.inspect": {
        "numpy", "safetensors", "transformers", "repo_verl.replay", "repo_verl.step_folders",
    },
    "repo_verl.rewards": {"math_verify", "sympy", "latex2sympy2_extended", "repo_verl.rewards"},
    "repo_verl.import_hooks": set(),
    "repo_verl.plugin": {
        "repo_verl", "repo_verl.import_hooks", "repo_verl.trainer", "repo_verl.cpu", "repo_verl.verl_workarounds",
    },
    "repo_verl.trainer": {
        *HEAVY, "torch", "numpy", "omegaconf", "safetensors", "jinja2", "repo_verl.trainer", "repo_verl.replay",
        "repo_verl.losses", "repo_verl.metrics", "repo_verl.config", "repo_verl.advantages", "repo_verl",
        "repo_verl.verl_workarounds",
        "repo_verl.step_folders",
    },
    "repo_verl.trainer.layout": set(),
    "repo_verl.trainer.run_warnings": {"repo_verl.config"},
    "repo_verl.trainer.validation": {"repo_verl", "repo_verl.config", "repo_verl.replay.own_strategy"},
    "repo_verl.trainer.ground_truth_check": {
        "pyarrow", "repo_verl", "repo_verl.config", "repo_verl.rewards",
    },
    "repo_verl.trainer.minibatches": {
        "torch", "repo_verl.advantages", "repo_verl.config", "repo_verl.losses", "repo_verl.trainer.layout",
    },
    "repo_verl.trainer.estimator": {"torch", "omegaconf", "repo_verl.trainer.layout"},
    "repo_verl.trainer.checkpoint": {
        "repo_verl.config", "repo_verl.replay", "repo_verl.step_folders", "repo_verl.trainer.identity",
        "repo_verl.verl_workarounds",
    },
    "repo_verl.trainer.identity": {
        "omegaconf", "verl", "repo_verl.config", "repo_verl.secrets",
    },
    "repo_verl.verl_workarounds": {
        "verl", "ray", "transfer_queue", "omegaconf", "repo_verl.atomic_files", "repo_verl.config",
        "repo_verl.step_folders", "repo_verl.verl_workarounds",
    },
    "repo_verl.trainer.guards": {"torch", "repo_verl.config", "repo_verl.replay", "repo_verl.trainer.layout"},
    "repo_verl.cpu": {
        *HEAVY, "torch", "numpy", "psutil", "transformers", "tokenizers", "pyarrow", "repo_verl.cpu",
        "repo_verl.import_hooks", "repo_verl.rewards",
    },
    "repo_verl": set(),
    "data_prep": {
        "pyarrow", "datasets", "tqdm", "transformers", "data_prep", "repo_verl.rewards", "repo_verl",
    },
}  # fmt: skip


def modules():
    for package in ("repo_verl", "data_prep"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def permitted(name, allowed):
    return name.split(".")[0] in STANDARD or any(
        name == a or name.startswith(a + ".") for a in allowed if a != "repo_verl"
    )


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: str(value).split("/")[-1])
def test_imports_follow_the_design(module, path):
    rule = max((prefix for prefix in ALLOWED if module == prefix or module.startswith(prefix + ".")), key=len)
    allowed = ALLOWED[rule] | (ANYWHERE - {module})
    for name in imports(path):
        exact = name.rsplit(".", 1)[0] in allowed or name in allowed
        assert permitted(name, allowed) or exact, f"{module} imports {name}, which the design does not allow ({rule})"


def test_only_trainer_plugin_cpu_and_evaluate_know_verl():
    for module, path in modules():
        roots = {name.split(".")[0] for name in imports(path)}
        if roots & HEAVY:
            assert module.startswith(
                (
                    "repo_verl.trainer",
                    "repo_verl.verl_workarounds",
                    "repo_verl.cpu",
                    "repo_verl.plugin",
                    "repo_verl.evaluate",
                )
            ), module


def test_the_import_reader_sees_what_is_there(tmp_path):
    source = tmp_path / "x.py"
    source.write_text("import os\ndef f():\n    from verl.utils import config\n")
    assert list(imports(source)) == ["os", "verl.utils.config"]
    assert not permitted("verl.utils.config", {"torch"})


@pytest.mark.parametrize("path", sorted((ROOT / "recipe").rglob("*.yaml")), ids=lambda path: path.name)
def test_yaml_has_a_comment_above_every_key_and_a_blank_line_between(path):
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        key = re.match(r"^( *)(?:- )?[\w@]+:?(?: .*)?$", line)
        if not key or line.lstrip().startswith("#"):
            continue
        assert "#" not in line, f"{path.name}, line {number + 1}: inline comment"
        above = lines[number - 1].strip() if number else ""
        assert above.startswith("#"), f"{path.name}, line {number + 1}: no comment above"
        start = number - 1
        while start > 0 and lines[start - 1].strip().startswith("#"):
            start -= 1
        before = lines[start - 1].strip() if start else ""
        assert before == "", f"{path.name}, line {number + 1}: no blank line before its comment"


@pytest.mark.parametrize("path", sorted((ROOT / "run_scripts").rglob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_short_and_strict(path):
    text = path.read_text()
    if path.name != "common.sh":
        assert len(text.splitlines()) <= 32, f"{path.name} has {len(text.splitlines())} lines"
        assert "common.sh" in text or "exec bash" in text
    assert "pkill" not in text and "http" not in text


def test_yaml_settings_are_the_defaults_of_the_dataclass():
    import yaml

    from repo_verl.config import RepoConfig

    declared = yaml.safe_load((ROOT / "recipe/repo/config/repo_trainer.yaml").read_text())["algorithm"]["repo"]
    declared["advantage_eps"] = float(declared["advantage_eps"])
    assert declared == RepoConfig().to_dict()


def test_no_conflict_of_a_merge_is_left():
    marks = ("<" * 7 + " ", ">" * 7 + " ")
    folders = ("repo_verl", "data_prep", "tests", "recipe", "run_scripts", "benchmarks", "docs", "security")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix not in (".png", ".pyc")]
    files += [ROOT / name for name in ("README.md", "CHANGELOG.md", "pyproject.toml")]
    for path in files:
        if path.is_file():
            lines = path.read_text(errors="replace").splitlines()
            assert not [line for line in lines if line.startswith(marks)], path

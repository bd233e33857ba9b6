"""Every command of README.md and docs/: each ``bash`` block is run, in a copy of the repository, page by page.

What a page's blocks with a title hold (``python title="my_reward.py"``) lies in the copy. A command is run as it is,
unless TABLE has it: to write a command into a page is to have it run, and one that can't be run here gets an entry with
its reason. Everywhere, ``python -m verl.trainer.main_ppo`` runs up to the start of Ray: what follows needs GPUs and
hours; tests/e2e/test_scripts.py has whole runs on the CPU.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import up_to_ray
from report_logs import steps, write_log

from repo_verl.replay import PromptReplayBuffer, Record, prompt_key
from repo_verl.replay.checkpoint import save_buffer

pytestmark = [pytest.mark.e2e, pytest.mark.full, pytest.mark.shared_data]

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
HERE = Path(__file__).resolve().parents[1]
SECONDS = 240
"""Longest time of one command."""


@dataclass(frozen=True)
class Instead:
    """Another command in its place; \\1 is the pattern's first group."""

    command: str
    why: str


@dataclass(frozen=True)
class RunBy:
    """A test that runs it; it must exist."""

    test: str
    why: str


QUICKSTART = RunBy(
    "tests/e2e/test_scripts.py::test_quickstart_ends_with_a_table_and_is_reused", "minutes; run there with 10 steps"
)
DEEPMATH = f"{DATA}/train/alibaba__ROLL__math_deepmath_deal.jsonl"
QWEN = "QwenLM__Qwen2.5-Math__test.jsonl"
BENCHMARKS = (
    f"--input {DATA} --input minerva={DATA}/minerva/{QWEN}"
    f" --input gsm8k={DATA}/gsm8k/openai__grade-school-math__test.jsonl"
)

# pattern of the whole command, or of a page's name and a colon before it -> what is done
TABLE = {
    r"(OUTPUT=\S+ )?bash run_scripts/quickstart\.sh.*": QUICKSTART,
    r"for s in 0 1 2; do OUTPUT=runs/seed\$s bash run_scripts/quickstart\.sh --seed \$s; done": QUICKSTART,
    r"bash run_scripts/setup\.sh": RunBy(
        "tests/unit/test_audit.py::test_what_is_installed_is_what_is_locked", "CI begins with it"
    ),
    r"bash run_scripts/test\.sh.*": RunBy("tests/e2e/test_docs_commands.py::test_the_commands_of_a_page", "CI is it"),
    r"bash run_scripts/audit\.sh": RunBy("tests/unit/test_audit.py::test_verdicts", "asks an index; CI begins with it"),
    r"bash run_scripts/deepmath_cpu\.sh.*": RunBy(
        "tests/e2e/test_scripts.py::test_main_job_on_real_deepmath_prompts", "minutes; run there"
    ),
    r"(.*\b)(bash run_scripts/run_\w+\.sh)\b(.*)": Instead(
        r"\1DRY_RUN=1 \2\3", "needs GPUs and hours: the configuration is composed from variables and arguments"
    ),
    r"multinode\.md: .*": RunBy(
        "tests/unit/test_multinode_scripts.py::test_every_command_of_the_document_runs", "needs several nodes"
    ),
    r"python benchmarks/learning\.py run --at-once 2": Instead(
        "python benchmarks/learning.py run --help", "hours of training; tests/unit/test_learning.py has its plan"
    ),
    r"repo-verl preflight ARGS\.\.\.": RunBy(
        "tests/contract/test_preflight_scripts.py::test_preflight_is_a_command", "the reader's own arguments"
    ),
    r"bash run_scripts/docs\.sh": RunBy(
        "tests/unit/test_docs.py::test_the_site_has_no_dead_link_and_loads_nothing_from_elsewhere", "its two commands"
    ),
    r"bash run_scripts/evaluate_math\.sh MODEL.*": RunBy(
        "tests/e2e/test_evaluate_run.py::test_killed_and_resumed_it_is_the_run_that_was_not",
        "minutes of generation; the command below it, repo-verl evaluate, is run there on all seven benchmarks",
    ),
    r"repo-verl check": RunBy("tests/e2e/test_scripts.py::test_check_finds_nothing_wrong_here", "20 s; run there"),
    r"pip install \.": Instead(
        "python -c \"import importlib.metadata as m; m.entry_points(group='verl.plugins')['repo_verl'].load()\"",
        "would replace the installation under test and asks an index for hatchling: what it registers is loaded",
    ),
    r"pip install '\.\[gpu\]'": Instead(
        "python -c \"from importlib.metadata import requires; print(*requires('repo-verl'))\" | grep 'extra == .gpu'",
        "CUDA's packages, of no use here",
    ),
    r"pip install flash-attn==2\.8\.3 --no-build-isolation": RunBy(
        "tests/unit/test_preflight.py::test_attention_that_is_not_installed_is_told",
        "needs CUDA's compiler; the preflight asks for this line",
    ),
    r"python -m data_prep deepmath --gold r1 (.*)": Instead(
        rf"python -m data_prep deepmath \1 --input {DEEPMATH}",
        "no hub here, and the file at hand has no R1 solutions: the final answers",
    ),
    r"(python -m data_prep deepmath .*)": Instead(rf"\1 --input {DEEPMATH}", "no hub here: a file of the set"),
    r"(python -m data_prep benchmarks .*)": Instead(rf"\1 {BENCHMARKS}", "no hub here: files of the sets"),
}  # fmt: skip


def pages():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text, language):
    """Attributes and body of the fenced blocks of a language."""
    return re.findall(rf"^```{language}([^\n]*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def complete(command):
    return subprocess.run(["bash", "-n"], input=command, text=True, capture_output=True, check=False).returncode == 0


def commands(text):
    """The commands of a page in order: a line, or as many as make one (a loop, quotes, a backslash at the end)."""
    found, command = [], ""
    for _, body in blocks(text, "bash"):
        for line in body.splitlines():
            command += ("\n" if command else "") + line
            if not command.endswith("\\") and complete(command):
                found.append(re.sub(r"\s+#\s.*$", "", re.sub(r"\\\n\s*", "", command)).strip())
                command = ""
        assert not command, f"the block ends within a command: {command}"
    return [one for one in found if one and not one.startswith("#")]


def looked_up(command, page):
    """The entry of the table, and what it makes of the command."""
    for pattern, entry in TABLE.items():
        match = re.fullmatch(pattern, command, re.DOTALL) or re.fullmatch(pattern, f"{page}: {command}", re.DOTALL)
        if match:
            return entry, match.expand(entry.command) if isinstance(entry, Instead) else None
    return None, command


@pytest.fixture(scope="module")
def address():
    """Of the process that answers for verl's command."""
    with up_to_ray.server() as made:
        yield made


@pytest.fixture
def copy(tmp_path, address):
    """A copy of the repository with its environment, in which python is ours for verl's command."""
    root = tmp_path / "repository"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    programs = root / ".venv" / "bin"
    programs.mkdir(parents=True)
    for program in Path(sys.executable).parent.iterdir():
        (programs / program.name).symlink_to(program)
    stamp = "cat pyproject.toml run_scripts/setup.sh run_scripts/cpu_*.txt | sha256sum | cut -d' ' -f1"
    with (root / ".venv" / ".repo_verl_stamp").open("w") as file:  # setup.sh finds nothing to do
        subprocess.run(["bash", "-c", stamp], cwd=root, check=True, stdout=file)
    (programs / "python").unlink()
    (programs / "python").write_text(
        "#!/usr/bin/env bash\n"
        'if [ "${1:-} ${2:-}" = "-m verl.trainer.main_ppo" ]; then\n'
        f'  exec "{sys.executable}" "{HERE}/helpers/up_to_ray.py" ask "{address}" "${{@:3}}"\n'
        f'fi\nexec "{sys.executable}" "$@"\n'
    )
    (programs / "python").chmod(0o755)
    furnish(root)
    return root


def furnish(root):
    """What the pages take for granted: files of data, finished runs, checkpoints, evaluations."""
    for name, file in {"math.json": "train/agentica-project__rllm__math.json",
                       "train.jsonl": "gsm8k/openai__grade-school-math__train.jsonl"}.items():  # fmt: skip
        (root / name).symlink_to(DATA / file)
    rows = [{"prompt": [{"role": "user", "content": "1+1?"}], "data_source": "x",
             "reward_model": {"style": "rule", "ground_truth": "2"}}] * 8  # fmt: skip
    runs = root / "runs"
    (runs / "data").mkdir(parents=True)
    for path in (
        root / "train.parquet",
        root / "test.parquet",
        root / "my_test.parquet",
        runs / "data" / "deepmath_train.parquet",
    ):
        pq.write_table(pa.Table.from_pylist(rows), path)
    for arm in ("grpo", "repo"):
        write_log(runs / "quickstart" / arm, steps(arm, 0))
        evaluation = runs / "evaluations" / arm
        evaluation.mkdir(parents=True)
        graded = [{"benchmark": "amc23", "problem": str(n), "correct": n % 3 == 0} for n in range(30)]
        pq.write_table(pa.Table.from_pylist(graded), evaluation / "completions.parquet")
    for strategy in ("recency", "variance"):
        write_log(runs / f"qwen25_math_repo_{strategy}_seed42", steps("repo", 1))
    for seed in range(3):
        (runs / f"seed{seed}").mkdir()
        shutil.copy(root / f"benchmarks/results/quickstart_seed{seed}.json", runs / f"seed{seed}" / "summary.json")
    buffer = PromptReplayBuffer()
    buffer.add(prompt_key([7]), [7], [Record.create([1, 2], [-0.5, -0.1], 1.0, step) for step in range(1, 17)])
    saved = runs / "my_run" / "checkpoints" / "global_step_64"
    saved.mkdir(parents=True)
    save_buffer(saved / "prompt_replay", buffer, {})
    (saved.parent / "latest_checkpointed_iteration.txt").write_text("64")


def run(command, root):
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        capture_output=True, text=True, check=False, cwd=root, timeout=SECONDS, stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{root}/.venv/bin:{os.environ['PATH']}", "VERL_PLATFORM": "cpu"},
    )  # fmt: skip


@pytest.mark.parametrize("page", [page for page in pages() if commands(page.read_text())], ids=lambda page: page.name)
def test_the_commands_of_a_page(page, copy):
    text = page.read_text()
    for attributes, body in blocks(text, "python"):
        title = re.search(r'title="([\w.]+)"', attributes)
        if title:
            (copy / title[1]).write_text(body)
    failed = []
    for command in commands(text):
        entry, command = looked_up(command, page.name)
        if isinstance(entry, RunBy):
            file, name = entry.test.split("::")
            assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), entry.test
            continue
        done = run(command, copy)
        if done.returncode:
            failed.append(f"$ {command}\n{done.stdout[-1500:]}{done.stderr[-2500:]}")
    assert not failed, "\n\n".join(failed)


def test_commands_are_found_and_a_command_that_fails_is_seen(copy):
    text = "```bash\n# a note\necho a  # b\nfor x in 1 2; do\n  echo $x\ndone\npython -m x \\\n  --y 'a\nb'\n```\n"
    assert commands(text) == ["echo a", "for x in 1 2; do\n  echo $x\ndone", "python -m x --y 'a\nb'"]
    verl = (
        "python -m verl.trainer.main_ppo algorithm.adv_estimator=repo actor_rollout_ref.rollout.n=8 "
        "actor_rollout_ref.rollout.name=vllm"
    )
    assert run(f"{verl} actor_rollout_ref.actor.use_dynamic_bsz=True", copy).returncode == 0
    for wrong, says in {
        f"{verl} actor_rollout_ref.actor.use_dynamic_bsz=True +algorithm.repo.x=1": "no setting of RePO",
        f"{verl} algorithm.gone=1": "gone",
        verl.replace(
            "=vllm", "='???' actor_rollout_ref.actor.use_dynamic_bsz=True"
        ): "full_key: actor_rollout_ref.rollout.name",
        "repo-verl buffer inspect runs/gone": "gone",
        "false | true": "",
    }.items():
        done = run(wrong, copy)
        assert done.returncode != 0 and says in done.stdout + done.stderr, wrong


def test_what_the_table_makes_of_a_command():
    assert looked_up("STRATEGY=x bash run_scripts/run_qwen25_math.sh a=1", "x.md")[1] == (
        "STRATEGY=x DRY_RUN=1 bash run_scripts/run_qwen25_math.sh a=1"
    )
    assert looked_up("ls", "multinode.md")[0] != looked_up("ls", "x.md")[0] is None
    assert looked_up("bash run_scripts/quickstart.sh", "x.md") == (QUICKSTART, None)

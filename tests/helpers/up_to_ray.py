"""verl's command up to the moment in which Ray would start: configuration, plugin, every check before it, and the
rollout's configuration as workers would read it.

``python up_to_ray.py serve SOCKET`` imports verl once and forks for each request; ``python up_to_ray.py ask SOCKET
ARGS...`` has the command run in its own folder and ends with its status: 0 if it came as far as Ray, or was to print
its configuration and did.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

REACHED = "as far as Ray"


def answer(request):
    """What the command prints, and its status."""
    import ray
    from verl.trainer import main_ppo
    from verl.utils.config import omega_conf_to_dataclass

    def started(*args, **kwargs):
        raise SystemExit(REACHED)

    stock = main_ppo.run_ppo

    def run_ppo(config, **arguments):
        omega_conf_to_dataclass(config.actor_rollout_ref.rollout)  # a value that is left open is an error
        stock(config, **arguments)

    ray.init, main_ppo.run_ppo = started, run_ppo
    os.chdir(request["folder"])
    said = tempfile.TemporaryFile(mode="w+")
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    os.environ.update(request["environment"])
    sys.path[:0] = ["", *filter(None, request["environment"].get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["main_ppo", *request["arguments"]]
    try:
        main_ppo.main()
    except SystemExit as error:
        status, last = (0 if error.code == REACHED else error.code or 1), str(error.code)
    except BaseException:
        status, last = 1, traceback.format_exc()
    else:
        status, last = (0, "") if "--cfg" in request["arguments"] else (1, "the command ended before Ray")
    sys.stdout.flush()
    sys.stderr.flush()
    said.seek(0)
    return status, said.read() + last


def serve(address):
    from verl.trainer import main_ppo  # noqa: F401 - what the forks need

    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    while True:
        connection, _ = server.accept()
        if os.fork():
            connection.close()
            continue
        with connection, connection.makefile("rw") as file:
            file.write(json.dumps(answer(json.loads(file.readline()))))
        os._exit(0)


def ask(address, arguments, folder=None):
    """Status and output of the command, which runs in a folder (this process's one), with this environment."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(address))
    request = {"folder": str(folder or os.getcwd()), "environment": dict(os.environ), "arguments": arguments}
    with client, client.makefile("rw") as file:
        file.write(json.dumps(request) + "\n")
        file.flush()
        return json.loads(file.readline() or '[1, "no answer"]')


@contextlib.contextmanager
def server(seconds=240):
    """The socket of a server that has imported verl."""
    folder = Path(tempfile.mkdtemp(prefix="rd", dir="/tmp"))  # a socket's path has 107 bytes at most
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "REPO_VERL_CPU_FORK": "0"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, "serve", str(folder / "socket")], stdout=log, stderr=log, env=environment
        )
    until = time.monotonic() + seconds
    try:
        while not (folder / "socket").exists():
            assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        yield folder / "socket"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    ended, output = ask(sys.argv[2], sys.argv[3:])
    print(output, file=sys.stderr)
    sys.exit(ended)

"""Imports torch, verl and vLLM once and forks the workers of a run, so that they share the cost and the memory.

It serves the Ray job that it meets first; workers of a later job on the same node become fresh interpreters.

Importing verl takes 8 s of a core and vLLM 4 to 8 s more, in each of some ten processes of a run: on 2 cores, most of
the time until the first step. :func:`start` is called in the process that starts Ray, which then starts its workers
with :mod:`repo_verl.cpu.fork_client` instead of ``python`` (``runtime_env.py_executable``).

When it forks, the server has one Python thread, has not called Ray and has not run a kernel. ``REPO_VERL_CPU_FORK=0``
in the environment switches it off: every worker then imports for itself; 1 switches it on for a program of one's own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import multiprocessing
import os
import selectors
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from repo_verl.cpu.fork_client import SOCKET_VARIABLE
from repo_verl.cpu.forked import end, place_files, receive, run_to_the_end

SWITCH_VARIABLE = "REPO_VERL_CPU_FORK"
PYTHON_VARIABLE = "REPO_VERL_CPU_PYTHON"

JOB_VARIABLE = "RAY_JOB_ID"

TRAINER_MODULE = "verl.trainer.main_ppo"

# Imported at once, while the owner starts Ray. Ray itself must wait for the first request: its library keeps the job
# and the parent process that it finds in the environment when it is loaded, and vLLM keeps its logging level.
PRELOADED_FIRST = ("torch", "tensordict", "transformers")
PRELOADED = (
    "verl.trainer.ppo.v1",
    "verl.workers.engine_workers",
    "verl.workers.rollout.vllm_rollout.vllm_async_server",
    "verl.workers.rollout.vllm_rollout.vllm_rollout",
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.executor.uniproc_executor",
)

logger = logging.getLogger(__name__)

_kept: list[object] = []
"""What must live as long as the process that started the server."""


def start_with_trainer() -> None:
    """Calls :func:`start` where this process is ``python -m verl.trainer.main_ppo``, or where the switch says "1".

    Another process gives the plain interpreter to its workers; one that inherits either does nothing.
    """
    if SOCKET_VARIABLE in os.environ:
        return
    default = "1" if TRAINER_MODULE in sys.orig_argv else "0"
    if os.environ.get(SWITCH_VARIABLE, default) == "1":
        start()
    else:
        os.environ.setdefault(PYTHON_VARIABLE, sys.executable)


def start() -> int:
    """Starts the server for this process and everything it starts.

    Returns: the open file with which it ends: when this process does, or a program that it becomes and hands it on to.
    """
    folder = Path(tempfile.mkdtemp(prefix="repo_verl_"))
    python = folder / "python"
    client = Path(__file__).with_name("fork_client.py")
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -S "{client}" "$@"\n', encoding="utf-8")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(folder / "socket"))
    listener.listen(128)
    read_end, write_end = os.pipe()
    command = [sys.executable, "-P", "-m", __name__, str(folder), str(listener.fileno()), str(read_end)]
    environment = {**os.environ, SOCKET_VARIABLE: str(folder / "socket"), PYTHON_VARIABLE: str(python)}
    server = subprocess.Popen(command, env=environment, pass_fds=(listener.fileno(), read_end), start_new_session=True)
    _kept.extend((server, write_end))
    os.environ.update({name: environment[name] for name in (SOCKET_VARIABLE, PYTHON_VARIABLE)})
    listener.close()
    os.close(read_end)
    return write_end


def preload(environment: dict[str, str]) -> None:
    """Imports what the processes of a run import, in the environment of the first of them."""
    os.environ.update(environment)
    for name in PRELOADED:
        importlib.import_module(name)
    multiprocessing.set_executable(os.environ[PYTHON_VARIABLE])
    gc.collect()
    gc.freeze()


class Server:
    """Accepts programs of clients, forks a child for each, and tells the client its process id and exit status.

    Args:
        listener: the socket that clients connect to.
        alive: read end of a pipe that nobody writes to; the server ends when its other end is closed.
    """

    def __init__(self, listener: socket.socket, alive: int) -> None:
        self._listener = listener
        self._alive = alive
        self._warm = False
        self._job: str | None = None
        self._children: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(alive, selectors.EVENT_READ)
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        self._wake = wake_read
        self._selector.register(wake_read, selectors.EVENT_READ)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def serve(self) -> dict[str, Any] | None:
        """Serves until the owner ends.

        Returns: None in the server; in a forked child, the request to run.
        """
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == self._alive:
                    for child in self._children:
                        _kill(child)
                    return None
                if key.fileobj == self._wake:
                    os.read(self._wake, 4096)
                elif key.fileobj is self._listener:
                    received = self._accept()
                    if received is not None:
                        return received
                else:  # a client that is gone
                    self._selector.unregister(key.fileobj)
                    _kill(key.data)
            self._reap()

    def _accept(self) -> dict[str, Any] | None:
        connection, _ = self._listener.accept()
        try:
            received, files = receive(connection)
        except (OSError, ValueError) as error:
            logger.warning("repo_verl: a request was cut off: %s", error)
            connection.close()
            return None
        job = received["environment"].get(JOB_VARIABLE)
        if not self._warm:
            preload(received["environment"])
            self._warm = True
        self._job = self._job or job
        if job not in (None, self._job):  # Ray's library would report for the first job
            for number in (connection.detach(), *files):
                os.close(number)
            return None
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            for other in (self._listener, connection, *self._children.values()):
                other.close()
            os.close(self._alive)
            os.close(self._wake)
            place_files(files, received["files"])
            return received
        for number in files:
            os.close(number)
        self._children[child] = connection
        self._selector.register(connection, selectors.EVENT_READ, child)
        with contextlib.suppress(OSError):
            connection.sendall(f"{child}\n".encode())
        return None

    def _reap(self) -> None:
        for child in list(self._children):
            done, status = os.waitpid(child, os.WNOHANG)
            if not done:
                continue
            connection = self._children.pop(child)
            code = os.waitstatus_to_exitcode(status)
            with contextlib.suppress(KeyError):
                self._selector.unregister(connection)
            with contextlib.suppress(OSError):
                connection.sendall(f"{code if code >= 0 else 128 - code}\n".encode())
            connection.close()


def _kill(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def main(folder: str, listener: int, alive: int) -> NoReturn:
    """Imports, then serves until the process that started the server ends."""
    server = os.getpid()
    try:
        for name in PRELOADED_FIRST:
            importlib.import_module(name)
        request = Server(socket.socket(fileno=listener), alive).serve()
    except BaseException:
        if os.getpid() == server:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if request is not None:
        run_to_the_end(request)
    shutil.rmtree(folder, ignore_errors=True)
    end(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

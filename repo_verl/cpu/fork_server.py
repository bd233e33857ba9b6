"""Imports torch, verl and vLLM once and forks the workers of a run, so that they share the cost and the memory.

Importing verl takes 8 s of a core and vLLM 4 to 8 s more, in each of some ten processes of a run: on 2 cores, most of
the time until the first step. :mod:`repo_verl.cpu.node` starts the server in the process that starts Ray, which then
starts its workers with :mod:`repo_verl.cpu.fork_client` instead of ``python`` (``runtime_env.py_executable``).

It serves the Ray job that it meets first; workers of a later job on the same node become fresh interpreters. When it
forks, it has one Python thread, has not called Ray and has not run a kernel.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import logging
import multiprocessing
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
import threading
import traceback
import types
from typing import Any, NoReturn

from repo_verl.cpu.fork_client import MAX_FILES, PYTHON_VARIABLE

JOB_VARIABLE = "RAY_JOB_ID"

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


class Server:
    """Accepts programs of clients, forks a child for each, and tells the client its process id and exit status.

    It ends when the other end of ``alive``, a pipe that nobody writes to, is closed.
    """

    def __init__(self, listener: socket.socket, alive: int) -> None:
        self._listener = listener
        self._alive = alive
        self._warm = False
        self._job: str | None = None
        self._clients: dict[int, socket.socket] = {}  # child -> connection
        self._selector = selectors.DefaultSelector()
        self._wake, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for source in (listener, alive, self._wake):
            self._selector.register(source, selectors.EVENT_READ)

    def serve(self) -> dict[str, Any] | None:
        """Serve until the owner ends: None in the server; in a forked child, the request to run."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == self._alive:
                    for child in self._clients:
                        _kill(child)
                    return None
                if key.fileobj == self._wake:
                    os.read(self._wake, 4096)
                elif key.fileobj is self._listener:
                    if (received := self._accept()) is not None:
                        return received
                else:  # a client that is gone
                    self._selector.unregister(key.fileobj)
                    _kill(key.data)
            self._reap()

    def _accept(self) -> dict[str, Any] | None:
        """Read a request and fork: the request in the child, None in the server."""
        connection, _ = self._listener.accept()
        try:
            received, files = receive(connection)
        except (OSError, ValueError) as error:
            logger.warning("repo_verl: a request was cut off: %s", error)
            connection.close()
            return None
        if not self._warm:
            preload(received["environment"])
            self._warm = True
        job = received["environment"].get(JOB_VARIABLE)
        self._job = self._job or job
        served = job in (None, self._job)  # Ray's library would report for the first job
        child = os.fork() if served else None
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            for other in (self._listener, connection, *self._clients.values()):
                other.close()
            os.close(self._alive)
            os.close(self._wake)
            place_files(files, received["files"])
            return received
        for number in files:
            os.close(number)
        if child is None:
            connection.close()
            return None
        self._clients[child] = connection
        self._selector.register(connection, selectors.EVENT_READ, child)
        _tell(connection, child)
        return None

    def _reap(self) -> None:
        """Tell the clients of children that have ended."""
        for child in list(self._clients):
            done, status = os.waitpid(child, os.WNOHANG)
            if not done:
                continue
            connection = self._clients.pop(child)
            code = os.waitstatus_to_exitcode(status)
            with contextlib.suppress(KeyError):
                self._selector.unregister(connection)
            _tell(connection, code if code >= 0 else 128 - code)
            connection.close()


def preload(environment: dict[str, str]) -> None:
    """Import what the processes of a run import, in the environment of the first of them."""
    os.environ.update(environment)
    for name in PRELOADED:
        importlib.import_module(name)
    multiprocessing.set_executable(os.environ[PYTHON_VARIABLE])
    gc.collect()
    gc.freeze()


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A client's request and the files that came with it; ValueError if the connection ended early."""
    data, files, _, _ = socket.recv_fds(connection, 1 << 16, MAX_FILES)
    while not data.endswith(b"\n"):
        more = connection.recv(1 << 16)
        if not more:
            raise ValueError(f"{len(data)} bytes received")
        data += more
    return json.loads(data), files


def _tell(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # the client is gone
        connection.sendall(f"{number}\n".encode())


def _kill(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def place_files(received: list[int], wanted: list[int]) -> None:
    """Give the received files the numbers that they had in the client, and close the received numbers."""
    high = max([2, *wanted]) + 1
    moved = []
    for number in received:
        moved.append(fcntl.fcntl(number, fcntl.F_DUPFD, high))
        os.close(number)
    for number, target in zip(moved, wanted, strict=True):
        os.dup2(number, target)
        os.close(number)


def run_program(request: dict[str, Any]) -> None:
    """Run the request's program as ``python`` would, in this process: ``[-flags] (SCRIPT | -c CODE) ARGS...``."""
    import numpy as np
    import torch

    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    os.setsid()
    # What a fresh process does when it imports these: draw a seed, read the thread count.
    np.random.seed()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit():
        torch.set_num_threads(int(threads))
    arguments = list(request["arguments"])
    while arguments[0].startswith("-") and arguments[0] != "-c":
        arguments.pop(0)
    if arguments[0] == "-c":
        code = arguments.pop(1)
        sys.argv[:] = arguments
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        exec(compile(code, "<string>", "exec"), module.__dict__)
    else:
        sys.argv[:] = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def end(status: int) -> NoReturn:
    """End a forked process as :mod:`multiprocessing` ends its own: exit functions run, the interpreter stays as it is.

    Taking it down would visit, and so copy, all the memory that is shared with the server: 4 s of a core.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # CPython's own, not in its stubs
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_to_the_end(request: dict[str, Any]) -> NoReturn:
    """Run the request's program, then end this process with its exit status, 1 for an exception, which is printed."""
    status = 0
    try:
        run_program(request)
    except SystemExit as error:
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    end(status)


def main(folder: str, listener: int, alive: int) -> NoReturn:
    """Import, then serve until the process that started the server ends."""
    server = os.getpid()
    try:
        for name in PRELOADED_FIRST:
            importlib.import_module(name)
        request = Server(socket.socket(fileno=listener), alive).serve()
    finally:
        if os.getpid() == server:
            shutil.rmtree(folder, ignore_errors=True)
    if request is not None:
        run_to_the_end(request)
    end(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

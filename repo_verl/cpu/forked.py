"""What a forked process does to become the program that a client of :mod:`repo_verl.cpu.fork_server` asked for."""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import runpy
import socket
import sys
import threading
import traceback
import types
from typing import Any, NoReturn

from repo_verl.cpu.fork_client import MAX_FILES


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Reads a client's request and the files that came with it.

    Raises:
        ValueError: the connection ended early.
    """
    data, files, _, _ = socket.recv_fds(connection, 1 << 16, MAX_FILES)
    while not data.endswith(b"\n"):
        more = connection.recv(1 << 16)
        if not more:
            raise ValueError(f"{len(data)} bytes received")
        data += more
    return json.loads(data), files


def place_files(received: list[int], wanted: list[int]) -> None:
    """Gives the received files the numbers that they had in the client, and closes the received numbers."""
    high = max([2, *wanted]) + 1
    moved = []
    for number in received:
        moved.append(fcntl.fcntl(number, fcntl.F_DUPFD, high))
        os.close(number)
    for number, target in zip(moved, wanted, strict=True):
        os.dup2(number, target)
        os.close(number)


def run_program(request: dict[str, Any]) -> None:
    """Runs the request's program as ``python`` would, in this process: ``[-flags] (SCRIPT | -c CODE) ARGS...``."""
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
    """Ends a forked process as :mod:`multiprocessing` ends its own: exit functions run, the interpreter stays as it is.

    Taking it down would visit, and so copy, all the memory that is shared with the server: 4 s of a core.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # CPython's own, not in its stubs
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_to_the_end(request: dict[str, Any]) -> NoReturn:
    """Runs the request's program, then ends this process with its exit status, 1 for an exception, which is printed."""
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

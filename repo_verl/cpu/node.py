"""Starts the fork server of a node: in the process that trains, or by ``python -m repo_verl.cpu.node COMMAND``.

Ray gives a worker the environment of its own node, not that of the process that trains. So every node of a cluster
needs what :func:`repo_verl.cpu.activate` sets up where one process starts Ray and trains: ``VERL_PLATFORM``, the
defaults, and a fork server, which serves only the workers of this node.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from repo_verl.cpu import set_defaults
from repo_verl.cpu.fork_client import PYTHON_VARIABLE, SOCKET_VARIABLE

SWITCH_VARIABLE = "REPO_VERL_CPU_FORK"
"""0 in the environment: no fork server, every worker imports for itself; 1: one for a program of one's own."""

TRAINER_MODULE = "verl.trainer.main_ppo"

_servers: list[subprocess.Popen[bytes]] = []
"""Kept, since Python warns of a process that still runs when its object goes."""


def start_with_trainer() -> None:
    """Call :func:`start` where this process is ``python -m verl.trainer.main_ppo``, or where the switch says "1".

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
    """Start a fork server for this process and everything it starts.

    Returns: the open file with which it ends: when this process does, or a program that it becomes and hands it on to.
    """
    folder = Path(tempfile.mkdtemp(prefix="repo_verl_"))
    python = folder / "python"
    client = Path(__file__).with_name("fork_client.py")
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -S "{client}" "$@"\n', encoding="utf-8")
    python.chmod(0o700)
    address = str(folder / "socket")
    variables = {SOCKET_VARIABLE: address, PYTHON_VARIABLE: str(python)}
    read_end, write_end = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen(128)
        files = (listener.fileno(), read_end)
        command = [sys.executable, "-P", "-m", "repo_verl.cpu.fork_server", str(folder), *map(str, files)]
        server = subprocess.Popen(command, env={**os.environ, **variables}, pass_fds=files, start_new_session=True)
    _servers.append(server)
    os.environ.update(variables)
    os.close(read_end)
    return write_end


def main(command: list[str]) -> NoReturn:
    """Become the command, with the environment of a CPU run and a fork server that ends with it.

    Args:
        command: a program and its arguments, found as a shell finds it. It must stay for as long as the node does:
            ``ray start`` needs ``--block``. ``REPO_VERL_CPU_FORK=0`` starts no fork server.
    """
    if not command:
        sys.exit("no command: python -m repo_verl.cpu.node ray start --block ...")
    os.environ["VERL_PLATFORM"] = "cpu"
    set_defaults()
    for name in (SOCKET_VARIABLE, PYTHON_VARIABLE):
        os.environ.pop(name, None)
    if os.environ.get(SWITCH_VARIABLE, "1") == "1":
        os.set_inheritable(start(), True)
    else:
        os.environ[PYTHON_VARIABLE] = sys.executable
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])

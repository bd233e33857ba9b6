"""Starts a node of a Ray cluster without GPUs: ``python -m repo_verl.cpu.node ray start --block ...``.

Ray gives a worker the environment of its own node, not that of the process that trains. So every node of a cluster
needs what :func:`repo_verl.cpu.activate` sets up where one process starts Ray and trains: ``VERL_PLATFORM``, the
defaults, and a fork server, which serves only the workers of this node.
"""

import os
import sys
from typing import NoReturn

from repo_verl.cpu import fork_server
from repo_verl.cpu.environment import set_defaults


def main(command: list[str]) -> NoReturn:
    """Becomes the command, with the environment of a CPU run and a fork server that ends with it.

    Args:
        command: a program and its arguments, found as a shell finds it. It must stay for as long as the node does:
            ``ray start`` needs ``--block``. ``REPO_VERL_CPU_FORK=0`` starts no fork server.
    """
    if not command:
        sys.exit("no command: python -m repo_verl.cpu.node ray start --block ...")
    os.environ["VERL_PLATFORM"] = "cpu"
    set_defaults()
    for name in (fork_server.SOCKET_VARIABLE, fork_server.PYTHON_VARIABLE):
        os.environ.pop(name, None)
    if os.environ.get(fork_server.SWITCH_VARIABLE, "1") == "1":
        os.set_inheritable(fork_server.start(), True)
    else:
        os.environ[fork_server.PYTHON_VARIABLE] = sys.executable
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The ``python`` of Ray's workers: runs a program in a process forked from :mod:`repo_verl.cpu.fork_server`.

Run as a file, with only the standard library, so that it starts in milliseconds::

    python -P -S fork_client.py [-flags] (SCRIPT | -c CODE) ARGS...

It hands its arguments, environment, folder and open files to the server, passes signals on, and ends with the program's
exit status. Without a server to talk to it becomes ``python ARGS...``.
"""

import contextlib
import json
import os
import signal
import socket
import sys

SOCKET_VARIABLE = "REPO_VERL_CPU_FORK_SOCKET"
PYTHON_VARIABLE = "REPO_VERL_CPU_PYTHON"
"""What Ray starts workers with: a script that runs this file, or the interpreter where there is no server."""

MAX_FILES = 250
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def open_files() -> list[int]:
    """The numbers of the files that a program started by this process would inherit, with 0, 1 and 2."""
    numbers = {0, 1, 2}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.get_inheritable(int(name)):
                numbers.add(int(name))
    return sorted(numbers)


def request(arguments: list[str], files: list[int]) -> bytes:
    """The request that the server reads: a line of JSON."""
    content = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd(), "files": files}
    return json.dumps(content).encode() + b"\n"


def run(connection: socket.socket, arguments: list[str]) -> int | None:
    """Have the server run the program, and wait for its end.

    Returns: the exit status, 128 + n where signal n ended it; None if the server ended before it started the program.
    """
    files = open_files()[:MAX_FILES]
    message = request(arguments, files)
    answers = connection.makefile("r", encoding="ascii")
    try:
        sent = socket.send_fds(connection, [message], files)
        connection.sendall(message[sent:])
        child = int(answers.readline() or 0)
    except ConnectionError:
        child = 0
    if not child:
        return None
    for number in files:
        if number > 2:
            os.close(number)

    def forward(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    return int(answers.readline() or 1)


def main() -> int:
    """Run the program of the command line; returns its exit status."""
    if address := os.environ.get(SOCKET_VARIABLE):
        status = None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            with contextlib.suppress(ConnectionError, FileNotFoundError):
                connection.connect(address)
                status = run(connection, sys.argv[1:])
        if status is not None:
            return status
        sys.stderr.write(f"repo_verl: no fork server for this job at {address}: starting a fresh interpreter\n")
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

r"""The process that judges answers with SymPy: a template that has everything imported, and judges forked from it.

Started by :mod:`repo_verl.rewards.pool`, which holds the other ends of the sockets. A message is JSON in one datagram.
On the control socket (standard input): ``{"op": "fork"}`` with a socket attached is answered by ``{"pid": N}``;
``{"op": "end", "pid": N}`` kills that judge, reaps it, and is answered by ``{"signal": S}``. A judge answers requests
on its own socket, one at a time, each under a limit of CPU time that the kernel enforces (``ITIMER_PROF``: no Python
code need run for it) and under a limit of memory for all it ever allocates. When the pool goes, the sockets close and
everything here ends.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from typing import Any

MAX_MESSAGE = 1 << 16

Message = dict[str, Any]


def send(channel: socket.socket, message: Message) -> None:
    """Send one message."""
    channel.send(json.dumps(message).encode())


def receive(channel: socket.socket) -> Message:
    """The next message.

    Raises: ConnectionError if the other end has closed its socket.
    """
    message = channel.recv(MAX_MESSAGE)
    if not message:
        raise ConnectionError("the process at the other end closed its socket")
    return dict(json.loads(message))


def main() -> None:
    """Serve the control socket until it closes."""
    control = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # no judge may keep the control socket open
    judge({"answer": r"\frac{x}{2}+1", "gold": r"1+0.5x", "tolerance": None})  # imports, and the parser's tables
    send(control, {"pid": os.getpid()})
    children: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE, 1)
        if not message:
            return
        request = json.loads(message)
        if request["op"] == "fork":
            pid = os.fork()
            if pid == 0:
                control.close()
                _become_judge(descriptors[0], request["memory"])
            children.add(pid)
            os.close(descriptors[0])
            send(control, {"pid": pid})
        else:
            send(control, {"signal": _end(request["pid"]) if request["pid"] in children else 0})
            children.discard(request["pid"])


def _end(pid: int) -> int:
    """The signal that ended a judge; SIGKILL where it had to be sent."""
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) * -1


def _become_judge(descriptor: int, memory: int) -> None:
    """Serve one socket until it closes, then leave without the parent's clean-up."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start = _address_space("VmSize:")
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = start + memory if hard == resource.RLIM_INFINITY else min(start + memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=descriptor) as channel:
        while message := channel.recv(MAX_MESSAGE):
            request = json.loads(message)
            signal.setitimer(signal.ITIMER_PROF, request["seconds"])
            reply = judge(request)
            signal.setitimer(signal.ITIMER_PROF, 0)
            try:
                used = _address_space("VmPeak:") - start
            except MemoryError:
                used = limit - start
            reply["spent"] = used > memory // 2
            if used > 0.9 * (limit - start) and not reply["right"]:  # Math-Verify swallows a MemoryError of its parser
                reply.update(status="error", detail="out of memory")
            send(channel, reply)
    os._exit(0)


def judge(request: Message) -> Message:
    """The verdict on one answer, or on a gold answer by itself.

    Args:
        request: ``gold``, ``tolerance``, and ``answer`` (None: can the gold answer be parsed?).

    Returns: ``right`` and ``status``, one of ok, error, gold_unparseable; ``detail`` says why it is not ok. A judge
        adds ``spent``: it has used half its memory, and another should take its place.
    """
    from repo_verl.rewards.compare import engine_texts, verdict
    from repo_verl.rewards.symbolic import GoldUnparseable, equal, parse_gold

    try:
        if request["answer"] is None:
            right: bool | None = all(parse_gold(text) for text in engine_texts(request["gold"]))
        else:
            right = verdict(request["answer"], request["gold"], request["tolerance"], equal)
        return {"right": bool(right), "status": "ok", "detail": ""}
    except GoldUnparseable as error:
        return {"right": False, "status": "gold_unparseable", "detail": str(error)[:500]}
    except (Exception, RecursionError, MemoryError) as error:
        return {"right": False, "status": "error", "detail": f"{type(error).__name__}: {error}"[:500]}


def _address_space(field: str) -> int:
    """Bytes of address space: ``VmSize:`` in use now, ``VmPeak:`` the most that ever was."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(field))

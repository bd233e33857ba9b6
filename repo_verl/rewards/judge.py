r"""The process that judges answers with SymPy: a template that has everything imported, and judges forked from it.

A message is JSON in one datagram. On the control socket (standard input), whose other end the pool holds, ``{"op":
"fork"}`` with a socket attached is answered by ``{"pid": N}``; ``{"op": "end", "pid": N}`` kills and reaps that judge,
answered by ``{"signal": S}``. A judge answers on its own socket, one question at a time, each under a limit of CPU time
that the kernel enforces (``ITIMER_PROF``) and one of memory for all it ever allocates. When the pool's process goes,
the sockets close and everything here ends.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from dataclasses import dataclass
from typing import Any, NamedTuple

MAX_MESSAGE = 1 << 16
Message = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """What one judgement may take.

    Attributes:
        cpu_seconds: CPU time of the judge process.
        clock_seconds: time by the clock, ending a late judge included; longer, so that load flips no honest verdict.
    """

    cpu_seconds: float = 5.0
    clock_seconds: float = 20.0


class Judgement(NamedTuple):
    """The outcome of one question: ``status`` is ok, timeout, error or gold_unparseable."""

    right: bool
    status: str
    detail: str


def send(channel: socket.socket, message: Message) -> None:
    """Send one message."""
    channel.send(json.dumps(message).encode())


def receive(channel: socket.socket) -> Message:
    """The next message; ConnectionError if the other end has closed its socket."""
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
            os.close(descriptors[0])
            send(control, {"pid": pid})
        else:
            os.kill(request["pid"], signal.SIGKILL)  # a judge that went by itself still waits to be reaped
            _, status = os.waitpid(request["pid"], 0)
            send(control, {"signal": -os.waitstatus_to_exitcode(status)})


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
            reply["spent"] = used > memory // 2  # another judge should take its place
            if used > 0.9 * (limit - start) and not reply["right"]:  # Math-Verify swallows a MemoryError of its parser
                reply.update(status="error", detail="out of memory")
            send(channel, reply)
    os._exit(0)


def judge(request: Message) -> Message:
    """``right``, ``status`` and ``detail`` of one answer, or with ``answer`` None of whether ``gold`` can be parsed."""
    from repo_verl.rewards.compare import engine_texts, verdict
    from repo_verl.rewards.symbolic import GoldUnparseable, equal, parse_gold

    try:
        if request["answer"] is None:
            for text in engine_texts(request["gold"]) or ():
                parse_gold(text)
            right: bool | None = True
        else:
            right = verdict(request["answer"], request["gold"], request["tolerance"], equal)
        return {"right": bool(right), "status": "ok", "detail": ""}
    except GoldUnparseable as error:
        return {"right": False, "status": "gold_unparseable", "detail": str(error)[:500]}
    except Exception as error:
        return {"right": False, "status": "error", "detail": f"{type(error).__name__}: {error}"[:500]}


def _address_space(field: str) -> int:
    """Bytes of address space: ``VmSize:`` in use now, ``VmPeak:`` the most that ever was."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(field))

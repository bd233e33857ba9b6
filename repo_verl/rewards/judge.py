r"""The process that judges answers with SymPy: a template that has everything imported, and judges forked from it.

Started by :mod:`repo_verl.rewards.pool`, which holds the other ends of the sockets. Messages are JSON, one a datagram.
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


def main() -> None:
    """Serve the control socket until it closes."""
    control = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # no judge may keep the control socket open
    import repo_verl.rewards.symbolic  # noqa: F401 - imported here once, so that no judge has to

    warm_up()
    control.send(json.dumps({"pid": os.getpid()}).encode())
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
            reply = {"pid": pid}
        else:
            reply = {"signal": _end(request["pid"]) if request["pid"] in children else 0}
            children.discard(request["pid"])
        control.send(json.dumps(reply).encode())


def warm_up() -> None:
    """Judge one pair, so that the parser's tables are built before the first fork."""
    judge({"answer": r"\frac{x}{2}+1", "gold": r"1+0.5x", "tolerance": None})


def _end(pid: int) -> int:
    """The signal that ended a judge; SIGKILL where it had to be sent."""
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) * -1


def _become_judge(descriptor: int, memory: int) -> None:
    """Serve one socket until it closes, then leave without the parent's clean-up."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start = _address_space()
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
            used = _used(start, limit)
            reply["spent"] = used > memory // 2
            if used > 0.9 * (limit - start) and not reply["right"]:  # Math-Verify swallows a MemoryError of its parser
                reply.update(status="error", detail="out of memory")
            channel.send(json.dumps(reply).encode())
    os._exit(0)


def judge(request: dict[str, Any]) -> dict[str, Any]:
    """The verdict on one answer, or on a gold answer alone.

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


def _used(start: int, limit: int) -> int:
    """Bytes that a judge has used at most; all of them where too few are left to look."""
    try:
        return _address_space(peak=True) - start
    except MemoryError:
        return limit - start


def _address_space(peak: bool = False) -> int:
    """Bytes of address space in use, or the most that ever was."""
    with open("/proc/self/status", encoding="ascii") as status:
        name = "VmPeak:" if peak else "VmSize:"
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(name))

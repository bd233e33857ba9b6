r"""Judge processes as seen by their users: limits of time and memory, replacement, one answer per question.

A pool starts at the first question that needs the symbolic engine, and works from threads, Ray workers and scripts. It
starts its template with ``subprocess`` and never forks its own process, which may hold threads and devices. Linux.

Why no ``pebble.ProcessPool`` or other pool of ``multiprocessing``: it runs a script without a ``__main__`` guard again,
does not work in a forked child, one worker killed while idle breaks the pool for all rows, and it unpickles replies.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import NamedTuple

from repo_verl.rewards.fair_semaphore import FairSemaphore
from repo_verl.rewards.judge import Message, receive, send

START_SECONDS = 120.0
CONTROL_SECONDS = 10.0
"""For a fork, or for the end of a judge."""

MAX_JUDGES = 4


@dataclass(frozen=True)
class Limits:
    """What one judgement may take.

    Attributes:
        cpu_seconds: CPU time of the judge process.
        clock_seconds: time by the clock until the judgement is there, ending a late judge included; longer than the CPU
            time, so that a loaded machine does not flip an honest verdict.
        memory_bytes: what a judge process may allocate beyond what its imports take.
    """

    cpu_seconds: float = 5.0
    clock_seconds: float = 20.0
    memory_bytes: int = 256 << 20


class Judgement(NamedTuple):
    """The outcome of one question: ``status`` is ok, timeout, error or gold_unparseable."""

    right: bool
    status: str
    detail: str


class JudgeError(RuntimeError):
    """The judge processes cannot be started."""


@dataclass
class _Judge:
    """A judge process, its socket, its pidfd (a pid may be used again), and the template that it was forked from."""

    pid: int
    channel: socket.socket
    handle: int | None
    template: subprocess.Popen[bytes] | None
    used: bool = False

    def kill(self) -> None:
        """End the process, if it is still there."""
        self.channel.close()
        if self.handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)
            os.close(self.handle)
            self.handle = None


class JudgePool:
    """Up to ``size`` judge processes, forked from one template process.

    Args:
        size: judges at work at once; further questions wait for a free one.
        memory_bytes: see :class:`Limits`.
    """

    def __init__(self, size: int, memory_bytes: int = Limits.memory_bytes) -> None:
        """Starts nothing yet."""
        self.memory_bytes = memory_bytes
        self._turns = FairSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[_Judge] = []
        self._template: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def ask(self, gold: str, answer: str | None, tolerance: float | None, limits: Limits) -> Judgement:
        """Have one answer judged. Never raises for what an answer does to its judge.

        Args:
            gold: the gold answer, cleaned or not.
            answer: the extracted answer; None asks whether the gold answer can be parsed.
            tolerance: largest absolute difference that is still right.
            limits: of this judgement; the time waiting for a free judge does not count.

        Raises: JudgeError if no judge can be started.
        """
        question = {"gold": gold, "answer": answer, "tolerance": tolerance, "seconds": limits.cpu_seconds}
        tries = 2
        with self._turns:
            while tries:
                judge = self._take()
                again = judge.used
                reply, late, ended_by = self._question(judge, question, limits.clock_seconds)
                if reply is not None:
                    return Judgement(reply["right"], reply["status"], reply["detail"])
                if late or ended_by == signal.SIGPROF:
                    spent = f"over {limits.cpu_seconds} s of CPU or {limits.clock_seconds} s"
                    return Judgement(False, "timeout", spent)
                from_outside = ended_by in (0, signal.SIGKILL)  # the system or an operator; a limit ends otherwise
                if from_outside and again:
                    continue  # killed while it was idle, perhaps all of them
                if not from_outside and not again:
                    break  # else it may have died while it was idle, of which this answer is innocent
                tries -= 1
        return Judgement(False, "error", f"the judge process died of signal {ended_by}")

    def _question(self, judge: _Judge, question: Message, seconds: float) -> tuple[Message | None, bool, int]:
        """(reply, whether it was late, the signal that ended the judge); the judge is idle again, or ended."""
        judge.used = True
        judge.channel.settimeout(seconds - min(0.05, 0.05 * seconds))  # what is left is for ending it
        try:
            send(judge.channel, question)
            reply = receive(judge.channel)
        except OSError as error:
            return None, isinstance(error, TimeoutError), self._end(judge)
        if reply["spent"]:
            return reply, False, self._end(judge)
        with self._lock:
            if judge.template is self._template:
                self._idle.append(judge)
                return reply, False, 0
        judge.kill()
        return reply, False, 0

    def close(self) -> None:
        """End all processes of the pool; a later question starts it again."""
        with self._lock:
            self._stop()

    def processes(self) -> list[int]:
        """Process ids of the template and of the idle judges."""
        with self._lock:
            template = [self._template.pid] if self._template else []
            return template + [judge.pid for judge in self._idle]

    def _take(self) -> _Judge:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            for attempt in range(2):
                self._start()
                try:
                    return self._fork()
                except OSError as error:
                    self._stop()
                    if attempt:
                        raise JudgeError(f"the judge processes of repo_verl.rewards end at once: {error}") from error
        raise AssertionError("not reached")

    def _fork(self) -> _Judge:
        assert self._control is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(CONTROL_SECONDS)
        request = json.dumps({"op": "fork", "memory": self.memory_bytes}).encode()
        try:
            with theirs:
                socket.send_fds(self._control, [request], [theirs.fileno()])
            pid = int(receive(self._control)["pid"])
        except OSError:
            ours.close()
            raise
        handle = None
        with contextlib.suppress(OSError):  # it is gone already, or the kernel is older than 5.3
            handle = os.pidfd_open(pid)
        return _Judge(pid, ours, handle, self._template)

    def _end(self, judge: _Judge) -> int:
        """End a judge and say by which signal it went; 0 if nobody knows."""
        judge.kill()
        with self._lock:
            if self._control is None or judge.template is not self._template:
                return 0
            try:
                send(self._control, {"op": "end", "pid": judge.pid})
                return int(receive(self._control)["signal"])
            except OSError:
                self._stop()
                return 0

    def _start(self) -> None:
        if self._template is not None and self._template.poll() is None:
            return
        self._stop()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-c", "from repo_verl.rewards.judge import main; main()"]
        try:
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._template = subprocess.Popen(
                    command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment
                )
            self._control.settimeout(START_SECONDS)
            receive(self._control)
        except OSError as error:
            self._stop()
            raise JudgeError(
                f"the judge process of repo_verl.rewards did not start ({error}); its own error is on stderr: check "
                "that math-verify is installed and that Linux is the system"
            ) from error

    def _stop(self) -> None:
        for judge in self._idle:
            judge.kill()
        self._idle.clear()
        if self._control is not None:
            self._control.close()
        if self._template is not None:
            self._template.kill()
            self._template.wait()
        self._control = self._template = None


_pool: JudgePool | None = None
_pool_lock = threading.Lock()


def shared_pool() -> JudgePool:
    """The pool of this process: as many judges as cores, at most 4."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = JudgePool(min(MAX_JUDGES, os.cpu_count() or 1))
        return _pool


def _forget() -> None:
    """In a forked child: the sockets are its parent's, and a thread that is not there may hold the lock."""
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


@atexit.register
def _close() -> None:
    if _pool is not None:
        with contextlib.suppress(OSError):
            _pool.close()


os.register_at_fork(after_in_child=_forget)

r"""Judge processes as seen by their users: limits of time and memory, replacement, one answer per question.

A pool starts at the first question, in threads, Ray workers and scripts on Linux. It starts its template with
``subprocess`` and never forks its own process, which may hold threads and devices. Why no pool of ``multiprocessing``
or pebble: it runs a script without a ``__main__`` guard again, does not work in a forked child, one worker killed while
idle breaks it for all rows, and it unpickles replies.
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

from repo_verl.rewards.judge import Judgement, Limits, Message, receive, send

START_SECONDS = 120.0
CONTROL_SECONDS = 10.0  # for a fork, or for the end of a judge
MAX_JUDGES = 4


class JudgeError(RuntimeError):
    """The judge processes cannot be started."""


class FairSemaphore:
    """A semaphore for ``count`` threads that goes to who has waited longest, as ``threading.Semaphore`` does not."""

    def __init__(self, count: int) -> None:
        self._changed = threading.Condition()
        self._tickets, self._called = 0, count

    def __enter__(self) -> None:
        """Draw a ticket and wait until it is called."""
        with self._changed:
            ticket, self._tickets = self._tickets, self._tickets + 1
            self._changed.wait_for(lambda: ticket < self._called)

    def __exit__(self, *exception: object) -> None:
        """Call the next ticket."""
        with self._changed:
            self._called += 1
            self._changed.notify_all()


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
    """Up to ``size`` judge processes at work at once, forked from one template; it starts at the first question."""

    def __init__(self, size: int, memory_bytes: int = 256 << 20) -> None:
        """``memory_bytes`` is what a judge may allocate beyond what its imports take."""
        self.memory_bytes = memory_bytes
        self._turns = FairSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[_Judge] = []
        self._template: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def ask(self, gold: str, answer: str | None, tolerance: float | None, limits: Limits) -> Judgement:
        """The judgement on one answer, or with ``answer`` None on whether the engine can parse the gold answer.

        The time waiting for a free judge does not count. Nothing is raised for what an answer does to its judge.

        Raises: JudgeError if no judge can be started.
        """
        question = {"gold": gold, "answer": answer, "tolerance": tolerance, "seconds": limits.cpu_seconds}
        tries = 2
        with self._turns:
            while tries:
                judge = self._take()
                again = judge.used
                outcome = self._question(judge, question, limits.clock_seconds)
                if not isinstance(outcome, int):
                    return Judgement(outcome["right"], outcome["status"], outcome["detail"])
                if outcome == signal.SIGPROF:
                    spent = f"over {limits.cpu_seconds} s of CPU or {limits.clock_seconds} s"
                    return Judgement(False, "timeout", spent)
                from_outside = outcome in (0, signal.SIGKILL)  # the system or an operator; a limit ends otherwise
                if from_outside and again:
                    continue  # killed while it was idle, perhaps all of them
                if not from_outside and not again:
                    break  # else it may have died while it was idle, of which this answer is innocent
                tries -= 1
        return Judgement(False, "error", f"the judge process died of signal {outcome}")

    def _question(self, judge: _Judge, question: Message, seconds: float) -> Message | int:
        """The reply, or the signal that ended the judge: SIGPROF also where it was late, 0 where nobody knows."""
        judge.used = True
        judge.channel.settimeout(seconds - min(0.05, 0.05 * seconds))  # what is left is for ending it
        try:
            send(judge.channel, question)
            reply = receive(judge.channel)
        except OSError as error:
            ended_by = self._end(judge)
            return signal.SIGPROF if isinstance(error, TimeoutError) else ended_by
        with self._lock:
            if judge.template is self._template and not reply["spent"]:
                self._idle.append(judge)
                return reply
        self._end(judge)
        return reply

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
            for attempt in range(3):  # the first may only find that the template is dead
                if self._control is None:
                    self._start()
                try:
                    return self._fork()
                except OSError as error:
                    self._stop()
                    if attempt == 2:
                        raise JudgeError(
                            f"the judge processes of repo_verl.rewards exit right after they start: {error}"
                        ) from error
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
                "that math-verify is installed and that the system is Linux"
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


def _new_pool() -> JudgePool:
    return JudgePool(min(MAX_JUDGES, os.cpu_count() or 1))


_pool = _new_pool()


def shared_pool() -> JudgePool:
    """The pool of this process: as many judges as cores, at most 4."""
    return _pool


def _forget() -> None:
    """In a forked child: the sockets are its parent's, and a thread that is not there may hold the lock."""
    global _pool
    _pool = _new_pool()


@atexit.register
def _close() -> None:
    with contextlib.suppress(OSError):
        _pool.close()


os.register_at_fork(after_in_child=_forget)

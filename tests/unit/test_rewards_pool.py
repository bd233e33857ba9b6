"""Judge processes: limits, replacement, and the honest rows beside hostile ones."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from grading_cases import MARKER, honest_rows, hostile_completions

from repo_verl.rewards import compute_score, pool
from repo_verl.rewards import score as scoring
from repo_verl.rewards.judge import Limits
from repo_verl.rewards.pool import JudgeError, JudgePool

pytestmark = pytest.mark.serial  # limits by the clock

SLOW = r"\int_0^1 \sin(x^{x^x}) e^{-x^2} dx"
ONE_SECOND = {"cpu_seconds": 1.0, "clock_seconds": 1.0}


@pytest.fixture
def judges():
    made = JudgePool(1)
    yield made
    made.close()


def ask(judges, answer, gold="x+1", limits=None):
    return judges.ask(gold, answer, None, limits or Limits())


class PeakMemory(threading.Thread):
    """The most bytes of memory, as summed PSS, that this process and its descendants gain."""

    def __init__(self):
        super().__init__(daemon=True)
        self.me, self.peak, self.stop = psutil.Process(), 0, threading.Event()
        self.before = self.look()  # what earlier tests left here and in other children, as a Ray session, is not ours

    def look(self):
        total = 0
        for process in [self.me, *self.me.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total

    def run(self):
        while not self.stop.wait(0.02):
            self.peak = max(self.peak, self.look() - self.before)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.join()


@pytest.mark.full
def test_hostile_completions_and_the_honest_rows_beside_them():
    rows, honest, peak = hostile_completions(), honest_rows(), PeakMemory()
    MARKER.unlink(missing_ok=True)
    assert len(rows) == 500 and compute_score("a", r"\boxed{1+x}", "x+1")["acc"] == 1.0
    scoring._cached.cache_clear()

    def timed(row):
        begin = time.perf_counter()
        result = compute_score("a", row[1], row[2], **ONE_SECOND)
        return row[0], result, time.perf_counter() - begin

    with peak as memory, ThreadPoolExecutor(1) as bad, ThreadPoolExecutor(1) as good:
        # the limits of the honest rows are the defaults: a judgement of theirs is never replaced
        verdicts = [good.submit(compute_score, "a", solution, gold) for solution, gold, _ in honest]
        outcome = list(bad.map(timed, rows))
        honest_right = [verdict.result()["acc"] == 1.0 for verdict in verdicts]
    assert honest_right == [right for _, _, right in honest]
    assert [name for name, result, _ in outcome if result["score"] != 0.0] == []
    assert {result["status"] for _, result, _ in outcome} == {"ok", "no_answer", "timeout", "error"}
    # 1 s by the clock; on a machine that is busy with other tests the kill itself may have to wait for its turn
    late = {name: seconds for name, _, seconds in outcome if seconds > 1.0}
    assert len(late) <= 5 and all(seconds < 3.0 for seconds in late.values()), late
    assert memory.peak < 1 << 30
    assert not MARKER.exists()


def test_a_judge_over_its_cpu_time_is_replaced(judges):
    assert ask(judges, "1+x").right
    first = judges.processes()
    begin = time.perf_counter()
    late = ask(judges, SLOW, "7", Limits(cpu_seconds=0.3))
    assert (late.right, late.status) == (False, "timeout") and time.perf_counter() - begin < 10
    assert ask(judges, "1+x") == (True, "ok", "")
    second = judges.processes()
    assert first[0] == second[0] and first[1] != second[1] and not psutil.pid_exists(first[1])


def test_a_judge_over_its_time_by_the_clock_is_ended(judges):
    assert ask(judges, "1+x").right
    begin = time.perf_counter()
    assert ask(judges, SLOW, "7", Limits(cpu_seconds=60, clock_seconds=0.5)).status == "timeout"
    assert 0.4 < time.perf_counter() - begin < 5


def test_a_stopped_judge_is_a_time_out(judges):
    """It uses no CPU time: only the clock can tell."""
    assert ask(judges, "1+x").right
    os.kill(judges.processes()[1], signal.SIGSTOP)
    assert ask(judges, "1+x", limits=Limits(clock_seconds=0.3)).status == "timeout"
    assert ask(judges, "1+x").right


def test_a_judge_that_dies_is_an_error_of_its_row_alone(judges):
    assert ask(judges, "1+x").right
    judge, slow = judges.processes()[1], []
    asked = threading.Thread(target=lambda: slow.append(ask(judges, SLOW, "7", Limits(cpu_seconds=60))))
    asked.start()
    template = psutil.Process(judges.processes()[0])
    for pid in (judge, None):  # the judge of before, then the one that the question is asked again of
        deadline = time.monotonic() + 20
        while pid is None and time.monotonic() < deadline:
            fresh = [child.pid for child in template.children() if child.pid != judge]
            pid = fresh[0] if fresh else None
        time.sleep(0.5)
        os.kill(pid, signal.SIGSEGV)
    asked.join()
    assert (slow[0].status, slow[0].detail) == ("error", "the judge process died of signal 11")
    assert ask(judges, "1+x").right


def test_a_template_that_dies_is_started_again(judges):
    assert ask(judges, "1+x").right
    template, judge = judges.processes()
    os.kill(template, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(judge)], timeout=0.1)
    os.kill(judge, signal.SIGKILL)
    assert ask(judges, "1+x").right and judges.processes()[0] != template


@pytest.mark.parametrize("template_too", [False, True])
def test_judges_killed_while_idle_cost_no_answer_its_verdict(template_too):
    several = JudgePool(4)
    try:
        with ThreadPoolExecutor(4) as threads:
            while len(several.processes()) < 3:
                assert all(judgement.right for judgement in threads.map(lambda _: ask(several, "1+x"), range(8)))
        template, *idle = several.processes()
        for pid in [template, *idle] if template_too else idle:
            os.kill(pid, signal.SIGKILL)
        assert ask(several, "1+x").right
    finally:
        several.close()


def test_a_question_whose_judge_is_killed_is_asked_again(judges):
    template, answers = None, []
    asked = threading.Thread(target=lambda: answers.append(ask(judges, SLOW, "7", Limits(cpu_seconds=1))))
    asked.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        template = judges._template and psutil.Process(judges._template.pid)
        if template and template.children():
            break
    time.sleep(0.3)
    os.kill(template.children()[0].pid, signal.SIGKILL)
    asked.join()
    assert answers[0].status == "timeout", "judged by the second judge, to the end"


def test_memory_is_limited():
    small = JudgePool(1, memory_bytes=4 << 20)
    try:
        assert ask(small, "1+x").right
        judgement = ask(small, r"\sum_{k=1}^{99999} \frac{1}{k}", "7")
        assert judgement == (False, "error", "out of memory")
        assert ask(small, "1+x").right
    finally:
        small.close()


def test_threads_share_a_pool_and_no_verdict_is_swapped():
    judges = JudgePool(2)
    try:
        jobs = [(f"{n}x+{n}", f"{n}(x+1)", True) if n % 2 else (f"{n}x+1", f"{n}(x+1)", False) for n in range(2, 62)]
        with ThreadPoolExecutor(12) as threads:
            found = list(threads.map(lambda job: ask(judges, job[0], job[1]).right, jobs))
        assert found == [right for _, _, right in jobs]
        assert len(judges.processes()) <= 3
    finally:
        judges.close()


def test_a_judge_that_cannot_start_is_no_zero(monkeypatch):
    monkeypatch.setattr(pool.sys, "executable", "/bin/false")
    with pytest.raises(JudgeError, match="did not start"):
        ask(JudgePool(1), "1+x")


def test_a_forked_child_has_a_pool_of_its_own():
    assert compute_score("a", r"\boxed{y+1}", "1+y")["acc"] == 1.0
    pid = os.fork()
    if pid == 0:
        right = compute_score("a", r"\boxed{z+1}", "1+z")["acc"] == 1.0
        pool._close()
        os._exit(0 if right else 1)
    assert compute_score("a", r"\boxed{w+2}", "2+w")["acc"] == 1.0
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_nothing_stays_behind_when_a_process_is_killed():
    code = (
        "import os, signal; from repo_verl.rewards import compute_score;"
        "from repo_verl.rewards.pool import shared_pool;"
        "compute_score('a', r'\\boxed{x+1}', '1+x'); print(*shared_pool().processes(), flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    left = [int(pid) for pid in done.stdout.split()]
    assert done.returncode == -signal.SIGKILL and len(left) == 2
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in left):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_it_works_in_an_event_loop():
    code = (
        "import asyncio; from repo_verl.rewards import compute_score\n"
        "async def main():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    pairs = [(r'\\boxed{%dx+x}' % n, '%dx' % (n + 1)) for n in range(8)]\n"
        "    jobs = [loop.run_in_executor(None, compute_score, 'a', *pair) for pair in pairs]\n"
        "    print(sum(result['acc'] for result in await asyncio.gather(*jobs)))\n"
        "asyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("8.0\n", "")


def test_statuses_are_counted_apart():
    answers = (r"\boxed{1}", r"\boxed{}", r"\boxed{" + "9" * 600 + "}", r"\boxed{" + SLOW + "}")
    found = Counter(compute_score("a", text, "2", cpu_seconds=0.2)["status"] for text in answers)
    assert found == {"ok": 1, "no_answer": 1, "error": 1, "timeout": 1}

"""Completions: on disk, a line per finished problem, written once and kept, whatever happens to the run; graded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from repo_verl.atomic_files import write_atomically
from repo_verl.evaluate.benchmarks import Problem, brief, is_missing, json_value, problem_id, text, whole_number
from repo_verl.rewards import compute_score
from repo_verl.rewards.normalize import clean, compact
from repo_verl.rewards.quantities import exact_number
from repo_verl.safe_text import printable, shown

MOST_SHOWN = 500
"""Characters of a setting in a message."""
TOO_LONG = "prompt_too_long"
"""``finish`` of a sample that was not generated, because its prompt leaves no room for a response."""
RIGHT = "right"
"""Vote of every right answer: all are equal to the gold answer, so to one another."""
THREADS = 8
CHUNK = 4096


@dataclass(frozen=True)
class Completion:
    """One sample.

    Attributes:
        text: the response.
        tokens: of the response.
        finish: why it ended: ``stop``, ``length``, or ``prompt_too_long``; "" where a file does not say.
    """

    text: str
    tokens: int | None
    finish: str

    def __post_init__(self) -> None:
        """Raises: ValueError naming a field of another type."""
        text(self.text, "text")
        text(self.finish, "finish")
        object.__setattr__(self, "tokens", None if is_missing(self.tokens) else whole_number(self.tokens, "tokens"))


Samples = dict[tuple[str, str], list[Completion]]
"""By benchmark and problem."""


class Store:
    """Finished problems of one evaluation, in ``FOLDER/completions/BENCHMARK.jsonl``.

    In the file's name a slash is ``%2F``, as in a URL, so that no benchmark's name leads out of the folder.

    Args:
        folder: of the evaluation; made if missing.
        settings: what completions depend on; kept in ``settings.json``.

    Raises: ValueError where the folder holds completions of other settings, naming the first that differs, or a line
        that is broken in the middle of a file, or a link.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Opens the folder, and reads what is finished."""
        self.folder = folder / "completions"
        self.folder.mkdir(parents=True, exist_ok=True)
        _settle(folder / "settings.json", settings)
        self.finished: Samples = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            if path.is_symlink():
                raise ValueError(f"{path} is a link, which is not written to: replace it by the file.")
            for problem, samples in _read_stored(path):
                self.finished[unquote(path.stem), problem] = samples

    def add(self, benchmark: str, problem: str, samples: Sequence[Completion]) -> None:
        """Put a finished problem on disk; it is there when this returns, also if the machine then stops.

        Args:
            benchmark: of the problem.
            problem: its id.
            samples: all of its samples, in order.

        Raises: ValueError if the problem is there already.
        """
        if (benchmark, problem) in self.finished:
            raise ValueError(f"problem {problem!r} of {benchmark!r} is finished already.")
        line = json.dumps({"problem": problem, "samples": [asdict(sample) for sample in samples]}) + "\n"
        with (self.folder / f"{quote(benchmark, safe='')}.jsonl").open("ab", buffering=0) as file:
            file.write(line.encode("ascii"))
            os.fsync(file.fileno())
        self.finished[benchmark, problem] = list(samples)


def _settle(path: Path, settings: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(settings))
    if not path.is_file():
        write_atomically(path, json.dumps(wanted, indent=2) + "\n")
        return
    try:
        there = json_value(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is broken ({brief(error)}): take another --output.") from error
    if not isinstance(there, dict):
        raise ValueError(f"{path} holds no settings: take another --output.")
    for key in sorted(set(there) | set(wanted)):
        if there.get(key) != wanted.get(key):
            before, now = shown(there.get(key), MOST_SHOWN), shown(wanted.get(key), MOST_SHOWN)
            raise ValueError(
                f"{path.parent} holds completions made with {printable(key, 100)}={before}, now it is {now}: "
                "take another --output, or the settings of before."
            )


def _read_stored(path: Path) -> list[tuple[str, list[Completion]]]:
    """The lines of a file; one cut short at its end, by a stop in mid-write, is removed."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    found = []
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        try:
            entry = json_value(line)
            samples = [Completion(**sample) for sample in entry["samples"]]
            found.append((problem_id(entry["problem"]), samples))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number} is no finished problem ({brief(error)}): delete the line."
            ) from error
    return found


@dataclass(frozen=True)
class Graded:
    """One graded sample; ``extracted`` is the answer and ``status`` that of the grading, see ``repo_verl.rewards``."""

    problem: Problem
    sample: int
    completion: Completion
    correct: bool
    extracted: str
    status: str

    @property
    def vote(self) -> str | None:
        """What the sample votes for in maj@k: right answers for one thing, others for their number or text."""
        if self.correct:
            return RIGHT
        if not self.extracted:
            return None
        text = clean(self.extracted)
        number = exact_number(text)
        return compact(text) if number is None else f"{number.value}{'%' if number.percent else ''}"

    @property
    def answered(self) -> bool:
        """Whether there is an answer in the response."""
        return bool(self.extracted)

    @property
    def truncated(self) -> bool:
        """Whether the response was cut at its longest, or its prompt left no room for one."""
        return self.completion.finish in ("length", TOO_LONG)


def grade_all(completions: Iterable[tuple[Problem, int, Completion]], template: str = "boxed") -> Iterator[Graded]:
    """Grade completions, each with its problem and number, in order, from several threads.

    ``template`` says where the answer is looked for. Raises: JudgeError if the grader cannot start.
    """
    waiting = iter(completions)
    with ThreadPoolExecutor(THREADS) as threads:
        while chunk := list(islice(waiting, CHUNK)):
            yield from threads.map(partial(_grade, template), *zip(*chunk, strict=True))


def _grade(template: str, problem: Problem, sample: int, completion: Completion) -> Graded:
    extra = {"tolerance": problem.tolerance}
    score = compute_score(problem.benchmark, completion.text, problem.gold, extra, template=template)
    return Graded(problem, sample, completion, score["acc"] == 1.0, score["extracted"], score["status"])

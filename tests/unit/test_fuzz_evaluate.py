"""Mutated benchmarks, completions and results: evaluations read them, or refuse them in a sentence with the file."""

import contextlib
import io
import json
import shutil

from fuzz_tables import mutate_parquet
from fuzzing import MARKER, fuzz, hostile_value, is_ours, mutate_bytes, mutate_json, mutate_lines, portion, to_file

from repo_verl import cli
from repo_verl.evaluate import Protocol, differences, results
from repo_verl.evaluate.benchmarks import Benchmarks, Problem, read_benchmarks
from repo_verl.evaluate.commands import parse_samples
from repo_verl.evaluate.completions import Completion, Store, read_file

ROWS = [
    {
        "data_source": "aime24", "prompt": [{"role": "user", "content": f"What is {n}?"}], "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(n)},
        "extra_info": {"split": "test", "index": n, "id": "", "tolerance": None if n else 0.1, "unit": ""},
    }
    for n in range(6)
]  # fmt: skip
GIVEN = [
    {
        "benchmark": "aime24",
        "problem": str(n),
        "completion": rf"\boxed{{{n}}}",
        "sample": 0,
        "tokens": 5,
        "finish": "stop",
    }
    for n in range(6)
]
VALUES = [{"benchmark": name, "problem": str(n), "correct": n % 2 == 0} for name in ("a", "b") for n in range(4)]
BENCHMARKS = Benchmarks({"aime24": [Problem("aime24", str(n), [], str(n), None) for n in range(6)]}, {})
STORED = [
    {"problem": str(n), "samples": [{"text": rf"\boxed{{{n}}}", "tokens": 3, "finish": "stop"}] * 2} for n in range(6)
]
SETTINGS = {"model": {"hub": "a/b"}, "engine": {}, "temperature": 0.2, "samples": {"aime24": 2}}


def both(found):
    assert found["accepted"] > portion(20) and found["refused"] > portion(20), found


def naming(*names):
    return lambda error: is_ours(error) and any(name in str(error) for name in names)


def test_benchmarks(tmp_path):
    def read(path):
        for problems in read_benchmarks(path.parent).problems.values():
            for problem in problems:
                assert isinstance(problem.benchmark, str) and isinstance(problem.gold, str)
                assert all(isinstance(text, str) for message in problem.chat for text in message.values())
                assert problem.tolerance is None or problem.tolerance > 0

    reader = to_file(tmp_path / "aime24_test.parquet", read)
    both(fuzz("benchmarks", 2500, lambda rng: mutate_parquet(ROWS, rng), reader, naming(str(tmp_path))))


def test_results_that_are_compared(tmp_path):
    def read(path):
        values = results.read_values(path.parent)
        assert all(0 <= value <= 1 for problems in values.values() for value in problems.values())
        try:
            differences.table(differences.compare_groups([values], [values], draws=20))
        except ValueError as error:
            assert "name of the average" in str(error), error

    reader = to_file(tmp_path / "completions.parquet", read)
    both(fuzz("values", 1500, lambda rng: mutate_parquet(VALUES, rng), reader, naming(str(tmp_path))))


def gradeable(samples):
    """What grading and writing need of completions that were read."""
    for (benchmark, problem), completions in samples.items():
        assert isinstance(benchmark, str) and isinstance(problem, str)
        for sample in completions:
            assert isinstance(sample.text, str) and isinstance(sample.finish, str)
            assert sample.tokens is None or type(sample.tokens) is int and 0 <= sample.tokens < 2**31


def test_stored_completions(tmp_path):
    folder = tmp_path / "out"

    def read(data):
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "completions").mkdir(parents=True)
        (folder / "completions" / "aime24.jsonl").write_bytes(data)
        store = Store(folder, SETTINGS)
        gradeable(store.finished)
        if ("aime24", "6") not in store.finished:
            store.add("aime24", "6", [Completion("x", 1, "stop")])
            assert Store(folder, SETTINGS).finished == store.finished

    both(fuzz("stored", 3000, lambda rng: mutate_lines(STORED, rng), read, naming(str(folder))))


def test_stored_settings(tmp_path):
    def read(path):
        Store(path.parent, SETTINGS)

    reader = to_file(tmp_path / "settings.json", read)
    make = lambda rng: mutate_json(SETTINGS, rng) if rng.random() < 0.9 else json.dumps(SETTINGS).encode()  # noqa: E731
    both(fuzz("settings", 1500, make, reader, naming(str(tmp_path))))


def test_given_completions(tmp_path):
    def read(path):
        gradeable(read_file(path, BENCHMARKS, skip_others=False))

    lines = to_file(tmp_path / "given.jsonl", read)
    both(fuzz("given lines", 2500, lambda rng: mutate_lines(GIVEN, rng), lines, naming(str(tmp_path))))
    table = to_file(tmp_path / "given.parquet", read)
    both(fuzz("given table", 1500, lambda rng: mutate_parquet(GIVEN, rng), table, naming(str(tmp_path))))


def test_command_line(tmp_path):
    """Grading and comparing as a user does: status 0, or 1 and one line."""
    (tmp_path / "sets").mkdir()
    other = tmp_path / "other"
    other.mkdir()
    MARKER.unlink(missing_ok=True)

    def read(made):
        (tmp_path / "sets" / "aime24_test.parquet").write_bytes(made[0])
        (tmp_path / "given.jsonl").write_bytes(made[1])
        (other / "completions.parquet").write_bytes(made[2])
        out, common = tmp_path / "out", ["--benchmarks", str(tmp_path / "sets"), "--output", str(tmp_path / "out")]
        statuses = [one_line(["evaluate", "--completions", str(tmp_path / "given.jsonl"), *common])]
        statuses.append(one_line(["compare", str(out), str(other)]))
        if any(statuses):
            raise LookupError

    def make(rng):
        sound = [mutate_parquet(ROWS, rng), mutate_lines(GIVEN, rng), mutate_parquet(VALUES, rng)]
        return sound

    found = fuzz("command line", 300, make, read, lambda error: isinstance(error, LookupError))
    assert found["refused"] > portion(20) and not MARKER.exists(), found
    assert {path.name for path in tmp_path.iterdir()} <= {"sets", "other", "out", "given.jsonl"}


def one_line(arguments):
    """The exit status of the command, which says at most one line and shows no traceback."""
    said, shown = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(shown):
        status = cli.main(arguments)
    lines = [line for line in said.getvalue().replace("\r", "\n").splitlines() if line.startswith("repo-verl ")]
    assert "Traceback" not in said.getvalue() and (status, len(lines)) in ((0, 0), (1, 1)), said.getvalue()
    return status


def test_protocol_and_samples():
    def read(made):
        Protocol(**made[0])
        parse_samples(made[1])

    def make(rng):
        value = {**{"temperature": 0.2, "top_p": 0.9, "top_k": 5, "max_tokens": 10}}
        value[rng.choice(list(value))] = rng.choice((0, -1, 1e400, float("nan"), 2**70, -0.0, 0.5, 1))
        texts = [mutate_bytes(rng.choice((b"8", b"aime24=32")), rng, 1).decode("utf-8", "surrogateescape")]
        return value, texts + [str(hostile_value(rng))[:100]]

    both(fuzz("protocol", 1500, make, read))

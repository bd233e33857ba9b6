"""Mutated sources: data_prep makes rows of them, drops them with a reason, or refuses the file in a sentence."""

import contextlib
import io
import json
import shutil

import pytest
from fuzz_tables import mutate_parquet
from fuzzing import MARKER, fuzz, is_ours, mutate_bytes, mutate_json, mutate_lines, mutate_tree, portion, to_file
from preparing import row_of

from data_prep import account, cli, files, filters, jobs, reading, sources
from data_prep.schema import RowError, validate_row

RECORDS = [
    {
        "question": rf"What is ${n}^2$?", "problem": f"Add {n} and 1.", "answer": str(n), "final_answer": [str(n * n)],
        "prompt": f"[{{\"role\": \"user\", \"content\": \"What is {n}?\"}}]", "ground_truth": n,
        "solution": rf"It is \boxed{{{n}}}. #### {n}", "r1_solution_1": rf"So \boxed{{{n}}}", "id": n, "level": 5,
        "unit": "cm", "error": "1e-2", "answer_type": "Numerical", "is_multiple_answer": False, "type": "Algebra",
    }
    for n in range(5)
]  # fmt: skip
CHATS = [
    {
        "data_source": "math500", "prompt": [{"role": "user", "content": f"What is {n} of {n + 1} apples?"}],
        "ability": "math", "reward_model": {"style": "rule", "ground_truth": str(n)},
        "extra_info": {"split": "test", "index": n, "id": "", "tolerance": 0.5, "unit": ""},
    }
    for n in range(5)
]  # fmt: skip
TEXTS = json.loads(json.dumps(RECORDS), parse_int=str)  # columns of one type each, as parquet wants them
SETS = sorted(jobs.SETS)


def both(found, least=20):
    assert found["accepted"] > portion(least) and found["refused"] > portion(least), found


def naming(*names):
    return lambda error: is_ours(error) and any(name in str(error) for name in names)


@pytest.mark.parametrize(
    ("suffix", "count", "make"),
    [
        (".jsonl", 2500, lambda rng: mutate_lines(rng.choice((RECORDS, CHATS)), rng)),
        (".json", 2500, lambda rng: mutate_json(rng.choice((RECORDS, CHATS)), rng)),
        (".parquet", 2000, lambda rng: mutate_parquet(rng.choice((TEXTS, CHATS)), rng)),
    ],
)
def test_records(tmp_path, suffix, count, make):
    def read(path):
        assert all(isinstance(record, dict) for record in reading.read_records([path]))

    both(fuzz(f"records{suffix}", count, make, to_file(tmp_path / f"a{suffix}", read), naming(str(tmp_path))))


def test_records_become_rows():
    """Every set reads every record: a row that verl takes, or a reason."""

    def make(rng):
        record = rng.choice((RECORDS, CHATS))[rng.randrange(5)]
        for _ in range(rng.randint(1, 3)):
            changed = mutate_tree(record, rng)
            record = changed if isinstance(changed, dict) else record
        return json.loads(json.dumps(record)), rng.choice(SETS)

    def read(made):
        record, name = made
        validate_row(row_of(jobs.SETS[name], record, 0, "train", "boxed"), "x", 0)

    both(fuzz("rows", 6000, make, read, lambda error: isinstance(error, RowError) and is_ours(error)), 500)


def test_benchmarks_to_compare_with(tmp_path):
    def read(path):
        filters.read_benchmarks(path.parent).matches("What is 2?")

    reader = to_file(tmp_path / "a_test.parquet", read)
    both(fuzz("benchmarks", 1500, lambda rng: mutate_parquet(CHATS, rng), reader, naming(str(tmp_path))))


def test_accounts_of_earlier_runs(tmp_path):
    """A file that is no account of ours is written over, never an error."""
    (tmp_path / "gsm8k_test.parquet").write_bytes(b"x")
    new = {
        "set": "gsm8k",
        "files": {"gsm8k_train.parquet": {}},
        "source": {"file": "a"},
        "sha256": {"gsm8k_train.parquet": "b"},
    }
    here = reading.sha256(tmp_path / "gsm8k_test.parquet")
    old = {
        "set": "gsm8k", "files": {"gsm8k_test.parquet": {"records_in": 1}},
        "source": {"gsm8k_test.parquet": {"file": "a"}},
        "flags": {"seed": 1}, "versions": {}, "decontaminate": None, "earlier": {"gsm8k_test.parquet": {"flags": {}}},
        "sha256": {"gsm8k_test.parquet": here},
    }  # fmt: skip

    def read(path):
        made = account.merged({**new, "flags": {}, "versions": {}, "decontaminate": None}, path)
        assert made["files"].keys() <= {"gsm8k_train.parquet", "gsm8k_test.parquet"}, made
        with files.Staging(tmp_path) as staging:
            staging.write_json(made, "gsm8k.json")
        if len(made["files"]) < 2:
            raise LookupError
        assert sources._is_note(path) in (True, False)

    reader = to_file(tmp_path / "gsm8k.json", read)
    make = lambda rng: mutate_json(old, rng)  # noqa: E731
    both(fuzz("accounts", 2500, make, reader, lambda error: isinstance(error, LookupError)))


def test_command_line(tmp_path):
    """As a user runs it: status 0, or 2 with one line and nothing left in the folder."""
    MARKER.unlink(missing_ok=True)
    out = tmp_path / "out"

    def read(made):
        suffix, data, name = made
        for path in tmp_path.glob("source*"):
            path.unlink()
        source = tmp_path / f"source{suffix}"
        source.write_bytes(data)
        shutil.rmtree(out, ignore_errors=True)
        arguments = [name, "--input", str(source), "--split", "train", "--output", str(out), "--quiet", "--deduplicate"]
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = cli.main(arguments)
        source.unlink()
        left = sorted(path.name for path in out.iterdir()) if out.exists() else []
        assert {path.name for path in tmp_path.iterdir()} <= {"out"}
        if status:
            assert status == 2 and said.getvalue().count("\n") == 1 and "Traceback" not in said.getvalue(), (
                said.getvalue()
            )
            assert left == []
            raise LookupError
        warnings = [line for line in said.getvalue().splitlines() if ": warning: " in line and r"\boxed{}" in line]
        assert left == [f"{name}.json", f"{name}_train.parquet"] and said.getvalue().splitlines() == warnings

    def make(rng):
        name = rng.choice(SETS)
        kind = rng.choice((".jsonl", ".json", ".parquet"))
        records = rng.choice((RECORDS, CHATS)) if kind != ".parquet" else rng.choice((TEXTS, CHATS))
        makes = {".jsonl": mutate_lines, ".json": mutate_json, ".parquet": mutate_parquet}
        return kind, makes[kind](records, rng), name

    both(fuzz("command line", 700, make, read, lambda error: isinstance(error, LookupError)), 100)
    assert not MARKER.exists()


def test_names_of_shards(tmp_path):
    """A folder of files with changed names: one source, or a sentence."""

    def make(rng):
        sound = (b"train-00000-of-00002.parquet", b"train-00001-of-00002.parquet", b"deepmath_train.jsonl")
        names = [mutate_bytes(rng.choice(sound), rng, 1).decode("utf-8", "replace") for _ in range(rng.randint(0, 3))]
        return [name.replace("/", "_").replace("\0", "_")[:80] for name in names if name.strip("./\0")]

    def read(names):
        shutil.rmtree(tmp_path / "in", ignore_errors=True)
        (tmp_path / "in").mkdir()
        for name in names:
            (tmp_path / "in" / name).write_bytes(b"{}")
        for path in sources.source_files(tmp_path / "in", jobs.SETS["deepmath"], "train"):
            assert path.parent == tmp_path / "in"

    both(fuzz("shards", 1000, make, read, naming(str(tmp_path))))

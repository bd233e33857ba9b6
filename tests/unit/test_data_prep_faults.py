"""Broken files, flags that cannot be, and runs that are cut short."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preparing import jsonl, prepare, refused

from data_prep import arithmetic, files, filters, jobs
from data_prep.files import Staging
from data_prep.hub import prompt_counter
from data_prep.reading import read_records
from repo_verl.rewards.pool import JudgeError

ROOT = Path(__file__).parents[2]
GOOD = {"prompt": "p", "ground_truth": "1"}
DEEP = "[" * 100_000 + "]" * 100_000


# files


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", f'{{"a": 1}}\n{DEEP}\n', "row 1: its lists and objects are nested too deeply (line 2, column 1)"),
        ("x.json", f'[{{"a": 1}},\n {DEEP}]', "row 1: its lists and objects are nested too deeply (line 2, column 2)"),
        ("x.jsonl", f'{{"a": {"9" * 5000}}}', "row 0: it has a number that is too long: Exceeds the limit (4300"),
        ("x.json", f'[{{"a": {"9" * 5000}}}]', "row 0: it has a number that is too long: Exceeds the limit (4300"),
        ("x.json", '[{"a": 1},\n{"b": }]', "row 1: broken JSON: Expecting value (line 2, column 7)"),
        ("x.json", '[\n{"a": 1}\n x]', "row 0: broken JSON: want ',' or ']' after it (line 3, column 2)"),
        ("x.json", '[{"a": 1}]\n\n x', "broken JSON: there is text after the list of 1 rows (line 3, column 2)"),
        ("x.jsonl", '{"a": 1}'.encode("utf-16-le"), "row 0: not UTF-8 (NUL bytes, as UTF-16 has them)"),
        ("x.json", "[]".encode("utf-16-be"), "row 0: not UTF-8 (NUL bytes, as UTF-16 has them)"),
        ("x.jsonl", "", "is empty"),
        ("x.parquet", "", "is empty"),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_broken_files_are_named_with_the_place(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as caught:
        list(read_records([path]))
    assert str(caught.value).startswith(f"{path}: {message}")


def test_the_place_is_counted_in_lines_and_characters(tmp_path):
    text = "[\n" + ",\n".join('  {"é": "𝛼"}' for _ in range(50)) + ',\n    {"a": nope}]'
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"row 50: broken JSON: Expecting value \(line 52, column 11\)"):
        list(read_records([tmp_path / "x.json"]))


def test_a_broken_page_of_a_parquet_file_names_the_file(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [os.urandom(20).hex() for _ in range(5000)]}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[2000:90_000] = bytes(88_000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="x.parquet: row 0 or after: no readable parquet: "):
        list(read_records([path]))


# flags


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sample-size", "0"], "--sample-size 0: must be 1 or more"),
        (["--max-prompt-chars", "0"], "--max-prompt-chars 0: must be 1 or more"),
        (["--max-prompt-tokens", "-3", "--tokenizer", "x"], "--max-prompt-tokens -3: must be 1 or more"),
        (["--seed", "-1"], "--seed -1: must be 0 or more"),
        (["--tokenizer", "x"], "--tokenizer x: counts nothing without --max-prompt-tokens N"),
        (["--max-prompt-tokens", "9"], "--max-prompt-tokens 9: pass --tokenizer PATH"),
    ],
)
def test_flags_are_checked_before_anything_is_read(tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.setattr(jobs, "_sources", None)
    monkeypatch.setattr(filters, "prompt_counter", None)
    assert message in refused(capsys, tmp_path / "out", "deepmath", *flags)


def test_a_tokenizer_that_cannot_be_used_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "t").mkdir()
    with pytest.raises(ValueError, match=f"--tokenizer {tmp_path / 't'}: cannot be used ") as caught:
        prompt_counter(str(tmp_path / "t"))
    assert "\n" not in str(caught.value) and "pass the folder or the hub name" in str(caught.value)


@pytest.mark.parametrize("size", ["--train-size", "--test-size", "--warmup-size"])
def test_negative_sizes_are_refused(tmp_path, capsys, size):
    assert f"{size} -5: must be 0 or more" in refused(capsys, tmp_path / "out", "arithmetic", size, "-5")


def test_operands_of_too_many_digits_are_refused():
    with pytest.raises(ValueError, match="digits=5000 must be from 1 to 1000"):
        arithmetic.problems("a*b", 5000, 1, 0)
    assert arithmetic.solve(arithmetic.problems("a*b", 1000, 1, 0)[0]) > 10**1998


def test_a_grader_that_cannot_start_is_one_line(tmp_path, capsys, monkeypatch):
    def cannot(gold):
        raise JudgeError("the judge processes cannot be started")

    monkeypatch.setattr("repo_verl.rewards.gold_is_verifiable", cannot)
    flags = ["deepmath", "--input", jsonl(tmp_path / "s.jsonl", GOOD), "--filter-unverifiable"]
    assert refused(capsys, tmp_path / "out", *flags) == "data_prep deepmath: the judge processes cannot be started\n"
    assert not list((tmp_path / "out").iterdir())


def test_versions_name_what_was_used(tmp_path, monkeypatch):
    monkeypatch.setattr(filters, "prompt_counter", lambda path: lambda row: 1)
    source = jsonl(tmp_path / "s.jsonl", GOOD)
    plain = prepare(tmp_path / "a", "deepmath", "--input", source)["versions"]
    assert list(plain) == ["repo_verl", "pyarrow", "datasets", "python"]
    flags = ["--filter-unverifiable", "--tokenizer", "x", "--max-prompt-tokens", "5"]
    assert {"math-verify", "transformers"} <= set(
        prepare(tmp_path / "b", "deepmath", "--input", source, *flags)["versions"]
    )


# writing


def test_a_folder_in_the_way_is_seen_before_anything_is_replaced(tmp_path, capsys):
    source = jsonl(tmp_path / "s.jsonl", GOOD)
    (tmp_path / "out/deepmath.json").mkdir(parents=True)
    (tmp_path / "out/deepmath_train.parquet").write_text("old")
    message = refused(capsys, tmp_path / "out", "deepmath", "--input", source)
    assert "deepmath.json: is a folder where a file is to be written; remove it" in message
    with pytest.raises(ValueError, match="deepmath.json: is a folder"), Staging(tmp_path / "out") as staging:
        staging.path("deepmath_train.parquet").write_text("new")
        staging.path("deepmath.json").write_text("new")
    assert (tmp_path / "out/deepmath_train.parquet").read_text() == "old"
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert f"--output {source}: is no folder" in refused(capsys, source, "deepmath", "--input", source)


def test_what_dead_processes_left_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kept = [f".data_prep.{os.getpid()}.tmp", f".notes.{dead.pid}.tmp", ".data_prep.x.tmp", "data_prep.1.tmp"]
    for name in (f".data_prep.{dead.pid}.tmp", *kept):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a_train.parquet").write_text("x")
    with Staging(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_files_are_on_the_disk_before_they_are_renamed(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(files.os, "fsync", lambda number: done.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(files.os, "replace", lambda *names: (done.append("replace"), replace(*names)))
    with Staging(tmp_path) as staging:
        staging.path("a").write_text("x")
        staging.path("b").write_text("x")
    assert done == ["fsync", "fsync", "replace", "replace"]


def started(tmp_path):
    """A run that takes a while."""
    source = jsonl(tmp_path / "s.jsonl", *[GOOD] * 200_000)
    command = [
        sys.executable,
        "-m",
        "data_prep",
        "deepmath",
        "--input",
        source,
        "--output",
        tmp_path / "out",
        "--quiet",
    ]
    return subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        # a shell's background jobs ignore SIGINT, and so would their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGINT, 130, "data_prep deepmath: interrupted; unfinished files were removed\n"),
        (signal.SIGTERM, 143, "data_prep deepmath: ended by SIGTERM; unfinished files were removed\n"),
    ],
)
def test_a_run_that_is_ended_says_so_and_leaves_nothing(tmp_path, number, code, message):
    process = started(tmp_path)
    end = time.monotonic() + 60
    while not list((tmp_path / "out").glob(".*.tmp/*")) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, message)
    assert not list((tmp_path / "out").iterdir())


def test_a_reader_that_has_gone_is_no_error(tmp_path):
    source = jsonl(tmp_path / "s.jsonl", GOOD)
    read, write = os.pipe()
    os.close(read)
    command = [
        sys.executable,
        "-m",
        "data_prep",
        "deepmath",
        "--input",
        source,
        "--output",
        tmp_path / "out",
        "--quiet",
        "--template",
        "boxed",
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out/deepmath_train.parquet").is_file()

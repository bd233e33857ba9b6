"""Evaluation without a model: settings, problems, the store, grading of existing text, the files that come out."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import files
from data_prep.schema import make_row
from repo_verl import cli
from repo_verl.evaluate import Protocol
from repo_verl.evaluate.benchmarks import Problem, read_benchmarks
from repo_verl.evaluate.commands import parse_samples
from repo_verl.evaluate.completions import Completion, Store
from repo_verl.evaluate.model import resolve
from repo_verl.evaluate.results import Graded, grade_all, measures, metrics

GOLDS = {"aime24": ["25", "113", "7"], "gsm8k": ["18", "3"]}


@pytest.fixture
def benchmarks(tmp_path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name, golds in GOLDS.items():
        rows = [make_row(name, f"{name} {n}?", gold, "test", n, "none") for n, gold in enumerate(golds)]
        files.write_parquet(files.tables(iter(rows)), folder / f"{name}_test.parquet")
    return folder


def problem(gold="1", name="a", number=0, tolerance=None):
    return Problem(name, str(number), [{"role": "user", "content": "?"}], gold, tolerance)


def test_the_protocol_is_the_papers():
    protocol = Protocol()
    assert (protocol.temperature, protocol.top_p, protocol.top_k, protocol.max_tokens) == (0.2, 0.95, 50, 2048)
    names = ("aime24", "aime25", "amc23", "math500", "gsm8k", "minerva", "olympiadbench")
    assert [protocol.samples_of(name) for name in names] == [32, 32, 32, 1, 1, 1, 1]


def test_every_sample_has_a_seed_of_its_own():
    protocol = Protocol()
    seeds = {protocol.seed_of(name, str(p), s) for name in ("a", "b") for p in range(100) for s in range(8)}
    assert len(seeds) == 1600 and all(0 <= seed < 2**31 for seed in seeds)
    assert protocol.seed_of("a", "1", 2) != Protocol(seed=43).seed_of("a", "1", 2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0 must be 0"),
        ({"top_p": 0.0}, "top_p=0.0 must be above 0"),
        ({"top_k": 0}, "top_k=0 must be 1 or more, or -1"),
        ({"max_tokens": 0}, "max_tokens=0 must be 1 or more"),
        ({"samples": {"a": 0}}, "samples a=0 must be 1 or more"),
        ({"max_model_len": 0}, "max_model_len=0 must be 1 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**setting)


def test_samples_on_the_command_line():
    assert parse_samples([]) == ({"aime24": 32, "aime25": 32, "amc23": 32}, 1)
    assert parse_samples(["4"]) == ({}, 4)
    assert parse_samples(["2", "aime24=8"]) == ({"aime24": 8}, 2)
    assert parse_samples(["math500=4"])[0] == {"aime24": 32, "aime25": 32, "amc23": 32, "math500": 4}
    with pytest.raises(ValueError, match="--samples many: want a number"):
        parse_samples(["many"])
    with pytest.raises(ValueError, match="--samples 88888.*: want a number of 1 or more"):
        parse_samples(["8" * 5001])


def test_problems_come_in_the_papers_order(benchmarks):
    found = read_benchmarks(benchmarks)
    assert list(found.problems) == ["aime24", "gsm8k"]
    assert [p.gold for p in found.problems["aime24"]] == GOLDS["aime24"]
    assert found.problems["gsm8k"][1].chat == [{"role": "user", "content": "gsm8k 1?"}]
    assert sorted(found.sha256) == ["aime24_test.parquet", "gsm8k_test.parquet"]
    assert list(read_benchmarks(benchmarks, ["gsm8k"]).problems) == ["gsm8k"]
    with pytest.raises(ValueError, match="has no benchmark 'math500'"):
        read_benchmarks(benchmarks, ["math500"])
    with pytest.raises(ValueError, match="data_prep benchmarks"):
        read_benchmarks(benchmarks.parent)


def test_finished_problems_are_kept_and_settings_do_not_mix(tmp_path):
    first = Store(tmp_path, {"seed": 1})
    samples = [Completion("so \\boxed{1}\n", 5, "stop"), Completion("\ud83d", 1, "length")]
    first.add("aime24", "0", samples)
    first.add("aime24", "1", samples[:1])
    again = Store(tmp_path, {"seed": 1})
    assert again.finished == {("aime24", "0"): samples, ("aime24", "1"): samples[:1]}
    with pytest.raises(ValueError, match="'1' of 'aime24' is finished already"):
        again.add("aime24", "1", samples)
    with pytest.raises(ValueError, match="made with seed=1, now it is 2: take another --output"):
        Store(tmp_path, {"seed": 2})
    with pytest.raises(ValueError, match="made with top_k=None, now it is 50"):
        Store(tmp_path, {"seed": 1, "top_k": 50})


def test_a_line_cut_short_is_generated_again(tmp_path):
    store = Store(tmp_path, {})
    store.add("a", "0", [Completion("x", 1, "stop")])
    path = tmp_path / "completions" / "a.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"problem": "1", "sam')
    again = Store(tmp_path, {})
    assert list(again.finished) == [("a", "0")] and path.read_bytes() == whole
    again.add("a", "1", [Completion("y", 1, "stop")])
    assert list(Store(tmp_path, {}).finished) == [("a", "0"), ("a", "1")]
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(ValueError, match=r"a.jsonl, line 1 is no finished problem"):
        Store(tmp_path, {})


def graded(answers, gold="1"):
    completions = [(problem(gold), n, Completion(text, 3, "stop")) for n, text in enumerate(answers)]
    return list(grade_all(completions))


def test_equal_answers_vote_together():
    found = graded(
        [
            r"\boxed{2}",
            r"\boxed{2.0}",
            r"\boxed{\frac{4}{2}}",
            r"\boxed{1}",
            r"\boxed{01}",
            "none",
            r"\boxed{x + 1}",
            r"\boxed{x+1}",
        ]
    )
    votes = [sample.vote for sample in found]
    assert votes == ["2", "2", "2", "right", "right", None, "x+1", "x+1"]
    assert [bool(sample.extracted) for sample in found] == [True] * 5 + [False] + [True] * 2


def test_measures_by_hand():
    samples = [
        *(
            Graded(problem("1", number=0), n, Completion("", 1, "stop"), n < 1, "1" if n < 1 else "2", "ok")
            for n in range(4)
        ),
        *(Graded(problem("1", number=1), n, Completion("", 1, "stop"), n < 3, "1", "ok") for n in range(4)),
    ]
    found = measures(samples)
    assert list(found) == ["avg@4", "pass@1", "pass@2", "pass@4", "maj@4"]
    assert found["avg@4"].tolist() == [0.25, 0.75]
    assert found["pass@2"].tolist() == pytest.approx([0.5, 1.0])  # 1 - C(3,2)/C(4,2), 1 - 0
    assert found["pass@4"].tolist() == [1.0, 1.0]
    assert found["maj@4"].tolist() == [0.0, 1.0]
    assert list(measures(samples[:1])) == ["avg@1"]


def test_shares_and_macro_average():
    def made(name, rights):
        return [
            Graded(
                problem("1", name, n),
                0,
                Completion("", 10, finish),
                right,
                "1" if right else "",
                "ok" if right else "no_answer",
            )
            for n, (right, finish) in enumerate(rights)
        ]

    content = metrics(
        {
            "a": made("a", [(True, "stop"), (False, "length")]),
            "b": made("b", [(True, "stop"), (True, "stop"), (True, "stop"), (False, "prompt_too_long")]),
        },
        {"seed": 1},
    )
    a, b = content["benchmarks"]["a"], content["benchmarks"]["b"]
    assert (a["problems"], a["samples"], a["avg@1"]["value"]) == (2, 1, 0.5)
    assert (a["truncated"], a["unanswered"], a["prompt_too_long"], a["mean_tokens"]) == (0.5, 0.5, 0.0, 10.0)
    assert (b["truncated"], b["prompt_too_long"], b["statuses"]) == (0.25, 0.25, {"no_answer": 1, "ok": 3})
    assert content["macro"]["avg"]["value"] == pytest.approx((0.5 + 0.75) / 2)
    assert content["macro"]["avg"]["low"] < 0.625 < content["macro"]["avg"]["high"]


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def completions(samples=2):
    return [
        {"benchmark": name, "problem": str(n), "sample": s, "completion": f"\\boxed{{{gold if s == 0 else 0}}}"}
        for name, golds in GOLDS.items()
        for n, gold in enumerate(golds)
        for s in range(samples)
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_existing_completions_are_graded(benchmarks, tmp_path, capsys, suffix):
    file, output = write(tmp_path / f"text{suffix}", completions()[::-1]), tmp_path / "out"
    command = ["evaluate", "--completions", str(file), "--benchmarks", str(benchmarks), "--output", str(output)]
    assert cli.main(command) == 0
    content = json.loads((output / "metrics.json").read_text())
    found = content["benchmarks"]["aime24"]
    assert (found["problems"], found["samples"], found["avg@2"]["value"], found["pass@2"]["value"]) == (3, 2, 0.5, 1.0)
    assert found["mean_tokens"] is None and content["settings"]["completions"] == file.name
    rows = pq.read_table(output / "completions.parquet").to_pylist()
    assert len(rows) == 10 and rows[0]["gold"] == "25" and rows[0]["correct"] and not rows[1]["correct"]
    assert capsys.readouterr().out.splitlines()[-1].split()[:3] == ["macro", "average", "50.0"]
    before = (output / "metrics.json").read_bytes(), (output / "completions.parquet").read_bytes()
    assert cli.main(command) == 0
    assert before == ((output / "metrics.json").read_bytes(), (output / "completions.parquet").read_bytes())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop(), "problem '1' of 'gsm8k' has 1 completions, others 2"),
        (lambda rows: rows.append(rows[0]), "sample 0 of problem '0' of 'aime24' occurs twice"),
        (lambda rows: rows[3].pop("completion"), "row 3: field 'completion' is missing"),
        (lambda rows: rows[1].update(problem="9"), "row 1: benchmark 'aime24' has no problem '9'"),
        (lambda rows: rows[1].update(benchmark="b"), "row 1: benchmark 'b' has no problem '0'"),
    ],
)
def test_completions_that_do_not_fit_are_refused(benchmarks, tmp_path, capsys, change, message):
    rows = completions()
    change(rows)
    command = ["--completions", str(write(tmp_path / "text.jsonl", rows)), "--benchmarks", str(benchmarks)]
    assert cli.main(["evaluate", *command, "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_only_some_benchmarks_of_a_file(benchmarks, tmp_path, capsys):
    file = write(tmp_path / "text.jsonl", completions())
    command = [
        "evaluate",
        "--completions",
        str(file),
        "--benchmarks",
        str(benchmarks),
        "--output",
        str(tmp_path / "out"),
    ]
    assert cli.main([*command, "--only", "gsm8k"]) == 0
    assert list(json.loads((tmp_path / "out" / "metrics.json").read_text())["benchmarks"]) == ["gsm8k"]


def test_models_are_found_or_refused(tmp_path):
    assert resolve("Qwen/Qwen2.5-Math-1.5B", tmp_path).path == "Qwen/Qwen2.5-Math-1.5B"
    with pytest.raises(ValueError, match="does not exist: name a folder"):
        resolve("./nowhere", tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="has neither a config.json nor FSDP shards"):
        resolve(str(empty), tmp_path)
    (empty / "config.json").write_text("{}")
    (empty / "model.safetensors").write_bytes(b"weights")
    found = resolve(str(empty), tmp_path)
    assert found.path == str(empty) and found.identity["model.safetensors"].startswith("7 bytes, sha256 ")
    (empty / "model.safetensors").write_bytes(b"others!")
    os.utime(empty / "model.safetensors", (0, 0))
    assert resolve(str(empty), tmp_path).identity != found.identity


def evaluated(benchmarks, folder, right):
    """An evaluation whose first ``right`` problems of each benchmark are right."""
    rows = [
        {"benchmark": name, "problem": str(n), "completion": f"\\boxed{{{gold if n < right else 0}}}"}
        for name, golds in GOLDS.items()
        for n, gold in enumerate(golds)
    ]
    file = write(folder.with_suffix(".jsonl"), rows)
    command = ["--completions", str(file), "--benchmarks", str(benchmarks), "--output", str(folder)]
    assert cli.main(["evaluate", *command]) == 0
    return str(folder)


def test_compare_on_the_command_line(benchmarks, tmp_path, capsys):
    grpo, repo, other = (evaluated(benchmarks, tmp_path / name, n) for name, n in (("grpo", 1), ("repo", 2), ("x", 0)))
    capsys.readouterr()
    assert cli.main(["compare", grpo, repo, "--output", str(tmp_path / "c.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["benchmark", "aime24", "gsm8k", "macro"]
    assert lines[1].split()[1:5] == ["3", "33.3", "66.7", "+33.3"] and lines[2].split()[1:5] == [
        "2",
        "50.0",
        "100.0",
        "+50.0",
    ]
    content = json.loads((tmp_path / "c.json").read_text())
    macro = content["differences"]["repo"]["macro"]
    assert content["baseline"] == "grpo" and macro["difference"]["value"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert cli.main(["compare", f"base={grpo},{other}", f"RePO={repo},{repo}", other]) == 0
    out = capsys.readouterr().out
    assert "base" in out and "RePO" in out and out.count("macro") == 2


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (["a"], "nothing to compare"),
        (["a", "b/a"], "two settings are called 'a'"),
        (["a", "b"], "has no completions.parquet"),
    ],
)
def test_compare_says_what_is_wrong(tmp_path, monkeypatch, capsys, runs, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", *runs]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1

"""Mutated logs and settings: the report reads them, refuses them in a sentence, or leaves them out."""

import itertools
import json

import pytest
import report_logs
import yaml
from fuzzing import MARKER, fuzz, is_ours, mutate_bytes, mutate_lines, mutate_tree, portion, rng_of, to_file

from repo_verl.report.charts import CHARTS
from repo_verl.report.provenance import find_settings, provenance
from repo_verl.report.runs import group_runs, read_log, read_runs
from repo_verl.report.summary import summarize, table
from repo_verl.report.write import report_page, write_report

LOG = [
    {"step": step, "data": {**dict(list(data.items())[:8]), "timing_s/step": 1.5, "val-core/a/acc/mean@1": 0.5}}
    for step, data in report_logs.steps("repo", 0, count=12)
]
CONFIG = {
    "algorithm": {"adv_estimator": "repo", "repo": {"strategy": "recency", "num_replay": 8, "max_age": None}},
    "actor_rollout_ref": {"model": {"path": "a/b"}, "rollout": {"n": 8, "temperature": 1.0}, "actor": {"lr": 1e-6}},
    "data": {"train_files": ["a.parquet"], "train_batch_size": 16},
    "trainer": {"total_epochs": 3, "logger": ["console", "file"]},
}
TAGS = (
    f'!!python/object/apply:os.system ["touch {MARKER}"]', "!!python/name:os.system", "!!python/module:os", "!!bool x",
    '!!int ""', "!!int x", "!!float x", "!!timestamp x", "!!binary é", "!!null x", "!!set {a: b}", "!!omap [a]",
    "!!pairs [a]", "!!map x", "!!seq x", "!x y", "!<tag:yaml.org,2002:value> =", "2001-99-99", "2001-01-01 99:99:99",
    "0x", "0b2", "0o9", "1:60:60:60", "1_000", "=", "<<", "*x", "&x y", "[[", "{a: {b: [", "? a", "- - - a", "|\n  x",
    ">",
        '"\\x0"', '"\\ud800"', "'", "%YAML 9.9", "---", "...", "@", "`", "\t", "{? [a, b] : c}", "{[a]: b}", "{{}: 1}",
)  # fmt: skip


def mutated_log(rng):
    return mutate_lines(LOG[: rng.choice((1, 4, 13))], rng)


def bomb(rng):
    """Aliases or merge keys that double at every line."""
    depth, merged = rng.choice((5, 12, 40)), rng.random() < 0.5
    lines = ["a0: &a0 {x: lol, y: 2}" if merged else "a0: &a0 [lol, lol]"]
    for n in range(1, depth):
        pair = f"*a{n - 1}, *a{n - 1}"
        lines.append(f"a{n}: &a{n} {{<<: [{pair}]}}" if merged else f"a{n}: &a{n} [{pair}]")
    return "\n".join(lines) + "\n"


def mutated_config(rng):
    value = CONFIG
    for _ in range(rng.randint(0, 3)):
        value = mutate_tree(value, rng)
    try:
        text = yaml.safe_dump(value, allow_unicode=rng.random() < 0.5)
    except (yaml.YAMLError, UnicodeEncodeError):
        text = yaml.safe_dump(CONFIG)
    kind = rng.random()
    if kind < 0.4:
        text = text.replace(rng.choice(("recency", "8", "16", "null", "a/b", "repo")), rng.choice(TAGS), 1)
    elif kind < 0.45:
        text = bomb(rng) + text
    elif kind < 0.5:
        text += "x: " + rng.choice(("[" * 3000, "{a: " * 2000, "a" * 300_000, "- " * 2000, "&a [*a]", "&a {b: *a}"))
    data = text.encode("utf-8", "surrogatepass")
    return mutate_bytes(data, rng) if kind > 0.7 else data


def mutated_print(rng):
    value = CONFIG
    for _ in range(rng.randint(0, 2)):
        value = mutate_tree(value, rng)
    text = repr(value).replace("}, '", "},\n '")
    kind = rng.random()
    if kind < 0.15:
        text = text.replace(
            "8", rng.choice((f"__import__('os').system('touch {MARKER}')", "9**9**9", "1e999", "{}[0]"))
        )
    elif kind < 0.3:
        text = text.replace(
            "8",
            rng.choice(
                (
                    "(" * 300,
                    "[" * 150 + "]" * 150,
                    "-" * 5000 + "1",
                    "9" * 6000,
                    "'x'*10**9",
                    "{'a':" * 190 + "1" + "}" * 190,
                )
            ),
        )
    elif kind < 0.4:
        text = "{'data': " + "{'a': 1}}\n" * 4000
    elif kind < 0.45:
        text = "{'data': {'a': '" + "x" * 2_000_000 + "'}}\n"
    lines = text.splitlines()
    prefix = rng.choice(("", "", "(TaskRunner pid=12) ", "\x1b[36m(TaskRunner pid=1, ip=1.2.3.4)\x1b[0m "))
    data = ("start\n" + "".join(f"{prefix}{line}\n" for line in lines)).encode("utf-8", "surrogatepass")
    return mutate_bytes(data, rng, 2) if rng.random() < 0.4 else data


def never(error):
    return False


def both(found):
    assert found["accepted"] > portion(50) and found["refused"] > portion(50), found


def test_logs(tmp_path):
    both(fuzz("logs", 4000, mutated_log, to_file(tmp_path / "metrics.jsonl", lambda path: read_log(path.parent))))


def test_logs_of_a_resumed_run(tmp_path):
    def read(parts):
        for name, part in zip(("metrics.1.jsonl", "metrics.2.jsonl", "metrics.jsonl"), parts, strict=True):
            (tmp_path / name).write_bytes(part)
        for (before, _), (after, _) in itertools.pairwise(read_log(tmp_path)):
            assert before < after

    both(fuzz("resumed", 1000, lambda rng: [mutated_log(rng) for _ in range(3)], read))


@pytest.mark.parametrize(
    ("name", "count", "make"), [("config.yaml", 1500, mutated_config), ("train.log", 1500, mutated_print)]
)
def test_settings(tmp_path, name, count, make):
    MARKER.unlink(missing_ok=True)

    def read(path):
        found = find_settings(path.parent)
        assert found is None or all(isinstance(part, str) for pair in found.items() for part in pair)
        if found is None:
            raise LookupError

    found = fuzz(name, count, make, to_file(tmp_path / name, read), lambda error: isinstance(error, LookupError))
    assert found["accepted"] > portion(count) / 10 and found["refused"] > portion(count) / 10, found
    assert not MARKER.exists()


def whole_page(folders):
    """All of a report but its pictures."""
    runs, waiting = read_runs(folders)
    groups, summaries = group_runs(runs), {run.name: summarize(run.log) for run in runs}
    found = provenance(0)
    page = report_page(groups, summaries, [], waiting, found)
    for chart in CHARTS:
        chart.found(groups)
    json.dumps({**summaries, **found}, allow_nan=False)
    table(summaries).encode()
    return page.encode()


def page_inputs(rng):
    return mutated_log(rng), mutated_log(rng), mutated_config(rng), mutated_print(rng)


def written(folder, made):
    """Two run folders with these files."""
    folders = [folder / "a_seed1", folder / "a_seed2"]
    for run, log in zip(folders, made[:2], strict=True):
        run.mkdir(exist_ok=True)
        (run / "metrics.jsonl").write_bytes(log)
    (folders[0] / "config.yaml").write_bytes(made[2])
    (folders[1] / "train.log").write_bytes(made[3])
    return folders


def test_pages(tmp_path):
    def read(made):
        page = whole_page(written(tmp_path, made))
        assert b"<script>alert(1)</script>" not in page

    both(fuzz("pages", 600, page_inputs, read))


def test_whole_reports(tmp_path):
    """Pictures too, which take a second each: those of logs that can be read."""
    makes = list(itertools.islice((number for number in range(400) if _readable(tmp_path, number)), 10))

    def read(made):
        write_report(written(tmp_path, made), tmp_path / "out")
        assert {path.name for path in tmp_path.iterdir()} == {"a_seed1", "a_seed2", "out"}

    numbers = iter(makes)
    fuzz("reports", len(makes), lambda rng: page_inputs(rng_of("readable", next(numbers))), read, is_ours)


def _readable(folder, number):
    try:
        read_runs(written(folder, page_inputs(rng_of("readable", number))))
    except ValueError:
        return False
    return True

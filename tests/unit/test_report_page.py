"""The page: self-contained, escaped, partial where the logs are, written whole; the watching command."""

import json
import os
import re
import time
from html.parser import HTMLParser

import pytest
from report_logs import steps, write_log, write_seeds

from repo_verl import atomic_files, cli
from repo_verl.report import draw, write, write_report
from repo_verl.report.charts import CHARTS
from repo_verl.report.draw import DARK, LIGHT
from repo_verl.report.provenance import compare_settings, find_settings
from repo_verl.report.runs import Group, group_runs, read_runs, with_short_names

VOID = {"meta", "link", "br"}


class Elements(HTMLParser):
    """Attributes of all elements, and whether all are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.tags = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append(dict(attributes))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The text of a page of three seeds, and its folder."""
    root = tmp_path_factory.mktemp("runs")
    write_report(write_seeds(root), root / "out", seed=3)
    return (root / "out" / "report.html").read_text(), root / "out"


@pytest.fixture
def few(monkeypatch):
    """Two charts alone, for tests of other things."""
    monkeypatch.setattr(write, "CHARTS", [chart for chart in CHARTS if chart.name in ("buffer", "time_steps")])


def test_the_page_loads_nothing_and_has_each_chart_in_light_and_dark(page):
    text, _ = page
    elements = Elements(text)
    assert elements.tags.count("svg") == 2 * len(CHARTS) and elements.tags.count("figure") == len(CHARTS) == 12
    assert not {"script", "img", "iframe", "object", "embed", "base"} & set(elements.tags)
    links = [
        value for found in elements.attributes for key, value in found.items() if key in ("src", "href", "xlink:href")
    ]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "@import" not in text and re.findall(r"url\((?!#)", text) == []
    assert set(re.findall(r"https?://[\w./]+", text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_ids_are_unique_and_references_have_one(page):
    found = [element["id"] for element in Elements(page[0]).attributes if "id" in element]
    assert len(found) == len(set(found)) > 24
    assert set(re.findall(r"url\(#([\w-]+)\)", page[0])) <= set(found)
    assert set(re.findall(r'xlink:href="#([\w-]+)"', page[0])) <= set(found)


def test_titles_captions_findings_settings_and_versions_are_there(page):
    text, folder = page
    for chart in CHARTS:
        assert f"<h3>{chart.title}</h3>" in text and (folder / "charts" / f"{chart.name}.png").stat().st_size > 10_000
    assert text.count("Band: smallest to largest run.") == 8, "charts over steps"
    gain = re.search(r"repo: ([\d.]+).% from fresh rows, ([\d.]+).% with replay: \+([\d.]+) points", text)
    assert float(gain[2]) - float(gain[1]) == pytest.approx(float(gain[3]), abs=0.11)
    ratio = re.search(r"grpo: ([\d.]+) s per step</li><li>repo: ([\d.]+) s per step, ([\d.]+) times grpo&#39;s", text)
    assert float(ratio[2]) / float(ratio[1]) == pytest.approx(float(ratio[3]), abs=0.01)
    assert "Settings not found beside the log: seed0/grpo, seed1/grpo, seed2/grpo, seed0/repo," in text
    assert "<td>torch" not in text and '<th scope="row">torch</th>' in text


def test_the_same_logs_make_the_same_pictures(tmp_path):
    groups = group_runs(read_runs(write_seeds(tmp_path, seeds=1))[0])
    for palette in (LIGHT, DARK):
        first, second = (draw.svg(CHARTS[0], groups, palette) for _ in range(2))
        assert first == second and first.startswith('<svg viewBox="') and "<!--" not in first
    assert draw.svg(CHARTS[0], groups, LIGHT) != draw.svg(CHARTS[0], groups, DARK)


def test_names_and_settings_are_escaped(tmp_path):
    evil = '<img src=x onerror=alert(1)>&"$x^$'
    run = write_log(tmp_path / evil, [*steps("repo", 0, 12), (13, {"<script>": None})])
    (run / "config.yaml").write_text(f"algorithm:\n  repo:\n    strategy: '{evil}'\n")
    write_report([run, write_log(tmp_path / "日本_語", steps("grpo", 0, 3))], tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "<img" not in text and "<script" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;&#34;$x^$" in text and "&lt;script&gt;" in text
    Elements(text)


def test_settings_come_from_what_lies_beside_the_log(tmp_path, few):
    runs = write_seeds(tmp_path, seeds=2, count=2)
    for run in runs:
        arm, seed = run.name, run.parent.name[-1]
        config = {"algorithm": {"repo": {"seed": int(seed), "strategy": "none" if arm == "grpo" else "recency"}},
                  "trainer": {"total_epochs": 3, "default_local_dir": f"/x/{seed}"}, "other": {"odd": arm}}  # fmt: skip
        if arm == "grpo":
            (run / ".hydra").mkdir()
            (run / ".hydra" / "config.yaml").write_text(json.dumps(config))
        else:
            prefix = "\x1b[36m(TaskRunnerV1 pid=12)\x1b[0m "
            first, rest = str(config).split(", 'trainer'")
            (run / "train.log").write_text(f"start\n{prefix}{first},\n{prefix} 'trainer'{rest}\n{prefix}more\n")
    write_report(runs, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()

    def row(key, *values):
        return f'<tr><th scope="row">{key}</th>{"".join(f"<td>{value}</td>" for value in values)}</tr>'

    assert (
        row("algorithm.repo.strategy", "none", "recency") in text and row("algorithm.repo.seed", "0, 1", "0, 1") in text
    )
    assert row("trainer.total_epochs", "3", "3") in text and row("other.odd", "grpo", "repo") in text
    assert "default_local_dir" not in text and "not found beside" not in text and "more than the seed" not in text
    (runs[0] / ".hydra" / "config.yaml").write_text("algorithm: {repo: {strategy: full}}")
    (runs[1] / "train.log").unlink()
    _, missing, mixed = compare_settings(group_runs(read_runs(runs)[0]))
    keys = "algorithm.repo.strategy, trainer.total_epochs, other.odd"
    assert mixed == [f"grpo: its runs differ in more than the seed, in {keys}"] and missing == ["seed0/repo"]


@pytest.mark.parametrize("name", ["config.yaml", "train.log"])
@pytest.mark.parametrize("content", [b"", b"{'data': {'x': 1}\xff\x00", b"{'data': f()", b"a: [", b"{'data': " * 9999])
def test_settings_that_cannot_be_read_are_not_found(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert find_settings(tmp_path) is None


def test_what_the_logs_lack_is_a_sentence_and_its_old_picture_goes(tmp_path):
    run = write_log(tmp_path / "run", steps("repo", 0, 12))
    write_report([run], tmp_path)
    assert (tmp_path / "charts" / "ess.png").exists()
    write_log(run, [(1, {"timing_s/step": 2.0})])
    write_report([run], tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert text.count('<p class="missing">') == 10 and Elements(text).tags.count("svg") == 4
    assert "set trainer.test_freq above 0" in text and "no run has replayed a row" in text
    assert sorted(path.name for path in (tmp_path / "charts").iterdir()) == ["time_parts.png", "time_steps.png"]
    write_log(run, [(1, {})])
    write_report([run], tmp_path)
    assert Elements((tmp_path / "report.html").read_text()).tags.count("svg") == 0


@pytest.mark.parametrize("values", [(0.0,), (1e29, None, "x"), (-1e29, True), (1e-300, float("nan"))])
def test_any_value_of_a_metric_makes_charts(tmp_path, values):
    entries = steps("repo", 0, 12)
    keys = sorted({key for _, data in entries for key in data})
    odd = [(step, dict.fromkeys(keys, value)) for step, value in enumerate(values, start=13)]
    groups = group_runs(read_runs([write_log(tmp_path / "run", [*entries, *odd])])[0])
    for chart in CHARTS:
        Elements(draw.svg(chart, groups, LIGHT))


def test_many_settings_and_five_seeds(tmp_path):
    many = [write_log(tmp_path / f"{'long_' * 9}name{i}", steps("repo", i, 10)) for i in range(7)]
    seeds = [write_log(tmp_path / f"five_seed{i}", steps("repo", i, 10 + i)) for i in range(5)]
    write_report([*many, *seeds], tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "Band: 95 % t-interval of the mean (5 runs or more)." in text
    assert len(set(re.findall(r"long_long_lo[^,:<]*…[^,:<]*name\d", text))) == 7, "names in charts differ"
    assert "five: its runs are at steps 10, 11, 12, 13, 14; beyond 10 a mean is over fewer runs" in text


def test_short_names_differ():
    names = ["a" * 30, "a" * 30 + "b" * 20, "aaaac" + "b" * 19, "__x", "_"]
    short = with_short_names([Group(name, []) for name in names], 9)
    assert [group.name for group in short] == ["aaaa…aaaa", "aaaa…bbbb", "aaaa…bbbb (2)", "x", "run"]


def test_a_waiting_log_is_a_page_that_reads_itself_again(tmp_path, few):
    sentence = write_report([tmp_path / "<run>"], tmp_path, refresh=7)
    text = (tmp_path / "report.html").read_text()
    assert "does not exist" in sentence and "&lt;run&gt;/metrics.jsonl does not exist" in text
    assert '<meta http-equiv="refresh" content="7">' in text
    run = write_log(tmp_path / "<run>", steps("repo", 0, 2))
    write_report([run, tmp_path / "next"], tmp_path, refresh=7)
    text = (tmp_path / "report.html").read_text()
    assert 'content="7"' in text and "next/metrics.jsonl does not exist" in text and "<svg" in text
    write_report([run], tmp_path)
    assert "refresh" not in (tmp_path / "report.html").read_text()


def test_watching_writes_until_it_is_interrupted(tmp_path, few, monkeypatch, capsys):
    run, waits = tmp_path / "run", []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            write_log(run, steps("repo", 0, 3))
        if len(waits) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert cli.main(["report", str(run), "--output", str(tmp_path), "--watch", "5"]) == 0
    assert waits == [5, 5, 5, 5]
    out = capsys.readouterr().out
    assert out.count("does not exist") == 1 and out.count("tokens trained") == 1, "told once each"
    assert "<svg" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("seconds", ["0", "nan", "inf", "1e9", "runs/a"])
def test_watching_every_so_often_has_limits(tmp_path, seconds, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(tmp_path), "--watch", seconds])
    assert stop.value.code == 2 and f"{seconds} is no number of seconds from 1 to 86400" in capsys.readouterr().err


def test_a_reader_never_sees_half_a_page(tmp_path, few, monkeypatch):
    run = write_log(tmp_path / "run", steps("repo", 0, 2))
    write_report([run], tmp_path)
    before = (tmp_path / "report.html").read_bytes()

    def full(file):
        os.truncate(file, os.stat(file).st_size // 2)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files.os, "fsync", full)
    with pytest.raises(ValueError, match=r"can't be written \(No space left on device\): give another folder"):
        write_report([run], tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert [path for path in tmp_path.rglob(".*")] == []


def test_an_output_that_is_a_file_is_one_sentence(tmp_path, few, capsys):
    run = write_log(tmp_path / "run", steps("repo", 0, 2))
    (tmp_path / "file").write_text("")
    assert cli.main(["report", str(run), "--output", str(tmp_path / "file")]) == 1
    assert re.fullmatch(
        r"error: .*can't be written \(.*\): give another folder as --output\.\n", capsys.readouterr().err
    )

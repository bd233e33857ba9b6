"""The report of runs as the command makes it, from logs written by hand."""

import json

import pytest

from repo_verl.cli import main
from repo_verl.report import read_log, summarize, write_report
from repo_verl.report.summary import table


def write_log(folder, entries, tail=""):
    folder.mkdir(parents=True)
    lines = [json.dumps({"step": step, "data": data}) for step, data in entries]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n" + tail)
    return folder


def entries():
    step = {"timing_s/step": 2.0, "repo/update_tokens": 100}
    return [
        (0, {"val-core/arithmetic/acc/mean@1": 0.25}),
        (1, {**step, "repo/effective_prompts_fresh": 0.5, "repo/effective_prompts_all": 0.5, "repo/effective_steps": 1,
             "repo/replayed_rows": 0, "repo/score_fresh_mean": 0.2, "repo/score_replayed_mean": 0.0}),
        (2, {**step, "timing_s/step": 3.0, "repo/effective_prompts_fresh": 0.25, "repo/effective_prompts_all": 1.0,
             "repo/effective_steps": 2, "repo/replayed_rows": 8, "repo/score_fresh_mean": 0.4,
             "repo/score_replayed_mean": 0.5, "val-core/arithmetic/acc/mean@1": 0.5}),
    ]  # fmt: skip


def test_summary_by_hand(tmp_path):
    assert summarize(read_log(write_log(tmp_path / "repo", entries()))) == {
        "steps": 2,
        "val_accuracy_first": 0.25,
        "val_accuracy_last": 0.5,
        "effective_prompts_fresh": 0.375,
        "effective_prompts_all": 0.75,
        "effective_steps": 2,
        "replayed_rows": 8,
        "seconds_per_step": 2.5,
        "tokens_trained": 200,
    }


def test_what_a_log_does_not_have_is_not_0(tmp_path):
    log = read_log(write_log(tmp_path / "grpo", [(1, {"timing_s/step": 2.0}), (2, {"timing_s/step": 3.0})]))
    found = summarize(log)
    assert found["tokens_trained"] is None and found["replayed_rows"] is None and found["steps"] == 2
    assert table({"grpo": found}).count(" -") >= 2


def test_report_writes_page_pictures_summary_and_table(tmp_path, capsys):
    runs = [write_log(tmp_path / name, entries()) for name in ("grpo", "repo")]
    assert main(["report", *map(str, runs), "--output", str(tmp_path / "out"), "--seed", "3"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["grpo"]["val_accuracy_last"] == 0.5 and summary["seed"] == 3
    assert {"commit", "versions", "machine"} <= summary.keys()
    for picture in ("report.png", "charts/accuracy.png"):
        assert (tmp_path / "out" / picture).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert "50.0%" in capsys.readouterr().out


def test_a_last_line_cut_short_is_left_out_and_a_broken_one_is_named(tmp_path):
    assert len(read_log(write_log(tmp_path / "a", entries(), tail='{"step": 3, "da'))) == 3
    broken = write_log(tmp_path / "b", entries())
    text = (broken / "metrics.jsonl").read_text()
    (broken / "metrics.jsonl").write_text("{}\n" + text)
    with pytest.raises(ValueError, match="metrics.jsonl, line 1 is no log entry"):
        read_log(broken)


def test_parts_of_a_resumed_run_are_read_together(tmp_path):
    run = write_log(tmp_path / "r", entries()[2:])
    (run / "metrics.100.jsonl").write_text("".join(json.dumps({"step": s, "data": d}) + "\n" for s, d in entries()[:2]))
    assert [step for step, _ in read_log(run)] == [0, 1, 2]
    later = {"step": 1, "data": {"timing_s/step": 9.0}}
    (run / "metrics.200.jsonl").write_text(json.dumps(later) + "\n")
    assert dict(read_log(run))[1] == {"timing_s/step": 9.0}, "the later part wins"


def test_runs_of_one_name_are_kept_apart_in_the_summary_and_one_folder_twice_is_refused(tmp_path, capsys):
    runs = [str(write_log(tmp_path / f"seed{seed}" / "repo", entries())) for seed in (0, 1)]
    assert main(["report", *runs, "--output", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["seed0/repo"] == summary["seed1/repo"] and summary["seed0/repo"]["steps"] == 2
    assert "seed1/repo" in capsys.readouterr().out
    assert main(["report", runs[0], runs[0] + "/../repo"]) == 1
    assert "is given twice" in capsys.readouterr().err


def test_missing_and_empty_logs_are_one_sentence(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "does not exist" in error and error.count("\n") == 1
    with pytest.raises(ValueError, match="has no entry yet"):
        write_report([write_log(tmp_path / "c", [])], tmp_path)


def test_a_log_without_repos_metrics_gives_none(tmp_path):
    summary = summarize(read_log(write_log(tmp_path / "d", [(1, {"timing_s/step": 1.0})])))
    assert summary["effective_prompts_all"] is None and summary["val_accuracy_last"] is None

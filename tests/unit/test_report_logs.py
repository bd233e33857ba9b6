"""Logs as they are found: cut short, resumed, with values that are no numbers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_logs import write_log

from repo_verl.report import accuracies, read_log
from repo_verl.report.runs import read_with_notes


def part(folder, name, entries):
    lines = [json.dumps({"step": step, "data": data}) + "\n" for step, data in entries]
    (folder / name).write_text("".join(lines))


def test_values_that_are_no_finite_numbers_are_left_out_and_named(tmp_path):
    data = '{"a": NaN, "b": Infinity, "c": "0.5", "d": null, "e": [1], "f": 1e31, "g": 2, "h": -0.5}'
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "data": {data}}}\n{{"step": 2, "data": {{"a": NaN}}}}\n')
    log, notes = read_with_notes(tmp_path)
    assert log == [(1, {"g": 2, "h": -0.5}), (2, {})]
    assert notes == ["no finite number, left out: a in 2 steps, b in 1 step, c in 1 step and 3 more"]


def test_the_last_entry_of_a_step_counts_and_blank_lines_do_not(tmp_path):
    text = '{"step": 2, "data": {"a": 1}}\n\n{"step": 1, "data": {"a": 5}}\n{"step": "2", "data": {"b": 3}}\n'
    (tmp_path / "metrics.jsonl").write_text(text + "\n")
    assert read_log(tmp_path) == [(1, {"a": 5}), (2, {"a": 1, "b": 3})]


def test_a_training_step_logged_again_replaces_the_first(tmp_path):
    write_log(tmp_path, [(1, {"timing_s/step": 1, "a": 1}), (1, {"timing_s/step": 2})])
    assert read_log(tmp_path) == [(1, {"timing_s/step": 2})]


def test_a_resume_undoes_the_steps_after_its_checkpoint_and_keeps_the_step_it_validates(tmp_path):
    done = [(step, {"timing_s/step": 1.0, "repo/update_tokens": step}) for step in range(1, 6)]
    part(tmp_path, "metrics.100.jsonl", done)
    part(tmp_path, "metrics.jsonl", [(3, {"val-core/x/acc/mean@1": 0.5}), (4, {"timing_s/step": 2.0})])
    assert read_log(tmp_path) == [
        *done[:2],
        (3, {"timing_s/step": 1.0, "repo/update_tokens": 3, "val-core/x/acc/mean@1": 0.5}),
        (4, {"timing_s/step": 2.0}),
    ]


def test_parts_are_joined_by_their_number(tmp_path):
    """As text 10 comes before 2, and its first step would undo what came after."""
    for number in (1, 2, 10):
        part(tmp_path, f"metrics.{number}.jsonl", [(number, {"a": number}), (number + 1, {"a": number})])
    part(tmp_path, "metrics.later.jsonl", [(20, {"a": 0})])
    assert read_log(tmp_path) == [
        (1, {"a": 1}),
        (2, {"a": 2}),
        (3, {"a": 2}),
        (10, {"a": 10}),
        (11, {"a": 10}),
        (20, {"a": 0}),
    ]


def test_a_run_between_two_parts_is_read_from_the_first(tmp_path):
    part(tmp_path, "metrics.100.jsonl", [(1, {"a": 1})])
    assert read_log(tmp_path) == [(1, {"a": 1})]
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    assert read_log(tmp_path) == [(1, {"a": 1})]


def test_bytes_that_are_no_utf8_are_read_around(tmp_path):
    good = b'{"step": 1, "data": {"caf\xe9": 1, "b": 2}}\n'
    (tmp_path / "metrics.jsonl").write_bytes(good + b'{"step": 2, "data": {"b": \xff\x00')
    assert read_log(tmp_path)[0][1]["b"] == 2 and len(read_log(tmp_path)) == 1


@pytest.mark.parametrize(
    "line", ["[]", "3", '{"step": NaN, "data": {}}', '{"step": 1e999, "data": {}}', '"x"', "[" * 9999]
)
def test_a_line_of_another_kind_is_named(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(line + '\n{"step": 1, "data": {}}\n')
    with pytest.raises(ValueError, match="line 1 is no log entry"):
        read_log(tmp_path)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_log_or_one_sentence(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("log")
    (folder / "metrics.jsonl").write_bytes(content)
    try:
        assert read_log(folder)
    except ValueError as error:
        assert "metrics.jsonl" in str(error)


def test_a_folder_in_the_logs_place_is_one_sentence(tmp_path):
    (tmp_path / "metrics.1.jsonl").mkdir()
    with pytest.raises(ValueError, match="can't be read"):
        read_log(tmp_path)


def test_accuracy_is_the_mean_over_sources_of_the_mean_over_most_samples():
    data = {"val-core/a/acc/mean@1": 0.2, "val-core/b/acc/mean@4": 0.6, "val-core/b/acc/mean@16": 0.4, "x": 9.0,
            "val-core/b/acc/best@16/mean": 1.0, "val-aux/a/acc/mean@1": 1.0}  # fmt: skip
    assert accuracies([(0, data), (1, {})]) == {0: pytest.approx(0.3)}

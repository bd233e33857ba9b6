"""Prompts that occur with different gold answers."""

import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from repo_verl.trainer import ground_truth_check
from repo_verl.trainer.ground_truth_check import check_golds, find_shared_prompts


def chat(text, system=None):
    return ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": text}]


def write(path, rows, column="prompt", **options):
    values = [{column: one, "reward_model": {"style": "rule", "ground_truth": gold}} for one, gold in rows]
    pq.write_table(pa.Table.from_pylist(values), path, **options)
    return str(path)


def config(*files, estimator="repo", **repo):
    return {"algorithm": {"adv_estimator": estimator, "repo": repo}, "data": {"train_files": list(files)}}


def said(*files, **changes):
    return list(find_shared_prompts(config(*files, **changes)))


def test_prompts_with_different_golds_are_counted_and_one_is_named(tmp_path):
    rows = [
        (chat("How many?"), "1"), (chat("Sum 2 and 3."), "5"), (chat("Where?"), "x"), (chat("Sum 2 and 3."), "6"),
        (chat("Where?"), "x"), (chat("How many?"), "2"), (chat("How many?"), "3"),
        (chat("Sum 2 and 3.", "Be kind."), "7"),
    ]  # fmt: skip
    (line,) = said(write(tmp_path / "a.parquet", rows))
    assert line.startswith("prompts with different gold answers in data.train_files: 2, such as ")
    assert "such as 'How many?' with '1' and '2'; " in line and "--deduplicate" in line


def test_equal_golds_other_roles_and_other_texts_are_no_conflict(tmp_path):
    rows = [(chat("a"), "1"), (chat("a"), "1"), (chat("a", "s"), "2"), (chat("a "), "3")]
    rows.append(([{"role": "assistant", "content": "a"}], "4"))
    assert said(write(tmp_path / "a.parquet", rows)) == []


def test_several_files_are_one_set(tmp_path):
    first = write(tmp_path / "a.parquet", [(chat("a"), "1"), (chat("b"), "2")])
    second = write(tmp_path / "b.parquet", [(chat("c"), "9"), (chat("b"), "4")])
    assert said(first) == said(second) == []
    (line,) = said(first, second)
    assert "train_files: 1, such as" in line and "such as 'b' with '2' and '4'" in line


def test_null_keys_that_another_message_brings_along_are_no_difference(tmp_path):
    first = write(tmp_path / "a.parquet", [(chat("a"), "1")])
    named = [{"role": "user", "content": "x", "name": "Ann"}]
    (line,) = said(first, write(tmp_path / "b.parquet", [(named, "1"), (chat("a"), "2")]))
    assert "such as 'a' with '1' and '2'" in line


def test_a_row_is_found_again_in_batches_and_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(ground_truth_check, "BATCH", 7)
    rows = [(chat(f"q{number}"), "1") for number in range(100)]
    rows[83] = (chat("q58"), "z" * 500)
    files = [
        write(tmp_path / "a.parquet", [(chat("other"), "1")] * 3),
        write(tmp_path / "b.parquet", rows, row_group_size=10),
    ]
    (line,) = said(*files)
    assert "train_files: 1, such as" in line and "such as 'q58' with '1' and 'zzz" in line and "zzz ... zzz" in line
    assert len(line) < 600, "a long text is shortened"


def test_a_prompt_that_is_no_chat_is_named_as_it_is(tmp_path):
    (line,) = said(write(tmp_path / "a.parquet", [("What?", "1"), ("What?", "2")]))
    assert "such as 'What?' with '1' and '2'" in line


def test_golds_of_any_type_and_missing_ones(tmp_path):
    rows = [(chat("a"), ["1", "2"]), (chat("a"), ["1", "2"]), (chat("b"), ["1"]), (chat("b"), None)]
    (line,) = said(write(tmp_path / "a.parquet", rows))
    assert "train_files: 1, such as" in line and "such as 'b' with ['1'] and None" in line


@pytest.mark.parametrize("changes", [{"estimator": "grpo"}, {"strategy": "none"}, {"off_policy_coef": 0}])
def test_runs_that_replay_nothing_are_not_looked_at(changes, tmp_path):
    assert said(write(tmp_path / "a.parquet", [(chat("a"), "1"), (chat("a"), "2")]), **changes) == []


def test_what_can_not_be_compared_is_left_to_verl(tmp_path):
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 nothing")
    pq.write_table(pa.table({"prompt": ["a", "a"], "reward_model": ["1", "2"]}), tmp_path / "text.parquet")
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "alone.parquet")
    other = write(tmp_path / "c.parquet", [(chat("a"), "1"), (chat("a"), "2")], column="question")
    empty = write(tmp_path / "e.parquet", [(chat("a"), "1")])
    pq.write_table(pq.read_table(empty).slice(0, 0), empty)
    names = [
        str(tmp_path / name) for name in ("torn.parquet", "text.parquet", "alone.parquet", "gone.parquet", "x.json")
    ]
    assert said(*names, other, empty) == [] and list(find_shared_prompts({})) == []
    with_key = config(other)
    with_key["data"]["prompt_key"] = "question"
    assert len(list(find_shared_prompts(with_key))) == 1
    with_key["data"]["custom_cls"] = {"path": "mine.py"}
    assert list(find_shared_prompts(with_key)) == []


def test_the_first_conflict_in_the_files_is_named(tmp_path):
    def of(*rows):
        return said(write(tmp_path / "a.parquet", [(chat(prompt), gold) for prompt, gold in rows]))

    (line,) = of(("9", "1"), ("3", "1"), ("3", "2"), ("9", "1"), ("9", "5"), ("3", "1"))
    assert "train_files: 2, such as '9' with '1' and '5'" in line
    assert of(("9", "1"), ("3", "1"), ("9", "1")) == []


def test_one_warning_at_the_look_at_golds_whichever_the_reward(tmp_path, caplog):
    made = config(write(tmp_path / "a.parquet", [(chat("a"), "1"), (chat("a"), "2")]))
    with caplog.at_level(logging.WARNING):
        check_golds(made)
        made["reward"] = {"custom_reward_function": {"path": "pkg://repo_verl.rewards"}}
        check_golds(made)
    assert [record.getMessage()[:26] for record in caplog.records] == ["RePO: prompts with differe"] * 2

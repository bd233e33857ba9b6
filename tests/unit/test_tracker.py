"""Which checkpoints are finished, and verl's tracker file after a kill."""

import json
import os

import pytest

from repo_verl.trainer.tracker import (
    MARKER,
    TRACKER,
    CheckpointError,
    Marker,
    fault_of,
    last_finished,
    list_files,
    mend_tracker,
    read_marker,
    refuse_broken,
    steps_in,
    write_marker,
)


def checkpoint(root, step, finish=True):
    """A checkpoint folder with an actor of 5 bytes."""
    folder = root / f"global_step_{step}"
    (folder / "actor" / "huggingface").mkdir(parents=True)
    (folder / "actor" / "model.pt").write_bytes(b"12345")
    (folder / "actor" / "huggingface" / "config.json").write_text("{}")
    (folder / "data.pt").write_bytes(b"1")
    write_marker(str(folder), Marker(step * 10, list_files(str(folder)) if finish else None))
    return folder


def test_a_marker_comes_back(tmp_path):
    folder = checkpoint(tmp_path, 3)
    assert read_marker(str(folder)) == Marker(30, {"actor/model.pt": 5, "data.pt": 1})
    assert sorted(p.name for p in folder.iterdir()) == ["actor", "data.pt", MARKER]
    assert read_marker(str(tmp_path)) is None


def test_what_no_resume_reads_may_change(tmp_path):
    folder = checkpoint(tmp_path, 3)
    (folder / "actor" / "huggingface" / "config.json").write_text("{...}")
    (folder / "actor" / "more.txt").write_text("added later")
    assert fault_of(str(folder)) is None
    refuse_broken(str(folder))


def test_a_checkpoint_cut_short_is_refused_and_the_one_before_named(tmp_path):
    checkpoint(tmp_path, 1)
    before, folder = checkpoint(tmp_path, 2), checkpoint(tmp_path, 3)
    checkpoint(tmp_path, 10, finish=False)
    (folder / "actor" / "model.pt").write_bytes(b"123")
    with pytest.raises(CheckpointError, match=r"not whole \(actor/model.pt has 3 of 5 bytes\).*from_path=") as caught:
        refuse_broken(str(folder))
    assert str(before) in str(caught.value)
    os.unlink(folder / "actor" / "model.pt")
    with pytest.raises(CheckpointError, match=r"actor/model.pt is missing"):
        refuse_broken(str(folder))
    with pytest.raises(CheckpointError, match=r"does not exist"):
        refuse_broken(str(tmp_path / "global_step_77"))


def test_without_another_checkpoint_the_remedy_is_another_one(tmp_path):
    folder = checkpoint(tmp_path, 3)
    os.unlink(folder / "data.pt")
    with pytest.raises(CheckpointError, match=r"data.pt is missing\): restore it, or start anew"):
        refuse_broken(str(folder))


def test_one_that_was_not_finished_is_verls_to_judge(tmp_path):
    assert fault_of(str(checkpoint(tmp_path, 3, finish=False))) is None


def test_the_last_finished_one(tmp_path):
    assert last_finished(str(tmp_path / "none")) is None
    for step in (2, 9, 10):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 11, finish=False)
    (tmp_path / "global_step_12").mkdir()
    (tmp_path / "global_step_x").mkdir()
    assert steps_in(str(tmp_path)) == [2, 9, 10, 11, 12]
    assert last_finished(str(tmp_path)) == str(tmp_path / "global_step_10")
    assert last_finished(str(tmp_path), 10) == str(tmp_path / "global_step_9")
    (tmp_path / "global_step_10" / MARKER).write_text("{")
    assert last_finished(str(tmp_path)) == str(tmp_path / "global_step_9")


@pytest.mark.parametrize("text", ["", "  ", "abc", "7", "-1", "1" * 40])
def test_a_torn_tracker_names_the_last_finished_step(tmp_path, text, caplog):
    for step in (2, 4):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 6, finish=False)
    (tmp_path / TRACKER).write_text(text)
    mend_tracker(str(tmp_path))
    assert (tmp_path / TRACKER).read_text() == "4"
    assert "was torn" in caplog.text and "global_step_4" in caplog.text
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_a_good_tracker_is_left_alone(tmp_path, caplog):
    for step in (2, 4):
        checkpoint(tmp_path, step)
    (tmp_path / TRACKER).write_text("2")
    before = (tmp_path / TRACKER).stat()
    mend_tracker(str(tmp_path))
    assert (tmp_path / TRACKER).stat() == before and not caplog.text


def test_a_torn_tracker_without_a_finished_checkpoint_goes(tmp_path, caplog):
    checkpoint(tmp_path, 6, finish=False)
    (tmp_path / TRACKER).write_text("")
    mend_tracker(str(tmp_path))
    assert not (tmp_path / TRACKER).exists() and "begins anew" in caplog.text
    mend_tracker(str(tmp_path))  # nothing to mend


@pytest.mark.parametrize(
    "damage",
    [
        "", "{", "[]", "null", "7", '{"format": "x"}', "[" * 100_000,
        json.dumps({"format": "repo-verl checkpoint", "version": 2, "effective_steps": 1, "files": None}),
        json.dumps({"format": "repo-verl checkpoint", "version": 1, "effective_steps": -1, "files": None}),
        json.dumps({"format": "repo-verl checkpoint", "version": 1, "effective_steps": True, "files": None}),
        json.dumps({"format": "repo-verl checkpoint", "version": 1, "effective_steps": 1, "files": []}),
        json.dumps({"format": "repo-verl checkpoint", "version": 1, "effective_steps": 1, "files": {"a": "1"}}),
        json.dumps({"format": "repo-verl checkpoint", "version": 1, "effective_steps": 1, "files": {"a": 1.5}}),
    ],
)  # fmt: skip
def test_a_damaged_marker_is_refused(tmp_path, damage):
    (tmp_path / MARKER).write_text(damage)
    with pytest.raises(CheckpointError, match=r"repo_checkpoint.json is damaged \(.*: resume from another checkpoint"):
        read_marker(str(tmp_path))

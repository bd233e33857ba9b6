"""Which checkpoints are finished, and verl's tracker file after a kill."""

import json
import os

import pytest

from repo_verl.verl_workarounds import tracker
from repo_verl.verl_workarounds.tracker import (
    MARKER,
    TRACKER,
    CheckpointError,
    Marker,
    find_damage,
    finished,
    last_finished,
    list_files,
    next_number,
    point_tracker_at_parent,
    read_marker,
    refuse_broken,
    repair_latest,
    steps_in,
    write_marker,
)

GOOD = {
    "format": "repo-verl checkpoint", "version": 1, "effective_steps": 1, "files": None, "number": 3, "parent": None,
}  # fmt: skip


def checkpoint(root, step, finish=True, parent=None):
    """A checkpoint folder with an actor of 5 bytes."""
    folder = root / f"global_step_{step}"
    (folder / "actor" / "huggingface").mkdir(parents=True)
    (folder / "actor" / "model.pt").write_bytes(b"12345")
    (folder / "actor" / "huggingface" / "config.json").write_text("{}")
    (folder / "data.pt").write_bytes(b"1")
    files = list_files(str(folder)) if finish else None
    write_marker(str(folder), Marker(step * 10, files, next_number(str(root)), parent))
    return folder


def test_a_marker_comes_back(tmp_path):
    folder = checkpoint(tmp_path, 3)
    assert read_marker(str(folder)) == Marker(30, {"actor/model.pt": 5, "data.pt": 1}, 0, None)
    assert sorted(p.name for p in folder.iterdir()) == ["actor", "data.pt", MARKER]
    assert (folder / MARKER).stat().st_mode == (folder / "data.pt").stat().st_mode
    assert read_marker(str(checkpoint(tmp_path, 4, parent=3))) == Marker(40, {"actor/model.pt": 5, "data.pt": 1}, 1, 3)
    assert read_marker(str(tmp_path)) is None


def test_what_no_resume_reads_may_change(tmp_path):
    folder = checkpoint(tmp_path, 3)
    (folder / "actor" / "huggingface" / "config.json").write_text("{...}")
    (folder / "actor" / "more.txt").write_text("added later")
    assert find_damage(str(folder)) is None
    refuse_broken(str(folder))


def test_a_checkpoint_cut_short_is_refused_and_the_one_before_named(tmp_path):
    checkpoint(tmp_path, 1)
    before, folder = checkpoint(tmp_path, 2), checkpoint(tmp_path, 3)
    checkpoint(tmp_path, 10, finish=False)
    (folder / "actor" / "model.pt").write_bytes(b"123")
    with pytest.raises(CheckpointError, match=r"incomplete \(actor/model.pt has 3 of 5 bytes\).*from_path=") as caught:
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
    with pytest.raises(CheckpointError, match=r"data.pt is missing\): restore it, or start from scratch"):
        refuse_broken(str(folder))


def test_what_was_not_finished_is_whole_only_if_verls_tracker_names_it(tmp_path):
    folder = checkpoint(tmp_path, 3, finish=False)
    assert find_damage(str(folder)) == "it was never finished"
    (tmp_path / TRACKER).write_text("3")
    assert find_damage(str(folder)) is None


def test_one_without_a_marker_is_verls_to_judge(tmp_path):
    folder = checkpoint(tmp_path, 3)
    (folder / MARKER).unlink()
    assert find_damage(str(folder)) is None and not finished(str(folder))


def test_a_part_that_is_not_read_may_be_gone(tmp_path):
    folder = checkpoint(tmp_path, 3)
    os.unlink(folder / "actor" / "model.pt")
    assert find_damage(str(folder), "actor") is None and find_damage(str(folder), "act") == "actor/model.pt is missing"


def test_hidden_files_are_no_part_of_a_checkpoint(tmp_path):
    folder = checkpoint(tmp_path, 3)
    (folder / ".prompt_replay.tmp").mkdir()
    (folder / ".prompt_replay.tmp" / "x").write_text("x")
    (folder / ".y").write_text("y")
    assert list_files(str(folder)) == {"actor/model.pt": 5, "data.pt": 1}


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
    checkpoint(tmp_path, 3)  # saved after a roll-back to step 2: the newest, though not the highest
    assert last_finished(str(tmp_path)) == str(tmp_path / "global_step_3")


@pytest.mark.parametrize("text", ["", "  ", "abc", "-1", "1" * 40])
def test_a_torn_tracker_names_the_last_finished_step(tmp_path, text, caplog):
    for step in (2, 4):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 6, finish=False, parent=4)
    (tmp_path / TRACKER).write_text(text)
    repair_latest(str(tmp_path))
    assert (tmp_path / TRACKER).read_text() == "4"
    assert "was torn" in caplog.text and "step 4" in caplog.text
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_a_good_tracker_is_left_alone(tmp_path, caplog):
    for step in (2, 4):
        checkpoint(tmp_path, step)
    (tmp_path / TRACKER).write_text("2")
    before = (tmp_path / TRACKER).stat()
    repair_latest(str(tmp_path))
    assert (tmp_path / TRACKER).stat() == before and not caplog.text


def test_a_torn_tracker_follows_the_run_and_not_the_highest_step(tmp_path):
    """Steps 2 to 8 went wrong; the run was rolled back to 2 and killed as it saved step 4 again."""
    for step in (2, 6, 8):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 4, finish=False, parent=2)
    (tmp_path / TRACKER).write_text("")
    repair_latest(str(tmp_path))
    assert (tmp_path / TRACKER).read_text() == "2"
    checkpoint(tmp_path, 5, parent=2)
    (tmp_path / TRACKER).write_text("")
    repair_latest(str(tmp_path))
    assert (tmp_path / TRACKER).read_text() == "5"


def test_a_torn_tracker_beside_checkpoints_that_nobody_knows_is_refused(tmp_path):
    for step in (50, 100):
        (tmp_path / f"global_step_{step}" / "actor").mkdir(parents=True)
    for text in ("", "77"):
        (tmp_path / TRACKER).write_text(text)
        with pytest.raises(CheckpointError, match="names no existing checkpoint: write the step"):
            repair_latest(str(tmp_path))
        assert (tmp_path / TRACKER).read_text() == text
    checkpoint(tmp_path, 101, finish=False)
    (tmp_path / TRACKER).write_text("")
    with pytest.raises(CheckpointError, match="names no existing checkpoint"):
        repair_latest(str(tmp_path))


def test_a_tracker_that_names_a_folder_that_is_gone_is_refused(tmp_path):
    checkpoint(tmp_path, 3, finish=False)
    (tmp_path / TRACKER).write_text("77")
    with pytest.raises(CheckpointError, match="is b'77', which names no existing checkpoint"):
        repair_latest(str(tmp_path))
    checkpoint(tmp_path, 4)
    with pytest.raises(CheckpointError, match="is b'77', which names no existing checkpoint"):
        repair_latest(str(tmp_path))


def test_a_marker_that_may_not_be_read_says_nothing(tmp_path, monkeypatch):
    folder = checkpoint(tmp_path, 3)

    def refuse(folder):
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(tracker, "read_marker", refuse)
    assert not finished(str(folder)) and last_finished(str(tmp_path)) is None


def test_a_marker_is_synced_before_it_is_named(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        stock = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, stock=stock: (done.append(name), stock(*args)))
    write_marker(str(tmp_path), Marker(1))
    assert done[:2] == ["fsync", "replace"]


def test_a_step_that_is_written_again_is_not_named(tmp_path, caplog):
    root = str(tmp_path)
    for step in (2, 4):
        checkpoint(tmp_path, step)
    point_tracker_at_parent(root, 4, 2)  # no tracker
    (tmp_path / TRACKER).write_text("2")
    point_tracker_at_parent(root, 4, 2)
    assert (tmp_path / TRACKER).read_text() == "2" and not caplog.text
    (tmp_path / TRACKER).write_text("4")
    point_tracker_at_parent(root, 4, 2)
    assert (tmp_path / TRACKER).read_text() == "2" and "global_step_4 is being overwritten" in caplog.text
    point_tracker_at_parent(root, 2, None)
    assert not (tmp_path / TRACKER).exists()


def test_a_torn_tracker_without_a_finished_checkpoint_goes(tmp_path, caplog):
    checkpoint(tmp_path, 6, finish=False)
    (tmp_path / TRACKER).write_text("")
    repair_latest(str(tmp_path))
    assert not (tmp_path / TRACKER).exists() and "begins from scratch" in caplog.text
    repair_latest(str(tmp_path))  # nothing to repair


@pytest.mark.parametrize(
    "damage",
    [
        "", "{", "[]", "null", "7", '{"format": "x"}', "[" * 100_000,
        json.dumps({**GOOD, "version": 2}),
        json.dumps({**GOOD, "effective_steps": -1}), json.dumps({**GOOD, "number": -1}),
        json.dumps({**GOOD, "parent": "1"}), json.dumps({**GOOD, "sampling": "hot"}),
        json.dumps({key: value for key, value in GOOD.items() if key != "number"}),
        json.dumps({**GOOD, "effective_steps": True}), json.dumps({**GOOD, "files": []}),
        json.dumps({**GOOD, "files": {"a": "1"}}), json.dumps({**GOOD, "files": {"a": 1.5}}),
    ],
)  # fmt: skip
def test_a_damaged_marker_is_refused(tmp_path, damage):
    (tmp_path / MARKER).write_text(damage)
    with pytest.raises(CheckpointError, match=r"repo_checkpoint.json is damaged \(.*: resume from another checkpoint"):
        read_marker(str(tmp_path))


def test_the_good_one_is_read(tmp_path):
    (tmp_path / MARKER).write_text(json.dumps(GOOD))
    assert read_marker(str(tmp_path)) == Marker(1, None, 3, None)

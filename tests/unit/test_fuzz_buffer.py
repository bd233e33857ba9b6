"""Mutated buffer files: a buffer that works, or BufferFilesError and the buffer of before.

Also files of a hostile writer, whose checksums are right: those check what lies behind the checksums.
"""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from fuzzing import SHARE, fuzz, hostile_value, is_ours, json_text, mutate_bytes, mutate_json, mutate_tree, portion
from safetensors.numpy import load_file, save

from repo_verl.replay import PromptReplayBuffer, Record, prompt_key
from repo_verl.replay.checkpoint import BufferFilesError, load_buffer, read_meta, save_buffer
from repo_verl.replay.inspect import inspect

SETTINGS = {"capacity": 4, "min_size": 1, "num_replay": 2, "strategy": "random"}
SHARDS = ("rows-00000.safetensors", "rows-00001.safetensors")


def filled(narrow=False):
    buffer = PromptReplayBuffer(**SETTINGS, log_prob_dtype="bfloat16" if narrow else "float32")
    for number in range(4):
        rows = [
            Record.create([5, 6, 7], [-0.5, float("-inf"), -0.25], 1.0, 1, mask=[1, 0, 1], parts={"acc": 1.0}),
            Record.create([], [], 2.0, 2),
            Record.create(range(9), [-0.125] * 9, number, 3, parts={"format": 0.5}),
        ]
        buffer.add(prompt_key([number, 99]), [number, 99], rows)
    return buffer


@pytest.fixture(params=[False, True], ids=["float32", "bfloat16"])
def sound(request, tmp_path):
    """A folder of two shards, and its files."""
    folder = tmp_path / "sound"
    save_buffer(folder, filled(request.param), {"effective_steps": 7, "fixed": {"a": [1, None]}}, shard_bytes=200)
    for extra in sorted(folder.iterdir())[3:]:
        assert extra.name.startswith("rows-")
    return folder


def signed(fields):
    """``meta.json`` with the checksum of what it says; as it is where JSON can't say it."""
    fields = {name: value for name, value in fields.items() if name != "sha256"}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return json.dumps({**fields, "sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()


def reader(folder):
    """Loads a folder of these files into a buffer that holds rows, and uses it."""
    target = folder.parent / "mutated"

    def read(files):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for name, content in files.items():
            (target / name).write_bytes(content)
        look(target)
        buffer = filled()
        before = buffer.state_dict()
        try:
            loaded = load_buffer(target, buffer)
        except BufferFilesError:
            after = buffer.state_dict()
            assert after["meta"] == before["meta"]
            assert all(
                np.array_equal(before["arrays"][name], after["arrays"][name], equal_nan=True)
                for name in after["arrays"]
            )
            raise
        assert loaded.rows == len(buffer) and loaded.meta == read_meta(target)
        usable(buffer, target.parent / "again")

    return read


def look(folder):
    """``repo-verl buffer inspect`` says something that a terminal can show, or why not."""
    try:
        lines = inspect(folder, 2, None, False)
    except BufferFilesError as error:
        assert refused(error), error
    else:
        assert all(line.isprintable() for text in lines for line in text.split("\n")), lines


def usable(buffer, folder):
    """The buffer samples, takes rows, and is saved and loaded to the same rows."""
    keys = [bytes(row).hex() for row in buffer.state_dict()["arrays"]["prompt_key"]]
    for key in keys[:5]:
        for row in buffer.sample(key, step=2**30):
            assert np.isfinite(row.score) and len(row.response_ids) == len(row.log_probs)
    buffer.add(prompt_key([7, 7]), [7, 7], [Record.create([1, 2], [-0.5, -0.5], 1.0, 9)])
    save_buffer(folder, buffer, {})
    again = PromptReplayBuffer(**SETTINGS)
    load_buffer(folder, again)
    assert len(again) == len(buffer)


def refused(error):
    return is_ours(error, BufferFilesError) and "mutated" in str(error)


def run(label, count, folder, change, accepted=0):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = fuzz(f"{label} {folder.parent.name}", count, lambda rng: change(dict(files), rng), reader(folder), refused)
    assert found["refused"] > portion(count) / 10 and found["accepted"] >= accepted * SHARE, found


def test_changed_bytes(sound):
    """Checksums find them, wherever they are."""

    def change(files, rng):
        name = rng.choice(sorted(files))
        files[name] = mutate_bytes(files[name], rng)
        return files

    run("bytes", 1200, sound, change)


def test_signed_metadata(sound):
    def change(files, rng):
        fields = json.loads(files["meta.json"])
        for _ in range(rng.randint(1, 2)):
            changed = mutate_tree(fields, rng)
            fields = changed if isinstance(changed, dict) else fields
        if rng.random() < 0.3:
            part = rng.choice(("extra", "settings", "rng", "part_names", "shards", "version", "format", "max_token_id"))
            fields[part] = mutate_tree(fields.get(part), rng)
        files["meta.json"] = signed(fields) if rng.random() < 0.85 else mutate_json(fields, rng, 0.9)
        if rng.random() < 0.1:
            files["meta.json"] = json_text(fields, rng).encode("utf-8", "surrogatepass")
        return files

    run("meta", 1800, sound, change, accepted=20)


def resigned(files, rng, contents):
    """The files with these shards, sizes and checksums made right."""
    fields = json.loads(files["meta.json"])
    for number, content in contents.items():
        files[SHARDS[number]] = content
        fields["shards"][number].update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    files["meta.json"] = signed(fields)
    return files


def test_signed_shards_with_changed_bytes(sound):
    """The header of a shard, its offsets and its values."""

    def change(files, rng):
        number = rng.randrange(2)
        content = files[SHARDS[number]]
        size = 8 + int.from_bytes(content[:8], "little")
        kind = rng.random()
        if kind < 0.4:  # the header as JSON
            header = mutate_json(json.loads(content[8:size]), rng, 0.8)
            content = len(header).to_bytes(8, "little") + header + content[size:]
        elif kind < 0.5:
            content = rng.choice((0, 2**63, 2**40, len(content), 10**8)).to_bytes(8, "little") + content[8:]
        else:
            content = mutate_bytes(content, rng)
        return resigned(files, rng, {number: content})

    run("signed bytes", 1200, sound, change)


EDGES = (0, 1, -1, 2, 3, 255, 2**31 - 1, -(2**31), 2**31, 2**32, 2**62, 2**63 - 1, -(2**63))
DTYPES = ("u1", "i1", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "?")


def changed_column(arrays, rng):
    """One column with other values, another type, another shape; or a column more or less."""
    name = rng.choice(sorted(arrays))
    array, kind = arrays[name].copy(), rng.random()
    if kind < 0.55 and array.size:
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(array.size)
            if array.dtype.kind == "f":
                array.flat[place] = rng.choice((float("nan"), float("inf"), -float("inf"), 1e308, -0.0, 5.0, -3.0))
            else:
                array.flat[place : place + 1] = np.array([rng.choice(EDGES)]).astype(array.dtype)
    elif kind < 0.65:
        array = array.astype(rng.choice(DTYPES))
    elif kind < 0.75:
        array = array[: rng.randrange(len(array) + 1)]
    elif kind < 0.82:
        array = np.concatenate([array, array[:1]])
    elif kind < 0.86:
        array = array.reshape(rng.choice(((-1, 1), (1, -1), (-1,))))
    elif kind < 0.9:
        array = np.ascontiguousarray(array[::-1])
    elif kind < 0.95:
        arrays[rng.choice(("x", "", "../x", "__metadata", name + " "))] = array
        return
    else:
        del arrays[name]
        return
    arrays[name] = array


def test_signed_shards_with_other_columns(sound):
    """Sizes, counts, the largest id and checksums right: only the values are wrong."""
    columns = [load_file(sound / name) for name in SHARDS]

    def change(files, rng):
        number = rng.randrange(2)
        arrays = [dict(column) for column in columns]
        for _ in range(rng.randint(1, 2)):
            if arrays[number]:
                changed_column(arrays[number], rng)
        content = save(arrays[number])
        files = resigned(files, rng, {number: content})
        fields = json.loads(files["meta.json"])
        sizes = {"prompts": "prompt_rows", "rows": "score", "tokens": "response_ids"}
        if rng.random() < 0.9:
            fields["shards"][number].update(
                {field: int(arrays[number].get(name, np.empty(0)).size) for field, name in sizes.items()}
            )
            ids = [a[name] for a in arrays for name in ("prompt_ids", "response_ids") if name in a]
            fields["max_token_id"] = max(
                [int(part.max()) for part in ids if part.size and part.dtype.kind in "iu"] + [-1]
            )
        files["meta.json"] = signed(fields)
        return files

    run("columns", 2200, sound, change, accepted=50)


def test_files_that_are_missing_swapped_or_no_files(sound):
    files = {path.name: path.read_bytes() for path in sound.iterdir()}
    target = sound.parent / "mutated"

    def make(rng):
        return rng.choice(sorted(files)), rng.choice(("missing", "empty", "swapped", "link", "folder", "pipe", "huge"))

    def read(made):
        name, kind = made
        reader(sound)(files)
        path = target / name
        path.unlink()
        if kind == "empty":
            path.touch()
        elif kind == "swapped":
            path.write_bytes(files[SHARDS[name == SHARDS[0]]])
        elif kind == "link":
            path.symlink_to(sound / name)
        elif kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "huge":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        load_buffer(target, filled())

    found = fuzz("files", 200, make, read, refused)
    assert found["accepted"] == 0, found


def test_old_formats(tmp_path):
    """A folder of another version or layout is refused with its version."""

    def make(rng):
        return (
            {"state": {"version": hostile_value(rng)}, "extra": {}}
            if rng.random() < 0.5
            else {"format": hostile_value(rng)}
        )

    def read(fields):
        (tmp_path / "mutated").mkdir(exist_ok=True)
        (tmp_path / "mutated" / "meta.json").write_bytes(json.dumps(fields).encode())
        read_meta(tmp_path / "mutated")

    found = fuzz("old", 400, make, read, refused)
    assert found["accepted"] == 0, found

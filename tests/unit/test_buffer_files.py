"""The buffer on disk: whole or not there, and refused with one sentence where it is damaged."""

import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import tracemalloc
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from buffer_game import Game, sign
from forking import fork
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_buffer import FakeStore
from safetensors.numpy import load_file, save_file

from repo_verl import atomic_files
from repo_verl.replay import HostStore, PromptReplayBuffer, Record, prompt_key
from repo_verl.replay.checkpoint import BufferFilesError, has_buffer, load_buffer, read_meta, save_buffer

TINY = {"capacity": 4, "min_size": 1, "num_replay": 2}


def make(**changed):
    return PromptReplayBuffer(**{**TINY, **changed})


def filled(score=0.0, prompts=3, **changed):
    """A buffer with a masked row, parts, an empty row and several prompts."""
    buffer = make(**changed)
    for number in range(prompts):
        rows = [
            Record.create([5, 6, 7], [-0.5, float("-inf"), -0.25], score, 1, mask=[1, 0, 1], parts={"acc": 1.0}),
            Record.create([], [], score + 1, 2),
            Record.create(range(9), [-0.125] * 9, score + number, 3, parts={"format": 0.5}),
        ]
        buffer.add(prompt_key([number, 99]), [number, 99], rows)
    return buffer


def scores(buffer, prompts=3):
    return [[row.score for row in buffer.rows(prompt_key([number, 99]))] for number in range(prompts)]


def loaded(folder, **changed):
    buffer = make(**changed)
    load_buffer(folder, buffer)
    return buffer


@pytest.fixture(autouse=True)
def synced(monkeypatch):
    """Inodes that were synced, in order; the disk itself is not waited for."""
    inodes = []
    monkeypatch.setattr(os, "fsync", lambda opened: inodes.append(os.fstat(opened).st_ino))
    return inodes


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "global_step_3" / "prompt_replay"


def sign_shard(folder, number=0):
    """Give a shard's entry the size and the checksum of the file."""
    content = (folder / f"rows-{number:05d}.safetensors").read_bytes()
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    sign(folder, lambda fields: fields["shards"][number].update(entry))


def test_what_is_on_disk_is_what_the_document_says(folder):
    buffer = filled()
    meta = save_buffer(folder, buffer, {"effective_steps": 7}, shard_bytes=1)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["prompt_replay"]
    names = [f"rows-{number:05d}.safetensors" for number in range(3)]
    assert sorted(path.name for path in folder.iterdir()) == ["meta.json", *names]
    fields = json.loads((folder / "meta.json").read_text())
    digest = fields.pop("sha256")
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert digest == hashlib.sha256(text.encode()).hexdigest()
    assert {**fields, "shards": None, "rng": None} == {
        "format": "repo-verl buffer", "version": 4, "shards": None, "part_names": ["acc", "format"],
        "log_prob_dtype": "float32", "rng": None, "settings": {**buffer.settings, "capacity": 4}, "max_token_id": 99,
        "extra": {"effective_steps": 7},
    }  # fmt: skip
    for name, entry in zip(names, fields["shards"], strict=True):
        content = (folder / name).read_bytes()
        sizes = {"bytes": len(content), "prompts": 1, "rows": 3, "tokens": 12}
        assert entry == {"file": name, "sha256": hashlib.sha256(content).hexdigest(), **sizes}
    assert (meta.prompts, meta.rows, meta.tokens) == (3, 9, 36)
    assert meta == read_meta(folder) and meta.bytes == sum((folder / name).stat().st_size for name in names)
    arrays = load_file(folder / names[1])
    state = filled().state_dict()["arrays"]
    assert arrays["prompt_ids"].tolist() == [1, 99] and set(arrays) == set(state)
    assert {name: array.dtype for name, array in arrays.items()} == {name: a.dtype for name, a in state.items()}


@pytest.mark.parametrize("number", range(40))
def test_round_trip_agrees_with_the_model(number, folder):
    game = Game(random.Random(number))
    for _ in range(number % 8):  # none at all: an empty buffer
        for name in ("add", "advance", "sample"):
            getattr(game, name)()
    game.save_files(folder)
    for _ in range(3):
        game.load_files()
        game.check()
        for _ in range(6):  # the generator draws what it would have drawn
            game.sample()
            game.advance()


def test_the_same_rows_are_drawn_after_a_load_as_without_it(folder):
    buffer = filled(strategy="random")
    buffer.sample(prompt_key([0, 99]), 4)
    save_buffer(folder, buffer, {})
    twin = loaded(folder, strategy="random", seed=7)
    keys = [prompt_key([n % 3, 99]) for n in range(30)]
    drawn = [[list(s.serials) for s in one.select_batch(keys, 5)] for one in (buffer, twin)]
    assert drawn[0] == drawn[1] and len({tuple(serials) for serials in drawn[0]}) > 1


def test_shards_hold_what_they_should_and_a_large_prompt_one_of_its_own(folder):
    buffer = make()
    for number, length in enumerate([10, 10, 10, 5000, 10, 10]):
        buffer.add(prompt_key([number]), [number], [Record.create([1] * length, [-0.5] * length, 0.0, 1)])
    meta = save_buffer(folder, buffer, {}, shard_bytes=300)
    assert [shard.prompts for shard in meta.shards] == [2, 1, 1, 2]
    one = 10 * 8 + 25 + 4 + 32
    header = int.from_bytes((folder / "rows-00000.safetensors").read_bytes()[:8], "little") + 8
    assert meta.shards[0].bytes == header + 2 * one + 2 * 8, "an offset more than pieces in two columns"
    for dtype in ("float32", "bfloat16"):
        total, [arrays] = filled(log_prob_dtype=dtype).shards(1 << 20)
        assert total == sum(array.nbytes for array in arrays.values()) - 2 * 8


def test_everything_is_synced_before_the_rename_and_the_rename_after_it(folder, synced, monkeypatch):
    real, at_rename = os.rename, []

    def rename(source, target):
        at_rename.append((str(target), list(synced)))
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    for saved in ("new", "replaced"):
        save_buffer(folder, filled(), {}, shard_bytes=1)
        names = [folder, *folder.iterdir()]
        before = [inodes for target, inodes in at_rename if target == str(folder)][-1]
        assert len(names) == 5 and {path.stat().st_ino for path in names} <= set(before), saved
        assert synced[-1] == folder.parent.stat().st_ino and len(synced) == len(before) + 1
    assert {folder.parent.parent.stat().st_ino} <= set(synced), "the parents that were made"


INSTANTS = ("mkdir", "open", "write", "fsync", "rename", "unlink", "rmdir")


def die_at(instant):
    """Replace os's functions by ones that end this process at a numbered instant, before or after a call."""
    numbers = count()

    def dying(function, name):
        def call(*arguments, **options):
            if next(numbers) == instant:
                if name == "write":
                    function(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **options)
            if next(numbers) == instant:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in INSTANTS:
        setattr(os, name, dying(getattr(os, name), name))


def leave(folder, what):
    """Put a saved folder where a killed save may have left it."""
    if what == "between the renames":
        shutil.copytree(folder, atomic_files.folder_beside(folder, "tmp"))
        folder.rename(atomic_files.folder_beside(folder, "old"))
    elif what == "before removal":
        shutil.copytree(folder, atomic_files.folder_beside(folder, "old"))
    elif what == "during removal":
        shutil.copytree(folder, atomic_files.folder_beside(folder, "tmp"))
        (atomic_files.folder_beside(folder, "tmp") / "meta.json").unlink()
    elif what == "the first save":
        folder.rename(atomic_files.folder_beside(folder, "tmp"))
    elif what == "nothing":
        shutil.rmtree(folder.parent)


@pytest.mark.parametrize(
    "before", ["nothing", "the first save", "replaced", "between the renames", "before removal", "during removal"]
)
def test_a_kill_at_any_instant_leaves_the_old_or_the_new_buffer(before, tmp_path):
    old, new = scores(filled(1.0)), scores(filled(2.0))
    start = tmp_path / "start"
    save_buffer(start / "step" / "prompt_replay", filled(1.0), {})
    leave(start / "step" / "prompt_replay", before)
    seen = []
    for instant in count():
        root = tmp_path / str(instant)
        shutil.copytree(start, root)
        folder = root / "step" / "prompt_replay"

        def work(instant=instant, folder=folder):
            buffer = filled(2.0)
            die_at(instant)
            save_buffer(folder, buffer, {}, shard_bytes=1)

        _, status = os.waitpid(fork(work), 0)
        found = scores(loaded(folder)) if has_buffer(folder) else None
        seen.append(["none", "old", "new"][[None, old, new].index(found)])
        if folder.is_dir():
            deleted = tmp_path / "deleted" / str(instant)
            shutil.copytree(root, deleted)
            shutil.rmtree(deleted / "step" / "prompt_replay")
            if has_buffer(deleted / "step" / "prompt_replay"):
                loaded(deleted / "step" / "prompt_replay")
        save_buffer(folder, filled(3.0), {})
        assert scores(loaded(folder)) == scores(filled(3.0)), "a save after a kill is whole"
        assert os.listdir(folder.parent) == ["prompt_replay"], "and leaves nothing beside it"
        shutil.rmtree(root)
        if status == 0:
            break
        assert os.WIFSIGNALED(status)
    first = "none" if before in ("nothing", "the first save") else "old"
    turn = seen.index("new")
    assert seen == [first] * turn + ["new"] * (len(seen) - turn)
    assert turn > 25 and len(seen) > turn + 1, "kills before and after the one instant that counts"


def failing(monkeypatch, name, number, code):
    """Let the numbered call of a function of os fail."""
    real, numbers = getattr(os, name), count()

    def call(*arguments, **options):
        if next(numbers) == number:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize(
    ("name", "code"),
    [("write", errno.ENOSPC), ("fsync", errno.EIO), ("rename", errno.EACCES), ("open", errno.EROFS)],
)
def test_an_error_of_the_system_is_one_sentence_and_leaves_the_old_buffer(name, code, folder, monkeypatch):
    save_buffer(folder, filled(1.0), {})
    for number in range(2 if name == "rename" else 4):
        with monkeypatch.context() as patched:
            failing(patched, name, number, code)
            with pytest.raises(BufferFilesError) as caught:
                save_buffer(folder, filled(2.0), {}, shard_bytes=1)
        reason = os.strerror(code)
        assert str(caught.value).startswith(f"the replay buffer could not be saved in {folder} ({reason}): ")
        assert "trainer.default_local_dir" in str(caught.value) and isinstance(caught.value.__cause__, OSError)
        assert scores(loaded(folder)) == scores(filled(1.0)) and os.listdir(folder.parent) == ["prompt_replay"]


def test_a_read_only_or_wrong_parent_is_one_sentence(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        failing(patched, "mkdir", 0, errno.EROFS)
        with pytest.raises(BufferFilesError, match=r"could not be saved in .*Read-only file system"):
            save_buffer(tmp_path / "step" / "prompt_replay", filled(), {})
    (tmp_path / "file").write_text("")
    with pytest.raises(BufferFilesError, match=r"could not be saved in .*(File exists|Not a directory)"):
        save_buffer(tmp_path / "file" / "prompt_replay", filled(), {})


def test_a_limit_on_file_sizes_stops_the_save_like_a_full_disk(folder):
    save_buffer(folder, filled(1.0), {})

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
        with pytest.raises(BufferFilesError, match=r"could not be saved in .*File too large"):
            save_buffer(folder, filled(2.0, prompts=60), {})

    assert os.waitpid(fork(work), 0)[1] == 0
    assert scores(loaded(folder)) == scores(filled(1.0)) and os.listdir(folder.parent) == ["prompt_replay"]


def test_too_little_room_is_noticed_before_anything_is_written(folder, monkeypatch):
    save_buffer(folder, filled(1.0), {})
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    monkeypatch.setattr(atomic_files, "write_file", lambda *_: pytest.fail("written"))
    with pytest.raises(BufferFilesError, match=r"needs 1 MB in .*prompt_replay, where 1 MB are free: make room"):
        save_buffer(folder, filled(2.0), {})
    assert scores(loaded(folder)) == scores(filled(1.0)) and os.listdir(folder.parent) == ["prompt_replay"]


def test_extra_that_is_no_json_is_refused_before_anything_is_written(folder):
    for extra in ({"a": {1}}, {"a": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            save_buffer(folder, filled(), extra)
    with pytest.raises(BufferFilesError, match="give less as extra"):
        save_buffer(folder, filled(), {"a": "x" * (16 << 20)})
    assert not folder.parent.exists()


def test_a_store_that_fails_while_saving_leaves_the_old_buffer(folder):
    class Dying(FakeStore):
        def get(self, handles):
            if len(self.calls) > 5:
                raise RuntimeError("a storage process died")
            return super().get(handles)

    buffer = filled(2.0, store=Dying())
    save_buffer(folder, filled(1.0), {})
    with pytest.raises(RuntimeError, match="a storage process died"):
        save_buffer(folder, buffer, {}, shard_bytes=1)
    assert scores(loaded(folder)) == scores(filled(1.0)) and os.listdir(folder.parent) == ["prompt_replay"]


def refused(folder, match, **changed):
    """Loading fails with one sentence and leaves the rows and the store what they were."""
    store = FakeStore()
    buffer = filled(5.0, prompts=1, store=store, **changed)
    state, blobs = buffer.state_dict(), dict(store.blobs)
    with pytest.raises(BufferFilesError, match=match) as caught:
        load_buffer(folder, buffer)
    text = str(caught.value)
    assert "\n" not in text and str(folder) in text and "delete that folder to start with an empty buffer" in text
    after = buffer.state_dict()
    assert after["meta"] == state["meta"] and store.blobs == blobs
    for name, array in state["arrays"].items():
        assert np.array_equal(array, after["arrays"][name], equal_nan=name == "parts")


def test_every_flipped_bit_is_found(folder):
    save_buffer(folder, filled(), {}, shard_bytes=1)
    rng = random.Random(0)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for at in [0, 7, 8, len(content) - 1, *(rng.randrange(len(content)) for _ in range(30))]:
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :])
            refused(folder, "can't be loaded|has version")
        path.write_bytes(content)
    assert scores(loaded(folder)) == scores(filled())


@pytest.mark.parametrize("name", ["meta.json", "rows-00001.safetensors"])
def test_files_that_are_cut_longer_missing_or_no_files_are_refused(name, folder):
    save_buffer(folder, filled(), {}, shard_bytes=1)
    path = folder / name
    content = path.read_bytes()
    for other in (b"", content[:-1], content[: len(content) // 2], content + b"x"):
        path.write_bytes(other)
        refused(
            folder, "meta.json is no JSON" if name == "meta.json" else f"has {len(other)} bytes, not {len(content)}"
        )
    path.unlink()
    refused(folder, rf"{name} can't be read \(No such file")
    path.mkdir()
    refused(folder, rf"{name} (is no file|can't be read \(Is a directory)")
    path.rmdir()
    os.mkfifo(path)
    refused(folder, f"{name} is no file")
    path.unlink()
    (folder.parent / "elsewhere").write_bytes(content)
    path.symlink_to(folder.parent / "elsewhere")
    refused(folder, f"{name} is a link")


def test_no_buffer_is_one_sentence(folder):
    assert not has_buffer(folder)
    for call in (read_meta, lambda place: load_buffer(place, make())):
        with pytest.raises(BufferFilesError, match=r"prompt_replay holds no replay buffer: name a checkpoint"):
            call(folder)


def test_other_versions_are_refused(folder):
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"state": {"version": 2, "part_names": []}, "extra": {}}))
    save_file({"score": np.zeros(1)}, folder / "arrays.safetensors")
    refused(folder, "meta.json has format None, not 'repo-verl buffer'")
    shutil.rmtree(folder)
    save_buffer(folder, filled(), {})
    for version in (1, 2, 5, 4.0, 3.0, True, "4", None, [4]):
        sign(folder, lambda fields, version=version: fields.update(version=version))
        refused(folder, "has version .* this package reads versions 3 and 4: resume with the package that wrote it")
    sign(folder, lambda fields: fields.update(version=4, format="other"))
    refused(folder, "meta.json has format 'other'")


FIRST = ("shards", 0)
META_DAMAGES = [
    (("shards",), {}, "shards is no list"),
    (("shards",), [3], "shard 0 has other keys"),
    ((*FIRST, "file"), "../rows-00000.safetensors", "shard 0 has file="),
    ((*FIRST, "file"), "/etc/passwd", "shard 0 has file="),
    ((*FIRST, "file"), "rows-00001.safetensors", "shard 0 has file="),
    ((*FIRST, "file"), None, "shard 0 has file=None"),
    ((*FIRST, "bytes"), -1, "shard 0 has bytes=-1"),
    ((*FIRST, "bytes"), 1 << 62, "has .* bytes, not 46"),
    ((*FIRST, "bytes"), 10.0, "shard 0 has bytes=10.0"),
    ((*FIRST, "rows"), True, "shard 0 has rows=True"),
    ((*FIRST, "rows"), 8, "has other numbers of rows"),
    ((*FIRST, "tokens"), 1 << 70, "shard 0 has tokens="),
    ((*FIRST, "prompts"), "1", "shard 0 has prompts="),
    ((*FIRST, "sha256"), "0" * 63, "shard 0 has sha256="),
    ((*FIRST, "sha256"), "0" * 64, "has the checksum"),
    ((*FIRST, "more"), 1, "shard 0 has other keys"),
    (("more",), 1, "its keys are"),
    (("extra",), [], "extra is no dict"),
    (("settings",), [], "settings is no dict"),
    (("settings", "capacity"), "4", "capacity='4' must be an integer"),
    (("settings", "min_size"), 0, "min_size=0 must be"),
    (("settings", "colour"), 1, "settings are"),
    (("settings", "strategy"), ["recency"], "strategy="),
    (("settings", "log_prob_dtype"), "bfloat16", "log_prob_dtype is there with two values"),
    (("log_prob_dtype",), ["float32"], "log_prob_dtype="),
    (("part_names",), "ab", "part_names="),
    (("part_names",), ["acc", "acc"], "part_names="),
    (("part_names",), ["acc", 3], "part_names="),
    (("part_names",), ["acc"], "parts has shape"),
    (("max_token_id",), 98, "the largest token id is 99, where meta.json says 98"),
    (("max_token_id",), None, "max_token_id=None"),
    (("rng",), None, "rng is no state"),
    (("rng", "bit_generator"), "MT19937", "rng is no state"),
    (("rng", "bit_generator"), "Philox", "rng is no state"),
    (("rng", "state"), 3, "rng is no state"),
    (("rng", "state", "state"), 1 << 128, "rng is no state"),
    (("rng", "state", "state"), -1, "rng is no state"),
    (("rng", "state", "inc"), 2, "rng is no state"),
    (("rng", "state", "inc"), "1", "rng is no state"),
    (("rng", "state", "more"), 1, "rng is no state"),
    (("rng", "has_uint32"), 2, "rng is no state"),
    (("rng", "uinteger"), 1 << 32, "rng is no state"),
    (("rng", "uinteger"), 0.0, "rng is no state"),
]


def put(fields, path, value):
    for step in path[:-1]:
        fields = fields[step]
    fields[path[-1]] = value


@pytest.mark.parametrize(("path", "value", "match"), META_DAMAGES)
def test_metadata_with_a_right_checksum_and_a_wrong_value_is_refused(path, value, match, folder):
    save_buffer(folder, filled(), {})
    sign(folder, lambda fields: put(fields, path, value))
    refused(folder, match)


@pytest.mark.parametrize("name", ["capacity", "min_size", "max_age", "log_prob_dtype"])
def test_a_setting_that_is_missing_is_refused(name, folder):
    save_buffer(folder, filled(), {})
    sign(folder, lambda fields: fields["settings"].pop(name))
    refused(folder, "settings are ")


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "NaN", "[" * 100_000, '{"a": 1' + "0" * 5000 + "}", "\ud800"])
def test_a_meta_file_that_is_no_json_object_is_refused(text, folder):
    save_buffer(folder, filled(), {})
    (folder / "meta.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(folder, "meta.json is no JSON")


PATHS = [(name,) for name in ("shards", "part_names", "log_prob_dtype", "rng", "settings", "max_token_id", "extra")]
PATHS += [(*FIRST, name) for name in ("file", "bytes", "sha256", "prompts", "rows", "tokens")]
PATHS += [("rng", name) for name in ("bit_generator", "state", "has_uint32", "uinteger")]
PATHS += [("settings", name) for name in ("capacity", "max_age", "seed", "strategy")]
ATOMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "prompt_replay"
    save_buffer(folder, filled(), {})
    return folder


@settings(max_examples=400, derandomize=True, deadline=None, database=None)
@given(st.sampled_from(PATHS), VALUES)
def test_any_json_value_anywhere_is_taken_or_refused_with_our_error(hostile_folder, path, value):
    original = (hostile_folder / "meta.json").read_bytes()
    sign(hostile_folder, lambda fields: put(fields, path, value))
    try:
        loaded(hostile_folder)
    except BufferFilesError:
        pass
    finally:
        (hostile_folder / "meta.json").write_bytes(original)


def with_values(column, at, value):
    def change(arrays):
        arrays[column] = arrays[column].copy()
        arrays[column].reshape(-1)[at] = value

    return change


SHARD_DAMAGES = {
    "score holds a value that is not finite": with_values("score", 0, np.inf),
    "step holds -1": with_values("step", 0, -1),
    "uses holds -2": with_values("uses", 8, -2),
    "response_ids holds -3": with_values("response_ids", 0, -3),
    "prompt_ids holds -4": with_values("prompt_ids", 0, -4),
    "log_probs holds a value that is not finite": with_values("log_probs", 2, np.nan),
    "log_probs holds a value that is not finite where": with_values("log_probs", 11, np.inf),
    "mask_bits has bits beyond": with_values("mask_bits", 0, 0b10110000),
    "masked names a row of which no token": with_values("mask_bits", 1, 0b11100000),
    "row_offsets does not rise": with_values("row_offsets", 1, 100),
    "row_offsets does not rise from 0": with_values("row_offsets", 0, 1),
    "prompt_offsets does not rise": with_values("prompt_offsets", 1, -(1 << 63)),
    "prompt_rows sums to": with_values("prompt_rows", 0, 4),
    "or has a number under 0": with_values("prompt_rows", slice(0, 2), [7, -1]),
    "mask_bits has 3 bytes, not 5": with_values("masked", 2, True),
    "prompt_key has a key twice": lambda arrays: arrays.update(prompt_key=arrays["prompt_key"][[0, 0, 1]]),
    "column 'more' is none": lambda arrays: arrays.update(more=np.zeros(3, dtype=np.uint8)),
    "column 'more' is F16": lambda arrays: arrays.update(more=np.zeros(3, dtype=np.float16)),
    "column step is missing": lambda arrays: arrays.pop("step"),
    "step is int64, not int32": lambda arrays: arrays.update(step=arrays["step"].astype(np.int64)),
    "parts has shape": lambda arrays: arrays.update(parts=arrays["parts"][:, :1].copy()),
    r"prompt_ids has shape \(5,\), not \(6,\)": lambda a: a.update(prompt_ids=a["prompt_ids"][:5].copy()),
    r"prompt_rows has shape": lambda a: a.update(prompt_rows=a["prompt_rows"].reshape(1, 3)),
}


@pytest.mark.parametrize("match", SHARD_DAMAGES)
def test_shards_with_right_checksums_and_wrong_columns_are_refused(match, folder):
    save_buffer(folder, filled(), {})
    path = folder / "rows-00000.safetensors"
    arrays = load_file(path)
    SHARD_DAMAGES[match](arrays)
    save_file(arrays, path)
    sign_shard(folder)
    refused(folder, f"rows-00000.safetensors is damaged.*{match}")


def test_booleans_other_than_0_and_1_and_broken_headers_are_refused(folder):
    save_buffer(folder, filled(), {})
    path = folder / "rows-00000.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    start = 8 + size + header["masked"]["data_offsets"][0]
    huge = {"step": {"dtype": "I32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    text = json.dumps(huge).encode()
    for other, match in [
        (content[:start] + b"\2" + content[start + 1 :], "masked holds bytes other than 0 and 1"),
        (content[:8] + b"x" + content[9:], "damaged"),
        ((1 << 60).to_bytes(8, "little") + content[8:], "damaged"),
        (len(text).to_bytes(8, "little") + text + b"1234", "damaged"),
    ]:
        path.write_bytes(other)
        sign_shard(folder)
        tracemalloc.start()
        refused(folder, match)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20, "no memory for what a header claims"


def test_a_key_in_two_shards_is_refused(folder):
    save_buffer(folder, filled(), {}, shard_bytes=1)
    shutil.copy(folder / "rows-00000.safetensors", folder / "rows-00001.safetensors")
    sign_shard(folder, 1)
    refused(folder, f"prompt key {prompt_key([0, 99])} occurs twice: resume from another")


def test_the_last_shard_being_damaged_changes_nothing_either(folder):
    save_buffer(folder, filled(), {}, shard_bytes=1)
    path = folder / "rows-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    refused(folder, "rows-00002.safetensors has the checksum")


def test_other_capacities_and_types_take_what_fits(folder):
    save_buffer(folder, filled(), {"a": [1, None]})
    small = make(capacity=2)
    found = load_buffer(folder, small)
    assert [len(rows) for rows in scores(small)] == [2, 2, 2] and scores(small)[1] == [1.0, 1.0]
    assert (found.meta.rows, found.rows, found.meta.settings["capacity"]) == (9, 6, 4)
    assert found.meta.extra == {"a": [1, None]}
    large = loaded(folder, capacity=100)
    large.add(prompt_key([0, 99]), [0, 99], [Record.create([1], [-0.5], 9.0, 4)] * 50)
    assert len(large.rows(prompt_key([0, 99]))) == 53
    narrow = loaded(folder, log_prob_dtype="bfloat16")
    meta = save_buffer(folder, narrow, {})
    assert meta.log_prob_dtype == "bfloat16" and scores(loaded(folder)) == scores(filled())


@pytest.mark.parametrize("store", [HostStore, FakeStore])
def test_a_load_replaces_what_is_held_and_leaves_no_blob_behind(store, folder):
    save_buffer(folder, filled(), {}, shard_bytes=1)
    held = store()
    buffer = filled(5.0, prompts=2, store=held)
    selections = buffer.select_batch([prompt_key([0, 99])], 5)
    load_buffer(folder, buffer)
    assert scores(buffer) == scores(filled())
    assert (len(held) if store is HostStore else len(held.blobs)) == 3 + 9
    with pytest.raises(ValueError, match="was evicted after it was selected"):
        buffer.fetch(selections)


def test_a_store_that_fails_while_loading_is_left_as_it_was(folder):
    class Full(FakeStore):
        def put(self, blobs):
            if len(self.blobs) + len(blobs) > 14:
                raise RuntimeError("no room")
            return super().put(blobs)

    save_buffer(folder, filled(), {}, shard_bytes=1)
    store = Full()
    buffer = filled(5.0, prompts=1, store=store)
    with pytest.raises(RuntimeError, match="no room"):
        load_buffer(folder, buffer)
    assert len(store.blobs) == 4 and scores(buffer, 1) == scores(filled(5.0), 1)
    with pytest.raises(RuntimeError, match="no room"):
        buffer.load_state_dict(filled(prompts=20).state_dict())
    assert len(store.blobs) == 4 and scores(buffer, 1) == scores(filled(5.0), 1)


def test_a_relative_folder_and_a_link_to_one_are_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_buffer("prompt_replay", filled(1.0), {})
    Path("prompt_replay").rename("moved")
    Path("prompt_replay").symlink_to("moved")
    assert scores(loaded("prompt_replay")) == scores(filled(1.0))
    save_buffer("prompt_replay", filled(2.0), {})
    assert scores(loaded("prompt_replay")) == scores(filled(2.0)) and sorted(os.listdir()) == ["moved", "prompt_replay"]
    assert scores(loaded("moved")) == scores(filled(1.0))


def test_a_record_can_not_hold_what_a_load_would_refuse():
    for ids, step, match in (([3, -1], 1, "step=1 and response_ids must not be negative"), ([3, 1], -1, "step=-1")):
        with pytest.raises(ValueError, match=match):
            Record.create(ids, [-0.5, -0.5], 0.0, step)

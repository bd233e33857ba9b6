"""A buffer and its model that do the same things at random and must agree."""

from __future__ import annotations

import contextlib
import hashlib
import json

import numpy as np
import pytest
from plain_buffer import FakeStore, PlainBuffer

from repo_verl.replay import HostStore, PromptReplayBuffer, Record, prompt_key
from repo_verl.replay.checkpoint import BufferFilesError, load_buffer, read_meta, save_buffer
from repo_verl.replay.state import RowLimits

OWN = ["own_strategies:a_few", "own_strategies:lowest_of_old"]
STRATEGIES = ["recency", "reward", "variance", "full", "random", "none", *OWN]


def number(rng):
    return float(np.float32(-rng.expovariate(2.0)))


def make_row(rng, step, masks):
    length = rng.choice([0, 1, 3, 7, 8, 9, rng.randrange(20)])
    log_probs = [number(rng) for _ in range(length)]
    mask = None
    if masks and rng.random() < 0.5:
        mask = [rng.randrange(2) for _ in range(length)]
        log_probs = [v if on or rng.random() < 0.7 else float("-inf") for v, on in zip(log_probs, mask, strict=True)]
    parts = {name: rng.randrange(8) / 4 for name in ("acc", "format", "len") if rng.random() < 0.4}
    ids = [rng.randrange(1 << 31) for _ in range(length)]
    score = rng.choice([0.0, 1.0, 0.5, rng.random()])
    return {"ids": ids, "log_probs": log_probs, "mask": mask, "score": score, "step": step, "parts": parts}


def record(row):
    return Record.create(row["ids"], row["log_probs"], row["score"], row["step"], row["mask"], row["parts"])


def same(made, row):
    assert made.response_ids.dtype == np.int32 and made.log_probs.dtype == np.float32
    assert made.response_ids.flags.aligned and made.log_probs.flags.aligned and not made.response_ids.flags.writeable
    assert made.response_ids.tolist() == row["ids"] and made.log_probs.tolist() == row["log_probs"]
    assert made.mask.astype(int).tolist() == row["mask"]
    assert (made.mask_bits is None) == all(row["mask"])
    assert (made.score, made.step, made.uses) == (row["score"], row["step"], row["uses"])
    assert made.parts == row["parts"]


class Game:
    """A buffer, its model and the selections made so far."""

    def __init__(self, rng):
        self.rng, self.step, self.saved, self.filed = rng, 1, None, None
        self.start()
        self.masks = rng.random() < 0.5
        self.ids = [[i] * i for i in range(4)]
        self.keys = [prompt_key(ids) for ids in self.ids]

    def start(self):
        """An empty buffer with random settings, and its model."""
        rng, self.selections = self.rng, []
        capacity = rng.choice([1, 2, 3, 5, 8, 9, 17])
        self.settings = {
            "capacity": capacity,
            "min_size": rng.randint(1, min(capacity, 4)),
            "num_replay": rng.randint(1, min(capacity, 4)),
            # the model enumerates subsets for variance
            "strategy": rng.choice(STRATEGIES if capacity < 10 else [s for s in STRATEGIES if s != "variance"]),
            "start_step": rng.choice([0, 0, 3]),
            "max_age": rng.choice([None, None, 2]),
            "max_uses": rng.choice([None, None, 1, 2]),
            "max_tokens": rng.choice([None, None, 1, 30, 60, 150]),
            "seed": rng.randrange(99),
            "log_prob_dtype": rng.choice(["float32", "bfloat16"]),
        }
        self.store = rng.choice([HostStore, FakeStore])()
        self.buffer, self.model = PromptReplayBuffer(**self.settings, store=self.store), PlainBuffer(**self.settings)

    def add(self):
        items, rng = [], self.rng
        for _ in range(rng.randint(1, 3)):
            which = rng.randrange(4)
            items.append(
                (which, [make_row(rng, self.step, self.masks) for _ in range(rng.choice([0, 1, 2, 3, 6, 20]))])
            )
        evicted = self.buffer.add_batch(
            [(self.keys[w], np.array(self.ids[w], dtype=np.int32), list(map(record, r))) for w, r in items]
        )
        merged = {}
        for which, rows in items:
            merged.setdefault(which, []).extend(rows)
        assert evicted == self.model.add_batch([(self.keys[w], self.ids[w], rows) for w, rows in merged.items()])

    def select(self):
        keys = [self.rng.choice([*self.keys, "ff" * 16]) for _ in range(self.rng.randint(0, 4))]
        before = {id(row): row["uses"] for _, rows in self.model.prompts.values() for row in rows}
        made = self.buffer.select_batch(keys, self.step)
        for key, selection, rows in zip(keys, made, self.model.select_batch(keys, self.step), strict=True):
            assert selection.key == key and len(selection) == len(rows) == selection.serials.size
            assert selection.scores.tolist() == [row["score"] for row in rows]
            assert selection.steps.tolist() == [row["step"] for row in rows]
            assert selection.uses.tolist() == [before[id(row)] for row in rows]
            assert selection.lengths.tolist() == [len(row["ids"]) for row in rows]
            assert selection.counted.tolist() == [sum(row["mask"]) for row in rows]
            self.selections.append((selection, rows))

    def some(self):
        return self.rng.sample(self.selections, self.rng.randint(0, min(4, len(self.selections))))

    def fetch(self):
        chosen = self.some()
        selections = [selection for selection, _ in chosen]
        if all(self.model.holds(row) for _, rows in chosen for row in rows):
            for records, (_, rows) in zip(self.buffer.fetch(selections), chosen, strict=True):
                for made, row in zip(records, rows, strict=True):
                    same(made, row)
        else:
            with pytest.raises(ValueError, match="was evicted after it was selected"):
                self.buffer.fetch(selections)

    def sample(self):
        key = self.rng.choice(self.keys)
        (rows,) = self.model.select_batch([key], self.step)
        for made, row in zip(self.buffer.sample(key, self.step), rows, strict=True):
            same(made, row)

    def save(self):
        state = self.buffer.state_dict()
        state = {
            "meta": json.loads(json.dumps(state["meta"])),
            "arrays": {k: v.copy() for k, v in state["arrays"].items()},
        }
        self.saved = state, self.model.save()

    def load(self):
        if self.saved is None:
            self.save()
        self.buffer.load_state_dict(self.saved[0])
        self.model.load(self.saved[1])

    def save_files(self, folder, extra=None):
        """Into shards of a prompt or a few each."""
        self.filed = folder, self.model.save(), save_buffer(
            folder, self.buffer, {"step": self.step} if extra is None else extra,
            shard_bytes=self.rng.choice([1, 400, 1 << 20]),
        )  # fmt: skip

    def load_files(self):
        """What was saved last, as another process would: into a buffer and a store of its own, or into this one."""
        if self.filed is None:
            return
        if self.rng.random() < 0.7:
            self.start()
        folder, saved, meta = self.filed
        limits = [self.rng.choice([None, None, 0, 2, 8, 20]) for _ in range(3)]
        loaded = load_buffer(folder, self.buffer, RowLimits(*limits))
        left_out, prompts, rows = self.model.load(saved, limits)
        assert [*loaded.too_long] == left_out and (loaded.evicted_prompts, loaded.evicted_rows) == (prompts, rows)
        held = sum(max(0, count - self.model.capacity) for count in self.counts(saved, limits))
        assert loaded.over_capacity == held
        assert loaded.meta == meta == read_meta(folder) and loaded.rows == len(self.buffer)
        held = [(ids, rows) for ids, rows in saved[0].values()]
        tokens = [token for ids, rows in held for row in [{"ids": ids}, *rows] for token in row["ids"]]
        assert meta.max_token_id == max(tokens, default=-1)
        assert (meta.prompts, meta.rows) == (len(held), sum(len(rows) for _, rows in held))
        assert meta.tokens == sum(len(row["ids"]) for _, rows in held for row in rows)

    @staticmethod
    def counts(saved, limits):
        """Rows that fit of every saved prompt."""
        prompt, response, both = (float("inf") if limit is None else limit for limit in limits)
        for ids, rows in saved[0].values():
            lengths = [len(row["ids"]) for row in rows if len(ids) <= prompt]
            yield sum(length <= response and len(ids) + length <= both for length in lengths)

    def damage(self):
        """One bit of one file flips: loading fails and changes nothing."""
        if self.filed is None:
            return
        path = self.rng.choice(sorted(self.filed[0].iterdir()))
        content = path.read_bytes()
        at = self.rng.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << self.rng.randrange(8)]) + content[at + 1 :])
        with pytest.raises(BufferFilesError):
            load_buffer(self.filed[0], self.buffer)
        path.write_bytes(content)

    def advance(self):
        self.step += 1

    def check(self):
        for key in self.keys:
            held = self.model.prompts.get(key, (None, []))[1]
            for made, row in zip(self.buffer.rows(key), held, strict=True):
                same(made, row)
            assert (key in self.buffer) == (key in self.model.prompts)
        assert self.buffer.stats() == self.model.stats() and len(self.buffer) == self.model.stats()["rows"]
        order = self.buffer.state_dict()["arrays"]["prompt_key"]
        assert [key.tobytes().hex() for key in order] == list(self.model.prompts)
        held = len(self.store) if isinstance(self.store, HostStore) else len(self.store.blobs)
        assert held == self.model.blobs()


@contextlib.contextmanager
def noted(where, game):
    """A list for the operations done, which a failure names with the settings."""
    done = []
    try:
        yield done
    except BaseException as error:
        error.add_note(f"{where}, {game.settings}, {type(game.store).__name__}: {done}")
        raise


def sign(folder, change=lambda fields: None):
    """Change ``meta.json`` and give it the checksum of what it says then."""
    path = folder / "meta.json"
    fields = json.loads(path.read_text())
    change(fields)
    fields.pop("sha256", None)
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    path.write_text(json.dumps({**fields, "sha256": hashlib.sha256(text.encode()).hexdigest()}))

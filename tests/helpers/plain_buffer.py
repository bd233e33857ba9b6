"""The replay buffer as lists of dictionaries: slow, obvious, and sharing no code with the package."""

from __future__ import annotations

import copy
import struct

import numpy as np
import own_strategies
from oracles import best_variance_subset


def bits_of(value):
    """The 32 bits of a float32 as an int."""
    return struct.unpack("<I", struct.pack("<f", value))[0]


def float_of(bits):
    """The float32 with these 32 bits."""
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def bfloat16(value):
    """A finite float32 rounded to the nearer of its two bfloat16 neighbours; halfway, to the one that ends in 0."""
    low = bits_of(value) & 0xFFFF0000
    high = low + 0x10000
    below, above = abs(value - float_of(low)), abs(float_of(high) - value)
    if below == above:
        return float_of(low if (low >> 16) % 2 == 0 else high)
    return float_of(low if below < above else high)


class FakeStore:
    """A store elsewhere: handles beyond 32 bits, copies in one buffer, no patience with unknown handles."""

    def __init__(self, first=1 << 40):
        self.blobs, self.next, self.calls = {}, first, []

    def put(self, blobs):
        self.calls.append("put")
        handles = list(range(self.next, self.next + len(blobs)))
        self.next += len(blobs)
        for handle, blob in zip(handles, blobs, strict=True):
            assert isinstance(blob, bytes)
            self.blobs[handle] = blob
        return handles

    def get(self, handles):
        self.calls.append("get")
        joined = np.frombuffer(bytearray(b"".join(b"?" + self.blobs[handle] for handle in handles)), dtype=np.uint8)
        ends = np.cumsum([1 + len(self.blobs[handle]) for handle in handles])
        return [joined[end - len(self.blobs[handle]) : end] for handle, end in zip(handles, ends, strict=True)]

    def drop(self, handles):
        self.calls.append("drop")
        assert len(set(handles)) == len(handles)
        for handle in handles:
            del self.blobs[handle]


class PlainBuffer:
    """A dictionary of lists of rows; a row is a dictionary."""

    def __init__(
        self, *, capacity, min_size, num_replay, strategy, start_step, max_age, max_uses, max_tokens, seed,
        log_prob_dtype,
    ):  # fmt: skip
        self.capacity, self.min_size, self.k, self.strategy = capacity, min_size, num_replay, strategy
        self.start_step, self.max_age, self.max_uses, self.max_tokens = start_step, max_age, max_uses, max_tokens
        self.narrow = log_prob_dtype == "bfloat16"
        self.rng = np.random.default_rng(seed)
        self.prompts = {}
        self.names = set()

    def add_batch(self, items):
        """Items are key, prompt ids and rows, no key twice; returns how many prompts were evicted."""
        for key, prompt_ids, rows in items:
            self.add(key, prompt_ids, rows)
        for key in sorted(key for key, _, _ in items):
            self.prompts[key] = self.prompts.pop(key)
        return self.evict()

    def evict(self):
        """While there are too many tokens, the prompt that was visited longest ago goes."""
        before = len(self.prompts)
        while self.max_tokens is not None and self.stats()["tokens"] > self.max_tokens:
            del self.prompts[next(iter(self.prompts))]
        return before - len(self.prompts)

    def add(self, key, prompt_ids, rows):
        """Rows are dictionaries with ids, log_probs, mask (list or None), score, step, parts."""
        _, held = self.prompts.setdefault(key, (list(prompt_ids), []))
        rows = rows[-self.capacity :]
        for row in rows:
            row = copy.deepcopy(row)
            mask = [1] * len(row["ids"]) if row["mask"] is None else row["mask"]
            values = [bfloat16(v) if self.narrow and np.isfinite(v) else v for v in row["log_probs"]]
            row.update(log_probs=values, mask=mask, uses=0)
            held.append(row)
            self.names |= set(row["parts"])
        del held[: max(0, len(held) - self.capacity)]

    def select_batch(self, keys, step):
        """The rows of every key; a choice is a use for the choices after it."""
        chosen = []
        for key in keys:
            chosen.append(self.select(key, step))
            for row in chosen[-1]:
                row["uses"] += 1
        return chosen

    def select(self, key, step):
        """The rows themselves."""
        if step <= self.start_step or key not in self.prompts:
            return []
        earlier = [row for row in self.prompts[key][1] if row["step"] < step]
        if len(earlier) < self.min_size:
            return []
        rows = [row for row in earlier if self.max_age is None or step - row["step"] <= self.max_age]
        rows = [row for row in rows if self.max_uses is None or row["uses"] < self.max_uses]
        if self.strategy == "none" or not rows:
            return []
        if ":" in self.strategy:
            return [rows[i] for i in sorted(self.ask(rows, step))]
        if self.strategy == "full" or len(rows) <= self.k:
            return rows
        return [rows[i] for i in sorted(self.pick(rows))]

    def pick(self, rows):
        n, scores = len(rows), [row["score"] for row in rows]
        if self.strategy == "recency":
            return range(n - self.k, n)
        if self.strategy == "reward":
            return sorted(range(n), key=lambda i: (scores[i], i))[n - self.k :]
        if self.strategy == "variance":
            return best_variance_subset(scores, self.k)
        return self.rng.choice(n, size=self.k, replace=False)

    def ask(self, rows, step):
        """What a function of :mod:`own_strategies` says."""
        function = getattr(own_strategies, self.strategy.split(":")[1])
        ages = [step - row["step"] for row in rows]
        return function(np.array([row["score"] for row in rows]), np.array(ages), min(self.k, len(rows)), self.rng)

    def holds(self, row):
        return any(row is held for _, rows in self.prompts.values() for held in rows)

    def save(self):
        return copy.deepcopy((self.prompts, self.rng.bit_generator.state, self.names))

    def load(self, saved, limits=(None, None, None)):
        """``limits`` are those of prompt, response and both.

        Returns rows left out for each limit, and prompts and rows for ``max_tokens``.
        """
        self.prompts, self.rng.bit_generator.state, self.names = copy.deepcopy(saved)
        left_out = self.leave_out(*(float("inf") if limit is None else limit for limit in limits))
        for _, rows in self.prompts.values():
            for row in rows if self.narrow else []:
                row["log_probs"] = [bfloat16(v) if np.isfinite(v) else v for v in row["log_probs"]]
            del rows[: max(0, len(rows) - self.capacity)]
        count = self.stats()["rows"]
        prompts = self.evict()
        return left_out, prompts, count - self.stats()["rows"]

    def leave_out(self, prompt, response, both):
        """Drop rows that are too long, and prompts that are; returns how many rows for each limit."""
        left_out = [0, 0, 0]
        for key, (ids, rows) in list(self.prompts.items()):
            for row in list(rows):
                over = [len(ids) > prompt, len(row["ids"]) > response, len(ids) + len(row["ids"]) > both]
                if any(over):
                    left_out[over.index(True)] += 1
                    rows[:] = [other for other in rows if other is not row]
            if len(ids) > prompt:
                del self.prompts[key]
        return left_out

    def blobs(self):
        """How many blobs a store holds: one for each prompt, one for each row."""
        return len(self.prompts) + self.stats()["rows"]

    def stats(self):
        rows = [row for _, rows in self.prompts.values() for row in rows]
        tokens = sum(len(row["ids"]) for row in rows)
        masks = sum(-(-len(row["ids"]) // 8) for row in rows if not all(row["mask"]))
        columns = 48 + 4 * len(self.names)
        prompt_ids = sum(len(ids) for ids, _ in self.prompts.values())
        size = tokens * (6 if self.narrow else 8) + masks + 4 * prompt_ids + columns * len(rows)
        return {"prompts": len(self.prompts), "rows": len(rows), "tokens": tokens, "bytes": size}

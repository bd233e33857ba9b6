"""Which rows a step replays: chosen, read and put into TransferQueue while the step's responses are generated.

A choice needs scores alone, so it is made as soon as the prompts are known. The prompts' token ids are worked out here
with the chat template, as verl's agent loop does; what the loop then wrote decides: a prompt that it tokenised in
another way is retrieved after generation.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from repo_verl.advantages import block_advantages
from repo_verl.replay import PromptReplayBuffer, Selection, prompt_key
from repo_verl.trainer import placing
from repo_verl.trainer.rows import FreshRows

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

GROUP_TOKENS = 1 << 20
"""Response tokens read and put at a time: bounds what the driver holds of them, at about 100 bytes each."""

Placed = tuple[str, dict[str, Any]]
"""Key and tag of a row in TransferQueue."""


@dataclasses.dataclass(frozen=True)
class Retrieved:
    """The rows that one prompt block replays.

    Attributes:
        selection: which rows of the buffer.
        placed: where each row is in TransferQueue; None for rows that were pruned before.
        masks: (T,) response mask of every row; None for those rows.
    """

    selection: Selection
    placed: list[Placed | None]
    masks: list[torch.Tensor | None]


class Retrieval:
    """Retrieves for the prompts of a step, ahead where it can.

    Args:
        buffer: the replay buffer.
        advantages: gives the advantages of a selection's rows where they depend on nothing else (``split``); None where
            they depend on the fresh rows (``mixed``).
        prune: leave out rows whose advantage is exactly 0.
        encode: token ids of a prompt's messages, None where they can't be told.
        floats: the dtypes of verl's fields.
        partition: TransferQueue partition.
    """

    def __init__(
        self,
        buffer: PromptReplayBuffer,
        advantages: Callable[[np.ndarray], torch.Tensor] | None,
        prune: bool,
        encode: Callable[[Any], np.ndarray | None],
        floats: placing.FloatTypes,
        partition: str = "train",
    ) -> None:
        self._buffer, self._advantages, self._prune = buffer, advantages, prune
        self._encode, self._floats, self._partition = encode, floats, partition
        self._expected: list[tuple[str, Any]] = []
        self._ahead: dict[str, Retrieved] = {}
        self._keys: list[str] = []
        self._warned = False
        self._seconds = {"select": 0.0, "retrieve": 0.0}

    def expect(self, uids: Sequence[str], messages: Sequence[Any]) -> None:
        """Note prompts that were sent to generation; ``messages`` is the chat of each."""
        self._expected.extend(zip(uids, messages, strict=True))

    def ahead(self, step: int) -> None:
        """Retrieve for the noted prompts; called while they are generated."""
        guesses = [(uid, self._encode(messages)) for uid, messages in dict(self._expected).items()]
        self._expected = []
        known = [(uid, ids) for uid, ids in guesses if ids is not None]
        found = self._retrieve([prompt_key(ids) for _, ids in known], [ids for _, ids in known], step)
        self._ahead.update(zip((uid for uid, _ in known), found, strict=True))

    def take(self, fresh: FreshRows, step: int) -> tuple[list[Retrieved], int]:
        """What every prompt block of a batch replays, and how many of its rows had to be retrieved only now.

        Use counts of all rows go up. What was selected ahead for another prompt than the agent loop wrote, or for one
        that has no row in the batch, is given back before the rest is retrieved.
        """
        found: dict[int, Retrieved] = {}
        wrong: list[Retrieved] = []
        for block, (uid, key) in enumerate(zip(fresh.uids, fresh.prompt_keys, strict=True)):
            one = self._ahead.pop(uid, None)
            if one is not None and one.selection.key == key:
                found[block] = one
            elif one is not None:
                wrong.append(one)
        self._give_back([*wrong, *self._ahead.values()])
        self._ahead = {}
        late = [block for block in range(len(fresh.uids)) if block not in found]
        now = self._retrieve([fresh.prompt_keys[b] for b in late], [fresh.prompt_ids[b] for b in late], step)
        found.update(zip(late, now, strict=True))
        retrieved = [found[block] for block in range(len(fresh.uids))]
        rows_late = sum(len(one.placed) for one in now)
        if rows_late and wrong and not self._warned:
            self._warned = True
            logger.warning(
                "RePO: the agent loop tokenises prompts in another way than the chat template alone, so that replayed "
                "rows are retrieved after generation, not during it"
            )
        self._buffer.mark_used([one.selection for one in retrieved])
        return retrieved, rows_late

    def drain(self) -> list[str]:
        """Keys of all rows that were put since the last call; they are to be cleared."""
        self._give_back(self._ahead.values())
        keys, self._keys, self._ahead, self._expected = self._keys, [], {}, []
        return keys

    def _give_back(self, unused: Iterable[Retrieved]) -> None:
        self._buffer.release([one.selection for one in unused])

    def discard(self, keys: Sequence[str]) -> None:
        """Have the padding rows among ``keys`` cleared with them."""
        own = set(self._keys)
        self._keys.extend(key for key in keys if key.startswith(placing.KEY_PREFIX) and key not in own)

    def drain_seconds(self) -> dict[str, float]:
        """Seconds spent on choosing (``select``) and on reading and placing (``retrieve``) since the last call."""
        seconds, self._seconds = self._seconds, dict.fromkeys(self._seconds, 0.0)
        return seconds

    def _retrieve(self, keys: list[str], prompts: list[np.ndarray], step: int) -> list[Retrieved]:
        begun = time.perf_counter()
        selections = self._buffer.select_batch(keys, step)
        chosen = time.perf_counter()
        found: list[Retrieved] = []
        for group in _groups([int(selection.lengths.sum()) for selection in selections]):
            found.extend(self._read(selections[group], prompts[group]))
        self._seconds["select"] += chosen - begun
        self._seconds["retrieve"] += time.perf_counter() - chosen
        return found

    def _read(self, selections: list[Selection], prompts: list[np.ndarray]) -> list[Retrieved]:
        """Read the rows of selections and put them into TransferQueue."""
        values = [None if self._advantages is None else self._advantages(s.scores) for s in selections]
        wanted = [self._wanted(v, len(s.serials)) for v, s in zip(values, selections, strict=True)]
        records = self._buffer.fetch([_subset(s, index) for s, index in zip(selections, wanted, strict=True)])
        rows = [
            placing.replayed_row(ids, record) for ids, held in zip(prompts, records, strict=True) for record in held
        ]
        known = [float(v[i]) for v, index in zip(values, wanted, strict=True) if v is not None for i in index]
        for row, advantage in zip(rows, known, strict=False):  # none is known for mixed
            row["advantages"] = row["response_mask"].float() * advantage
        placed = iter(zip(*placing.put_rows(self._partition, rows, self._floats), rows, strict=True))
        found = []
        for selection, index in zip(selections, wanted, strict=True):
            size = len(selection.serials)
            one = Retrieved(selection, [None] * size, [None] * size)
            for i in index:
                key, tag, row = next(placed)
                self._keys.append(key)
                one.placed[i], one.masks[i] = (key, tag), row["response_mask"]
            found.append(one)
        return found

    def _wanted(self, values: torch.Tensor | None, size: int) -> list[int]:
        if values is None or not self._prune:
            return list(range(size))
        return torch.nonzero(values).flatten().tolist()


def _groups(tokens: list[int]) -> Iterator[slice]:
    """Neighbours of at most :data:`GROUP_TOKENS` together, at least one in each group."""
    start, held = 0, 0
    for stop, size in enumerate(tokens):
        if stop > start and held + size > GROUP_TOKENS:
            yield slice(start, stop)
            start, held = stop, 0
        held += size
    if tokens:
        yield slice(start, len(tokens))


def _subset(selection: Selection, index: list[int]) -> Selection:
    arrays = {
        field.name: getattr(selection, field.name)[index]
        for field in dataclasses.fields(selection)
        if isinstance(getattr(selection, field.name), np.ndarray)
    }
    return dataclasses.replace(selection, **arrays)


def selection_advantages(scores: np.ndarray, eps: float, norm_by_std: bool) -> torch.Tensor:
    """Advantages of one replayed block, normalised by itself; ``scores`` is (k,)."""
    values = torch.from_numpy(scores).float()
    return block_advantages(values, torch.zeros(len(values), dtype=torch.int64), eps, norm_by_std)


def chat_encoder(tokenizer: Any, template_kwargs: Any) -> Callable[[Any], np.ndarray | None]:
    """Token ids of a prompt's messages by the tokenizer's chat template; None where it can't render them.

    Args:
        tokenizer: of the actor.
        template_kwargs: verl's ``data.apply_chat_template_kwargs``.
    """

    def encode(messages: Any) -> np.ndarray | None:
        chat = list(getattr(messages, "data", messages))
        try:
            ids = tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, tokenize=True, return_dict=False, **dict(template_kwargs or {})
            )
        except Exception as error:  # a guess alone: an agent loop may render chats that the template can't
            logger.debug("RePO: a prompt's token ids can't be told ahead: %s", error)
            return None
        return np.asarray(ids, dtype=np.int32)

    return encode

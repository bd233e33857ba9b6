"""Saved rows that are longer than the run that resumes takes."""

import numpy as np
import pytest
from plain_buffer import FakeStore

from repo_verl.replay import HostStore, PromptReplayBuffer, Record, prompt_key
from repo_verl.replay.checkpoint import load_buffer, save_buffer
from repo_verl.replay.state import RowLimits
from repo_verl.trainer.checkpoint import describe_left_out, row_limits

SHORT, LONG = [1, 2], [1, 2, 3, 4, 5]
SETTINGS = {"capacity": 8, "min_size": 1, "num_replay": 8, "strategy": "full"}


def row(tokens, step, masked=False):
    mask = [n % 3 != 1 for n in range(tokens)] if masked else None
    made = Record.create(range(tokens), [-n / 4 for n in range(tokens)], step / 2, step, mask, {"acc": step})
    return made


def saved(folder):
    """A prompt of 2 tokens with rows of 3, 9, 4, 8 and 6 tokens, one of 5 with 2, 7 and 3; some masked, some used."""
    buffer = PromptReplayBuffer(**SETTINGS)
    for tokens, step in ((3, 1), (9, 2), (4, 2), (8, 3), (6, 4)):
        buffer.add(prompt_key(SHORT), SHORT, [row(tokens, step, masked=tokens in (9, 4))])
    buffer.sample(prompt_key(SHORT), 4)  # those of the steps 1 to 3
    buffer.add(prompt_key(LONG), LONG, [row(2, 4), row(7, 4, masked=True), row(3, 4)])
    save_buffer(folder, buffer, {}, shard_bytes=1)
    return buffer


def load(folder, store=HostStore, limits=None, **settings):
    buffer = PromptReplayBuffer(**{**SETTINGS, **settings}, store=store())
    return buffer, load_buffer(folder, buffer, *([] if limits is None else [RowLimits(*limits)]))


def lengths(buffer):
    return [[r.response_ids.size for r in buffer.rows(prompt_key(ids))] for ids in (SHORT, LONG)]


@pytest.mark.parametrize("store", [HostStore, FakeStore])
@pytest.mark.parametrize(
    ("limits", "kept", "left_out"),
    [
        ((None, None, None), [[3, 9, 4, 8, 6], [2, 7, 3]], (0, 0, 0)),
        ((5, 9, 12), [[3, 9, 4, 8, 6], [2, 7, 3]], (0, 0, 0)),
        ((None, 6, None), [[3, 4, 6], [2, 3]], (0, 3, 0)),
        ((4, None, None), [[3, 9, 4, 8, 6], []], (3, 0, 0)),
        ((None, None, 8), [[3, 4, 6], [2, 3]], (0, 0, 3)),
        ((4, 8, 9), [[3, 4, 6], []], (3, 1, 1)),
        ((1, 1, 1), [[], []], (8, 0, 0)),
        ((None, 0, None), [[], []], (0, 8, 0)),
    ],
)
def test_rows_that_do_not_fit_are_left_out_and_counted_by_the_first_reason(store, limits, kept, left_out, tmp_path):
    saved(tmp_path / "b")
    buffer, loaded = load(tmp_path / "b", store, limits)
    assert lengths(buffer) == kept and loaded.too_long == left_out
    assert loaded.rows == len(buffer) == 8 - sum(left_out) and loaded.over_capacity == loaded.evicted_rows == 0
    assert (prompt_key(LONG) in buffer) == (limits[0] is None or limits[0] >= len(LONG))
    blobs = len(buffer._store) if store is HostStore else len(buffer._store.blobs)
    prompts = sum(key in buffer for key in map(prompt_key, (SHORT, LONG)))
    assert blobs == prompts + len(buffer), "nothing is stored of what is left out"


@pytest.mark.parametrize("store", [HostStore, FakeStore])
def test_rows_that_stay_keep_their_order_values_uses_and_bytes(store, tmp_path):
    whole = saved(tmp_path / "b")
    buffer, _ = load(tmp_path / "b", store, (None, 7, None))
    for ids in (SHORT, LONG):
        wanted = [r for r in whole.rows(prompt_key(ids)) if r.response_ids.size <= 7]
        for made, expected in zip(buffer.rows(prompt_key(ids)), wanted, strict=True):
            assert made.response_ids.tolist() == expected.response_ids.tolist()
            assert made.log_probs.tolist() == expected.log_probs.tolist()
            assert made.mask.tolist() == expected.mask.tolist()
            assert (made.score, made.step, made.uses, made.parts) == (
                expected.score, expected.step, expected.uses, expected.parts,
            )  # fmt: skip
    assert [r.uses for r in buffer.rows(prompt_key(SHORT))] == [1, 1, 0]
    alone = PromptReplayBuffer(**SETTINGS, store=store())
    for tokens, step in ((3, 1), (4, 2), (6, 4)):
        alone.add(prompt_key(SHORT), SHORT, [row(tokens, step, masked=tokens == 4)])
    alone.add(prompt_key(LONG), LONG, [row(2, 4), row(7, 4, masked=True), row(3, 4)])
    assert buffer.stats() == alone.stats()
    assert [s.lengths.tolist() for s in buffer.select_batch([prompt_key(SHORT)], 5)] == [[3, 4, 6]]


def test_the_capacity_takes_the_newest_of_those_that_fit(tmp_path):
    saved(tmp_path / "b")
    buffer, loaded = load(tmp_path / "b", limits=(None, 6, None), capacity=2, num_replay=2)
    assert lengths(buffer) == [[4, 6], [2, 3]]
    assert (loaded.too_long, loaded.over_capacity, loaded.rows) == ((0, 3, 0), 1, 4)


def test_the_bound_counts_what_fits(tmp_path):
    saved(tmp_path / "b")
    buffer, loaded = load(tmp_path / "b", limits=(None, 6, None), max_tokens=18)
    assert lengths(buffer) == [[3, 4, 6], [2, 3]] and loaded.evicted_prompts == 0
    buffer, loaded = load(tmp_path / "b", limits=(None, 6, None), max_tokens=17)
    assert lengths(buffer) == [[], [2, 3]]
    assert (loaded.too_long, loaded.evicted_prompts, loaded.evicted_rows) == ((0, 3, 0), 1, 3)
    assert loaded.over_capacity == 0


def config(strategy="fsdp2", **actor):
    rollout = {"prompt_length": 512, "response_length": 1024}
    return {
        "data": {"max_prompt_length": 100, "max_response_length": 200},
        "actor_rollout_ref": {"actor": {"strategy": strategy, **actor}, "rollout": rollout},
    }


def test_the_limits_are_those_that_verls_workers_apply():
    assert row_limits(config()) == RowLimits(512, 1024, None), "micro-batches of so many rows have no limit of tokens"
    tokens = {"use_dynamic_bsz": True, "ppo_max_token_len_per_gpu": 3000}
    assert row_limits(config(**tokens)).row == 3000
    assert row_limits(config(**tokens, fsdp_config={"ulysses_sequence_parallel_size": 4})).row == 12000
    old = {"ulysses_sequence_parallel_size": 2, "fsdp_config": {"ulysses_sequence_parallel_size": 4}}
    assert row_limits(config(**tokens, **old)).row == 6000
    old["ulysses_sequence_parallel_size"] = 1
    assert row_limits(config(**tokens, **old)).row == 12000
    assert row_limits(config("megatron", **tokens, megatron={"context_parallel_size": 2}, **old)).row == 6000
    assert row_limits({"data": {"max_prompt_length": 100, "max_response_length": 200}}) == RowLimits(100, 200, None)


def test_one_sentence_counts_them_by_reason():
    said = describe_left_out(RowLimits(512, 1024, 6000), (3, 0, 40))
    assert said.startswith("43 saved rows are left out, since they are longer than this run takes (3 over data.max_pro")
    assert "prompt_length=512, 40 over actor_rollout_ref.actor.ppo_max_token_len_per_gpu on all ranks of a se" in said
    assert "quence=6000): resume with the former values" in said and "response" not in said
    assert (
        describe_left_out(RowLimits(None, 7, None), np.array([0, 1, 0])).count("1 over data.max_response_length=7") == 1
    )

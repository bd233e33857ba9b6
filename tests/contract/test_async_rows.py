"""What the buffer reads of an asynchronous trainer's rows; only TransferQueue's answers are made up."""

import dataclasses

import numpy as np
import pytest
import torch
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta

from repo_verl.trainer import rollouts
from repo_verl.trainer.guards import NonFiniteError
from repo_verl.trainer.rollouts import FreshRows

pytestmark = pytest.mark.contract

STEP = 5
VERSIONS = [(4, 4), (3, 4), (2, 3)]
RESPONSES = [[11, 12], [13], [14, 15, 16]]
FORWARD = [[-0.125, -0.25], [-0.5], [-0.75, -1.0, -1.25]]
SAMPLED = [[-2.0, -2.25], [-2.5], [-2.75, -3.0, -3.25]]


def nested(values):
    return torch.nested.as_nested_tensor([torch.tensor(one) for one in values], layout=torch.jagged)


def fresh_rows():
    tags = [{"min_global_steps": oldest, "max_global_steps": newest} for oldest, newest in VERSIONS]
    masks = [torch.ones(len(one), dtype=torch.int64) for one in FORWARD]
    return FreshRows(
        keys=["u_0_0", "u_1_0", "u_2_0"], tags=tags, blocks=[0, 0, 0], prompt_keys=["k"],
        prompt_ids=[np.array([7], dtype=np.int32)], responses=[torch.tensor(ids) for ids in RESPONSES], masks=masks,
        tokens=[2, 1, 3], scores=torch.tensor([0.0, 1.0, 0.5]), parts=[{"acc": float(n)} for n in range(3)],
        statuses=[""] * 3,
    )  # fmt: skip


@pytest.fixture
def queue(monkeypatch):
    """TransferQueue's answer to any request: the fields that the rows have."""
    held = {
        "old_log_probs": nested(FORWARD),
        "rollout_log_probs": nested(SAMPLED),
    }

    def kv_batch_get(keys, partition_id, select_fields):
        return TensorDict({name: held[name] for name in select_fields if name in held}, batch_size=len(keys))

    monkeypatch.setattr(rollouts.tq, "kv_batch_get", kv_batch_get)
    return held


def test_records_have_the_log_probs_and_the_step_of_their_versions(queue):
    behavior = rollouts.read_behavior("train", fresh_rows(), STEP, asynchronous=True)
    assert behavior.steps == [5, 4, 3]
    ((key, ids, records),) = rollouts.to_records(fresh_rows(), behavior, STEP)
    assert (key, ids.tolist()) == ("k", [7])
    # the newest version last
    assert [one.log_probs.tolist() for one in records] == [SAMPLED[2], SAMPLED[1], FORWARD[0]]
    assert [one.step for one in records] == [3, 4, 5] and [one.score for one in records] == [0.5, 1.0, 0.0]


def test_the_synchronous_trainer_reads_no_more_than_it_did(queue):
    del queue["rollout_log_probs"]
    behavior = rollouts.read_behavior("train", fresh_rows(), STEP, asynchronous=False)
    ((_, _, records),) = rollouts.to_records(fresh_rows(), behavior, STEP)
    assert [one.log_probs.tolist() for one in records] == FORWARD and [one.step for one in records] == [5, 5, 5]


def test_rows_are_stored_by_response_number_and_not_as_they_finished(queue):
    del queue["rollout_log_probs"]
    arrived = dataclasses.replace(fresh_rows(), keys=["u_10_0", "u_2_0", "u_0_0"])
    behavior = rollouts.read_behavior("train", arrived, STEP, asynchronous=False)
    ((_, _, records),) = rollouts.to_records(arrived, behavior, STEP)
    assert [one.log_probs.tolist() for one in records] == FORWARD[::-1]
    assert [one.score for one in records] == [0.5, 1.0, 0.0]


def test_a_row_that_is_not_stored_is_named_by_its_response_number(queue):
    queue["old_log_probs"] = nested([[-0.5, float("nan")], [-0.5], [-0.5, -0.5, -0.5]])
    arrived = dataclasses.replace(fresh_rows(), keys=["u_7_0", "u_2_0", "u_0_0"])
    behavior = rollouts.read_behavior("train", arrived, STEP, asynchronous=False)
    with pytest.raises(NonFiniteError, match=r"response 7 of prompt k"):
        rollouts.to_records(arrived, behavior, STEP)


def test_rows_of_one_uid_with_two_prompts_are_refused(monkeypatch):
    held = {
        "prompts": nested([[5, 6], [5, 6, 7]]),
        "response_mask": nested([[1], [1]]),
        "rm_scores": nested([[0.5], [1.0]]),
        "responses": nested([[3], [4]]),
        "extra_fields": NonTensorStack({}, {}),
    }
    monkeypatch.setattr(rollouts.tq, "kv_batch_get", lambda **_: TensorDict(held, batch_size=2))
    batch = KVBatchMeta(keys=["u_0_0", "u_1_0"], tags=[{}, {}], partition_id="train")
    with pytest.raises(ValueError, match=r"row 'u_1_0' has another prompt \(3 tokens\) than .* \(2\): RePO needs"):
        rollouts.read_fresh(batch)
    held["prompts"] = nested([[5, 6], [5, 6]])
    assert rollouts.read_fresh(batch).blocks == [0, 0]


def test_rows_without_the_engines_log_probs_stop_the_run(queue):
    del queue["rollout_log_probs"]
    with pytest.raises(ValueError, match=r"^rows of step 5 have no rollout_log_probs, .*: use an agent loop that"):
        rollouts.read_behavior("train", fresh_rows(), STEP, asynchronous=True)

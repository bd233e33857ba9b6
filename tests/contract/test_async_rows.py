"""What the buffer reads of an asynchronous trainer's rows; only TransferQueue's answers are made up."""

import numpy as np
import pytest
import torch
from tensordict import NonTensorStack, TensorDict

from repo_verl.trainer import texts
from repo_verl.trainer.rows import FreshRows
from repo_verl.trainer.versions import Written

pytestmark = pytest.mark.contract

STEP = 5
VERSIONS = [(4, 4), (3, 4), (2, 3)]
FORWARD = [[-0.125, -0.25], [-0.5], [-0.75, -1.0, -1.25]]
SAMPLED = [[-2.0, -2.25], [-2.5], [-2.75, -3.0, -3.25]]


def nested(values):
    return torch.nested.as_nested_tensor([torch.tensor(one) for one in values], layout=torch.jagged)


def fresh_rows():
    tags = [{"min_global_steps": oldest, "max_global_steps": newest} for oldest, newest in VERSIONS]
    masks = [torch.ones(len(one), dtype=torch.int64) for one in FORWARD]
    return FreshRows(
        keys=["u_0_0", "u_1_0", "u_2_0"], tags=tags, uids=["u"], blocks=[0, 0, 0], prompt_keys=["k"],
        prompt_ids=[np.array([7], dtype=np.int32)], masks=masks, tokens=[2, 1, 3], scores=torch.tensor([0.0, 1.0, 0.5]),
    )  # fmt: skip


@pytest.fixture
def queue(monkeypatch):
    """TransferQueue's answer to any request: the fields that the rows have."""
    held = {
        "responses": nested([[11, 12], [13], [14, 15, 16]]),
        "old_log_probs": nested(FORWARD),
        "rollout_log_probs": nested(SAMPLED),
        "extra_fields": NonTensorStack(*[{"reward_extra_info": {"acc": float(n)}} for n in range(3)]),
    }

    def kv_batch_get(keys, partition_id, select_fields):
        return TensorDict({name: held[name] for name in select_fields if name in held}, batch_size=len(keys))

    monkeypatch.setattr(texts.tq, "kv_batch_get", kv_batch_get)
    return held


def test_records_have_the_log_probs_and_the_step_of_their_versions(queue):
    kept, written = texts.read_versioned_texts("train", fresh_rows(), STEP)
    assert written == [Written(4, 4), Written(3, 4), Written(2, 3)]
    ((key, ids, records),) = texts.to_records(fresh_rows(), kept, STEP, written=written)
    assert (key, ids.tolist()) == ("k", [7])
    assert [one.log_probs.tolist() for one in records] == [FORWARD[0], SAMPLED[1], SAMPLED[2]]
    assert [one.step for one in records] == [5, 4, 3] and [one.score for one in records] == [0.0, 1.0, 0.5]


def test_the_synchronous_trainer_reads_no_more_than_it_did(queue):
    del queue["rollout_log_probs"]
    kept = texts.read_texts("train", fresh_rows().keys)
    ((_, _, records),) = texts.to_records(fresh_rows(), kept, STEP)
    assert [one.log_probs.tolist() for one in records] == FORWARD and [one.step for one in records] == [5, 5, 5]


def test_rows_without_the_engines_log_probs_stop_the_run(queue):
    del queue["rollout_log_probs"]
    with pytest.raises(ValueError, match=r"^rows of step 5 have no rollout_log_probs, .*: use an agent loop that"):
        texts.read_versioned_texts("train", fresh_rows(), STEP)

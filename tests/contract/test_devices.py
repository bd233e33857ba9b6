"""The worker's loss keeps to the device of its rows: nothing of it is made on the host and mixed with them."""

from functools import partial

import pytest
import torch
from engine_rows import MODES, Case, actor_data, draw_rows, make_plan
from other_device import MixedDevices, OtherDevice

pytestmark = pytest.mark.contract

ROW_FIELDS = ("repo_origin", "repo_weight", "repo_fresh_scale", "repo_fresh_tokens")


def micro_batch(case, replay):
    """All rows of an update as one micro-batch with verl's settings for it, and log-probs that take a gradient."""
    from verl.utils import tensordict_utils as tu

    rows = draw_rows(case)
    data = actor_data(case, rows, make_plan(case, rows, 1, False), 0, 1)
    if not replay:
        data = data.exclude(*ROW_FIELDS)
    tokens = int(data["loss_mask"].values().sum())
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=tokens, global_batch_size=len(data))
    values = (-4.4 + 0.1 * torch.randn(len(data["input_ids"].values()))).requires_grad_(True)
    return data, values, torch.nested.nested_tensor_from_jagged(values, data["input_ids"].offsets())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("on_nonfinite", [None, "stop", "skip"])
@pytest.mark.parametrize("replay", [False, True], ids=["stock_batch", "replayed_rows"])
def test_worker_loss_mixes_no_devices(replay, on_nonfinite, mode):
    from verl.workers.config import FSDPActorConfig

    from repo_verl.trainer.worker_loss import repo_loss

    actor = FSDPActorConfig(strategy="fsdp2", rollout_n=4, ppo_micro_batch_size_per_gpu=4, loss_agg_mode=mode)
    data, values, log_probs = micro_batch(Case("fp32", 25, mode=mode, replay=replay), replay)
    run = partial(repo_loss, actor, 1.5, {"log_probs": log_probs}, data, on_nonfinite=on_nonfinite)
    plain, _ = run()
    with OtherDevice() as device:
        device.put([values, log_probs, *(one for one in data.values() if isinstance(one, torch.Tensor))])
        loss, _ = run()
        loss.backward()
    assert loss.item() == plain.item() and bool(values.grad.any())


def test_pretended_device_refuses_what_cuda_refuses():
    on_device, host = torch.ones(3), torch.ones(3)
    with OtherDevice() as device:
        device.put(on_device)
        made = on_device * 2 + torch.zeros(3, device=on_device.device) + host.sum()
        assert device.holds(made) and not device.holds(host + 1)
        with pytest.raises(MixedDevices):
            made + host
        with pytest.raises(MixedDevices):
            made.numpy()

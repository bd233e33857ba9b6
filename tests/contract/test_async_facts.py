"""Why RePO refuses verl's separate_async: facts of verl 0.9.1 that would have to change (docs/async.md)."""

import pytest
import torch

pytestmark = pytest.mark.contract


@pytest.fixture
def group(tmp_path):
    """A process group of one."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_weights_saved_for_later_updates_are_those_that_the_optimizer_changes(group):
    """verl saves them before the first update of a step and restores them for the others' old log-probs."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from verl.utils.fsdp_utils import fsdp2_sharded_load_from_cpu, fsdp2_sharded_save_to_cpu

    model = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    saved, spec = fsdp2_sharded_save_to_cpu(model)
    with torch.no_grad():
        model.weight.add_(10.0)  # an optimizer step
    fsdp2_sharded_load_from_cpu(model, saved, spec)
    assert model.weight.to_local().tolist() == [[11.0, 12.0]], "a true copy would give 1 and 2"


def test_no_weight_transfer_of_the_mode_runs_without_a_gpu():
    from verl.checkpoint_engine import CheckpointEngineRegistry

    if torch.cuda.is_available():
        pytest.skip("a machine with a GPU may have one")
    assert sorted(CheckpointEngineRegistry._registry) == ["naive"], "the one that the mode refuses"

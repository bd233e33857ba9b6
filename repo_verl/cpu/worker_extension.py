"""vLLM's worker extension for the CPU: how the actor's weights get into the rollout engine."""

from __future__ import annotations

from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension


class CPUWorkerExtension(vLLMColocateWorkerExtension):
    """verl's extension with weight loading that works on the CPU.

    Two things differ from a GPU. A tensor of the receiver is a view into shared memory that is closed afterwards,
    because moving it "to the device" copies nothing: it is cloned. And vLLM's linear layers have repacked their
    weights, so they are not loaded in place but through vLLM's own ``reload_weights``.
    """

    def update_weights_from_ipc(
        self, peft_config: dict[str, Any] | None = None, base_sync_done: bool = False, use_shm: bool = True
    ) -> None:
        """Receive all weights from the actor and load them; NotImplementedError for adapters (``peft_config``)."""
        if peft_config is not None:
            raise NotImplementedError(
                "LoRA weight sync is not supported on the CPU: set actor_rollout_ref.model.lora_rank=0"
            )
        received: list[tuple[str, torch.Tensor]] = []

        def keep(weights: list[tuple[str, torch.Tensor]], is_last: bool) -> None:
            received.extend((name, tensor.clone()) for name, tensor in weights)

        receiver = BucketedWeightReceiver(
            zmq_handle=self._get_zmq_handle(), device=torch.device("cpu"), use_shm=use_shm
        )
        receiver.receive_weights(on_bucket_received=keep)
        self.reload_weights(weights_iterator=iter(received))

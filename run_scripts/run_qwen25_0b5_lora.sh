#!/usr/bin/env bash
# RePO on Qwen2.5-0.5B with LoRA, on one GPU of 24 GB. With LoRA, vLLM must load the base weights itself
# (load_format=safetensors), and FSDP2 must collect the adapters layer by layer (layered_summon). TransferQueue gets one
# storage process instead of 8: each reserves a CPU, and machines of that size have few.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export NUM_GPUS=${NUM_GPUS:-1} LR=${LR:-2e-5}
run_math qwen25_0b5_lora Qwen/Qwen2.5-0.5B actor_rollout_ref.model.lora_rank=32 actor_rollout_ref.model.lora_alpha=32 \
  actor_rollout_ref.rollout.load_format=safetensors actor_rollout_ref.rollout.layered_summon=True \
  actor_rollout_ref.rollout.gpu_memory_utilization=0.4 actor_rollout_ref.actor.ppo_max_token_len_per_gpu=6144 \
  actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=6144 \
  actor_rollout_ref.rollout.agent.num_workers=2 reward.num_workers=2 \
  transfer_queue.backend.SimpleStorage.num_data_storage_units=1 "$@"

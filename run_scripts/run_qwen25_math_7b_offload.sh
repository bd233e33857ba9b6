#!/usr/bin/env bash
# RePO on Qwen2.5-Math-7B, 4 GPUs of 48 GB: FSDP2 keeps parameters and optimizer in the host's memory between uses.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export NUM_GPUS=${NUM_GPUS:-4}
run_math qwen25_math_7b_offload Qwen/Qwen2.5-Math-7B actor_rollout_ref.actor.fsdp_config.param_offload=True \
  actor_rollout_ref.actor.fsdp_config.optimizer_offload=True actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096 \
  actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=8192 "$@"

#!/usr/bin/env bash
# RePO on Qwen2.5-Math-1.5B with verl's Megatron engine, the 1.5B run's settings; TP and PP: sizes of tensor and pipeline
# parallelism. Needs verl[megatron]. Never run on a GPU; what is checked and what is refused: docs/megatron.md
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
megatron=actor_rollout_ref.actor.megatron
LR_DECAY_KEY=lr_decay_style run_math qwen25_math_megatron Qwen/Qwen2.5-Math-1.5B model_engine=megatron \
  actor_rollout_ref.actor.strategy=megatron "$megatron.tensor_model_parallel_size=${TP:-2}" \
  "$megatron.pipeline_model_parallel_size=${PP:-1}" "$@"

#!/usr/bin/env bash
# RePO on Qwen2.5-Math-1.5B, the paper's run: DeepMath (1,024 prompts), 3 epochs, 4 prompts x 8 responses a step.
# Everything by environment variable: MODEL, TRAIN_FILE, OUTPUT, NUM_GPUS, ... below. Arguments are Hydra overrides.
# DRY_RUN=1 prints the composed configuration. CONFIG_NAME=repo_cpu with VERL_PLATFORM=cpu runs it without a GPU.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
use_any_environment
data=${DATA:-$ROOT/runs/data}
output=${OUTPUT:-$ROOT/runs/qwen25_math_${ADV_ESTIMATOR:-repo}_${STRATEGY:-recency}_seed${SEED:-42}} # verl resumes what lies there
train_file=${TRAIN_FILE:-$data/deepmath_train.parquet}
if [ "${DRY_RUN:-0}" != 1 ]; then
  [ -f "$train_file" ] || fail "$train_file is missing: python -m data_prep deepmath --output $data --sample-size 1024"
  mkdir -p "$output" && export VERL_FILE_LOGGER_PATH=$output/metrics.jsonl
  # verl begins its log anew on a resume: keep what the run has logged so far, the report reads both
  [ ! -s "$VERL_FILE_LOGGER_PATH" ] || mv "$VERL_FILE_LOGGER_PATH" "$output/metrics.$(date +%s).jsonl"
fi
train --config-dir "$CONFIG" --config-name "${CONFIG_NAME:-repo_gpu}" \
  algorithm.adv_estimator="${ADV_ESTIMATOR:-repo}" algorithm.repo.strategy="${STRATEGY:-recency}" \
  actor_rollout_ref.model.path="${MODEL:-Qwen/Qwen2.5-Math-1.5B}" \
  data.train_files="$train_file" data.val_files="${VAL_FILE:-$train_file}" data.seed="${SEED:-42}" \
  data.train_batch_size="${PROMPTS:-4}" data.max_prompt_length="${MAX_PROMPT:-512}" \
  data.max_response_length="${MAX_RESPONSE:-1024}" data.filter_overlong_prompts=True \
  actor_rollout_ref.rollout.n="${SAMPLES:-8}" actor_rollout_ref.rollout.temperature=1.0 \
  actor_rollout_ref.rollout.top_k=50 actor_rollout_ref.actor.ppo_mini_batch_size="${PROMPTS:-4}" \
  actor_rollout_ref.actor.optim.lr="${LR:-1e-6}" actor_rollout_ref.actor.optim.weight_decay=0.0 \
  actor_rollout_ref.actor.optim.lr_scheduler_type=cosine actor_rollout_ref.actor.optim.lr_warmup_steps_ratio=0.1 \
  reward.custom_reward_function.path=pkg://repo_verl.rewards reward.custom_reward_function.name=compute_score \
  trainer.n_gpus_per_node="${NUM_GPUS:-8}" trainer.nnodes="${NUM_NODES:-1}" trainer.total_epochs="${EPOCHS:-3}" \
  trainer.save_freq="${SAVE_FREQ:-256}" trainer.val_before_train=False trainer.test_freq=-1 \
  trainer.project_name=repo_qwen25_math trainer.experiment_name="${ADV_ESTIMATOR:-repo}" \
  trainer.default_local_dir="$output/checkpoints" hydra.run.dir="$output" "$@"

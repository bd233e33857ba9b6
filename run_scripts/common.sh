# Shared by all run scripts: strict mode, the repository's root, the virtual environment, messages. Source it.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-$ROOT/.venv}
CONFIG=$ROOT/recipe/repo/config
export PYTHONUNBUFFERED=1

say() { printf '\n== %s\n' "$*" >&2; }

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# use_environment: activates the repository's .venv, which is made if needed
use_environment() {
  bash "$ROOT/run_scripts/setup.sh"
  export PATH=$VENV/bin:$PATH VIRTUAL_ENV=$VENV
}

# use_any_environment: keeps the python on the PATH if it has verl and repo_verl; else activates .venv, but only for the CPU
use_any_environment() {
  local look='import sys, importlib.util as u; sys.exit(not (u.find_spec("verl") and u.find_spec("repo_verl")))'
  python -c "$look" 2>/dev/null && return
  [ "${DRY_RUN:-0}" = 1 ] || [ "${CONFIG_NAME:-}" = repo_cpu ] ||
    fail "python on the PATH has no verl or no repo_verl: pip install '.[gpu]', then flash-attn, in your environment and activate it"
  use_environment
}

# train ARGS...: runs the preflight, then verl's own command. DRY_RUN=1 only prints the composed configuration as YAML.
# SKIP_DOUBTS=1 skips checks of what is only likely to stop the run, SKIP_PREFLIGHT=1 skips all checks.
train() {
  if [ "${DRY_RUN:-0}" = 1 ]; then
    python -m repo_verl.preflight --dry-run "$@"
  else
    if [ "${SKIP_PREFLIGHT:-0}" != 1 ]; then python -m repo_verl.preflight "$@"; fi
    python -m verl.trainer.main_ppo "$@"
  fi
}

# run_math NAME MODEL ARGS...: trains MODEL with RePO (ADV_ESTIMATOR=grpo: GRPO) and the paper's settings; NAME is part
# of the project's and the folder's name. Environment variables change settings, ARGS are Hydra overrides; docs/run_scripts.md
run_math() {
  local name=$1 model=$2 estimator=${ADV_ESTIMATOR:-repo} strategy=${STRATEGY:-recency} seed=${SEED:-42} && shift 2
  local arm=${estimator}_$strategy
  [ "$estimator" != grpo ] || arm=grpo
  local data=${DATA:-$ROOT/runs/data} output=${OUTPUT:-$ROOT/runs/${name}_${arm}_seed${seed}} # verl resumes from it
  local train_file=${TRAIN_FILE:-$data/deepmath_train.parquet}
  use_any_environment
  if [ "${DRY_RUN:-0}" != 1 ]; then
    [ -f "$train_file" ] || fail "$train_file is missing: python -m data_prep deepmath --output $data --sample-size 1024"
    mkdir -p "$output" && export VERL_FILE_LOGGER_PATH=$output/metrics.jsonl
    # verl overwrites its log on a resume: keep what was logged so far, the report reads both
    [ ! -s "$VERL_FILE_LOGGER_PATH" ] || mv "$VERL_FILE_LOGGER_PATH" "$output/metrics.$(date +%s).jsonl"
  fi
  train --config-dir "$CONFIG" --config-name "${CONFIG_NAME:-repo_gpu}" \
    algorithm.adv_estimator="$estimator" algorithm.repo.strategy="$strategy" \
    actor_rollout_ref.model.path="${MODEL:-$model}" \
    data.train_files="$train_file" data.val_files="${VAL_FILE:-$train_file}" data.seed="$seed" \
    algorithm.repo.seed="$seed" actor_rollout_ref.rollout.seed="$seed" \
    data.train_batch_size="${PROMPTS:-4}" data.max_prompt_length="${MAX_PROMPT:-512}" \
    data.max_response_length="${MAX_RESPONSE:-1024}" data.filter_overlong_prompts=True \
    actor_rollout_ref.rollout.n="${SAMPLES:-8}" actor_rollout_ref.rollout.temperature=1.0 \
    actor_rollout_ref.rollout.top_k=50 \
    actor_rollout_ref.rollout.max_model_len="$((${MAX_PROMPT:-512} + ${MAX_RESPONSE:-1024}))" \
    actor_rollout_ref.actor.ppo_mini_batch_size="${PROMPTS:-4}" \
    actor_rollout_ref.actor.optim.lr="${LR:-1e-6}" actor_rollout_ref.actor.optim.weight_decay=0.0 \
    "actor_rollout_ref.actor.optim.${LR_DECAY_KEY:-lr_scheduler_type}=cosine" \
    actor_rollout_ref.actor.optim.lr_warmup_steps_ratio=0.1 \
    reward.custom_reward_function.path=pkg://repo_verl.rewards reward.custom_reward_function.name=compute_score \
    trainer.n_gpus_per_node="${NUM_GPUS:-8}" trainer.nnodes="${NUM_NODES:-1}" trainer.total_epochs="${EPOCHS:-3}" \
    trainer.save_freq="${SAVE_FREQ:-256}" trainer.val_before_train=False trainer.test_freq=-1 \
    trainer.project_name="repo_$name" trainer.experiment_name="$arm" \
    trainer.default_local_dir="$output/checkpoints" hydra.run.dir="$output" "$@"
}

# train_watched DIR STEPS TAG ARGS...: trains for STEPS steps into DIR, quietly, with a counter; finished runs are reused
train_watched() {
  local dir=$1 steps=$2 tag="$2 steps, $3, $(cat "$CONFIG"/*.yaml | cksum)" && shift 3
  [ "$(cat "$dir/done" 2>/dev/null)" = "$tag" ] && { say "$(basename "$dir"): kept, $dir is up to date"; return; }
  rm -rf "$dir" && mkdir -p "$dir"
  say "$(basename "$dir"): $steps steps; log in $dir/train.log"
  VERL_FILE_LOGGER_PATH=$dir/metrics.jsonl train "$@" trainer.total_training_steps="$steps" trainer.total_epochs=100000 \
    >"$dir/train.log" 2>&1 </dev/null &
  local pid=$! start=$SECONDS
  trap 'kill $pid 2>/dev/null || true' EXIT
  while kill -0 $pid 2>/dev/null; do
    [ -t 2 ] && printf '\r  step %s of %s, %s s ' "$(grep -c timing_s/step "$dir/metrics.jsonl" 2>/dev/null || true)" \
      "$steps" $((SECONDS - start)) >&2
    sleep 2
  done
  trap - EXIT
  wait $pid || { tail -n 25 "$dir/train.log" >&2; fail "training stopped: the last lines of $dir/train.log are above"; }
  printf '\r  %s steps in %s s\n' "$steps" $((SECONDS - start)) >&2
  echo "$tag" >"$dir/done"
}

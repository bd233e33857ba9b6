#!/usr/bin/env bash
# From nothing to a table: GRPO and RePO train a tiny model on arithmetic, on a machine without a GPU.
# quickstart.sh [--steps N] [--seed S] [--only repo|grpo]; re-runs reuse finished parts. OUTPUT names the folder.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
steps=40 seed=0 arms="grpo repo"
while [ $# -gt 0 ]; do
  case $1 in
    --steps) steps=${2:?--steps needs a number} ;;
    --seed) seed=${2:?--seed needs a number} ;;
    --only) arms=${2:?--only needs repo or grpo} ;;
    *) fail "unknown argument $1: use --steps N, --seed S or --only repo|grpo" ;;
  esac
  shift 2
done
[[ $steps$seed =~ ^[0-9]+$ && " repo grpo grpo repo " == *" $arms "* ]] || fail "--steps and --seed take numbers, --only repo or grpo"
say() { printf '\n== %s [after %s s]\n' "$*" "$SECONDS" >&2; }
use_environment; export VERL_PLATFORM=cpu
output=${OUTPUT:-$ROOT/runs/quickstart}
data=$output/data base=$output/base-$seed
[ -f "$data/arithmetic.json" ] || { say "data"; python -m data_prep arithmetic --train-size 128 --test-size 512 --warmup-size 14000 --output "$data"; }
[ -f "$base/tiny.json" ] || { say "base model, seed $seed"; python -m repo_verl.cpu.tiny --task arithmetic --data "$data/arithmetic_warmup.parquet" --output "$base" --seed "$seed" --target 0.3 0.4; }
for arm in $arms; do
  [ "$arm" = repo ] && strategy=recency || strategy=none # without replay RePO is GRPO, bit for bit
  train_watched "$output/$arm" "$steps" "seed $seed, $(cksum <"$base/tiny.json")" --config-dir "$CONFIG" --config-name repo_quickstart \
    algorithm.repo.strategy=$strategy algorithm.repo.seed="$seed" actor_rollout_ref.model.path="$base" \
    data.train_files="$data/arithmetic_train.parquet" data.val_files="$data/arithmetic_test.parquet" data.seed="$seed" \
    actor_rollout_ref.rollout.seed="$seed" trainer.experiment_name="$arm" trainer.default_local_dir="$output/$arm/checkpoints"
done
say "report"
runs=() && for arm in $arms; do runs+=("$output/$arm"); done
repo-verl report "${runs[@]}" --output "$output" --seed "$seed"
say "done"

#!/usr/bin/env bash
# The main job's script, run_qwen25_math.sh, on real DeepMath prompts with a tiny model and without a GPU.
# deepmath_cpu.sh FILE: FILE is a jsonl file of DeepMath. OUTPUT names the folder. ANSWERS=golds uses gold answers of
# any kind; the default, yes-no, uses only those that a tiny model often gets right.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
input=${1:?usage: deepmath_cpu.sh FILE.jsonl [HYDRA OVERRIDES]} && shift
[ -f "$input" ] || fail "$input is missing: name a jsonl file of DeepMath"
use_environment
export VERL_PLATFORM=cpu CONFIG_NAME=repo_cpu NUM_GPUS=1 OUTPUT=${OUTPUT:-$ROOT/runs/deepmath_cpu} SAVE_FREQ=-1 SEED=${SEED:-42}
export TRAIN_FILE=$OUTPUT/data/deepmath_train.parquet MODEL=$OUTPUT/base-$SEED MAX_PROMPT=256 MAX_RESPONSE=16 LR=${LR:-1e-4}
answers=${ANSWERS:-yes-no} && filter=(--answers yes-no)
[ "$answers" = yes-no ] || filter=(--filter-unverifiable)
say "data: 16 real prompts"
python -m data_prep deepmath --input "$input" --output "$OUTPUT/data" "${filter[@]}" --max-prompt-chars 160 --sample-size 16
[ "$(cat "$MODEL/data.cksum" 2>/dev/null)" = "$(cksum <"$TRAIN_FILE")" ] || { say "base model"; python -m repo_verl.cpu.tiny --task "$answers" --data "$TRAIN_FILE" --output "$MODEL" --seed "$SEED"; cksum <"$TRAIN_FILE" >"$MODEL/data.cksum"; }
say "training: 3 epochs over 16 prompts"
bash "$ROOT/run_scripts/run_qwen25_math.sh" data.seed="$SEED" "$@"
say "report"
repo-verl report "$OUTPUT" --output "$OUTPUT/report" --seed "$SEED"

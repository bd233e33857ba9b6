#!/usr/bin/env bash
# The paper's evaluation of a model on the seven benchmarks: evaluate_math.sh MODEL [FLAGS of repo-verl evaluate].
# MODEL is a hub id, a folder or a checkpoint of verl's. BENCHMARKS and OUTPUT name folders. The same command resumes.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
model=${1:?usage: evaluate_math.sh MODEL [FLAGS]} && shift
use_any_environment
benchmarks=${BENCHMARKS:-$ROOT/runs/benchmarks}
[ -f "$benchmarks/benchmarks.json" ] || { say "benchmarks"; python -m data_prep benchmarks --output "$benchmarks"; }
# the last five parts of the path, so that checkpoints of different runs get different names
name=$(tr / '\n' <<<"${model%/}" | tail -n 5 | paste -sd _)
output=${OUTPUT:-$ROOT/runs/evaluations/$name}
say "evaluation of $model into $output"
repo-verl evaluate --model "$model" --benchmarks "$benchmarks" --output "$output" "$@"

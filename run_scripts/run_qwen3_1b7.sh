#!/usr/bin/env bash
# RePO on Qwen3-1.7B: replays the highest scores, as in the authors' run (highest_k).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export STRATEGY=${STRATEGY:-reward}
run_math qwen3_1b7 Qwen/Qwen3-1.7B "$@"

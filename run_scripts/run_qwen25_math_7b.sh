#!/usr/bin/env bash
# RePO on Qwen2.5-Math-7B, 8 GPUs of 80 GB: the 1.5B run's settings, as in the authors' run (recent_k, 1,024 tokens).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
run_math qwen25_math_7b Qwen/Qwen2.5-Math-7B "$@"

#!/usr/bin/env bash
# GRPO, the twin of run_qwen25_math_megatron.sh: the same run with the switch off.
ADV_ESTIMATOR=grpo exec bash "$(dirname "${BASH_SOURCE[0]}")/run_qwen25_math_megatron.sh" "$@"

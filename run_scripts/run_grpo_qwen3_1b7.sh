#!/usr/bin/env bash
# GRPO, the twin of run_qwen3_1b7.sh: the same run with the switch off.
ADV_ESTIMATOR=grpo exec bash "$(dirname "${BASH_SOURCE[0]}")/run_qwen3_1b7.sh" "$@"

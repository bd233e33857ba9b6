#!/usr/bin/env bash
# RePO on Qwen2.5-Math-1.5B, the paper's run: DeepMath (1,024 prompts), 3 epochs, 4 prompts x 8 responses per step.
# Settings by environment variable (MODEL, TRAIN_FILE, OUTPUT, NUM_GPUS, ...: docs/run_scripts.md), arguments are Hydra
# overrides. DRY_RUN=1 prints the configuration. CONFIG_NAME=repo_cpu with VERL_PLATFORM=cpu runs it without a GPU.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
run_math qwen25_math Qwen/Qwen2.5-Math-1.5B "$@"

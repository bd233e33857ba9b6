#!/usr/bin/env bash
# The training command for every kind of cluster: waits for NUM_NODES nodes at RAY_ADDRESS, then runs SCRIPT
# (default run_qwen25_math.sh), with the replay buffer in storage processes on all nodes. Arguments are Hydra overrides.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ ${NUM_NODES:-} =~ ^[1-9][0-9]*$ ]] || fail "NUM_NODES=${NUM_NODES:-}: set it to the number of nodes that train"
[ -n "${OUTPUT:-}" ] || fail "OUTPUT is not set: name a folder that all nodes see under this name; checkpoints go there"
OUTPUT=$(realpath -m "$OUTPUT") && export OUTPUT
use_any_environment
if [ "${DRY_RUN:-0}" != 1 ]; then
  head_address
  python "$ROOT/run_scripts/multinode/wait_for_nodes.py" "$NUM_NODES" "${WAIT_S:-600}"
fi
# Ray's workers have the environment of their node, not of this command, and one of them writes the metrics
exec bash "$ROOT/run_scripts/${SCRIPT:-run_qwen25_math.sh}" algorithm.repo.storage=distributed \
  ++ray_kwargs.ray_init.num_cpus=null ++ray_kwargs.ray_init.num_gpus=null \
  "+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH='$OUTPUT/metrics.jsonl'" "$@"

#!/usr/bin/env bash
# Makes this machine a node of a Ray cluster until it is stopped: ray_node.sh head|worker [FLAGS of ray start].
# RAY_ADDRESS=HOST:PORT is the head's, on every node. NUM_GPUS: GPUs of this node. VERL_PLATFORM=cpu: without GPUs.
# Training runs in Ray's workers, and they have this script's environment: set WANDB_API_KEY, HF_HOME, NCCL_... here.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
role=${1:?usage: ray_node.sh head|worker [FLAGS of ray start]} && shift
[[ $role =~ ^(head|worker)$ ]] || fail "unknown role $role: use head or worker"
head_address
use_any_environment
place=(--head "--port=$head_port")
if [ "$role" = worker ]; then
  place=("--address=$RAY_ADDRESS")
  until timeout --foreground 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$head_host" "$head_port" 2>/dev/null; do
    [ $SECONDS -lt "${WAIT_S:-600}" ] || fail "no Ray head at $RAY_ADDRESS after $SECONDS s: start ray_node.sh head there, or raise WAIT_S"
    sleep 1
  done
fi
command=(ray start --block --disable-usage-stats "${place[@]}")
[ -z "${NUM_GPUS:-}" ] || command+=("--num-gpus=$NUM_GPUS")
[ "${VERL_PLATFORM:-}" != cpu ] || command=(python -m repo_verl.cpu.node "${command[@]}")
unset RAY_ADDRESS
exec "${command[@]}" "$@"

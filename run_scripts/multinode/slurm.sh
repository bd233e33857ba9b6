#!/usr/bin/env bash
#SBATCH --job-name=repo_verl
#SBATCH --ntasks-per-node=1
#SBATCH --mem=0
# Training on the nodes of a Slurm job, with a Ray node on each; submit it from the repository's root:
#   NUM_GPUS=8 OUTPUT=DIR sbatch --nodes=2 --gpus-per-node=8 --exclusive run_scripts/multinode/slurm.sh [HYDRA OVERRIDES]
# --mem=0 requests the nodes' whole memory, which --exclusive alone may not give. Partition, account, time and so on
# are arguments of sbatch. RAY_START_ARGS has arguments for `ray start`, none with spaces.
cd "${SLURM_SUBMIT_DIR:?run it with sbatch}" # Slurm runs a copy of this script: the others lie here
source run_scripts/multinode/common.sh
if [ "${1:-}" = --node ]; then # what srun runs on every node
  role=worker && [ "$SLURM_NODEID" != 0 ] || role=head
  read -ra flags <<<"${RAY_START_ARGS:-}"
  exec bash run_scripts/multinode/ray_node.sh $role ${flags[@]+"${flags[@]}"}
fi
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST") && first=${hosts%%$'\n'*}
export NUM_NODES=$SLURM_JOB_NUM_NODES NUM_GPUS=${NUM_GPUS:-${SLURM_GPUS_ON_NODE:?set NUM_GPUS}} RAY_ADDRESS=$first:${RAY_PORT:-6379}
# a token only for this job: without one, Ray executes what anyone who reaches its port sends
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token} RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}
set -m # a process group for each, so that none of their processes outlives this script
srun --ntasks="$NUM_NODES" --ntasks-per-node=1 --export=ALL --cpu-bind=none --kill-on-bad-exit=1 \
  bash run_scripts/multinode/slurm.sh --node &
nodes=$!
bash run_scripts/multinode/train.sh "$@" &
train=$!
trap 'kill -- -$train 2>/dev/null || true; kill $nodes 2>/dev/null || true; wait' EXIT
wait -n $nodes $train && code=0 || code=$?
kill -0 $nodes 2>/dev/null || fail "a Ray node ended (status $code): what it said is above"
exit $code

#!/usr/bin/env bash
# Submits training to a running Ray cluster: ray_job.sh [HYDRA OVERRIDES]. RAY_API_SERVER_ADDRESS is its dashboard's URL.
# The job runs train.sh of FOLDER (this repository's root, as the cluster sees it) with the variables below.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${RAY_API_SERVER_ADDRESS:?set it to the URL of the dashboard, port 8265 of the head}" "${NUM_NODES:?set it to the number of nodes}"
use_any_environment
environment=$(mktemp) && trap 'rm -f "$environment"' EXIT
python - >"$environment" <<'END'
import os, sys, yaml
from repo_verl.secrets import is_secret_name
names = """NUM_GPUS NUM_NODES MODEL TRAIN_FILE VAL_FILE DATA OUTPUT SCRIPT CONFIG_NAME ADV_ESTIMATOR STRATEGY SEED PROMPTS
SAMPLES MAX_PROMPT MAX_RESPONSE LR LR_DECAY_KEY EPOCHS SAVE_FREQ TP PP SKIP_DOUBTS SKIP_PREFLIGHT
WAIT_S DRY_RUN""".split()
more = os.environ.get("JOB_VARIABLES", "").split()
for name in filter(is_secret_name, more):
    print(f"warning: JOB_VARIABLES={name} looks like a secret, and Ray shows a job's environment to whoever reaches its "
          "dashboard: set it in the environment of ray_node.sh on every node instead", file=sys.stderr)
print(yaml.safe_dump({"env_vars": {name: os.environ[name] for name in names + more if name in os.environ}}))
END
# read from an open file without a name: the process list doesn't show the content, and no file is left
exec <"$environment" && rm "$environment"
exec ray job submit ${JOB_ID:+--submission-id="$JOB_ID"} --runtime-env /dev/stdin -- \
  bash "${FOLDER:-$ROOT}/run_scripts/multinode/train.sh" "$@"

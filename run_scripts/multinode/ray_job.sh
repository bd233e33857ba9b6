#!/usr/bin/env bash
# Submits training to a Ray cluster that is up: ray_job.sh [HYDRA OVERRIDES]. RAY_API_SERVER_ADDRESS is its dashboard's URL.
# The job runs train.sh of FOLDER (this repository's root, as the cluster sees it) with the variables below.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${RAY_API_SERVER_ADDRESS:?set it to the URL of the dashboard, port 8265 of the head}" "${NUM_NODES:?set it to the number of nodes}"
use_any_environment
environment=$(python - <<'END'
import json, os
names = """NUM_GPUS NUM_NODES MODEL TRAIN_FILE VAL_FILE DATA OUTPUT SCRIPT CONFIG_NAME ADV_ESTIMATOR STRATEGY SEED PROMPTS
SAMPLES MAX_PROMPT MAX_RESPONSE LR EPOCHS SAVE_FREQ WAIT_S DRY_RUN""".split()
names += os.environ.get("JOB_VARIABLES", "").split()
print(json.dumps({"env_vars": {name: os.environ[name] for name in names if name in os.environ}}))
END
)
exec ray job submit ${JOB_ID:+--submission-id="$JOB_ID"} --runtime-env-json "$environment" -- \
  bash "${FOLDER:-$ROOT}/run_scripts/multinode/train.sh" "$@"

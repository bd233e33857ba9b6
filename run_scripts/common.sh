# Shared by all run scripts: strict mode, the repository's root, the virtual environment, messages. Source it.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-$ROOT/.venv}
CONFIG=$ROOT/recipe/repo/config
export PYTHONUNBUFFERED=1

say() { printf '\n== %s\n' "$*" >&2; }

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# use_environment: the repository's .venv, made if needed
use_environment() {
  bash "$ROOT/run_scripts/setup.sh"
  export PATH=$VENV/bin:$PATH VIRTUAL_ENV=$VENV
}

# use_any_environment: the python on the PATH if it has verl and repo_verl, else, for the CPU, the repository's .venv
use_any_environment() {
  local look='import sys, importlib.util as u; sys.exit(not (u.find_spec("verl") and u.find_spec("repo_verl")))'
  python -c "$look" 2>/dev/null && return
  [ "${DRY_RUN:-0}" = 1 ] || [ "${CONFIG_NAME:-}" = repo_cpu ] ||
    fail "python on the PATH has no verl or no repo_verl: pip install '.[gpu]' in your environment and activate it"
  use_environment
}

# train ARGS...: verl's own command; with DRY_RUN=1 the composed configuration as YAML on standard output
train() {
  if [ "${DRY_RUN:-0}" = 1 ]; then
    python -m verl.trainer.main_ppo --cfg job --resolve "$@"
  else
    python -m verl.trainer.main_ppo "$@"
  fi
}

# train_watched DIR STEPS TAG ARGS...: train for STEPS steps into DIR, quietly, with a counter; done runs are kept
train_watched() {
  local dir=$1 steps=$2 tag="$2 steps, $3, $(cat "$CONFIG"/*.yaml | cksum)" && shift 3
  [ "$(cat "$dir/done" 2>/dev/null)" = "$tag" ] && { say "$(basename "$dir"): kept, $dir is up to date"; return; }
  rm -rf "$dir" && mkdir -p "$dir"
  say "$(basename "$dir"): $steps steps; log in $dir/train.log"
  VERL_FILE_LOGGER_PATH=$dir/metrics.jsonl train "$@" trainer.total_training_steps="$steps" trainer.total_epochs=100000 \
    >"$dir/train.log" 2>&1 </dev/null &
  local pid=$! start=$SECONDS
  trap 'kill $pid 2>/dev/null || true' EXIT
  while kill -0 $pid 2>/dev/null; do
    [ -t 2 ] && printf '\r  step %s of %s, %s s ' "$(grep -c timing_s/step "$dir/metrics.jsonl" 2>/dev/null || true)" \
      "$steps" $((SECONDS - start)) >&2
    sleep 2
  done
  trap - EXIT
  wait $pid || { tail -n 25 "$dir/train.log" >&2; fail "training stopped: the last lines of $dir/train.log are above"; }
  printf '\r  %s steps in %s s\n' "$steps" $((SECONDS - start)) >&2
  echo "$tag" >"$dir/done"
}

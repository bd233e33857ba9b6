#!/usr/bin/env bash
# Lint, types and tests: 14 minutes on 2 idle cores once .venv exists. With --all every test except those of a GPU, and
# the audit of dependencies: an hour. Further arguments go to pytest: bash run_scripts/test.sh -k buffer
# SKIP_AUDIT=1 leaves out the audit.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
all=() arguments=()
for argument in "$@"; do
  if [ "$argument" = --all ]; then all=(--all); else arguments+=("$argument"); fi
done
use_environment
cd "$ROOT"
say "lint and types"
bash run_scripts/lint.sh
if [ ${#all[@]} -gt 0 ]; then
  # a test opens the report's page in a browser
  command -v chromium >/dev/null || command -v google-chrome >/dev/null || [ "$(id -u)" != 0 ] ||
    { say "installing chromium" && apt-get -qq update && apt-get -qq install --yes chromium >/dev/null; } ||
    fail "chromium could not be installed: apt-get install chromium, or put google-chrome on the PATH"
  [ "${SKIP_AUDIT:-0}" = 1 ] || { say "known vulnerabilities of dependencies" && bash run_scripts/audit.sh; } ||
    [ $? -eq 3 ] || fail "decide on each in security/decisions.toml"
fi
tests() { say "tests: $1" && shift && python -m pytest --durations=10 "${all[@]}" "$@"; }
if [ ${#arguments[@]} -gt 0 ]; then tests "${arguments[*]}" -m "not gpu" "${arguments[@]}"; exit; fi
parallel=(-n 2 --dist loadfile --no-loadscope-reorder)
status=0
OMP_NUM_THREADS=1 tests "unit and contract, on two cores" -m "not gpu and not serial" "${parallel[@]}" || status=$?
mapfile -t files < <(grep -rlE --include='test_*.py' 'mark\.(e2e|serial)' tests) # collecting all files takes half a minute
tests "one after the other: end to end, and what measures time" -m "serial" "${files[@]}" || status=$?
exit "$status"

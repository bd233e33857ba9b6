#!/usr/bin/env bash
# Sets up and runs every test tier but gpu. Arguments go to pytest: bash run_scripts/test.sh -k buffer
# SKIP_AUDIT=1 leaves known vulnerabilities to audit.sh.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
use_environment
cd "$ROOT"
# the report's page is looked at in a browser
command -v chromium >/dev/null || command -v google-chrome >/dev/null || [ "$(id -u)" != 0 ] ||
  { say "installing chromium" && apt-get -qq update && apt-get -qq install --yes chromium >/dev/null; } ||
  fail "chromium could not be installed: apt-get install chromium, or put google-chrome on the PATH"
say "lint and types"
bash run_scripts/lint.sh
if [ "${SKIP_AUDIT:-0}" != 1 ]; then
  say "known vulnerabilities of dependencies"
  bash run_scripts/audit.sh || [ $? -eq 3 ] || fail "decide on each in security/decisions.toml"
fi
say "tests: unit, contract, e2e"
exec python -m pytest -m "not gpu" --durations=10 "$@"

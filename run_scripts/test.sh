#!/usr/bin/env bash
# Sets up and runs every test tier but gpu. Arguments go to pytest: bash run_scripts/test.sh -k buffer
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
use_environment
cd "$ROOT"
say "lint and types"
ruff check .
ruff format --check .
mypy
say "tests: unit, contract, e2e"
exec python -m pytest -m "not gpu" --durations=10 "$@"

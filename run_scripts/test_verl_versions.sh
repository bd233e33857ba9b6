#!/usr/bin/env bash
# The contract tests on each verl version in TESTED_VERL, each in its own environment. Arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
use_environment
cd "$ROOT"
claimed=$(python -c 'from repo_verl.versions import TESTED_VERL; print(*TESTED_VERL)')
locked=$(sed -n 's/^verl==//p' run_scripts/cpu_lock.txt)
for version in $claimed; do
  venv=$VENV
  if [ "$version" != "$locked" ]; then
    venv=$ROOT/build/verl-$version
    VENV=$venv bash run_scripts/setup.sh
    VIRTUAL_ENV=$venv "$venv/bin/uv" pip install --quiet --compile-bytecode --no-deps "verl==$version" ||
      fail "verl $version could not be installed: see uv's message above"
  fi
  found=$("$venv/bin/python" -c 'import importlib.metadata; print(importlib.metadata.version("verl"))')
  [ "$found" = "$version" ] || fail "$venv has verl $found, wanted: $version; remove it and start again"
  say "contract tests on verl $version"
  env PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv" "$venv/bin/python" -m pytest -m contract "$@"
done

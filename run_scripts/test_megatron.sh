#!/usr/bin/env bash
# Compares RePO's update under verl's Megatron engine with FSDP2's, on the CPU; about a minute. Makes .venv-megatron: .venv
# plus Megatron-Core and mbridge without their CUDA dependencies. docs/megatron.md says what that covers.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
use_environment
cd "$ROOT"
megatron=$ROOT/.venv-megatron
if ! "$megatron/bin/python" -c 'import megatron.core, mbridge' 2>/dev/null; then
  say "setting up $megatron"
  "$VENV/bin/python" -m venv "$megatron"
  site=$("$megatron/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/repo_verl_base.pth"
  "$megatron/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps megatron-core==0.16.1 \
    mbridge==0.15.1 || fail "installing Megatron-Core failed: see pip's message above"
fi
exec "$megatron/bin/python" -m pytest -o pythonpath="tests/helpers tests/megatron" -q \
  tests/megatron/check_megatron_engine.py "$@"

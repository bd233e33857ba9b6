#!/usr/bin/env bash
# Makes .venv with the CPU extra, pinned. Idempotent: seconds when nothing changed. PYTHON names the interpreter.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
stamp=$(cat pyproject.toml run_scripts/setup.sh run_scripts/cpu_*.txt | sha256sum | cut -d' ' -f1)
[ "$(cat "$VENV/.repo_verl_stamp" 2>/dev/null)" = "$stamp" ] && exit 0
python=${PYTHON:-$(command -v python3.11 || command -v python3.12 || command -v python3 || true)}
[ -n "$python" ] || fail "no python3 found: install Python 3.11 or 3.12, or name it with PYTHON=/path/to/python"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' ||
  fail "$python is $("$python" -V 2>&1): RePO needs Python 3.11 or 3.12; name one with PYTHON=/path/to/python"
say "setting up $VENV (once, a few minutes)"
"$python" -m venv "$VENV" || fail "could not make $VENV: install Python's venv module (Debian: python3-venv)"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
# uv reads no pip settings: hand it pip's folders of wheels, or let it find PyTorch's CPU build itself
links=${PIP_FIND_LINKS:-$("$VENV/bin/pip" config get global.find-links 2>/dev/null || true)}
torch_source=(--torch-backend cpu)
[ -n "$links" ] && torch_source=() && for folder in $links; do torch_source+=(--find-links "$folder"); done
install() {
  VIRTUAL_ENV=$VENV "$VENV/bin/uv" pip install --quiet --compile-bytecode "${torch_source[@]}" \
    --constraint run_scripts/cpu_lock.txt --override run_scripts/cpu_overrides.txt "$@" ||
    fail "installing failed: see uv's message above; behind a proxy, set UV_INDEX_URL or PIP_FIND_LINKS"
}
install torch==2.13.0
install --editable '.[cpu,dev,docs]'
echo "$stamp" >"$VENV/.repo_verl_stamp"
say "ready: $("$VENV/bin/python" -V), $(du -sh "$VENV" | cut -f1)"

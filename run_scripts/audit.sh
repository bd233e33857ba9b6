#!/usr/bin/env bash
# Compares known vulnerabilities of cpu_lock.txt with security/decisions.toml.
# Exit status: 0 all are decided, 1 some are not, 3 not audited.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
python=${PYTHON:-$(command -v python3.11 || command -v python3.12 || command -v python3)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1 2>"$work/pip.log" ||
  { say "not audited: pip-audit could not be installed"; exit 3; }
# it exits with 1 both for vulnerabilities and for an unreachable service; its output tells which
"$work/venv/bin/pip-audit" --requirement run_scripts/cpu_lock.txt --no-deps --disable-pip --progress-spinner off \
  --format json --output "$work/found.json" 2>"$work/audit.log" || true
"$python" security/audit.py "$work/found.json" run_scripts/cpu_lock.txt security/decisions.toml

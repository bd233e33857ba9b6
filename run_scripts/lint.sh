#!/usr/bin/env bash
# Lint, format and types, as CI checks them.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
use_environment
cd "$ROOT"
ruff check .
ruff format --check .
mypy

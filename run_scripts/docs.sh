#!/usr/bin/env bash
# Builds the site of docs/ into runs/site (SITE names another folder) and checks its links. Nothing is downloaded.
# Open index.html in a browser; only the search box needs a web server.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
use_environment
cd "$ROOT"
site=${SITE:-$ROOT/runs/site}
NO_MKDOCS_2_WARNING=1 mkdocs build --strict --clean --site-dir "$site"
python docs/check_links.py "$site"
say "$site/index.html"

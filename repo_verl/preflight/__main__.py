"""``python -m repo_verl.preflight``: the same as ``repo-verl preflight``, without importing the other commands."""

import sys

from repo_verl.preflight.cli import main

sys.exit(main(sys.argv[1:]))

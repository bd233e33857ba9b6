"""This package's log lines go where verl's go.

Works around ``verl/utils/logging_utils.py:22``: verl's command configures only the logger "verl", in the trainer's
process; the root logger there drops what other packages log at the level INFO. Delete it once verl configures the
root logger, or the loggers of its plugins.
"""

from __future__ import annotations

import logging


def log_as_verl() -> None:
    """Give this package's loggers verl's level and handlers, where verl has its own. A second call changes nothing."""
    verl, ours = logging.getLogger("verl"), logging.getLogger("repo_verl")
    if verl.handlers:
        ours.handlers, ours.propagate = list(verl.handlers), verl.propagate
        ours.setLevel(verl.level)

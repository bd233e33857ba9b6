"""Where this package's log lines go in a run: to where verl's go."""

from __future__ import annotations

import logging


def log_as_verl() -> None:
    """Give this package's loggers verl's level and handlers, where verl has set up its own.

    verl's command does that in the process of the trainer alone, apart from the root logger, whose handlers there drop
    what other packages log at the level INFO. A second call changes nothing.
    """
    verl, ours = logging.getLogger("verl"), logging.getLogger("repo_verl")
    if verl.handlers:
        ours.handlers, ours.propagate = list(verl.handlers), verl.propagate
        ours.setLevel(verl.level)

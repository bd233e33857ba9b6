"""Where this package's log lines go in a run: to where verl's go."""

from __future__ import annotations

import logging


def log_as_verl() -> None:
    """Give this package's loggers verl's level and handlers, where nothing else shows their lines.

    verl sets up its own logger in the process of the trainer and leaves the root logger alone, so that what another
    package logs at the level INFO is dropped. A second call changes nothing.
    """
    verl, ours = logging.getLogger("verl"), logging.getLogger("repo_verl")
    if verl.handlers and not ours.hasHandlers():
        ours.setLevel(verl.level)
        for handler in verl.handlers:
            ours.addHandler(handler)

"""``python -m data_prep``; SIGTERM is an exception there, so that unfinished files are removed."""

import signal
import sys

from data_prep.cli import Terminated, main


def _terminate(number: int, frame: object) -> None:
    raise Terminated(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main())

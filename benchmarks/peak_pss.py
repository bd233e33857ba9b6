"""Run a command and report its seconds and the peak of the proportional set sizes of all processes started since.

python benchmarks/peak_pss.py NAME COMMAND...
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def pss_kib(before: set[str]) -> int:
    """Summed PSS of processes that were not there before, KiB; processes that end meanwhile count as 0."""
    total = 0
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or entry in before:
            continue
        try:
            text = Path(f"/proc/{entry}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total


def main() -> int:
    """Run, sample every 2 s, write ``results/NAME.json``; returns the command's exit status."""
    from common import write_result

    name, *command = sys.argv[1:]
    before = {entry for entry in os.listdir("/proc") if entry.isdigit()}
    start, peak = time.monotonic(), 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, pss_kib(before))
        time.sleep(2)
    values = {
        "command": " ".join(command),
        "exit_status": process.returncode,
        "seconds": round(time.monotonic() - start, 1),
        "peak_pss_gib": round(peak / 2**20, 2),
    }
    write_result(name, values)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())

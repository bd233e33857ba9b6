"""Compares what pip-audit found with the decisions on it: ``python security/audit.py FOUND.json LOCK DECISIONS.toml``.

Exit status 0: all is decided. 1: a vulnerability has no decision, or a decision no vulnerability. 3: not audited.
"""

from __future__ import annotations

import datetime
import json
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DECISIONS = ("accepted", "not affected")
DECIDED, UNDECIDED, NOT_AUDITED = 0, 1, 3


class AuditError(ValueError):
    """An input of the audit that can't be used; one sentence."""


def canonical(name: str) -> str:
    """A package's name as indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> dict[str, str]:
    """Versions by package of a lock.

    Raises: AuditError for a line that pins nothing, or names an address.
    """
    pins = {}
    for line in text.splitlines():
        pin = line.split("#")[0].strip()
        if not pin:
            continue
        found = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9._+!-]+)", pin)
        if not found:
            raise AuditError(f"the lock has the line {pin!r}: pin it as NAME==VERSION.")
        pins[canonical(found[1])] = found[2]
    return pins


def read_decisions(text: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The decisions, and the packages that need not be audited.

    Raises: AuditError for an entry that lacks a field.
    """
    content = tomllib.loads(text)
    fields: dict[str, tuple[str, ...]] = {
        "decision": ("id", "package", "decision", "reason"), "not_audited": ("package", "reason")
    }  # fmt: skip
    for kind in content:
        if kind not in fields:
            raise AuditError(f"decisions.toml has {kind!r}: it takes [[decision]] and [[not_audited]].")
        for entry in content[kind]:
            bad = [name for name in fields[kind] if not isinstance(entry.get(name), str) or not entry[name].strip()]
            if bad or not isinstance(entry.get("date"), datetime.date) or {*entry} - {*fields[kind], "date"}:
                raise AuditError(f"decisions.toml has {entry}: an entry has {', '.join(fields[kind])} and a date.")
            if entry.get("decision", DECISIONS[0]) not in DECISIONS:
                raise AuditError(f"decisions.toml has {entry}: decision is {' or '.join(DECISIONS)}.")
    return content.get("decision", []), [canonical(entry["package"]) for entry in content.get("not_audited", [])]


def compare(
    found: Mapping[str, Any], pins: Mapping[str, str], decisions: Sequence[Mapping[str, Any]], left_out: Sequence[str]
) -> tuple[int, list[str]]:
    """The exit status, and a sentence for whatever is to be done.

    Args:
        found: of pip-audit's JSON.
        pins: of the lock.
        decisions: see :func:`read_decisions`.
        left_out: packages that need not be audited.
    """
    audited = {canonical(entry["name"]): entry["vulns"] for entry in found["dependencies"] if "vulns" in entry}
    if not audited:
        return NOT_AUDITED, ["not audited: the vulnerability service knew no package of the lock, or was not reached."]
    said = [
        f"{name} was not audited: add it to [[not_audited]] with a reason, or mend the audit."
        for name in pins
        if name not in audited and name not in left_out
    ]
    said += [f"[[not_audited]] {name} was audited, or is gone: remove it." for name in left_out
             if name in audited or name not in pins]  # fmt: skip
    used = set()
    for name, vulnerabilities in audited.items():
        for entry in vulnerabilities:
            ids = {entry["id"], *entry.get("aliases", ())}
            matching = [n for n, d in enumerate(decisions) if canonical(d["package"]) == name and d["id"] in ids]
            used |= {*matching}
            if not matching:
                fixed = ", ".join(entry.get("fix_versions", ())) or "none yet"
                said.append(f"{name} {pins.get(name)} has {entry['id']} without a decision; fixed in: {fixed}.")
    gone = [decision for number, decision in enumerate(decisions) if number not in used]
    said += [f"the decision on {d['id']} of {d['package']} is of no vulnerability any more: remove it." for d in gone]
    return (UNDECIDED if said else DECIDED), said


def main(arguments: Sequence[str]) -> int:
    """Runs the comparison; the exit status."""
    found, lock, decided = (Path(argument) for argument in arguments)
    if not found.is_file() or not found.stat().st_size:
        print("not audited: pip-audit wrote no result, since no vulnerability service was reached.", file=sys.stderr)
        return NOT_AUDITED
    pins = locked(lock.read_text(encoding="utf-8"))
    content = json.loads(found.read_text(encoding="utf-8"))
    status, said = compare(content, pins, *read_decisions(decided.read_text(encoding="utf-8")))
    print("\n".join(said) or f"{len(pins)} packages: every known vulnerability has a decision.", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

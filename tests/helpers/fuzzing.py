"""Mutated files for our readers, and a child process that reads them: a crash, a hang or too much memory is named.

Every input is made by a generator seeded with the fuzz's label and the input's number, so that a failure names all
that is needed to make it again: ``make(rng_of(label, number))``.
"""

import json
import mmap
import os
import random
import resource
import signal
import time
import traceback
from collections import Counter
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
CPU_SECONDS, CLOCK_SECONDS = 5.0, 60.0
"""Of one input: by the processor, and by the clock of a machine that others use too."""
GROWTH = 512 << 20
"""Bytes that a whole fuzz may add to the resident memory of its child."""
ADDRESS_SPACE = 4 << 30
MOST_CHARACTERS = 3000
"""Of a message; it may show some of what was found, not all of it."""
FAILURES_SHOWN = 5

SHARE = float(os.environ.get("REPO_VERL_FUZZ_SHARE", "1"))
"""Of the inputs of every fuzz that are read; ``tests/conftest.py`` sets it."""

MARKER = Path("/tmp/repo_verl_fuzz_pwned")
"""What hostile tags and answers would write if anything ran them."""


def rng_of(label, number):
    """The generator of one input."""
    return random.Random(f"{label}-{number}")


def is_ours(error, kind=ValueError):
    """Whether an error is one of our sentences: a ValueError on one line, raised by a ``raise`` of our packages."""
    message = str(error)
    if not isinstance(error, kind) or not message or "\n" in message or len(message) > MOST_CHARACTERS:
        return False
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/contextlib.py" not in frame.filename]
    frame = frames[-1]
    inside = any(Path(frame.filename).is_relative_to(ROOT / name) for name in ("repo_verl", "data_prep"))
    return inside and (frame.line or "").startswith("raise ")


def portion(count):
    """So many of ``count`` inputs, or of what is expected of them, as :data:`SHARE` says."""
    return max(1, round(count * SHARE))


def fuzz(label, count, make, read, allowed=is_ours):
    """Read mutated inputs in a child process, and count what came of them.

    Args:
        label: of the fuzz; part of every seed.
        count: of the inputs, of which :func:`portion` are read.
        make: input from a ``random.Random``.
        read: the reader, given the input; what it returns counts as ``accepted``.
        allowed: whether an exception is one that the reader may raise.

    Returns: how many were ``accepted`` and how many ``refused``.
    """
    progress, outcome, count = mmap.mmap(-1, 8), mmap.mmap(-1, 1 << 20), portion(count)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _read_all(label, count, make, read, allowed, progress, outcome)
            status = 0
        finally:
            os._exit(status)
    killed = _watch(child, progress)
    number = int.from_bytes(progress[:], "little")
    assert killed is None, f"{label}, input {number}: {killed}: {_shown(make, label, number)}"
    found = json.loads(outcome[:].rstrip(b"\0"))
    assert not found["failures"], f"{label}: {found['failed']} failures\n" + "\n".join(found["failures"])
    grown = found["grown"]
    assert grown < GROWTH, f"{label}: {grown >> 20} MiB more resident memory, most of it at input {found['largest']}"
    return Counter(found["counts"])


def _read_all(label, count, make, read, allowed, progress, outcome):
    """In the child: no more address space than ``ADDRESS_SPACE`` beyond what it has, one input after the other."""
    limit = psutil.Process().memory_info().vms + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    counts, failures, before = Counter(), {}, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest = (0, 0)
    for number in range(count):
        progress[:] = number.to_bytes(8, "little")
        made = make(rng_of(label, number))
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read(made)
            counts["accepted"] += 1
        except (Exception, MemoryError, RecursionError) as error:
            if allowed(error):
                counts["refused"] += 1
            else:
                where = tuple((f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)[-1:])
                text = "".join(traceback.format_exception(error, limit=-4))[-1500:]
                failures.setdefault((type(error).__name__, where), f"input {number}: {text}")
                counts["failed"] += 1
        largest = max(largest, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start, number))
    found = {
        "counts": counts, "failed": counts["failed"], "failures": list(failures.values())[:FAILURES_SHOWN * 3],
        "grown": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10, "largest": largest[1],
    }  # fmt: skip
    text = json.dumps(found).encode()
    outcome[: len(text)] = text


def _watch(child, progress):
    """Waits for the child; None if it ended by itself, else how it was ended."""
    process, seen, cpu, clock = psutil.Process(child), None, 0.0, time.monotonic()
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return None if code == 0 else f"ended the process, status {code}"
        used = sum(process.cpu_times()[:2])
        if progress[:] != seen:
            seen, cpu, clock = progress[:], used, time.monotonic()
        if used - cpu > CPU_SECONDS or time.monotonic() - clock > CLOCK_SECONDS:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"a hang of {used - cpu:.1f} s of CPU, {time.monotonic() - clock:.1f} s by the clock"
        time.sleep(0.02)


def _shown(make, label, number):
    return repr(make(rng_of(label, number)))[:600]


# --- bytes -----------------------------------------------------------------------------------------------------------

_TOKENS = (
    b"\0", b"\n", b"\r", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":",
    b"NaN", b"Infinity", b"-", b"1e999", b"\\ud800", b"\\u0000", b"null", b"PAR1", b"9" * 5000, b"[" * 3000,
    b'{"a":' * 1500, b"\x80\x80\x80\x80\x10", b"\xff" * 8, b"\x7f\xff\xff\xff", b"../../x", b"\xe2\x80\xa8",
)  # fmt: skip


def mutate_bytes(data, rng, most=4):
    """The bytes after one to ``most`` changes: flips, cuts, insertions, chunks removed, doubled, moved or repeated."""
    data = bytearray(data)
    for _ in range(rng.randint(1, most)):
        rng.choice(_BYTE_CHANGES)(data, rng)
    return bytes(data)


def _span(data, rng):
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + int(2 ** rng.uniform(0, 9)))


def _flip(data, rng):
    for _ in range(rng.randint(1, 8)):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _cut(data, rng):
    del data[rng.randrange(len(data) + 1) :]


def _insert(data, rng):
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(_TOKENS) if rng.random() < 0.8 else rng.randbytes(rng.randint(1, 64))


def _remove(data, rng):
    start, end = _span(data, rng)
    del data[start:end]


def _double(data, rng):
    start, end = _span(data, rng)
    data[start:start] = data[start:end]


def _move(data, rng):
    start, end = _span(data, rng)
    chunk = data[start:end]
    del data[start:end]
    at = rng.randrange(len(data) + 1)
    data[at:at] = chunk


def _repeat(data, rng):
    start, end = _span(data, rng)
    data[start:start] = data[start:end][:64] * rng.choice((10, 1000))


def _overwrite(data, rng):
    start = rng.randrange(len(data) + 1)
    value = rng.choice((0, 1, -1, 2**31 - 1, -(2**31), 2**32, 2**63 - 1, -(2**63), rng.getrandbits(62)))
    data[start : start + 8] = value.to_bytes(8, "little", signed=True)


_BYTE_CHANGES = (_flip, _flip, _cut, _insert, _insert, _remove, _double, _move, _repeat, _overwrite)

# --- JSON ------------------------------------------------------------------------------------------------------------

_SPELLED = {
    "@deep@": "[" * 20_000 + "]" * 20_000, "@deepobject@": '{"a":' * 5000 + "1" + "}" * 5000, "@open@": "[" * 5000,
    "@digits@": "9" * 10_000, "@big@": "1" + "0" * 4000, "@huge@": "1e999", "@small@": "-1e999", "@nan@": "NaN",
    "@minus@": "-Infinity", "@surrogate@": '"\\ud800x"', "@key@": '{"\\udfff": 1}', "@control@": '"a\tb"',
}  # fmt: skip
"""Values that json.dumps would not spell."""


def hostile_value(rng):
    """A value of any JSON type, most of them nothing a reader waits for."""
    return rng.choice((
        None, True, False, 0, -1, 1, 2, 7.5, -0.0, 1e308, 5e-324, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 1e30,
        1e22, math_text(rng), "", " ", "0", "-1", "1e5", "nan", "true", "null", "x" * 50_000, "\0", "a\nb", "\u2028",
        "\u202e", "\U0001f600", "é", "../../x", "/etc/passwd", "C:\\x", "CON", "<script>alert(1)</script>",
        "{0.__class__}", "%s%n", [], {}, [[]], [{}], {"": ""}, [None], [1, "a", None], {"a": {"b": {"c": 1}}},
        list(range(300)),
        *_SPELLED,
    ))  # fmt: skip


def math_text(rng):
    """A text that a grader might be tempted to run."""
    return rng.choice((
        f"__import__('os').system('touch {MARKER}')", r"\boxed{__import__('os').getcwd()}", "9**9**9", r"\frac{1}{0}",
        "exec('1')", "lambda: 0", r"\boxed{" * 200, "$" * 200,
    ))  # fmt: skip


def mutate_tree(value, rng):
    """A copy with one place changed: another value, a copy of another place, a key removed, renamed or added."""
    value = json.loads(json.dumps(value))
    holders = []
    _collect(value, holders)
    if not holders or rng.random() < 0.03:
        return hostile_value(rng)
    holder = rng.choice(holders)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    kind = rng.random()
    if not keys or kind < 0.1:
        _add(holder, rng, holders)
    elif kind < 0.25:
        del holder[rng.choice(keys)]
    elif kind < 0.35 and isinstance(holder, dict):
        key = rng.choice(keys)
        holder[key + rng.choice(("s", " ", "\0", "\u202e", "\ud800", "<b>", "x" * 500))] = holder.pop(key)
    elif kind < 0.45:
        holder[rng.choice(keys)] = json.loads(json.dumps(rng.choice(holders)))
    else:
        holder[rng.choice(keys)] = hostile_value(rng)
    return value


def _collect(value, holders):
    if isinstance(value, dict | list):
        holders.append(value)
        for part in value.values() if isinstance(value, dict) else value:
            _collect(part, holders)


def _add(holder, rng, holders):
    if isinstance(holder, dict):
        holder[rng.choice(("", "step", "data", "x", "__class__", "../x", "a.b", "é"))] = hostile_value(rng)
    else:
        holder.extend([json.loads(json.dumps(rng.choice(holders)))] * rng.choice((1, 2, 300)))


def json_text(value, rng):
    """The value as JSON, with values that JSON has no spelling for, and sometimes a key twice."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.8)
    for name, spelled in _SPELLED.items():
        text = text.replace(f'"{name}"', spelled)
    if rng.random() < 0.05:
        key = rng.choice(("step", "data", "problem", "samples", "answer", "completion"))
        text = text.replace("{", f'{{"{key}": {json.dumps(hostile_value(rng))}, ', 1)
    return text


def mutate_json(value, rng, tree=0.7, indent=None):
    """Bytes of a JSON file: the value changed in one to three places, or its text changed, or both."""
    for _ in range(rng.randint(1, 3) if rng.random() < tree else 0):
        value = mutate_tree(value, rng)
    data = json_text(value, rng).encode("utf-8", "surrogatepass")
    return mutate_bytes(data, rng, 2) if rng.random() > tree else data


def mutate_lines(values, rng):
    """Bytes of a JSON Lines file: one or two lines changed as JSON, or the bytes of the file."""
    lines = [json.dumps(value).encode() for value in values]
    for _ in range(rng.randint(1, 2)):
        number = rng.randrange(len(lines))
        lines[number] = mutate_json(values[number % len(values)], rng, 0.8)
    data = rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\n\n")).join(lines) + rng.choice((b"\n", b"\n", b""))
    return mutate_bytes(data, rng) if rng.random() < 0.3 else data


def to_file(path, read):
    """A reader of bytes from a reader of a path: each input is written there first."""

    def read_bytes(data):
        path.write_bytes(data)
        return read(path)

    return read_bytes

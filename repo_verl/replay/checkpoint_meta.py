"""``meta.json`` of a saved buffer and its files: what is in them, and whether they can be trusted."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from repo_verl.config import RepoConfig, RepoConfigError
from repo_verl.replay.buffer import SETTINGS
from repo_verl.replay.state_checks import DamagedStateError, check_meta, need
from repo_verl.safe_text import printable

META, FORMAT, VERSION = "meta.json", "repo-verl buffer", 4
READ = (3, VERSION)
"""Versions that are read. In version 3 prompts lie as they were first inserted and ``max_tokens`` was no setting."""

MOST_META_BYTES = 16 << 20


class BufferFilesError(RuntimeError):
    """Files of a buffer that can't be written or read; one sentence naming the folder, the reason and the remedy."""


def refusal(folder: Path, reason: str) -> BufferFilesError:
    """The error for files that can't be loaded; ``reason`` may quote them."""
    return BufferFilesError(
        f"the replay buffer in {folder} can't be loaded, since {printable(reason, 300)}: resume from "
        f"another checkpoint, or delete that folder to start with an empty buffer."
    )


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of rows: its name, size and checksum, and how many prompts, rows and response tokens it holds."""

    file: str
    bytes: int
    sha256: str
    prompts: int
    rows: int
    tokens: int


@dataclasses.dataclass(frozen=True)
class BufferMeta:
    """What a saved buffer says of itself; ``docs/buffer_format.md`` has each key."""

    shards: tuple[Shard, ...]
    part_names: list[str]
    log_prob_dtype: str
    rng: dict[str, Any]
    settings: dict[str, Any]
    max_token_id: int
    extra: dict[str, Any]

    @property
    def in_order(self) -> bool:
        """Whether prompts lie as they were visited."""
        return "max_tokens" in self.settings

    @property
    def prompts(self) -> int:
        return sum(shard.prompts for shard in self.shards)

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"rows-{number:05d}.safetensors"


def encode(meta: BufferMeta) -> bytes:
    """The content of ``meta.json``; TypeError or ValueError if ``extra`` holds what JSON has not."""
    fields = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(meta)}
    content = json.dumps({**fields, "sha256": _digest(fields)}, indent=1, allow_nan=False).encode()
    if len(content) > MOST_META_BYTES:
        raise BufferFilesError(
            f"{META} of the replay buffer would have {len(content)} bytes, over {MOST_META_BYTES}: give less as extra."
        )
    return content


def _digest(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read(folder: Path) -> BufferMeta:
    """What ``meta.json`` says; BufferFilesError if it is missing, of another version or not what encode gives."""
    with opened_file(folder, META) as file:
        content = file.read()
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise refusal(folder, f"{META} is no JSON") from error
    if not isinstance(fields, dict):
        raise refusal(folder, f"{META} is no JSON object")
    if fields.get("format") != FORMAT:
        raise refusal(folder, f"{META} has format {fields.get('format')!r}, not {FORMAT!r}")
    version = fields.get("version")
    if isinstance(version, bool | float) or version not in READ:
        raise BufferFilesError(
            f"the replay buffer in {folder} has version {printable(repr(version), 100)}, this package reads versions "
            f"{READ[0]} and {READ[1]}: resume with the package that wrote it, or delete that folder to start with an "
            "empty buffer."
        )
    saved = fields.pop("sha256", None)
    try:
        wanted = _digest(fields)
    except (ValueError, RecursionError) as error:  # NaN, or a number such as 1e999, which is read as infinity
        raise refusal(folder, f"{META} holds what this package does not write") from error
    if saved != wanted:
        raise refusal(folder, f"{META} does not have the checksum that it names")
    try:
        return _checked(fields)
    except (DamagedStateError, RepoConfigError) as error:
        raise refusal(folder, f"{META} is damaged ({str(error).rstrip('.')})") from error


def _checked(fields: dict[str, Any]) -> BufferMeta:
    names = ["format", "version", *(field.name for field in dataclasses.fields(BufferMeta))]
    need(sorted(fields) == sorted(names), f"its keys are {', '.join(sorted(fields))}")
    for name, kind in (("settings", dict), ("extra", dict), ("shards", list)):
        need(isinstance(fields[name], kind), f"{name} is no {kind.__name__}")
    check_meta(fields)
    settings = fields["settings"]
    known = [name for name in SETTINGS if name != "max_tokens" or fields["version"] > READ[0]]
    need(set(settings) == set(known), f"settings are {', '.join(settings)}, not {', '.join(known)}")
    need(settings.get("log_prob_dtype") == fields["log_prob_dtype"], "log_prob_dtype is there with two values")
    RepoConfig(**settings)
    need(_is_int(fields["max_token_id"], -1), f"max_token_id={fields['max_token_id']!r}")
    shards = tuple(_shard(number, fields["shards"][number]) for number in range(len(fields["shards"])))
    return BufferMeta(**{name: fields[name] for name in names[3:]}, shards=shards)


def _shard(number: int, entry: Any) -> Shard:
    checks: dict[str, Callable[[Any], bool]] = {
        **dict.fromkeys(("bytes", "prompts", "rows", "tokens"), _is_int),
        "file": lambda value: value == shard_name(number),
        "sha256": lambda value: isinstance(value, str) and len(value) == 64,
    }
    need(isinstance(entry, dict) and set(entry) == set(checks), f"shard {number} has other keys than {[*checks]}")
    for name, good in checks.items():
        need(good(entry[name]), f"shard {number} has {name}={entry[name]!r}")
    return Shard(**entry)


def _is_int(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value < 1 << 63


@contextlib.contextmanager
def opened_file(folder: Path, name: str, size: int | None = None) -> Iterator[BinaryIO]:
    """A file, open to be read in the block; ``size`` is the bytes it must have, None for any that ``meta.json`` may.

    Raises:
        BufferFilesError: if it is missing, a link, no regular file, of another size, or can't be read in the block.
    """
    try:
        with open(folder / name, "rb", opener=_without_links) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise refusal(folder, f"{name} is no file")
            if size is None and found.st_size > MOST_META_BYTES:
                raise refusal(folder, f"{name} has {found.st_size} bytes, not at most {MOST_META_BYTES}")
            if size is not None and found.st_size != size:
                raise refusal(folder, f"{name} has {found.st_size} bytes, not {size}")
            yield file
    except OSError as error:
        reason = "is a link" if error.errno == errno.ELOOP else f"can't be read ({error.strerror})"
        raise refusal(folder, f"{name} {reason}") from error


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
